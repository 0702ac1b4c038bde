"""Relax a structure, and know how the relaxed state moves with everything it depends on.

The walk to the solution is a loop on the host over plain numbers. What is differentiated is its end, an
`Equilibrium`, by the equation that it solves.
"""

from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float, Int

from mdsens.arrays import on_device
from mdsens.checks import instance, number, whole
from mdsens.errors import InputError, NotConvergedError
from mdsens.ghosts import first, list_with_ghosts, list_without_ghosts, padded, with_ghosts, without_ghosts
from mdsens.implicit.linear import AbstractLinearSolver
from mdsens.neighbors import Capacity, Neighbors
from mdsens.potentials.base import Potential, check_elements, require_potential
from mdsens.potentials.parameters import check_parameters
from mdsens.precision import require_x64
from mdsens.quantities import EnergyForcesStress, concrete, energy, evaluate
from mdsens.relaxation.coordinates import CellOption, Coordinates, closed, strain_basis
from mdsens.relaxation.equilibrium import Equilibrium, structure_at
from mdsens.relaxation.landscape import Landscape, Vector
from mdsens.relaxation.lbfgs import LBFGS
from mdsens.relaxation.memory import remember
from mdsens.relaxation.newton import NewtonCG
from mdsens.relaxation.plan import AbstractPlan, AbstractRelaxer, Always, plan_of
from mdsens.relaxation.saddle_point import SaddleEquilibrium, follow_saddle
from mdsens.relaxation.walk import Found, Options, RelaxationProblem, RelaxationProgress, Status, run
from mdsens.strain import from_voigt, volume_of
from mdsens.structure import Structure, require_structure


class Relaxed(eqx.Module):
    """A relaxed state. Energy, forces and stress are computed when asked for.

    And differentiable like the structure.

    Attributes:
        structure: where atoms and cell came to rest.
        steps: steps taken by the relaxer.
        fmax: largest force on a free atom, eV/Å; stress_error: largest stress off target, eV/Å³.
        status: how it ended.
        potential, neighbors: what the state was relaxed with.
        basis: (strains, 3, 3) strains that were free; target: (3, 3) stress they were relaxed to, eV/Å³.
        equilibrium: the state in plain numbers, with Hessian, factor and certificate when asked for.
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
    equilibrium: Equilibrium = eqx.field(static=True)

    @property
    def energy(self) -> Float[Array, ""]:
        """Potential energy, eV."""
        return energy(self.potential, *self._with_ghosts)

    @property
    def forces(self) -> Float[Array, "atoms 3"]:
        """eV/Å; not zero on fixed coordinates."""
        return self.evaluated.forces

    @property
    def stress(self) -> Float[Array, "3 3"]:
        """eV/Å³, positive in tension."""
        return self.evaluated.stress

    @property
    def evaluated(self) -> EnergyForcesStress:
        """All three by one evaluation."""
        found = evaluate(self.potential, *self._with_ghosts)
        return found._replace(forces=first(found.forces, self.structure.n_atoms))

    @property
    def _with_ghosts(self) -> tuple[Structure, Neighbors]:
        # as many as there were in the relaxation, whose programs are compiled
        size = self.equilibrium.landscape.coordinates.reference.n_atoms
        structure = with_ghosts(self.structure, size) if self.potential.ghosts else self.structure
        return structure, list_with_ghosts(self.neighbors, structure)


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
    check_structure: bool = True,
    capacity: Capacity | None = None,
    throw: bool = True,
    progress: Callable[[RelaxationProgress], None] | None = None,
) -> Relaxed:
    """Move atoms (and cell) to the minimum of the energy below the starting point.

    Differentiable in the parameters of `potential`, in `pressure` or `stress`, in the cell where it is held,
    and in the positions of fixed coordinates; forward and reverse, to any order: the derivative is that of
    the
    minimum, not of the steps that found it. The other starting positions choose the minimum and do not move
    it: derivative zero. A saddle point, or a state that is not converged, is differentiated only with
    check_minimum=False. Not inside `jax.jit` or `jax.vmap`: neighbors are searched on the host as the atoms
    move. Jit what comes after.

    Args:
        structure: where to start; `structure.fixed` coordinates are held (they follow the strain of the
            cell).
        cell: None (held), "isotropic", "full", or six bools: free strains in the order xx yy zz yz xz xy. In
            each free component the Cauchy stress reaches its target.
        pressure: target pressure, eV/Å³ (positive compresses).
        stress: target Cauchy stress instead, six Voigt components in eV/Å³, positive in tension.
        fmax: tolerance, eV/Å: largest force on a free atom, and largest stress off target times
            (volume per atom)^(2/3).
        solver: how to walk; default `AutoRelaxer()`, and `LBFGS()` for a potential without second
            derivatives.
        max_steps: steps allowed.
        skin: extra reach of the neighbor list, Å; default a tenth of the cutoff, at least a fiftieth.
        linear_solver: of the implicit derivative; by default the Hessian factorised up to 1200 unknowns,
            conjugate gradients beyond.
        check_minimum: look at the lowest curvature at the end; a negative one is an error.
        check_structure: ask the potential whether it can describe this structure. False is for single
            parameters moved off those of a potential that has been asked, where what holds for all together
            need not hold: a charge that moves by itself leaves the cell with a net charge.
        capacity: shapes at least kept of the neighbor list, such as `Relaxed.neighbors.capacity` of an older
            state: nothing is then compiled anew.
        throw: raise when not converged or at a saddle; if False, read `Relaxed.status`.
        progress: called now and then with `RelaxationProgress(steps, energy, fmax, stress)`.
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
    require_x64()
    require_potential(potential)
    require_structure(structure)
    if check_structure:
        check_elements(concrete(potential), concrete(structure))
    problem = problem_of(
        potential,
        structure,
        cell=cell,
        pressure=pressure,
        stress=stress,
        fmax=fmax,
        solver=solver,
        max_steps=max_steps,
        skin=skin,
        linear_solver=linear_solver,
        check_minimum=check_minimum,
        capacity=capacity,
    )
    found = settle(problem, progress)
    neighbors = found.equilibrium.landscape.neighbors
    landscape = Landscape(potential, problem.coordinates, problem.target, neighbors)
    w = solution(landscape, found=found, linear_solver=linear_solver, check=check_minimum)
    relaxed = _relaxed(landscape, w, found)
    if throw and found.status is not Status.CONVERGED:
        raise _error(found, relaxed, problem.options.fmax, problem.options.max_steps)
    return relaxed


