"""An atom that passes between two fixed ones: minima, saddle point and barrier are known in closed form.

The fixed atoms stand at (±d, 0, 0), the third moves in the plane z = 0. For its distance r to both,

    E = 2 phi(r),  r² = d² + y²  (x = 0):   minima at r = r0, y = ± sqrt(r0² - d²);   saddle point at y = 0,

if phi is the Morse well, phi(r) = D [(1 - exp(-alpha (r - r0)))² - 1] without a cutoff. The fixed pair adds
a constant.
"""

import numpy as np

import mdsens as ms

D, ALPHA, R0, HALF = 0.5, 1.4, 2.6, 2.2
UP = np.sqrt(R0**2 - HALF**2)


def morse(D: float = D, alpha: float = ALPHA, r0: float = R0) -> ms.Morse:
    return ms.Morse(
        D, alpha, r0, elements=("Cu",), cutoff_radius=9.0, cut=ms.Truncated(), source="closed form"
    )


def structure(y: float, x: float = 0.0, half: float = HALF) -> ms.Structure:
    fixed = np.ones((3, 3), bool)
    fixed[2, :2] = False
    return ms.Structure.create([[-half, 0, 0], [half, 0, 0], [x, y, 0]], ["Cu"] * 3, fixed=fixed)


def height(D: float, alpha: float, r0: float, half: float = HALF) -> float:
    """The barrier, eV."""
    return 2 * D * (1 - np.exp(-alpha * (half - r0))) ** 2


def curvatures(D: float, alpha: float, r0: float, half: float = HALF) -> dict[str, float]:
    """Second derivatives of E by x and y at the minimum and at the saddle point, eV/Å²."""
    e = np.exp(-alpha * (half - r0))
    stiff = 2 * D * alpha**2  # phi'' at r0
    slope = 2 * D * alpha * e * (1 - e)  # phi' at r = half
    bend = 2 * D * alpha**2 * e * (2 * e - 1)  # phi'' there
    share = (half / r0) ** 2
    return {
        "minimum x": 2 * stiff * share,
        "minimum y": 2 * stiff * (1 - share),
        "saddle x": 2 * bend,
        "saddle y": 2 * slope / half,
    }
