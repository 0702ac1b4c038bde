"""From one minimum over a saddle point to another: energies, attempt frequencies, rates.

Three states: "initial", "saddle" and "final". Everything measured on them is differentiable along all three,
    ms.sensitivities(["barrier", "attempt_frequency"], potential, ms.barrier(potential, start, end).states).
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from mdsens.checks import number, whole
from mdsens.errors import InputError, NotConvergedError, SaddlePointError
from mdsens.implicit.linear import AbstractLinearSolver
from mdsens.observables.barriers import log_attempt_frequency
from mdsens.observables.observable import State
from mdsens.potentials.base import Potential, require_potential
from mdsens.quantities import concrete
from mdsens.relaxation.memory import remember
from mdsens.relaxation.relax import Relaxed, relax
from mdsens.saddles.band import BandProgress, settle_band
from mdsens.saddles.path import (
    Images,
    ReactionPath,
    check_ends,
    check_numbering,
    interpolate,
    nearest_images,
    require_different,
    straight_line,
)
from mdsens.saddles.saddle import Saddle, climb_options, require_second_derivatives, saddle_at
from mdsens.structure import Structure, require_structure

END_FMAX = 1e-10  # eV/Å: ends are minima to this
DEEPER = 0.01  # eV: an image so far below both ends is worth a word
FAR = 1.0  # Å: a saddle point farther than this from the climbing image is another one


@dataclasses.dataclass(frozen=True)
class Barrier:
    """Two minima and the saddle point between them.

    Attributes:
        initial, saddle, final: the states, differentiable in the potential they were found with.
        path: the band that led to the saddle point.
    """

    initial: Relaxed
    saddle: Saddle
    final: Relaxed
    path: ReactionPath

    @property
    def states(self) -> dict[str, Relaxed]:
        """The states by name, as `first_order` and `sensitivities` take them."""
        return {"initial": self.initial, "saddle": self.saddle, "final": self.final}

    @property
    def forward(self) -> Float[Array, ""]:
        """Energy from the initial minimum up to the saddle point, eV."""
        return self.saddle.energy - self.initial.energy

    @property
    def backward(self) -> Float[Array, ""]:
        """Energy from the final minimum up to the saddle point, eV."""
        return self.saddle.energy - self.final.energy

    @property
    def attempt_frequency(self) -> Float[Array, ""]:
        """Vineyard's attempt frequency out of the initial minimum, THz."""
        minimum, saddle = (State(s.structure, s.neighbors) for s in (self.initial, self.saddle))
        return _attempt_frequency(self.saddle.potential, minimum, saddle)


@eqx.filter_jit
def _attempt_frequency(potential: Potential, minimum: State, saddle: State) -> Float[Array, ""]:
    return jnp.exp(log_attempt_frequency(potential, minimum, saddle))


class FoundPath:
    """A path as it is remembered."""

    def __init__(self, path: ReactionPath):
        self.path = path

    @property
    def nbytes(self) -> int:
        """Memory, bytes."""
        return int(self.path.positions.nbytes)


def barrier(
    potential: Potential,
    start: Structure | Relaxed,
    end: Structure | Relaxed,
    *,
    images: int = 5,
    path: ReactionPath | None = None,
    straight: bool = False,
    spring: float = 5.0,
    band_fmax: float = 0.05,
    band_steps: int = 1000,
    fmax: float = 1e-10,
    max_steps: int = 200,
    skin: float | None = None,
    check_order: bool = True,
    linear_solver: AbstractLinearSolver | None = None,
    progress: Callable[[BandProgress], None] | None = None,
) -> Barrier:
    """The saddle point between two minima, by a climbing band and Newton steps. The cell is held.

    Both ends are relaxed first, with the cell held (a state that was relaxed so already stays).
    Differentiable like `relax`, in all three states. Not inside `jax.jit` or `jax.vmap`.

    Args:
        start, end: structures with the same atoms in the same order in the same cell.
        images: images between the ends.
        path: start the band from this one, such as one that was cut off; its number of images counts then.
        straight: begin on the straight line, not with interpolated distances.
        spring: between images, eV/Å².
        band_fmax: force across the path (eV/Å) at which the band ends and Newton steps begin.
        band_steps: steps of the band allowed. Where they end above `band_fmax`, the climb starts there.
        fmax: largest force at the saddle point, eV/Å.
        max_steps: steps of the climb that ends at the saddle point.
        skin: extra reach of the neighbor lists, Å; default a tenth of the cutoff.
        check_order: refuse ends whose atoms seem to be numbered differently.
        linear_solver: of the implicit derivatives, as of `relax`.
        progress: called every 20 steps of the band.
    Returns:
        `Barrier`: the three states, and the path.
    Raises:
        InputError: other atoms, order, cell or fixed coordinates; ends that are one minimum; a path of other
            atoms. SaddlePointError: nothing with one negative mode between the ends. NotConvergedError.
    Source: Henkelman, Uberuaga, Jónsson, J. Chem. Phys. 113, 9901 (2000).
    """
    require_potential(potential)
    require_second_derivatives(potential)
    images = whole("images", images, at_least=1)
    spring = number("spring", spring, "eV/Å²", above=0)
    band_fmax = number("band_fmax", band_fmax, "eV/Å", above=0)
    band_steps = whole("band_steps", band_steps, at_least=1)
    options = climb_options(fmax, max_steps, skin)
    first, last = _structure_of(start, "start"), _structure_of(end, "end")
    check_ends(*concrete((first, last)))
    if check_order:
        check_numbering(*concrete((first, last)))
    initial, final = (
        _minimum(potential, start, first, linear_solver),
        _minimum(potential, end, last, linear_solver),
    )

    plain, here, there = concrete((potential, initial.structure, final.structure))
    there = nearest_images(here, there)
    require_different(here, there)
    positions = _first_guess(here, there, images, path, straight)
    energies = (float(concrete(initial.energy)), float(concrete(final.energy)))
    settings: dict[str, Any] = dict(spring=spring, fmax=band_fmax, max_steps=band_steps, skin=skin)
    settle = lambda: FoundPath(settle_band(plain, here, positions, energies, progress=progress, **settings))
    found = remember((plain, here, positions), ("band", tuple(settings.items())), settle).path
    image, direction = _climbing_image(found, here)
    top = initial.structure.at(_held_as(initial.structure, image))
    state = saddle_at(potential, top, direction, options, linear_solver)
    _check_same(found, state)
    return Barrier(initial, state, final, found)


