"""How many coordinates share the kinetic energy: what a temperature is divided by.

T = 2 K / (n k). Coordinates that are held do not count. Where nothing holds the atoms, total momentum is
conserved, and if it is zero its three components take no part; a free cluster that does not turn has three
fewer again (two, if its atoms stand in a line).
"""

import numpy as np
from jaxtyping import Bool, Float

RESTS = 1e-9  # of the sizes of its terms: a sum that small is rounding


def count_freedom(
    masses: Float[np.ndarray, " atoms"],
    fixed: Bool[np.ndarray, "atoms 3"] | None,
    pbc: tuple[bool, bool, bool],
    positions: Float[np.ndarray, "*frames atoms 3"],
    velocities: Float[np.ndarray, "*frames atoms 3"],
) -> int:
    """Coordinates that share the kinetic energy, in all of the frames."""
    n = len(masses)
    held = np.zeros((n, 3), bool) if fixed is None else fixed
    count = 3 * n - int(held.sum())
    if n == 1:
        return count
    momenta = masses[:, None] * velocities
    total, size = np.abs(momenta.sum(-2)), np.abs(momenta).max()
    rests = ~held.any(0) & (total.reshape(-1, 3).max(0) <= RESTS * size)
    count -= int(rests.sum())
    if rests.all() and not any(pbc) and _turns_not(masses, positions, momenta):
        count -= 2 if _straight(positions) else 3
    return count


def _from_center(masses: np.ndarray, positions: np.ndarray) -> np.ndarray:
    return positions - np.average(positions, axis=-2, weights=masses)[..., None, :]


def _turns_not(masses: np.ndarray, positions: np.ndarray, momenta: np.ndarray) -> bool:
    x = _from_center(masses, positions)
    turning = np.abs(np.cross(x, momenta).sum(-2)).max()
    return bool(turning <= RESTS * np.abs(x).max() * np.abs(momenta).max())


def _straight(positions: np.ndarray) -> bool:
    frame = positions.reshape(-1, *positions.shape[-2:])[0]
    widths = np.linalg.svd(frame - frame.mean(0), compute_uv=False)
    return bool(len(widths) < 2 or widths[1] <= 1e-6 * widths[0])


def without_rotation(
    masses: Float[np.ndarray, " atoms"],
    positions: Float[np.ndarray, "frames atoms 3"],
    velocities: Float[np.ndarray, "frames atoms 3"],
) -> Float[np.ndarray, "frames atoms 3"]:
    """Velocities without the angular momentum about the center of mass."""
    x = _from_center(masses, positions)
    spin = np.cross(x, masses[:, None] * velocities).sum(-2)
    # L = I w,  I = sum_a m_a (x_a² 1 - x_a x_a^T); of atoms in a line one moment is zero, and w along it
    squares = np.einsum("a,fai,fai->f", masses, x, x)
    inertia = squares[:, None, None] * np.eye(3) - np.einsum("a,fai,faj->fij", masses, x, x)
    w = np.einsum("fij,fj->fi", np.linalg.pinv(inertia, rcond=1e-10), spin)
    return velocities - np.cross(w[:, None, :], x)
