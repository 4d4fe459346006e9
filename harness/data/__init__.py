"""The data contract, loaders, images, downloads, networks and their weights."""
