"""Averages and free energies out of weighted samples, and their derivatives."""
