"""Relaxed properties as residuals: every structure is relaxed at every step, and differentiated along it.

A relaxed state moves with the parameters, dX = (dX/dtheta) dtheta. The next relaxation starts from there, and
not from where the last one ended, so that a few Newton steps are enough. It is followed and not sought: where
it ends far from the prediction, it is another minimum, and its properties are those of something else.

    d = max |x - x_predicted|   over atoms, whatever shift lies between

is of second order in the step for a state that is followed. A state that is off by more than it was predicted
to move, and by more than a tenth of the distance of the nearest atoms, is taken for another one.
"""

import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from mdsens.checks import instance, nearest, number
from mdsens.errors import InputError, MDSensError, NotConvergedError
from mdsens.fitting.terms import Memory, TermRow, TermValue
from mdsens.fitting.weights import WeightVector
from mdsens.ghosts import padded
from mdsens.neighbors import Capacity
from mdsens.observables.barriers import passage_by_name
from mdsens.observables.defects import formation
from mdsens.observables.named import CONSTANT, NAMED, PASSAGES, elastic, is_name, named
from mdsens.observables.observable import Observable
from mdsens.observables.planes import stacking_fault_energy, surface_energy
from mdsens.potentials.base import Potential
from mdsens.potentials.parameters import parameter_values
from mdsens.quantities import neighbors_of
from mdsens.relaxation.coordinates import Coordinates
from mdsens.relaxation.equilibrium import Equilibrium, default_skin
from mdsens.relaxation.landscape import Vector
from mdsens.relaxation.newton import NewtonCG
from mdsens.relaxation.relax import relax
from mdsens.saddles.saddle import climb_options, require_second_derivatives, saddle_at
from mdsens.sensitivity.finite_steps import fold_distances
from mdsens.sensitivity.first_order import Block, checked_derivative, differentiate
from mdsens.sensitivity.problem import Selection, SensitivityProblem, main_state
from mdsens.structure import Structure, require_structure

SWITCHED = 0.1  # of the distance of the nearest atoms: a state farther from its prediction may be another one
ROOM = 1.12  # times the cutoff: lists have room for so much, so that little is compiled while it moves
FOLLOWED = 200  # Newton steps within which a state must be found again
TOLERANCE = 0.01  # of a value, where no tolerance is given
# what compares a state with the bulk: its observable, and how the state is usually called
COMPARED: dict[str, tuple[Callable[[str, str], Observable], str]] = {
    "formation_energy": (formation, "defect"),
    "formation_volume": (formation, "defect"),
    "surface_energy": (surface_energy, "slab"),
    "stacking_fault_energy": (stacking_fault_energy, "fault"),
}
NOWHERE = np.zeros(0)  # parameters along which states are not predicted


@dataclasses.dataclass(frozen=True)
class TargetStructure:
    """A structure with the way it is relaxed.

    Attributes:
        structure: where the first relaxation starts. Its fixed coordinates are held.
        cell: None, "isotropic", "full" or six bools, as for `relax`.
        pressure: eV/Å³.
        fmax: tolerance of the relaxation, eV/Å.
        saddle: the state is a saddle point: climbed to from a structure nearby, with its cell held.
    """

    structure: Structure
    cell: Any = None
    pressure: float = 0.0
    fmax: float = 1e-8
    saddle: bool = False


@dataclasses.dataclass(frozen=True)
class Target:
    """A value that a relaxed property should have.

    Attributes:
        observable: a name ("C11", "lattice_constant", "energy_per_atom", "formation_energy", ...), or an
            `Observable` with one number. A "barrier" (or "backward_barrier", "attempt_frequency", ...) is
            that of the structures "initial", "saddle" and "final".
        value: in the unit of the observable (GPa, Å, eV, ...).
        tolerance: what it may be off by, in the same unit: one standard error where errors of parameters
            should be right. Default one percent of the value.
        on: the structure, where the observable goes by name; default "structure", "bulk", or the only one. A
            formation energy compares `on` (default "defect") with `bulk`; a surface energy a "slab", a
            stacking-fault energy a "fault".
        bulk: see there.
        component: which of the numbers of the observable, by name, if it has several.
    """

    observable: str | Observable
    value: float
    tolerance: float | None = None
    on: str | None = None
    bulk: str | None = None
    component: str | None = None

    @property
    def title(self) -> str:
        """Name of the number."""
        name = self.observable if isinstance(self.observable, str) else self.observable.names[0]
        return self.component or name


