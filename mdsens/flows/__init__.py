"""Smooth normalizing flows: densities with exact forces."""
