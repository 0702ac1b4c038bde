"""The work of a batch: every structure is relaxed and measured; what fails is said, and spoils nothing."""

import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from mdsens.batches.buckets import Buckets
from mdsens.batches.finished import Finished, key_of
from mdsens.batches.lanes import default_lanes, side_by_side
from mdsens.batches.options import RelaxOptions, check_known
from mdsens.batches.results import FAILED
from mdsens.checks import instance, whole
from mdsens.errors import InputError, MDSensError
from mdsens.io.hdf5 import Quantity
from mdsens.potentials.base import Potential, check_elements, require_potential
from mdsens.precision import require_x64
from mdsens.quantities import concrete
from mdsens.relaxation.memory import remember
from mdsens.relaxation.relax import Relaxed, problem_of, relax
from mdsens.relaxation.walk import Found, RelaxationProblem
from mdsens.structure import Structure

Structures = Sequence[Structure] | Mapping[str, Structure]


class BatchProgress(NamedTuple):
    """Where a batch is.

    Attributes:
        done: systems that are finished, failed ones and those found on disk included; of `total`.
        failed: of these.
        name: of the last one.
        seconds: since the batch began; computed: systems that were not found on disk.
    """

    done: int
    total: int
    failed: int
    name: str
    seconds: float
    computed: int

    @property
    def rate(self) -> float:
        """Systems a second."""
        return self.computed / self.seconds if self.seconds > 0 else 0.0

    @property
    def remaining(self) -> float:
        """Seconds until the end, at this rate; inf before the first system."""
        left = self.total - self.done
        if left == 0:
            return 0.0
        return left / self.rate if self.rate > 0 else float("inf")


class Outcome(NamedTuple):
    """How a system of a batch ended.

    Attributes:
        name: of the system.
        relaxed: its state; None for one that failed, or that was found on disk.
        content: what is kept of it, as `mdsens.write_hdf5` takes it; for a failed one the reason alone.
    """

    name: str
    relaxed: Relaxed | None
    content: Mapping[str, Any]

    @property
    def reason(self) -> str | None:
        """Why it failed; None: it did not."""
        reason = self.content.get(FAILED)
        return None if reason is None else str(reason)


def failure(name: str, error: MDSensError) -> Outcome:
    """The outcome of a system that failed."""
    return Outcome(name, None, {FAILED: f"{type(error).__name__}: {error}"})


Measure = Callable[[Relaxed], Mapping[str, Any]]