def _structure_of(state: Structure | Relaxed, name: str) -> Structure:
    return state.structure if isinstance(state, Relaxed) else require_structure(state, name)


def _minimum(
    potential: Potential,
    given: Structure | Relaxed,
    structure: Structure,
    linear_solver: AbstractLinearSolver | None,
) -> Relaxed:
    # where strains are free the minimum would answer a change by its cell, and the saddle point would not
    if isinstance(given, Relaxed) and _is_held(given) and given.potential is potential:
        given.equilibrium.require("an end of the path", given)
        return given
    return relax(potential, structure, fmax=END_FMAX, linear_solver=linear_solver)


def _is_held(state: Relaxed) -> bool:
    return len(state.basis) == 0


def _first_guess(
    start: Structure, end: Structure, images: int, path: ReactionPath | None, straight: bool
) -> Images:
    if path is None:
        return (straight_line if straight else interpolate)(start, end, images)
    positions = np.array(path.positions, float)
    if positions.ndim != 3 or positions.shape[1:] != (start.n_atoms, 3) or len(positions) < 3:
        raise InputError(
            f"path has positions of the shape {positions.shape}: give three images or more of "
            f"{start.n_atoms} atoms, ends included."
        )
    positions[0], positions[-1] = np.asarray(start.positions), np.asarray(end.positions)
    return positions


def _climbing_image(path: ReactionPath, start: Structure) -> tuple[np.ndarray, np.ndarray]:
    """Positions of the highest image, and the direction of the path there.

    Raises:
        SaddlePointError: the highest image is an end.
    """
    k = path.highest
    if k in (0, len(path.positions) - 1):
        side = "start" if k == 0 else "end"
        inner = len(path.positions) - 2
        raise SaddlePointError(
            f"no image of the path is higher than its {side}: there is no barrier that {inner} images see. "
            f"{_lowest_in_between(path)}Give more images, or look at the path (error.partial).",
            path,
        )
    along = path.positions[k + 1] - path.positions[k - 1]
    return path.positions[k], np.where(np.asarray(start.fixed), 0.0, along)


def _lowest_in_between(path: ReactionPath) -> str:
    k = int(np.argmin(path.energies))
    depth = float(min(path.energies[0], path.energies[-1]) - path.energies[k])
    if depth < DEEPER:
        return ""
    return (
        f"Image {k} lies {depth:.2f} eV below both ends, near another minimum: relax it, and take that for "
        "an end. "
    )


def _held_as(structure: Structure, positions: np.ndarray) -> Any:
    """Positions with fixed coordinates those of the structure, which may be traced."""
    return jnp.where(structure.fixed, structure.positions, positions)


def _check_same(path: ReactionPath, state: Saddle) -> None:
    moved = np.asarray(concrete(state.structure.positions)) - path.positions[path.highest]
    moved = moved - moved.mean(axis=0)
    farthest = float(np.linalg.norm(moved, axis=1).max(initial=0.0))
    if farthest > FAR:
        raise NotConvergedError(
            f"the climb from the highest image left the path: an atom moved by {farthest:.2f} Å. The band "
            f"had come to {path.fmax:.1e} eV/Å: give it a smaller band_fmax, more band_steps, or more "
            "images.",
            state,
        )
