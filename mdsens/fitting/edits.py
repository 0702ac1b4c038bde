"""The smallest change of very many weights that puts relaxed properties on target.

A network has far more weights than a crystal has properties, so that many changes delta meet all targets.
The smallest of them changes the least of everything else:

    minimise |delta|^2     with     O(theta + delta) = O_target,     K(theta + delta) = K(theta),

O the targets, K what is to be kept (`KeptProperties`). With A = d(O, K)/dtheta at the weights of the last
step and b what is still missing, each step solves the linear problem

    A (delta' - delta) = b      ->      delta' = A^T y,      G y = b + A delta,      G = A A^T.

G has as many rows as there are conditions: weights are never paired with weights. A row of A costs one
adjoint through the relaxation (`RelaxedTargets.by_weights`). Where delta = A^T y and all conditions hold,
delta is stationary among all changes that meet them.

The step has two parts. The one across the conditions, A^T G^-1 b, is Newton's and meets them; the one along
them makes the change shorter, and goes on slowly where the conditions are bent. Where the whole step does
not halve what is missing, less is taken of the second part, and then less of both.

How much each target costs. Without target k the smallest change would be shorter, by

    |delta|^2 - |delta without k|^2 = y_k^2 / (G^-1)_kk,

and for k alone it would have the length |b_k| / |A_k|.

Whether the targets can be met at all by a small change is a matter of how far one moves without the others.
With rows a_k = A_k / |A_k| of length one, and P projecting on the changes that leave what is kept,

    S = (P a) (P a)^T = G_tt - G_tk G_kk^-1 G_kt = sum_i s_i^2 u_i u_i^T,
    |delta|^2 = sum_i (u_i . b')^2 / s_i^2,      b'_k = b_k / |A_k|.

Where s_i is small, u_i . b' is a combination that hardly any weight moves. To change it takes a long delta,
beyond first order.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from jaxtyping import Float

from mdsens.checks import instance, number, whole
from mdsens.errors import InputError, MDSensError, NotConvergedError
from mdsens.fitting.keeping import KeptProperties, KeptRows, KeptValues, batch_of, labels_of
from mdsens.fitting.targets import RelaxedTargets
from mdsens.fitting.terms import Memory, TermRow, TermValue
from mdsens.fitting.weights import LowRank, Rows, WeightVector, changed_weights
from mdsens.potentials.base import Potential, require_potential
from mdsens.precision import require_x64
from mdsens.structure import Structure

if TYPE_CHECKING:
    from rich.table import Table

NEARLY = 0.01  # of the largest singular value (one at least): targets below are nearly dependent
DEPENDENT = 1e-12  # of the largest eigenvalue of G (rows of length one): conditions below say the same
# Parts of a step that are tried, across the conditions and along them, with the share of what is missing that
# may be left.
TRIALS = ((1.0, 1.0, 0.5), (1.0, 0.25, 0.5), (1.0, 0.0, 1.0), (0.5, 0.0, 1.0), (0.1, 0.0, 1.0))


class EditProgress(NamedTuple):
    """What a callback sees after each step.

    Attributes:
        step: number of it. missing: largest residual of a target, in tolerances.
        change: |delta| / |weights|. adjoints: all so far.
    """

    step: int
    missing: float
    change: float
    adjoints: int


class TargetCost(NamedTuple):
    """What one target asks of the weights.

    Attributes:
        name: of the target.
        alone: |delta| / |weights| that it would take by itself, nothing kept.
        saved: share of |delta|^2 that would be saved without it.
    """

    name: str
    alone: float
    saved: float


class TargetIndependence(NamedTuple):
    """How far the targets can be moved one without the others, to first order, with what is kept held.

    Attributes:
        names: of the targets.
        singular_values: of their rows, each of length one before what is kept is taken off; largest first.
        weakest: the combination of residuals (in tolerances) that weights move least, of length one.
        share: of |delta|^2 that this combination takes.
    """

    names: tuple[str, ...]
    singular_values: Float[np.ndarray, "targets"]
    weakest: Float[np.ndarray, "targets"]
    share: float

    @property
    def nearly_dependent(self) -> bool:
        """Whether hardly any weight moves the weakest combination."""
        largest = max(1.0, self.singular_values[0])
        return bool(self.singular_values[-1] < NEARLY * largest)

    def __str__(self) -> str:
        values = ", ".join(f"{s:.2g}" for s in self.singular_values)
        text = f"Singular values of the targets (rows of length one): {values}"
        if not self.nearly_dependent:
            return text
        return (
            f"{text}. The targets are nearly dependent: hardly any weight that may change moves "
            f"{self._combination()} (in tolerances), which takes {self.share:.0%} of the change."
        )

    def _combination(self) -> str:
        order = np.argsort(-np.abs(self.weakest))
        sign = np.sign(self.weakest[order[0]])
        text = ""
        for k in order:
            size = abs(self.weakest[k])
            if size >= 0.005:
                same = self.weakest[k] * sign > 0
                text += f" {'+' if same else '-'} {size:.2f} {self.names[k]}"
        return text.removeprefix(" + ")


class LabelShifts(NamedTuple):
    """How far a changed potential is from the first one, on some structures.

    Attributes:
        energy: change of the energy per atom of each, eV.
        forces: |change of all forces| / |forces| of each; infinite where there are none.
    """

    energy: Float[np.ndarray, "structures"]
    forces: Float[np.ndarray, "structures"]


@dataclasses.dataclass(frozen=True)
class WeightEdit:
    """A potential whose weights were changed.

    Attributes:
        potential: with the new weights.
        change: |delta| / |weights|.
        before, after: rows of the targets.
        costs: of each target, to first order.
        history: of the steps.
        kept: conditions beside the targets.
        relaxations: how many it took.
        met: whether all targets are.
        independence: of the targets, where the last step began; None if none was tried.
        stopped: why no further step was taken; empty where none was needed, or `max_steps` were made.
    """

    potential: Potential
    change: float
    before: tuple[TermRow, ...]
    after: tuple[TermRow, ...]
    costs: tuple[TargetCost, ...]
    history: tuple[EditProgress, ...]
    kept: int
    relaxations: int
    met: bool
    independence: TargetIndependence | None = None
    stopped: str = ""

    @property
    def adjoints(self) -> int:
        """Adjoint solves of the targets in all."""
        return self.history[-1].adjoints if self.history else 0

    def table(self) -> "Table":
        """Rich table: each target before and after, and what it costs."""
        from rich.table import Table

        table = Table(title=f"|change| / |weights| = {self.change:.2e}, {self.adjoints} adjoints")
        for title in ("target", "before", "after", "wanted", "alone", "saved without"):
            table.add_column(title, justify="left" if title == "target" else "right")
        for before, after, cost in zip(self.before, self.after, self.costs, strict=True):
            shown = [f"{x:.6g}" for x in (before.value, after.value, after.target)]
            table.add_row(f"{after.name} ({after.unit})", *shown, f"{cost.alone:.1e}", f"{cost.saved:.0%}")
        notes = [f"Stopped: {self.stopped}"] if self.stopped else []
        if self.independence is not None:
            notes.append(str(self.independence))
        table.caption = "\n".join(notes) or None
        return table

    def __rich__(self) -> "Table":
        return self.table()


def edit_weights(
    potential: Potential,
    targets: RelaxedTargets,
    *,
    keep: KeptProperties | None = None,
    rank: int | None = None,
    within: float = 0.01,
    max_steps: int = 10,
    throw: bool = True,
    progress: Callable[[EditProgress], None] | None = None,
) -> WeightEdit:
    """Put relaxed properties on target by the smallest change of all weights.

    For potentials of very many weights; where they are few, `fit` knows bounds and errors.

    Args:
        targets: properties of relaxed structures.
        keep: energies, forces and properties that stay as they are.
        rank: of the change of each matrix (LoRA); other arrays stay. None for any change.
        within: a target is met when it is off by so many tolerances at most.
        max_steps: steps allowed.
        throw: raise when targets are not met; if False, read `WeightEdit.met`.
        progress: called after each step.
    Returns:
        `WeightEdit`; its potential has the same form.
    Raises:
        NotConvergedError: targets are not met after `max_steps`, or a relaxed state cannot be followed
            towards them; `partial` is the `WeightEdit` reached.
        InputError: no `RelaxedTargets`; a rank for a potential without matrices.
    """
    require_x64()
    require_potential(potential)
    hint = "Write RelaxedTargets(structure, [Target(...), ...])."
    instance("targets", targets, RelaxedTargets, hint)
    number("within", within, above=0)
    max_steps = whole("max_steps", max_steps, at_least=1)
    rank = None if rank is None else whole("rank", rank, at_least=1)
    problem = _EditProblem(potential, targets, keep, rank)
    state = problem.start()
    before, history, stopped = state.found.rows, [], ""
    while not (state.missing <= within or len(history) == max_steps or stopped):
        try:
            state = problem.advance(state)
        except MDSensError as error:
            stopped = str(error)
            break
        history.append(EditProgress(len(history) + 1, state.missing, problem.share(state), state.adjoints))
        if progress is not None:
            progress(history[-1])
    met = state.missing <= within
    edit = problem.result(state, before, tuple(history), met)
    edit = dataclasses.replace(edit, stopped=stopped, independence=problem.independence)
    if throw and not met:
        raise _error(edit, max_steps)
    return edit


class _EditState(NamedTuple):
    """An edit between two steps: the change so far, what it leads to, and the costs of the last step."""

    delta: Float[np.ndarray, "weights"]
    found: TermValue
    kept: KeptValues | None
    costs: tuple[TargetCost, ...]
    adjoints: int
    relaxations: int

    @property
    def missing(self) -> float:
        """Largest residual of a target."""
        return float(np.abs(self.found.residuals).max())

    @property
    def memories(self) -> Mapping[str, Memory]:
        """Relaxed states of what is kept."""
        return {} if self.kept is None else self.kept.memories


class _EditProblem:
    """What is edited; the same from the first step to the last."""

    def __init__(
        self, potential: Potential, targets: RelaxedTargets, keep: KeptProperties | None, rank: int | None
    ):
        self.potential, self.targets, self.rank = potential, targets, rank
        self.vector = WeightVector.of(potential)
        self.theta = self.vector.values(potential)
        # lists of one shape: other crystals compile nothing
        self.kept = None if keep is None else KeptRows(keep, potential, targets.room(potential))
        self.room = None if self.kept is None else self.kept.room
        self.wanted = np.zeros(0)
        self.subspace: LowRank | None = None
        self.independence: TargetIndependence | None = None  # of the last step that was tried

    def at(self, delta: np.ndarray) -> Potential:
        """The potential with a change."""
        return changed_weights(self.potential, self.vector, self.theta + delta)

    def share(self, state: _EditState) -> float:
        """|delta| / |weights|."""
        return float(np.linalg.norm(state.delta) / np.linalg.norm(self.theta))

    def start(self) -> _EditState:
        """Nothing changed; what is kept is what is found here."""
        found = self.targets.by_weights(self.potential, self.vector, {}, False, self.room)
        kept = None if self.kept is None else self.kept.values(self.potential, {})
        if kept is not None:
            self.wanted = kept.values
        relaxations = found.relaxations + (kept.relaxations if kept else 0)
        return _EditState(np.zeros(len(self.theta)), found, kept, (), 0, relaxations)

    def advance(self, state: _EditState) -> _EditState:
        """One step; shorter where the whole comes no nearer.

        Raises:
            What relaxations raise; NotConvergedError: no part of the step comes nearer.
        """
        system = self._system(state)
        delta, costs = system.smallest(self.theta)
        self.independence = system.independence()
        across = system.across(state.delta)
        along = delta - state.delta - across
        adjoints = state.adjoints + len(state.found.residuals)
        error: MDSensError = NotConvergedError("no part of the step comes nearer to the targets.", None)
        for much, sideways, left in TRIALS:
            try:
                trial = self._look(state.delta + much * across + sideways * along, state)
            except MDSensError as lost:
                error = lost
                continue
            if trial.missing < left * state.missing:
                return trial._replace(costs=costs, adjoints=adjoints)
        raise error

    def _look(self, delta: np.ndarray, state: _EditState) -> _EditState:
        there = self.at(delta)
        found = self.targets.by_weights(there, self.vector, state.found.memory, derivatives=False)
        kept = None if self.kept is None else self.kept.values(there, state.memories)
        relaxations = state.relaxations + found.relaxations + (kept.relaxations if kept else 0)
        return state._replace(delta=delta, found=found, kept=kept, relaxations=relaxations)

    def _system(self, state: _EditState) -> "_LeastNorm":
        here = self.at(state.delta)
        found = self.targets.by_weights(here, self.vector, state.found.memory)
        count, missing = len(found.residuals), [-found.residuals]
        # the one copy of all rows that there is: filled and projected in place
        A = np.empty((count + len(self.wanted), self.vector.size))
        A[:count] = found.jacobian
        if self.kept is not None:
            kept = self.kept.rows(here, state.memories, out=A[count:])
            missing.append(self.wanted - kept.values)
        if self.rank is not None:
            self.subspace = self.subspace or LowRank.of(self.vector, found.jacobian, self.rank)
            self.subspace.project(A, out=A)
        b = np.concatenate(missing) + A @ state.delta
        return _LeastNorm(A, b, tuple(row.name for row in found.rows))

    def result(
        self, state: _EditState, before: tuple[TermRow, ...], history: tuple[EditProgress, ...], met: bool
    ) -> WeightEdit:
        """What the edit comes to."""
        costs = state.costs or tuple(TargetCost(row.name, 0.0, 0.0) for row in before)
        return WeightEdit(
            potential=self.at(state.delta),
            change=self.share(state),
            before=before,
            after=state.found.rows,
            costs=costs,
            history=history,
            kept=len(self.wanted),
            relaxations=state.relaxations,
            met=met,
        )


@dataclasses.dataclass(frozen=True)
class _LeastNorm:
    """A delta = b, targets first."""

    A: Rows
    b: Float[np.ndarray, "rows"]
    names: tuple[str, ...]

    def smallest(self, theta: np.ndarray) -> tuple[np.ndarray, tuple[TargetCost, ...]]:
        """The shortest delta, and what each target costs.

        Raises:
            InputError: a target that no weight moves.
        """
        size, b, inverse = self._lengths, self._scaled_b, self._inverse
        for name, square in zip(self.names, np.diag(self._products), strict=False):
            if square == 0:
                raise InputError(f"no weight that may change moves {name}: leave it out, or raise the rank.")
        y = inverse @ b
        delta = self.A.T @ (y / size)
        total = float(delta @ delta) or 1.0
        whole_length = np.linalg.norm(theta)
        costs = []
        for k, name in enumerate(self.names):
            saved = y[k] ** 2 / inverse[k, k] / total
            costs.append(TargetCost(name, float(abs(b[k]) / whole_length), float(saved)))
        return delta, tuple(costs)

    def across(self, delta: np.ndarray) -> np.ndarray:
        """The shortest step from a change to one that meets all conditions."""
        left = self._scaled_b - (self.A @ delta) / self._lengths
        return self.A.T @ (self._inverse @ left / self._lengths)

    def independence(self) -> TargetIndependence:
        """How far the targets can be moved one without the others."""
        n = len(self.names)
        G, size = self._gram, self._lengths[:n]
        kept = np.linalg.pinv(G[n:, n:], rcond=DEPENDENT, hermitian=True)
        squares, vectors = np.linalg.eigh(G[:n, :n] - G[:n, n:] @ kept @ G[n:, :n])
        values = np.sqrt(np.maximum(squares, 0.0))
        # what each combination takes, where it can be had
        floor = np.maximum(squares, DEPENDENT)
        takes = (vectors.T @ self._scaled_b[:n]) ** 2 / floor
        weakest = vectors[:, 0] / size
        length = np.linalg.norm(weakest)
        share = takes[0] / (takes.sum() or 1.0)
        return TargetIndependence(self.names, values[::-1], weakest / length, float(share))

    @functools.cached_property
    def _products(self) -> np.ndarray:
        return self.A @ self.A.T

    # Rows of length one, so that units do not matter; rows that are nothing stay so, and none is copied.

    @functools.cached_property
    def _lengths(self) -> np.ndarray:
        lengths = np.sqrt(np.diag(self._products))
        return np.where(lengths > 0, lengths, 1.0)

    @property
    def _scaled_b(self) -> np.ndarray:
        return self.b / self._lengths

    @functools.cached_property
    def _gram(self) -> np.ndarray:
        return self._products / np.outer(self._lengths, self._lengths)

    @functools.cached_property
    def _inverse(self) -> np.ndarray:
        return np.linalg.pinv(self._gram, rcond=DEPENDENT, hermitian=True)


def label_shifts(before: Potential, after: Potential, structures: Sequence[Structure]) -> LabelShifts:
    """How energies and forces of structures change from one potential to another of the same form.

    Args:
        structures: all periodic in the same directions.
    """
    batch = batch_of(structures, before)
    old, new = labels_of(before, batch), labels_of(after, batch)
    energies, forces = [], []
    for k, structure in enumerate(structures):
        n = structure.n_atoms
        energies.append(float(new.energy[k] - old.energy[k]) / n)
        size = float(np.linalg.norm(old.forces[k, :n]))
        change = float(np.linalg.norm(new.forces[k, :n] - old.forces[k, :n]))
        forces.append(change / size if size else np.inf)
    return LabelShifts(np.array(energies), np.array(forces))


def _error(edit: WeightEdit, max_steps: int) -> NotConvergedError:
    worst = max(edit.after, key=lambda row: abs(row.value - row.target) / row.tolerance)
    why = f"are not met after {max_steps} steps: raise max_steps"
    if edit.stopped:
        why = f"stopped: {edit.stopped}"
    known = edit.independence
    dependence = f" {known}" if known is not None and known.nearly_dependent else ""
    advice = "Ask for less at a time, keep less, or raise the rank"
    return NotConvergedError(
        f"the targets {why}. {worst.name} is {worst.value:.6g} {worst.unit}, and {worst.target:.6g} is "
        f"wanted (+-{worst.tolerance:.2g}).{dependence} {advice}; error.partial is the edit reached.",
        edit,
    )