class _Wish(NamedTuple):
    """A target, checked: the name of its number, which no other number has."""

    label: str
    value: float
    tolerance: float


class RelaxedTargets:
    """Properties of relaxed structures as a term of a fit.

    Args:
        structures: one structure, or several by name; a `Structure` alone is relaxed with its cell held.
        targets: what they should have.
        name: of the term.
    Raises:
        InputError: no targets; unknown observables or structures; a value or a tolerance that is no number.
    """

    def __init__(
        self,
        structures: Structure | TargetStructure | Mapping[str, Structure | TargetStructure],
        targets: Sequence[Target],
        *,
        name: str = "relaxed properties",
    ):
        self.name = name
        given = dict(structures) if isinstance(structures, Mapping) else {"structure": structures}
        self.structures = {key: _setup(key, value) for key, value in given.items()}
        if not self.structures:
            raise InputError("no structures are given: targets are measured on relaxed structures.")
        items = [targets] if isinstance(targets, Target) else list(targets)
        if not items:
            raise InputError('no targets are given: name some, such as Target("C11", 165.8).')
        self.targets = [instance("a target", item, Target, 'Write Target("C11", 165.8).') for item in items]
        self._observables, self._wishes = _resolve(self.targets, tuple(self.structures))
        # names and units of all numbers, by the observables with what they learned of the states
        self._rows: dict[tuple[Observable, ...], tuple[tuple[str, ...], tuple[str, ...]]] = {}

    def residuals_and_jacobian(
        self, potential: Potential, parameters: Sequence[str], memory: Memory | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """(value - target) / tolerance, and its derivative by parameters: what fits need and no more.

        Raises:
            What `evaluate` raises.
        """
        value = self.evaluate(potential, tuple(parameters), memory or {})
        return value.residuals, value.jacobian

    def evaluate(self, potential: Potential, parameters: tuple[str, ...], memory: Memory) -> TermValue:
        """Relax, measure and differentiate.

        Args:
            memory: relaxed states of parameters nearby, with their derivatives; {} to relax from the
                beginning.
        Raises:
            NotConvergedError: a state cannot be followed from where it was, or became another one.
            SaddlePointError: it lost its curvature. And what `relax` and `first_order` raise.
        """
        theta = _theta(potential, parameters)
        states = {key: self._state(key, potential, theta, memory) for key in self.structures}
        problem = self._problem(states, Selection(parameters))
        parts = differentiate(problem, "forward", problem.origin, None)
        values, derivative = problem.values(), checked_derivative(problem, parts)
        places = self._places(problem)
        folds = fold_distances(problem)
        return TermValue(
            residuals=self._off(values[places]),
            jacobian=derivative[places] / self._tolerances[:, None],
            rows=self._report(problem, values),
            memory={key: _kept(states[key], parts.moves[key], theta) for key in states},
            reach=folds if np.isfinite(folds).any() else None,
            relaxations=len(states),
        )

    def residuals(self, potential: Potential, parameters: tuple[str, ...], memory: Memory) -> np.ndarray:
        """Relax and measure only: residuals without their derivatives.

        Raises:
            What `evaluate` raises.
        """
        theta = _theta(potential, parameters)
        states = {key: self._state(key, potential, theta, memory) for key in self.structures}
        problem = self._problem(states, Selection(parameters))
        return self._off(problem.values()[self._places(problem)])

    def by_weights(
        self,
        potential: Potential,
        weights: WeightVector,
        memory: Memory,
        derivatives: bool = True,
        room: Capacity | None = None,
    ) -> TermValue:
        """Relax, measure, and differentiate by all weights at once: one adjoint for each target.

        The relaxations start where those of `memory` ended.

        Args:
            derivatives: if False, the Jacobian has no columns.
            room: shapes at least of all lists of neighbors: crystals with equal ones compile once.
        Raises:
            What `evaluate` raises.
        """
        states = {key: self._state(key, potential, NOWHERE, memory, room) for key in self.structures}
        problem = self._problem(states, weights)
        values, places = problem.values(), self._places(problem)
        jacobian = np.zeros((len(places), 0))
        if derivatives:
            parts = differentiate(problem, "reverse", problem.origin, None)
            found = parts.clamped + parts.relaxation
            jacobian = found[places] / self._tolerances[:, None]
        return TermValue(
            residuals=self._off(values[places]),
            jacobian=jacobian,
            rows=self._report(problem, values),
            memory={
                key: _kept(state, jnp.zeros((0, len(state.w))), NOWHERE) for key, state in states.items()
            },
            relaxations=len(states),
        )

    @property
    def _tolerances(self) -> np.ndarray:
        return np.array([wish.tolerance for wish in self._wishes])

    def _off(self, values: np.ndarray) -> np.ndarray:
        return (values - np.array([wish.value for wish in self._wishes])) / self._tolerances

    def _problem(self, states: dict[str, Equilibrium], selection: Any) -> SensitivityProblem:
        observables = tuple(_renamed(o.bound(states), suffix) for o, suffix in self._observables)
        if observables not in self._rows:  # looking at what they return takes longer than a relaxation
            problem = SensitivityProblem.around(states, observables, selection)
            self._rows[observables] = problem.names, problem.units
        potential = next(iter(states.values())).potential
        rows = self._rows[observables]
        return SensitivityProblem(observables, selection, potential, states, None, *rows)

    def _report(self, problem: SensitivityProblem, values: np.ndarray) -> tuple[TermRow, ...]:
        places = self._places(problem)
        return tuple(
            TermRow(wish.label, problem.units[k], float(values[k]), wish.value, wish.tolerance)
            for wish, k in zip(self._wishes, places, strict=True)
        )

    def _places(self, problem: SensitivityProblem) -> list[int]:
        return [problem.names.index(wish.label) for wish in self._wishes]

    def start(self, key: str, theta: np.ndarray, memory: Memory) -> Structure:
        """Where the relaxation of one structure starts: as given, or where it should be to first order."""
        given = self.structures[key].structure
        return _predicted(given, theta, memory[key]) if key in memory else given

    def room(self, potential: Potential) -> Capacity:
        """Shapes of lists of neighbors that do for all structures as they are given."""
        return most([_room(potential, setup.structure) for setup in self.structures.values()])

    def _state(
        self,
        key: str,
        potential: Potential,
        theta: np.ndarray,
        memory: Memory,
        room: Capacity | None = None,
    ) -> Equilibrium:
        try:
            return self._relaxed(key, potential, theta, memory, room)
        except MDSensError as error:  # of the same class, with the name of the structure
            error.args = (f"structure '{key}': {error}", *error.args[1:])
            raise

    def _relaxed(
        self, key: str, potential: Potential, theta: np.ndarray, memory: Memory, room: Capacity | None
    ) -> Equilibrium:
        setup = self.structures[key]
        if setup.saddle:
            return self._climbed(key, potential, theta, memory)
        options: dict[str, Any] = {"cell": setup.cell, "pressure": setup.pressure, "fmax": setup.fmax}
        start = self.start(key, theta, memory)
        if key not in memory:
            rooms = [_room(potential, start), *([] if room is None else [room])]
            options["capacity"] = most(rooms)
            state = relax(potential, start, **options).equilibrium
        else:
            options |= {"solver": NewtonCG(), "max_steps": FOLLOWED, "check_structure": False}
            options["capacity"] = Capacity(*(int(n) for n in memory[key]["capacity"]))
            state = relax(potential, start, **options).equilibrium
            _require_same(key, state, start, memory[key])
        state.require(f"the relaxed state '{key}'")
        return state

    def _climbed(self, key: str, potential: Potential, theta: np.ndarray, memory: Memory) -> Equilibrium:
        start = self.start(key, theta, memory)
        require_second_derivatives(potential)
        options = climb_options(self.structures[key].fmax, FOLLOWED, None)
        state = saddle_at(potential, start, None, options).equilibrium
        if key in memory:
            _require_same(key, state, start, memory[key])
        return state


# --- what is asked for ----------------------------------------------------------------------------


def _setup(key: str, value: Any) -> TargetStructure:
    if not key or "/" in key or key == ".":
        raise InputError(f"a structure is named '{key}': names are not empty and have no slash.")
    setup = value if isinstance(value, TargetStructure) else TargetStructure(value)
    require_structure(setup.structure, key)
    if setup.saddle and (setup.cell is not None or setup.pressure != 0):
        raise InputError(
            f"structure '{key}' is a saddle point with cell = {setup.cell!r} and pressure = "
            f"{setup.pressure:g}: saddle points are climbed to in the cell as it is. Leave both out."
        )
    return setup


def _resolve(
    targets: Sequence[Target], states: tuple[str, ...]
) -> tuple[list[tuple[Observable, str]], list[_Wish]]:
    """Observables, each once, with what is added to their names; and the numbers that are wished for."""
    found: dict[Any, tuple[Observable, str]] = {}
    constants: dict[str, dict[str, None]] = {}
    wishes: list[_Wish] = []
    for target in targets:
        observable, state = _observable(target, states)
        suffix = f" ({state})" if state and len(states) > 1 else ""
        if observable is None:  # elastic constants of a state are computed together
            constants.setdefault(str(state), {})[target.title] = None
        else:
            found.setdefault(observable, (observable, suffix))
        wishes.append(_wish(target, suffix))
    for state, names in constants.items():
        suffix = f" ({state})" if len(states) > 1 else ""
        found[state] = (elastic(tuple(names), state), suffix)
    _require_distinct(wishes, [f"{n}{suffix}" for o, suffix in found.values() for n in o.names])
    return list(found.values()), wishes


def _observable(target: Target, states: tuple[str, ...]) -> tuple[Observable | None, str | None]:
    """The observable of a target and the state that it is measured on; None for elastic constants."""
    name = target.observable
    if not isinstance(name, str):
        hint = 'Give a name, such as "C11", or an mdsens.Observable.'
        observable = instance("the observable of a target", name, Observable, hint)
        _check_component(target, observable)
        return observable, None
    if name in COMPARED:
        compare, usual = COMPARED[name]
        state, bulk = (_known(key, states) for key in (target.on or usual, target.bulk or "bulk"))
        return compare(state, bulk), state
    passage = passage_by_name(name)
    if passage is not None:
        _check_passage(target, passage, states)
        return passage, None
    if not is_name(name):
        known = list(dict.fromkeys([*NAMED, *COMPARED, *PASSAGES, "C11", "C12", "C44", "K"]))
        raise InputError(f"no observable '{name}'.{nearest(name, known, 0.3)} Targets: {', '.join(known)}.")
    state = main_state(states) if target.on is None else _known(target.on, states)
    return (None if CONSTANT.fullmatch(name) else named([name], state)[0]), state


def _check_passage(target: Target, passage: Observable, states: tuple[str, ...]) -> None:
    if target.on is not None or target.bulk is not None:
        raise InputError(
            f"the target {target.title} is of the structures {' and '.join(passage.states)}: leave on and "
            "bulk out."
        )
    for state in passage.states:
        _known(state, states)


def _check_component(target: Target, observable: Observable) -> None:
    # an entry of an array goes by "positions[3][0]"
    wanted = re.sub(r"(\[\d+\])+$", "", target.title)
    if wanted not in observable.names:
        raise InputError(
            f"the observable of a target has the numbers {', '.join(observable.names)}, and no '{wanted}'."
            f"{nearest(wanted, observable.names)}"
        )


def _known(state: str, states: tuple[str, ...]) -> str:
    if state not in states:
        raise InputError(f"no structure '{state}'.{nearest(state, states)} Structures: {', '.join(states)}.")
    return state


def _wish(target: Target, suffix: str) -> _Wish:
    label = f"{target.title}{suffix}"
    value = number(f"the target {label}", target.value)
    given = TOLERANCE * abs(value) if target.tolerance is None else target.tolerance
    if target.tolerance is None and value == 0:
        raise InputError(f"the target {label} is zero, of which one percent is nothing: give a tolerance.")
    return _Wish(label, value, number(f"the tolerance of {label}", given, above=0))


def _require_distinct(wishes: Sequence[_Wish], names: Sequence[str]) -> None:
    for what, labels in (("target", [wish.label for wish in wishes]), ("observable", list(names))):
        for label in labels:
            if labels.count(label) > 1:
                raise InputError(f"two {what}s are named {label}: name each once, or name them differently.")


def _renamed(observable: Observable, suffix: str) -> Observable:
    names = tuple(f"{name}{suffix}" for name in observable.names)
    return dataclasses.replace(observable, names=names, bind=None)


# --- states that are followed ---------------------------------------------------------------------


def _theta(potential: Potential, parameters: Sequence[str]) -> np.ndarray:
    values = parameter_values(potential)
    return np.array([values[name] for name in parameters])


def _kept(state: Equilibrium, moves: Block, theta: np.ndarray) -> dict[str, np.ndarray]:
    """A state and its derivative by the parameters, as plain arrays."""
    structure = state.structure
    positions, cells = _motion(state.landscape.coordinates, state.w, moves)
    return {
        "positions": np.asarray(structure.positions),
        "cell": np.asarray(structure.cell),
        "dpositions": np.asarray(positions)[:, : state.n_atoms],
        "dcell": np.asarray(cells),
        "theta": theta,
        "capacity": np.array(state.landscape.neighbors.capacity),
    }


def _still(state: Equilibrium) -> dict[str, np.ndarray]:
    """A state from which the next relaxation starts as it is."""
    n = state.n_atoms
    return {
        "positions": np.asarray(state.structure.positions),
        "cell": np.asarray(state.structure.cell),
        "dpositions": np.zeros((0, n, 3)),
        "dcell": np.zeros((0, 3, 3)),
        "theta": NOWHERE,
        "capacity": np.array(state.landscape.neighbors.capacity),
    }


def _room(potential: Potential, structure: Structure) -> Capacity:
    """Shapes of neighbor lists that still do when a fit has moved the cutoff by some percent."""
    cutoff = float(potential.cutoff)
    spare = 0.0 if np.isinf(cutoff) else (ROOM - 1) * cutoff
    return neighbors_of(potential, padded(potential, structure), default_skin(potential) + spare).capacity


def most(rooms: Sequence[Capacity]) -> Capacity:
    """Shapes that do for all of them."""
    return Capacity(*(max(sizes) for sizes in zip(*rooms, strict=True)))


def _predicted(structure: Structure, theta: np.ndarray, kept: Mapping[str, np.ndarray]) -> Structure:
    """Where a state should be at other parameters, to first order."""
    change = theta - kept["theta"]
    positions = kept["positions"] + np.tensordot(change, kept["dpositions"], 1)
    cell = kept["cell"] + np.tensordot(change, kept["dcell"], 1)
    return structure.at(jnp.asarray(positions), jnp.asarray(cell))


def _require_same(key: str, state: Equilibrium, start: Structure, kept: Mapping[str, np.ndarray]) -> None:
    """Raise if a state is not the one that was predicted.

    Raises:
        NotConvergedError: says how far it went.
    """
    found = state.structure
    before = start.at(jnp.asarray(kept["positions"]), jnp.asarray(kept["cell"]))
    off, moved = _apart(found, start), _apart(start, before)
    near = SWITCHED * _shortest(state)
    if off > max(near, moved):
        raise NotConvergedError(
            f"the relaxed state '{key}' became another one: it lies {off:.2f} Å from where it was predicted, "
            f"{moved:.2f} Å from the last one.",
            state,
        )


def _shortest(state: Equilibrium) -> float:
    """Distance of the two nearest atoms, Å."""
    neighbors = state.neighbors
    apart = np.linalg.norm(np.asarray(neighbors.vectors(state.structure)), axis=1)
    return float(np.min(apart, where=np.asarray(neighbors.valid), initial=np.inf))


def _apart(a: Structure, b: Structure) -> float:
    """Largest distance of an atom between two structures, whatever shift and strain lie between, Å."""
    # positions relative to the cell tell a strain from a motion; a cluster has none
    x, y = np.asarray(a.positions), np.asarray(b.positions)
    if all(a.pbc):
        y = y @ np.linalg.inv(np.asarray(b.cell)) @ np.asarray(a.cell)
    off = x - y
    held = np.asarray(a.fixed)
    off = off - np.where(held.any(axis=0), 0.0, off.mean(axis=0))
    return float(np.linalg.norm(off, axis=1).max(initial=0.0))


@eqx.filter_jit
def _motion(coordinates: Coordinates, w: Vector, moves: Block) -> tuple[Array, Array]:
    def look(w: Vector) -> tuple[Array, Array]:
        structure = coordinates.structure(w)
        return structure.positions, structure.cell

    return jax.vmap(lambda row: jax.jvp(look, (w,), (row,))[1])(moves)
