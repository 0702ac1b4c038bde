"""States in equilibrium that are more than a minimum."""
