"""Where a minimum ends: it meets a saddle point, and both are gone beyond.

At a fold the Hessian loses one curvature, H v = 0, while the force of s has a part along v. Of all ways to
say "H is singular" by one number, take g in

    [ H    b ] [ x ]   [ 0 ]
    [ b^T  0 ] [ g ] = [ 1 ],        b near v, of norm 1,

which is smooth, and zero where H is singular. Its derivative is g' = - y . H' x, y being the solution with
H^T. The minimally extended system F(w, s) = 0, g(w, s) = 0 is regular at a quadratic fold, and Newton's
method on it,

    [ H    F_s ] [ dw ]     [ F ]
    [ g_w  g_s ] [ ds ] = - [ g ],

gives s to rounding, although H itself has no inverse there.

Source: Griewank, Reddien, IMA J. Numer. Anal. 4, 295 (1984); Moore, Spence, SIAM J. Numer. Anal. 17, 567
(1980).
"""

import dataclasses

import jax.numpy as jnp
import numpy as np

from mdsens.continuation.path_terms import bent_curvature, force_along
from mdsens.continuation.points import Family
from mdsens.relaxation.equilibrium import Equilibrium
from mdsens.structure import Structure

STEPS = 20
SMALL = 1e-10  # of g, in eV/Å²


@dataclasses.dataclass(frozen=True)
class Fold:
    """The end of a branch.

    Attributes:
        s: the critical value.
        structure: the state there.
        mode: (atoms, 3) motion along which it leaves.
        force: v . F_s, how fast the force along the mode grows with s: not zero at a fold.
        bend: half of the third derivative of the energy along v, eV/Å³: not zero at a fold.
        residual: largest generalised force at the end, eV/Å. curvature: what is left of it, eV/Å².
    """

    s: float
    structure: Structure
    mode: np.ndarray
    force: float
    bend: float
    residual: float
    curvature: float


def solve_fold(family: Family, state: Equilibrium, s: float, fmax: float, longest: float) -> Fold | None:
    """The fold near a state; None if Newton's method finds none within `longest` of s.

    Needs dense Hessians (up to 1200 unknowns).
    """
    control, start = family.control, s
    border = np.asarray(state.spectrum.mode)
    for _ in range(STEPS):
        if state.hessian is None:
            return None
        matrix, projector = state.hessian
        base = family.around(state.landscape.neighbors)
        here = jnp.asarray(s)
        ends = _bordered(matrix, projector, border)
        if ends is None:
            return None
        x, y, g = ends
        gradient = np.asarray(state.gauge.project(state.gradient))
        residual = float(np.abs(gradient).max(initial=0.0))
        force = np.asarray(state.gauge.project(force_along(control, base, here, state.w)))
        if residual <= max(fmax, 1e-11) and abs(g) < SMALL:
            return _fold(family, state, s, x, force, residual, g)
        slopes = bent_curvature(control, base, here, state.w, jnp.asarray(y), jnp.asarray(x))
        g_w, g_s = -projector @ np.asarray(slopes[0]), -float(slopes[1])
        step = _newton(matrix, projector, force, g_w, g_s, gradient, g)
        if step is None:
            return None
        move, ds = step
        share = min(1.0, 0.3 / max(float(np.abs(move).max()), 1e-300), longest / max(abs(ds), 1e-300))
        s = s + share * ds
        if abs(s - start) > longest:
            return None
        w = state.w + share * jnp.asarray(move)
        state = family.state(s, w, state.landscape.neighbors)
        border = x / np.linalg.norm(x)
    return None


def _bordered(
    matrix: np.ndarray, projector: np.ndarray, border: np.ndarray
) -> tuple[np.ndarray, np.ndarray, float] | None:
    """x, y and g of the module docstring; H with 1 on what the gauge removes."""
    n = len(border)
    whole = np.zeros((n + 1, n + 1))
    whole[:n, :n] = _regular(matrix, projector)
    whole[:n, n] = whole[n, :n] = border
    right = np.zeros(n + 1)
    right[n] = 1.0
    try:
        found = np.linalg.solve(whole, right)
        transposed = np.linalg.solve(whole.T, right)
    except np.linalg.LinAlgError:
        return None
    return found[:n], transposed[:n], float(found[n])


def _regular(matrix: np.ndarray, projector: np.ndarray) -> np.ndarray:
    size = max(float(np.abs(np.diagonal(matrix)).max(initial=0.0)), 1e-300)
    return matrix + size * (np.eye(len(matrix)) - projector)


def _newton(
    matrix: np.ndarray,
    projector: np.ndarray,
    force: np.ndarray,
    g_w: np.ndarray,
    g_s: float,
    gradient: np.ndarray,
    g: float,
) -> tuple[np.ndarray, float] | None:
    n = len(force)
    whole = np.zeros((n + 1, n + 1))
    whole[:n, :n] = _regular(matrix, projector)
    whole[:n, n] = force
    whole[n, :n] = g_w
    whole[n, n] = g_s
    try:
        step = np.linalg.solve(whole, -np.append(gradient, g))
    except np.linalg.LinAlgError:
        return None
    return (projector @ step[:n], float(step[n])) if np.isfinite(step).all() else None


def _fold(
    family: Family,
    state: Equilibrium,
    s: float,
    mode: np.ndarray,
    force: np.ndarray,
    residual: float,
    curvature: float,
) -> Fold | None:
    mode = mode / np.linalg.norm(mode)
    along = jnp.asarray(mode)
    base = family.around(state.landscape.neighbors)
    slopes = bent_curvature(family.control, base, jnp.asarray(s), state.w, along, along)
    bend = float(np.asarray(slopes[0]) @ mode) / 2
    across = float(mode @ force)
    # a pitchfork or a transcritical point is no fold: there one of these vanishes by symmetry
    if abs(across) < 1e-8 * max(np.linalg.norm(force), 1e-300) or abs(bend) < 1e-10:
        return None
    n = state.n_atoms
    atoms = state._without_ghosts(mode)[: 3 * n].reshape(n, 3)
    return Fold(s, state.structure, atoms, across, bend, residual, curvature)
