"""Functional forms live here; parameter sets, which are data, live in the folder potentials/."""
