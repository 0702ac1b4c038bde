"""Relax a structure, and know how the relaxed state moves with everything it depends on.

At the solution the generalised forces vanish, F(w*, theta) = 0, for any theta. One derivative of that
equation,

    H dw* = - (dF/dtheta) dtheta,        H = dF/dw,

gives the motion of the solution, whatever walk found it. H is singular along the gauge, where w* does not
move.
Source: Blondel et al., NeurIPS 2022, arXiv:2105.15183.
"""

from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float, Int

from mdsens.errors import InputError, NotConvergedError, SaddlePointError, TracedError
from mdsens.implicit.linear import AbstractLinearSolver, solve
from mdsens.neighbors import Neighbors
from mdsens.potentials.base import Potential
from mdsens.quantities import concrete, energy, evaluate
from mdsens.relaxation.auto import AutoRelaxer
from mdsens.relaxation.coordinates import CellOption, Coordinates, Landscape, strain_basis
from mdsens.relaxation.search import Found, Options, Progress, Status, find
from mdsens.relaxation.walk import AbstractRelaxer, Scene, Vector
from mdsens.strain import from_voigt
from mdsens.structure import Structure

SINGULAR = 1e-10  # of the highest curvature: a mode softer than this is free, up to rounding


class Relaxed(eqx.Module):
    """A relaxed state. Energy, forces and stress are computed when asked for, and differentiable like the structure.

    Attributes:
        structure: where atoms and cell came to rest.
        steps: steps taken by the relaxer.
        fmax: largest force on a free atom, eV/Å; stress_error: largest stress off target, eV/Å³.
        status: how it ended.
        potential, neighbors: what the state was relaxed with.
        basis: (strains, 3, 3) strains that were free; target: (3, 3) stress they were relaxed to, eV/Å³.
    """

    structure: Structure
    potential: Potential
    neighbors: Neighbors
    basis: Float[Array, "strains 3 3"]
    target: Float[Array, "3 3"]
    steps: Int[Array, ""]
    fmax: Float[Array, ""]
    stress_error: Float[Array, ""]
    status: Status = eqx.field(static=True)

    @property
    def energy(self) -> Float[Array, ""]:
        """Potential energy, eV."""
        return energy(self.potential, self.structure, self.neighbors)

    @property
    def forces(self) -> Float[Array, "atoms 3"]:
        """eV/Å; not zero on fixed coordinates."""
        return evaluate(self.potential, self.structure, self.neighbors).forces

    @property
    def stress(self) -> Float[Array, "3 3"]:
        """eV/Å³, positive in tension."""
        return evaluate(self.potential, self.structure, self.neighbors).stress