def problem_of(
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
    capacity: Capacity | None = None,
) -> RelaxationProblem:
    """What `relax` solves, for the same arguments; the options are checked.

    Raises:
        InputError: an option that no relaxation, or not this one, can have.
    """
    basis = strain_basis(cell, concrete(structure))
    structure = padded(potential, structure)
    target = _target(structure, len(basis), pressure, stress)
    options = _options(potential, solver, fmax, max_steps, skin, check_minimum, linear_solver)
    # Free coordinates only choose the minimum.
    positions = jnp.where(structure.fixed, structure.positions, jax.lax.stop_gradient(structure.positions))
    coordinates = Coordinates(structure.at(positions), jnp.asarray(basis), closed(basis))
    return RelaxationProblem(potential, coordinates, target, options, capacity)


def settle(problem: RelaxationProblem, progress: Callable[[RelaxationProgress], None] | None = None) -> Found:
    """Walk to the end, or remember: on the plain numbers behind any derivative that is being taken."""
    plain = problem.plain
    check_parameters(plain.potential)
    return remember(plain.inputs, plain.options, lambda: run(plain, progress))


def follow(
    state: Equilibrium, potential: Potential, start: Structure, fmax: float, max_steps: int = 10_000
) -> Found:
    """The same kind of state of another potential, by Newton steps from a structure nearby.

    Never another minimum.

    Args:
        state: says which strains are free and what they are relaxed to.
    Raises:
        NotConvergedError: there is none nearby, or it cannot be reached to `fmax` (eV/Å).
    """
    old = state.landscape.coordinates
    coordinates = Coordinates(padded(potential, start), old.basis, old.conservative)
    if isinstance(state, SaddleEquilibrium):
        return follow_saddle(state, potential, coordinates, fmax, max_steps)
    options = Options(Always(NewtonCG()), fmax, max_steps, None, False)
    found = settle(RelaxationProblem(potential, coordinates, state.landscape.target, options))
    if found.status is not Status.CONVERGED:
        landscape = found.equilibrium.landscape
        raise _error(found, _relaxed(landscape, found.equilibrium.w, found), fmax, max_steps)
    return found


@eqx.filter_custom_jvp
def solution(
    landscape: Landscape, *, found: Found, linear_solver: AbstractLinearSolver | None, check: bool
) -> Vector:
    """w*, as a function of the landscape whose solution it is."""
    return found.equilibrium.w


@solution.def_jvp
def _rule(
    primals: Any, tangents: Any, *, found: Found, linear_solver: AbstractLinearSolver | None, check: bool
):
    (landscape,), (direction,) = primals, tangents
    state = found.equilibrium
    if check:
        _require_derivative(found)
    w = solution(landscape, found=found, linear_solver=linear_solver, check=check)
    return w, state.response(landscape, w, direction, linear_solver)


def _require_derivative(found: Found) -> None:
    if not found.equilibrium.is_minimum:
        raise found.equilibrium.certificate.error("the relaxed state", found.equilibrium)
    if found.status is not Status.CONVERGED:
        raise NotConvergedError(
            f"the state is not converged ({found.status.value}, {found.fmax:.1e} eV/Å), and its derivative "
            "would be that of "
            "another point. Relax it further, or pass check_minimum=False to differentiate it all the same.",
            found.equilibrium,
        )


