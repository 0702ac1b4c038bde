"""An fcc crystal with Lennard-Jones forces between nearest neighbors: what is known of it in closed form."""

import ase.build
import numpy as np

import mdsens as ms

EPSILON, SIGMA = 0.1, 2.5


def nearest_only(cut=None, cutoff: float = 3.6) -> ms.LennardJones:
    """Lennard-Jones between nearest neighbors of an fcc crystal: 24 bonds in a cube of 4 atoms."""
    cut = ms.Truncated() if cut is None else cut
    return ms.LennardJones(EPSILON, SIGMA, elements=("Ar",), cutoff_radius=cutoff, cut=cut)


def crystal() -> ms.Structure:
    edge = np.sqrt(2) * 2 ** (1 / 6) * SIGMA
    return ms.Structure.from_ase(ase.build.bulk("Ar", "fcc", a=edge, cubic=True))


def spinodal() -> tuple[float, float]:
    """Pressure and volume where the crystal tears.

    E = 96 epsilon [(sigma / r)^12 - (sigma / r)^6] and V = (sqrt(2) r)^3 give E = A / V^4 - B / V^2, so that
    p = 4 A / V^5 - 2 B / V^3, and dp / dV = 0 at V² = 10 A / (3 B).
    """
    A = 96 * EPSILON * (np.sqrt(2) * SIGMA) ** 12
    B = 96 * EPSILON * (np.sqrt(2) * SIGMA) ** 6
    V = np.sqrt(10 * A / (3 * B))
    return 4 * A / V**5 - 2 * B / V**3, V