def relax(
    potential: Potential,
    structure: Structure,
    *,
    cell: CellOption = None,
    pressure: float | Array = 0.0,
    stress: Sequence[float] | Array | None = None,
    fmax: float = 1e-8,
    solver: AbstractRelaxer | None = None,
    max_steps: int = 10_000,
    skin: float | None = None,
    linear_solver: AbstractLinearSolver | None = None,
    check_minimum: bool = True,
    throw: bool = True,
    progress: Callable[[Progress], None] | None = None,
) -> Relaxed:
    """Move atoms (and cell) to the minimum of the energy below the starting point.

    Differentiable in the parameters of `potential`, in `pressure` or `stress`, in the cell where it is held,
    and in the positions of fixed coordinates; forward and reverse, to any order: the derivative is that of
    the minimum, not of the steps that found it. The other starting positions choose the minimum and do not
    move it: derivative zero. Not inside `jax.jit` or `jax.vmap`: neighbors are searched on the host as the
    atoms move. Jit what comes after.

    Args:
        structure: where to start; `structure.fixed` coordinates are held (they follow the strain of the
            cell).
        cell: None (held), "isotropic", "full", or six bools: free strains in the order xx yy zz yz xz xy.
        pressure: target pressure, eV/Å³ (positive compresses).
        stress: target Cauchy stress instead, six Voigt components in eV/Å³, positive in tension.
        fmax: tolerance, eV/Å: largest force on a free atom, and largest stress off target times (volume per
            atom)^(2/3).
        solver: how to walk; default `AutoRelaxer()`.
        max_steps: steps allowed.
        skin: extra reach of the neighbor list, Å; default a tenth of the cutoff.
        linear_solver: of the implicit derivative; by default the Hessian factorised up to 1200 unknowns,
            conjugate gradients beyond.
        check_minimum: look at the lowest curvature at the end; a negative one is an error.
        throw: raise when not converged or at a saddle; if False, read `Relaxed.status`.
        progress: called now and then with `Progress(steps, energy, fmax, stress)`.
    Raises:
        NotConvergedError: not below `fmax` after `max_steps`; `.partial` is the `Relaxed` state reached.
        SaddlePointError: zero forces, but the energy falls along some direction; or, when differentiated, a
            mode without curvature.
        CellCollapseError: the cell left a fifth to five times its volume.
        NonFiniteError: NaN positions, or atoms at the same place.
        InputError: unknown element, parameter out of bounds, cell relaxation without a cell, contradicting
        options.
        TracedError: called under jit or vmap. PrecisionError: float64 is off.
    """
    if not fmax > 0:
        raise InputError(f"fmax = {fmax}: it must be positive (eV/Å).")
    basis = jnp.asarray(strain_basis(cell, _concrete_cell(structure)))
    target = (
        -jnp.asarray(pressure, float) * jnp.eye(3)
        if stress is None
        else from_voigt(jnp.asarray(stress, float))
    )
    if basis.shape[0] == 0 and not isinstance(target, Tracer) and np.any(np.asarray(target) != 0):
        raise InputError(
            "a target pressure or stress needs a cell that can move: add cell='isotropic', 'full' or a Voigt "
            "mask."
        )
    options = Options(
        AutoRelaxer() if solver is None else solver, float(fmax), int(max_steps), skin, check_minimum
    )

    # Free coordinates only choose the minimum.
    positions = jnp.where(structure.fixed, structure.positions, jax.lax.stop_gradient(structure.positions))
    parameters, form = eqx.partition(potential, eqx.is_inexact_array)
    data = (parameters, target, positions, structure.cell, structure.masses)

    def landscape_of(data: Any, neighbors: Neighbors) -> Landscape:
        parameters, target, positions, cell, masses = data
        start = eqx.tree_at(lambda s: s.masses, structure.at(positions, cell), masses)
        return Landscape(eqx.combine(parameters, form), Coordinates(start, basis), target, neighbors)

    seen: list[Found] = []

    @jax.custom_jvp
    def solution(data):
        if any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(data)):
            raise TracedError(
                "relax runs a loop on the host and cannot be traced by jax.jit or jax.vmap. Call it outside "
                "and jit what "
                "comes after: jax.grad, jacfwd, jacrev and hessian work without jit; loop in Python over "
                "structures or parameters."
            )
        found = find(lambda neighbors: landscape_of(data, neighbors), options, progress)
        if throw and found.status is not Status.CONVERGED:
            raise _error(
                found,
                _complete(landscape_of(data, found.scene.landscape.neighbors), found.w, found),
                fmax,
                max_steps,
            )
        seen.append(found)
        return found.w

    @solution.defjvp
    def rule(primals, tangents):
        (data,), (direction,) = primals, tangents
        w = solution(data)
        found = seen[-1]
        if check_minimum:
            _require_definite(found)
        method = found.linear_solver(linear_solver)
        template = landscape_of(data, found.scene.landscape.neighbors)
        scene = Scene(template, found.scene.gauge, found.scene.preconditioner)
        return w, response(method, stress is None, scene, w, _direction(template, direction))

    w = solution(data)
    found = seen[-1]
    return _complete(landscape_of(data, found.scene.landscape.neighbors), w, found)


def _require_definite(found: Found) -> None:
    """Raise if a mode off the gauge has no curvature: then the state has no derivative along it, and solves give noise."""
    if found.scene.gauge.rank == 0 or abs(float(found.spectrum.lowest)) > SINGULAR * float(
        found.spectrum.highest
    ):
        return
    n = found.scene.landscape.coordinates.reference.n_atoms
    atom = int(np.argmax(np.linalg.norm(np.asarray(found.spectrum.mode)[: 3 * n].reshape(n, 3), axis=1)))
    lowest, highest = float(found.spectrum.lowest), float(found.spectrum.highest)
    raise SaddlePointError(
        f"the relaxed state has no derivative: one mode, mostly on atom {atom}, has the curvature "
        f"{lowest:.1e} eV/Å² (stiffest: "
        f"{highest:.2g}). Something moves freely there, such as a molecule or a group of atoms that touches "
        "nothing: remove it, "
        "fix one of its coordinates, or relax at a higher density.",
        found,
    )


