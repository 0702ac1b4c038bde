"""Molecules as graphs: bonds, rings, and the order in which atoms are placed."""
