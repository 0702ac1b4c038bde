"""Constraints of ASE that hold single coordinates, as a mask of x, y and z."""

from typing import Any

import numpy as np

from mdsens.errors import InputError


def held_axes(constraint: Any, cell: np.ndarray) -> np.ndarray:
    """Which of x, y, z a constraint holds: (3,) or (atoms of the constraint, 3)."""
    name = type(constraint).__name__
    match name:
        case "FixAtoms":
            return np.ones(3, bool)
        case "FixCartesian":
            return np.asarray(constraint.mask, bool)
        case "FixScaled":
            return _axes_of_vectors(np.asarray(constraint.mask, bool), cell)
        case "FixedPlane":
            return _axis_of(constraint.dir, name)
        case "FixedLine":
            return ~_axis_of(constraint.dir, name)
    raise InputError(
        f"constraint {name} holds more than single coordinates and has no derivative here. Use FixAtoms or "
        "FixCartesian, or remove it with atoms.set_constraint()."
    )


def _axis_of(direction: Any, name: str) -> np.ndarray:
    parts = np.abs(np.asarray(direction, float))
    along = parts > 1e-12 * np.linalg.norm(direction)
    if along.sum() != 1:
        raise InputError(
            f"constraint {name} has the direction {np.asarray(direction).tolist()}: only x, y and z can be "
            "held apart from each other. Turn the structure, or hold the whole atom with FixAtoms."
        )
    return along


def held_axes_of(mask: np.ndarray, cell: np.ndarray) -> np.ndarray | None:
    """Cartesian axes that are held where fractional coordinates are; None if they are no axes.

    Args:
        mask: (3,), True for each fractional coordinate that is held.
        cell: (3, 3), Å.
    """
    if mask.all() or not mask.any():
        return mask
    # The free moves span the cell vectors that are not held. They must span the axes that are not held:
    # then as many components are zero in all of them as coordinates are held.
    free = cell[~mask]
    zero = np.all(np.abs(free) <= 1e-10 * np.abs(cell).max(), axis=0)
    return zero if zero.sum() == mask.sum() else None


def _axes_of_vectors(mask: np.ndarray, cell: np.ndarray) -> np.ndarray:
    held = held_axes_of(mask, cell)
    if held is None:
        flags = " ".join("F" if m else "T" for m in mask)
        raise InputError(
            f"constraint FixScaled ({flags}) holds a coordinate along a cell vector, and the cell vectors "
            "that stay free do not lie along x, y, z: no cartesian coordinate is held. Hold all three, or "
            "turn the cell."
        )
    return held