def _direction(landscape: Landscape, direction: Any) -> Landscape:
    """A tangent of the data of `relax` as a tangent of the landscape; masses change nothing."""
    parameters, target, positions, cell, _ = direction
    zero = jax.tree.map(
        lambda leaf: jnp.zeros_like(leaf) if eqx.is_inexact_array(leaf) else None,
        landscape,
        is_leaf=lambda x: x is None,
    )
    where = lambda s: (s.potential, s.target, s.coordinates.reference.positions, s.coordinates.reference.cell)
    return eqx.tree_at(where, zero, (parameters, target, positions, cell), is_leaf=lambda x: x is None)


@eqx.filter_jit
def response(
    method: AbstractLinearSolver, symmetric: bool, scene: Scene, w: Vector, direction: Landscape
) -> Vector:
    """Tangent of the solution for a tangent of the landscape: dw = -H^+ (dF/dtheta) dtheta."""
    moving, still = eqx.partition(scene.landscape, eqx.is_inexact_array)
    force_change = jax.jvp(lambda m: eqx.combine(m, still).gradient(w), (moving,), (direction,))[1]
    return solve(
        lambda v: scene.landscape.product(w, v),
        -force_change,
        solver=method,
        project=scene.gauge.project,
        precondition=scene.preconditioner,
        symmetric=symmetric,
    )


@eqx.filter_jit
def _structure(coordinates: Coordinates, w: Vector) -> Structure:
    return coordinates.structure(w)


def _complete(landscape: Landscape, w: Vector, found: Found) -> Relaxed:
    numbers = jnp.asarray(found.steps), jnp.asarray(found.fmax), jnp.asarray(found.stress)
    coordinates = landscape.coordinates
    return Relaxed(
        _structure(coordinates, w),
        landscape.potential,
        landscape.neighbors,
        coordinates.basis,
        landscape.target,
        *numbers,
        found.status,
    )


def _concrete_cell(structure: Structure) -> Structure:
    cell = structure.cell
    return eqx.tree_at(lambda s: s.cell, structure, concrete(cell)) if isinstance(cell, Tracer) else structure


def _error(found: Found, relaxed: Relaxed, fmax: float, max_steps: int) -> Exception:
    forces = np.linalg.norm(
        np.where(np.asarray(relaxed.structure.fixed), 0, np.asarray(relaxed.forces)), axis=1
    )
    worst = int(np.argmax(forces))
    symbol = relaxed.structure.symbols[worst]
    where = f"the force on atom {worst} ({symbol}) is {found.fmax:.1e} eV/Å, the stress {found.stress:.1e} eV/Å³ off target"
    match found.status:
        case Status.SADDLE:
            spectrum = found.spectrum
            mode = np.asarray(spectrum.mode)[: 3 * len(forces)].reshape(-1, 3)
            atom = int(np.argmax(np.linalg.norm(mode, axis=1)))
            return SaddlePointError(
                f"relax ended at a saddle point: forces vanish ({found.fmax:.1e} eV/Å) but the curvature "
                "along one mode is "
                f"{float(spectrum.lowest):.3g} eV/Å², mostly on atom {atom} "
                f"({relaxed.structure.symbols[atom]}). Start from a "
                "structure displaced along it (error.partial holds this state, mdsens.certify its mode), or "
                "rattle the atoms by 0.05 Å.",
                relaxed,
            )
        case Status.MAX_STEPS:
            advice = f"Raise max_steps (now {max_steps}), or relax with fmax=1e-3 first and start from that structure."
        case _:
            advice = (
                f"If fmax = {fmax:.0e} is very small, this is as far as rounding allows: accept a larger "
                "fmax; otherwise start from "
                "less strained positions."
            )
    what = f"relax {found.status.value}, after {found.steps} steps"
    return NotConvergedError(f"{what}: {where}, above fmax = {fmax:.1e} eV/Å. {advice}", relaxed)
