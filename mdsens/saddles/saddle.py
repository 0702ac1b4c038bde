"""A saddle point is a state like a minimum: its forces vanish for any parameters.

F(w*, theta) = 0 holds there too, so the same derivative, dw* = -H^+ (dF/dtheta) dtheta, gives its motion;
that one curvature is negative changes nothing, as long as none is zero.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from mdsens.checks import instance, number, whole
from mdsens.errors import InputError
from mdsens.ghosts import padded
from mdsens.implicit.linear import AbstractLinearSolver
from mdsens.potentials.base import Potential, check_elements, require_potential
from mdsens.potentials.parameters import check_parameters
from mdsens.precision import require_x64
from mdsens.quantities import concrete
from mdsens.relaxation.coordinates import Coordinates
from mdsens.relaxation.landscape import Landscape
from mdsens.relaxation.memory import remember
from mdsens.relaxation.relax import Relaxed, reached, solution
from mdsens.relaxation.saddle_point import climb, not_converged
from mdsens.relaxation.walk import Found, RelaxationProgress, Status
from mdsens.structure import Structure, require_structure


class Saddle(Relaxed):
    """A state at rest from which the energy falls along one mode, and rises along all others.

    All that is said of `Relaxed` holds: it is differentiable in the parameters, and `first_order` and
    `sensitivities` take it for a state.
    """

    @property
    def mode(self) -> Float[np.ndarray, "atoms 3"]:
        """Motion along which the energy falls, of norm 1."""
        return self.equilibrium.certificate.mode

    def again(self, potential: Potential, **options: Any) -> "Saddle":
        """The same saddle point of another potential, from where this one is."""
        return saddle(potential, self.structure, direction=self.mode, **options)


def saddle(
    potential: Potential,
    structure: Structure,
    end: Structure | None = None,
    *,
    direction: Any = None,
    fmax: float = 1e-10,
    max_steps: int = 200,
    skin: float | None = None,
    linear_solver: AbstractLinearSolver | None = None,
    check_saddle: bool = True,
    progress: Callable[[RelaxationProgress], None] | None = None,
    **band: Any,
) -> Saddle:
    """The saddle point near a structure, or on the path between two minima. The cell is held.

    Differentiable like `relax`: in the parameters of the potential, in the cell, and in the positions of
    fixed coordinates; forward and reverse, to any order. Not inside `jax.jit` or `jax.vmap`.

    Args:
        structure: where to start; with `end`, a minimum or a structure that relaxes into one.
        end: another minimum: the saddle point is then searched for between the two (`barrier`).
        direction: (atoms, 3) climb along the mode most like this one; by default along the lowest. Gives the
            way out of a minimum.
        fmax: largest force on a free atom at the end, eV/Å.
        max_steps: steps of the climb.
        skin: extra reach of the neighbor lists, Å; default a tenth of the cutoff.
        linear_solver: of the implicit derivative; by default the Hessian factorised up to 1200 unknowns,
            GMRES beyond.
        check_saddle: demand exactly one negative mode.
        progress: called after each step of the climb.
        band: with `end`: further options of `barrier`.
    Raises:
        SaddlePointError: what is found is a minimum, or has two negative modes or more; `.partial` is the
            state. NotConvergedError: not below `fmax`. InputError: unknown elements, a direction of another
            shape, a potential without second derivatives. PrecisionError: float64 is off.
    Source: Cerjan, Miller, J. Chem. Phys. 75, 2800 (1981).
    """
    if end is not None:
        if direction is not None:
            raise InputError(
                "direction and end are both given: a path has its own direction, give one of them."
            )
        from mdsens.saddles.barrier import barrier

        return barrier(
            potential, structure, end, fmax=fmax, linear_solver=linear_solver, skin=skin, **band
        ).saddle
    if band:
        raise InputError(
            f"{', '.join(band)}: options of a path, which needs an end: saddle(potential, start, end)."
        )
    require_x64()
    require_potential(potential)
    require_structure(structure)
    check_elements(concrete(potential), concrete(structure))
    require_second_derivatives(potential)
    options = climb_options(fmax, max_steps, skin)
    along = None if direction is None else _direction(direction, structure)
    return saddle_at(potential, structure, along, options, linear_solver, check_saddle, progress)


def require_second_derivatives(potential: Potential) -> None:
    """Raise if a potential has no Hessian.

    Raises:
        InputError
    """
    if not potential.twice_differentiable:
        raise InputError(
            f"{type(potential).__name__} has energies and forces, and no second derivatives, which a saddle "
            "point is recognised by: use a potential that has them."
        )


def climb_options(fmax: float, max_steps: int, skin: float | None) -> dict[str, Any]:
    """Options of the walk to the saddle point, checked."""
    return dict(
        fmax=number("fmax", fmax, "eV/Å", above=0),
        max_steps=whole("max_steps", max_steps, at_least=1),
        skin=None if skin is None else number("skin", skin, "Å", at_least=0),
    )


def _direction(direction: Any, structure: Structure) -> np.ndarray:
    try:
        array = np.asarray(direction, float)
    except (TypeError, ValueError):
        array = np.zeros(0)
    shape = (structure.n_atoms, 3)
    if array.shape != shape or not np.isfinite(array).all() or not array.any():
        raise InputError(
            f"direction has the shape {array.shape}: give a move of each atom, {shape}, finite and not zero."
        )
    return array


def saddle_at(
    potential: Potential,
    structure: Structure,
    direction: np.ndarray | None,
    options: dict[str, Any],
    linear_solver: AbstractLinearSolver | None = None,
    check_saddle: bool = True,
    progress: Callable[[RelaxationProgress], None] | None = None,
) -> Saddle:
    """`saddle`, with everything checked: from a structure nearby."""
    if linear_solver is not None:
        instance("linear_solver", linear_solver, AbstractLinearSolver, "Give Dense() or GMRES().")
    structure = padded(potential, structure)
    # free coordinates only choose the saddle point
    held = jnp.where(structure.fixed, structure.positions, jax.lax.stop_gradient(structure.positions))
    coordinates = Coordinates(structure.at(held), jnp.zeros((0, 3, 3)))
    target = jnp.zeros((3, 3))
    found = _find(potential, coordinates, target, direction, options, progress)
    landscape = Landscape(potential, coordinates, target, found.equilibrium.landscape.neighbors)
    w = solution(landscape, found=found, linear_solver=linear_solver, check=False)
    state = Saddle(**reached(landscape, w, found))
    if found.status is not Status.CONVERGED:
        raise not_converged(found, options["fmax"], state)
    if check_saddle:
        found.equilibrium.require("the end of this climb", state)
    return state


def _find(
    potential: Potential,
    coordinates: Coordinates,
    target: Any,
    direction: np.ndarray | None,
    options: dict[str, Any],
    progress: Callable[[RelaxationProgress], None] | None,
) -> Found:
    potential, coordinates = concrete((potential, coordinates))
    check_parameters(potential)
    along = None
    if direction is not None:
        along = np.zeros(coordinates.size)
        along[: direction.size] = direction.ravel()
    start = jnp.zeros(coordinates.size)
    walk = lambda: climb(potential, coordinates, target, start, direction=along, progress=progress, **options)
    key = ("saddle", tuple(options.items()))
    return remember((potential, coordinates, () if along is None else along), key, walk)
