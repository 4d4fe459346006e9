"""What a run is: its folder, config and checkpoint, and how it is found, restored and repeated."""
