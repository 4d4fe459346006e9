"""How a run trains and is evaluated."""