def _options(
    potential: Potential,
    solver: AbstractRelaxer | None,
    fmax: float,
    max_steps: int,
    skin: float | None,
    check_minimum: bool,
    linear_solver: AbstractLinearSolver | None,
) -> Options:
    if linear_solver is not None:
        instance("linear_solver", linear_solver, AbstractLinearSolver, "Give Dense() or ConjugateGradient().")
    if skin is not None:
        skin = number("skin", skin, "Å", at_least=0)
    once = not potential.twice_differentiable
    plan = plan_of(LBFGS() if once and solver is None else solver)
    if once:
        _require_forces_only(potential, plan, check_minimum)
    fmax = number("fmax", fmax, "eV/Å", above=0)
    return Options(plan, fmax, whole("max_steps", max_steps, at_least=1), skin, bool(check_minimum))


def _require_forces_only(potential: Potential, plan: AbstractPlan, check_minimum: bool) -> None:
    name = type(potential).__name__
    if any(stepper.needs_hessian for stepper in plan.steppers):
        raise InputError(
            f"{name} has energies and forces, and no second derivatives, which Newton steps need: use "
            "solver=LBFGS() or FIRE()."
        )
    if check_minimum:
        raise InputError(
            f"{name} has no second derivatives, so nobody can look at the curvature of what is found: pass "
            "check_minimum=False."
        )


def _target(structure: Structure, n_strains: int, pressure: Any, stress: Any) -> Float[Array, "3 3"]:
    """The stress to relax to, checked where it is a plain number."""
    both = stress is not None and (isinstance(pressure, Tracer) or np.any(np.asarray(pressure) != 0))
    if both:
        raise InputError(
            "pressure and stress are both given: a stress holds the pressure already, give one of them."
        )
    if stress is None:
        value = pressure if isinstance(pressure, Tracer) else number("pressure", pressure, "eV/Å³")
        traced = isinstance(value, Tracer)
        target = -jnp.asarray(value, float) * jnp.eye(3) if traced else on_device(-value * np.eye(3))
    else:
        target = from_voigt(_voigt_stress(stress))
    if isinstance(target, Tracer) or not np.any(np.asarray(target) != 0):
        return target
    if n_strains == 0:
        raise InputError(
            "a target pressure or stress needs a cell that can move: add cell='isotropic', 'full' or a Voigt "
            "mask."
        )
    if not float(volume_of(jnp.asarray(concrete(structure.cell)))) > 0:
        raise InputError(
            "a target pressure or stress needs a volume, and this cell has none: give all three vectors."
        )
    return target


def _voigt_stress(stress: Any) -> Float[Array, "6"]:
    if not isinstance(stress, Tracer):
        try:
            array = np.asarray(stress, float)
        except (TypeError, ValueError):
            array = np.full(0, np.nan)
        if array.shape != (6,) or not np.isfinite(array).all():
            raise InputError(
                f"stress = {stress!r}: give six finite numbers, xx yy zz yz xz xy in eV/Å³ "
                "(mdsens.strain.to_voigt makes "
                "them out of a 3 x 3 tensor)."
            )
    elif stress.shape != (6,):
        raise InputError(
            f"stress has the shape {stress.shape}: give six numbers, xx yy zz yz xz xy in eV/Å³."
        )
    return jnp.asarray(stress, float)


def _relaxed(landscape: Landscape, w: Vector, found: Found) -> Relaxed:
    return Relaxed(**reached(landscape, w, found))


def reached(landscape: Landscape, w: Vector, found: Found) -> dict[str, Any]:
    """The attributes of a `Relaxed`, for what a walk has found."""
    n = found.equilibrium.n_atoms
    return dict(
        structure=without_ghosts(structure_at(landscape.coordinates, w), n),
        potential=landscape.potential,
        neighbors=list_without_ghosts(landscape.neighbors, n),
        basis=landscape.coordinates.basis,
        target=landscape.target,
        steps=jnp.asarray(found.steps),
        fmax=jnp.asarray(found.fmax),
        stress_error=jnp.asarray(found.stress),
        status=found.status,
        equilibrium=found.equilibrium,
    )


def _error(found: Found, relaxed: Relaxed, fmax: float, max_steps: int) -> Exception:
    if found.status is Status.SADDLE:
        return found.equilibrium.certificate.error("the end of this relaxation", relaxed)
    structure = found.equilibrium.structure
    forces = np.where(np.asarray(structure.fixed), 0, np.asarray(concrete(relaxed.forces)))
    worst = int(np.argmax(np.linalg.norm(forces, axis=1)))
    advice = (
        f"If fmax = {fmax:.0e} is very small, this is as far as rounding allows: accept a larger fmax; "
        "otherwise start from "
        "less strained positions."
    )
    if found.status is Status.MAX_STEPS:
        advice = (
            f"Raise max_steps (now {max_steps}), or relax with fmax=1e-3 first and start from that structure."
        )
    return NotConvergedError(
        f"relax {found.status.value}, after {found.steps} steps: the force on atom {worst} "
        f"({structure.symbols[worst]}) is "
        f"{found.fmax:.1e} eV/Å, the stress {found.stress:.1e} eV/Å³ off target, above fmax = {fmax:.1e} "
        f"eV/Å. {advice}",
        relaxed,
    )
