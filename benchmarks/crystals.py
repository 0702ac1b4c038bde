"""Systems that several benchmarks share."""

import numpy as np
from ase.build import bulk

import mdsens as ms


def silicon_vacancy(cells: int, seed: int = 0) -> ms.Structure:
    """cells³ cubic cells of diamond silicon less one atom, rattled by 0.02 Å.

    The neighbors of the hole drawn in.
    """
    atoms = bulk("Si", a=5.431, cubic=True) * (cells, cells, cells)
    edge = atoms.cell[0, 0]
    d = atoms.positions - atoms.positions[0]
    d -= np.round(d / edge) * edge
    r = np.linalg.norm(d, axis=1)
    near = (r > 0.1) & (r < 2.5)
    atoms.positions[near] -= 0.4 * d[near] / r[near, None]
    atoms.positions += np.random.default_rng(seed).normal(scale=0.02, size=atoms.positions.shape)
    del atoms[0]
    return ms.Structure.from_ase(atoms)


def argon_vacancy(cells: int, seed: int = 0) -> ms.Structure:
    """cells³ cubic cells of fcc argon less one atom, rattled by 0.02 Å."""
    atoms = bulk("Ar", a=5.3, cubic=True) * (cells, cells, cells)
    atoms.positions += np.random.default_rng(seed).normal(scale=0.02, size=atoms.positions.shape)
    del atoms[0]
    return ms.Structure.from_ase(atoms)
