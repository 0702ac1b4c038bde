"""Functional forms live here, in mdsens/potentials; parameter sets, which are data, live in the folder potentials/."""
