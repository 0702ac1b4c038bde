"""Small systems that many tests share, so that their relaxations compile once.

And derivatives sorted by parameter.
"""

from typing import Any

import ase.build
import jax
import numpy as np
import references

import mdsens as ms


def cluster() -> tuple[ms.Potential, ms.Structure]:
    """13 Lennard-Jones atoms of two species, free in space.

    All pairs interact, six rigid motions, no symmetry but a mirror.
    """
    case = references.table("lennard_jones")["lj13-binary-cluster"]
    return references.potential(case), references.structure(case)


def copper() -> tuple[ms.Potential, ms.Structure]:
    """A stiff hcp crystal, 4 atoms off their sites in a skew cell.

    They see their own images, and move when it is sheared.
    """
    atoms = ase.build.bulk("Cu", "hcp", a=2.7, c=4.3) * (2, 1, 1)
    atoms.rattle(0.05, seed=4)
    potential = ms.Morse(
        0.3429,
        1.3588,
        2.866,
        elements=("Cu",),
        cutoff_radius=6.0,
        source="Girifalco, Weizer, Phys. Rev. 114, 687 (1959)",
    )
    return potential, ms.Structure.from_ase(atoms)


SHEAR = np.array(
    [0.003, 0.0, -0.0015, 0.003, 0.0015, 0.0045]
)  # eV/Å³, up to 0.7 GPa: a load for `copper` that has no energy


def by_parameter(potential: ms.Potential, derivative: Any, leading: int = 0) -> dict[str, np.ndarray]:
    """d/dln(theta) by flat name, from a derivative with the leaves of the potential.

    The leaves have `leading` axes before.

    Args:
        derivative: what jax.jacfwd or jax.grad w.r.t. a potential gives for one array of `leading`
            dimensions.
    """
    values, result = ms.parameter_values(potential), {}
    for entry in ms.parameter_entries(potential):
        leaf = derivative
        for name in entry.path:
            leaf = getattr(leaf, name)
        result[entry.name] = np.asarray(leaf)[(slice(None),) * leading + entry.index] * values[entry.name]
    return result


def log_derivatives(
    function: Any, potential: ms.Potential, mode: Any = jax.jacfwd
) -> dict[str, dict[str, np.ndarray]]:
    """d/dln(theta) of a function that returns a dict of arrays: quantity -> parameter -> array."""
    shapes = {}

    def remember(potential):
        result = function(potential)
        shapes.update({name: np.ndim(value) for name, value in result.items()})
        return result

    derivative = mode(remember)(potential)
    return {name: by_parameter(potential, derivative[name], leading) for name, leading in shapes.items()}