@dataclasses.dataclass(frozen=True)
class Batch:
    """Structures to relax with one potential, and what to measure on them.

    Attributes:
        measure: a relaxed state -> what else is kept of it.
        finished: where finished systems are kept; None: nowhere.
        settings: whatever decides about `measure`, for the hash of finished systems.
        lanes: systems that walk side by side.
    """

    potential: Potential
    structures: dict[str, Structure]
    options: RelaxOptions
    measure: Measure
    finished: Finished | None
    settings: tuple[Any, ...]
    lanes: int

    @classmethod
    def of(
        cls,
        potential: Potential,
        structures: Structures,
        options: RelaxOptions,
        measure: Measure,
        finished: Finished | None = None,
        settings: tuple[Any, ...] = (),
        lanes: int | None = None,
    ) -> "Batch":
        """Check what concerns all systems.

        Raises:
            InputError: no structures, something else than a structure, a name that no file can hold, an
                unknown option.
            PrecisionError: float64 is off.
        """
        require_x64()
        require_potential(potential)
        check_known(options)
        chosen = default_lanes() if lanes is None else whole("lanes", lanes, at_least=1)
        return cls(potential, by_name(structures), options, measure, finished, settings, chosen)

    def run(self, progress: Callable[[BatchProgress], None] | None = None) -> Iterator[Outcome]:
        """Every system once; those of one size in a row."""
        began = time.perf_counter()
        failed = computed = 0
        for done, (outcome, new) in enumerate(self._outcomes(), 1):
            computed += new
            failed += outcome.reason is not None
            if progress is not None:
                seconds = time.perf_counter() - began
                total = len(self.structures)
                progress(BatchProgress(done, total, failed, outcome.name, seconds, computed))
            yield outcome

    def _outcomes(self) -> Iterator[tuple[Outcome, bool]]:
        """Each with whether it was computed here, or found on disk."""
        left: dict[str, Structure] = {}
        for name, structure in self.structures.items():
            content = self.finished and self.finished.get(name, self._key(structure))
            if content:
                yield Outcome(name, None, content), False
            else:
                left[name] = structure
        yield from ((outcome, True) for outcome in self._computed(left))

    def _computed(self, structures: dict[str, Structure]) -> Iterator[Outcome]:
        potential = concrete(self.potential)
        buckets = Buckets.of(potential, [s.n_atoms for s in structures.values()])
        sound = []
        for name, structure in structures.items():
            try:
                plain = concrete(structure)
                check_elements(potential, plain)
                buckets.look_at(plain, self.options.get("skin"))
                sound.append(name)
            except MDSensError as error:
                yield self._kept(failure(name, error))
        order = sorted(sound, key=lambda name: -structures[name].n_atoms)
        for name in self._found(order, buckets):
            yield self._kept(self._one(name, buckets))

    def _found(self, order: list[str], buckets: Buckets) -> Iterator[str]:
        """Names of systems whose turn it is: with several lanes, those whose walk has come to its end."""
        if self.lanes == 1:
            yield from order
            return
        problems = {name: self._problem(name, buckets) for name in order}
        for name, ending in side_by_side(problems.items(), self.lanes):
            if isinstance(ending, Found):
                # where `relax` looks first
                remember(problems[name].inputs, problems[name].options, lambda ending=ending: ending)
            yield name

    def _problem(self, name: str, buckets: Buckets) -> RelaxationProblem:
        filled = buckets.filled(self.structures[name])
        capacity = buckets.capacity(filled.n_atoms)
        return problem_of(self.potential, filled, capacity=capacity, **self.options).plain

    def _one(self, name: str, buckets: Buckets) -> Outcome:
        filled = buckets.filled(self.structures[name])
        size = filled.n_atoms
        try:
            capacity = buckets.capacity(size)
            relaxed = relax(self.potential, filled, check_structure=False, capacity=capacity, **self.options)
            buckets.keep(size, relaxed.equilibrium.landscape.neighbors.capacity)
            return Outcome(name, relaxed, {**of_relaxed(relaxed), **self.measure(relaxed)})
        except MDSensError as error:
            return failure(name, error)

    def _kept(self, outcome: Outcome) -> Outcome:
        if self.finished is not None:
            key = self._key(self.structures[outcome.name])
            self.finished.put(outcome.name, key, concrete(dict(outcome.content)))
        return outcome

    def _key(self, structure: Structure) -> str:
        options = sorted(self.options.items(), key=lambda item: item[0])
        return key_of(concrete(self.potential), concrete(structure), repr(options), repr(self.settings))


def by_name(structures: Structures) -> dict[str, Structure]:
    """Structures by name; those of a list are named by their places in it.

    Raises:
        InputError: none, something else than a structure, or a name with a slash.
    """
    if isinstance(structures, Structure):
        raise InputError("a batch takes several structures: pass a list of them, or names to structures.")
    named = structures if isinstance(structures, Mapping) else dict(enumerate(structures))
    if not named:
        raise InputError("the batch has no structures: pass at least one.")
    hint = "mdsens.read_structure(path) and mdsens.Structure.from_ase(atoms) give one."
    found = {str(key): instance(f"the structure '{key}'", s, Structure, hint) for key, s in named.items()}
    for name in found:
        if not name or "/" in name or name == ".":
            raise InputError(f"'{name}' cannot name a structure: names are not empty and have no slash.")
    return found


def of_relaxed(relaxed: Relaxed) -> dict[str, Any]:
    """What is kept of a relaxed state, as `mdsens.write_hdf5` takes it."""
    energy, forces, stress = relaxed.evaluated
    return {
        "structure": relaxed.structure,
        "energy": Quantity(energy, "eV"),
        "forces": Quantity(forces, "eV/Å", "atoms, xyz"),
        "stress": Quantity(stress, "eV/Å³", "xyz, xyz; positive in tension"),
        "steps": relaxed.steps,
        "status": relaxed.status.value,
    }
