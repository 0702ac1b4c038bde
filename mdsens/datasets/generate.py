"""Data sets out of a potential: structures that are shaken or simulated, and what the potential says of them.

Sample number k of chain c draws its random numbers from (seed, c, k) alone, and a simulation goes on from the
last sample that was kept. A run that was cut off therefore ends with the same bits as one that was not.
"""

import dataclasses
import hashlib
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from mdsens.checks import instance, number, whole
from mdsens.datasets.dataset import Dataset, LabelledStructure
from mdsens.datasets.files import read_own, write_dataset
from mdsens.errors import FileFormatError, InputError
from mdsens.io.files import check_free
from mdsens.neighbors import Capacity
from mdsens.potentials.base import Potential, check_elements, require_potential
from mdsens.potentials.parameters import check_parameters, parameter_arrays
from mdsens.precision import require_x64
from mdsens.quantities import check_finite, evaluate, neighbors_of
from mdsens.structure import Structure, require_structure

SAVE_EVERY = 30.0  # s between two writings of the file


@dataclasses.dataclass(frozen=True)
class Rattle:
    """Shake atoms and cell: independent normal displacements, and normal strains.

    Attributes:
        amplitude: standard deviation of each coordinate, Å. Held coordinates stay.
        strain: standard deviation of each component of a symmetric strain; 0 leaves the cell.
    """

    amplitude: float = 0.1
    strain: float = 0.0

    def __post_init__(self) -> None:
        number("amplitude", self.amplitude, "Å", at_least=0.0)
        number("strain", self.strain, at_least=0.0, at_most=0.3)
        if self.amplitude == self.strain == 0:
            raise InputError("amplitude = 0 Å and strain = 0: nothing would move. Raise one of them.")

    @property
    def title(self) -> str:
        """What samples of it are called."""
        strain = f" and strained {self.strain:g}" if self.strain else ""
        return f"rattled {self.amplitude:g} Å{strain}"


@dataclasses.dataclass(frozen=True)
class Heat:
    """Molecular dynamics in a Langevin bath, of which a structure is kept now and then.

    Attributes:
        temperature: K.
        every: steps between two structures that are kept.
        equilibrate: steps before the first.
        timestep: fs.
        friction: 1/fs.
    """

    temperature: float
    every: int = 100
    equilibrate: int = 500
    timestep: float = 1.0
    friction: float = 1e-2

    def __post_init__(self) -> None:
        number("temperature", self.temperature, "K", above=0.0)
        number("timestep", self.timestep, "fs", above=0.0)
        number("friction", self.friction, "1/fs", above=0.0)
        whole("every", self.every, at_least=1)
        whole("equilibrate", self.equilibrate, at_least=1)

    @property
    def title(self) -> str:
        """What samples of it are called."""
        return f"{self.temperature:g} K"


class GenerationProgress(NamedTuple):
    """What a callback sees after each structure."""

    done: int
    wanted: int
    group: str
    energy_per_atom: float  # eV
    largest_force: float  # eV/Å


class _Chain(NamedTuple):
    """Samples that follow each other: one start, moved in one way."""

    number: int
    start: Structure
    move: Rattle | Heat


class _Point(NamedTuple):
    """Where a simulation stands after a sample; velocities in Å/fs."""

    positions: np.ndarray
    velocities: np.ndarray


def generate(
    potential: Potential,
    starts: Structure | Sequence[Structure],
    moves: Rattle | Heat | Sequence[Rattle | Heat],
    *,
    count: int,
    labelled_by: Potential | None = None,
    output: str | Path | None = None,
    resume: bool = False,
    overwrite: bool = False,
    seed: int = 0,
    save_every: float = SAVE_EVERY,
    progress: Callable[[GenerationProgress], None] | None = None,
) -> Dataset:
    """Sample structures, and label them with energy, forces and (where there is a volume) stress.

    For an ASE calculator pass `ms.from_ase(calculator, ...)`. Each start is moved in each way, `count`
    times; the group of a sample says how.

    Args:
        potential: moves the atoms of `Heat`.
        starts: structures to begin with.
        moves: how they are moved.
        count: structures for each start and move.
        labelled_by: what gives the labels; by default `potential`.
        output: an HDF5 file, written as the work goes on, and when it is interrupted.
        resume: go on from the file if it is there; ends with the same bits as a run never cut off.
        overwrite: replace the file.
        seed: of all random numbers.
        save_every: s between two writings.
        progress: called after each structure.
    Returns:
        The data set; `output` holds the same.
    Raises:
        InputError: nothing to do, unknown elements, or a file of another run.
        NonFiniteError: the potential left its range; what was done before is in the file.
        OutputExistsError: the file exists, and neither `resume` nor `overwrite` is given.
    """
    require_x64()
    chains = _chains(starts, moves)
    labels = require_potential(potential if labelled_by is None else labelled_by, "labelled_by")
    for form in (require_potential(potential), labels):
        check_parameters(form)
        for chain in chains:
            check_elements(form, chain.start)
    work = _Work(potential, labels, chains, whole("count", count, at_least=1), whole("seed", seed))
    file = None if output is None else _File(output, work.settings(), number("save_every", save_every, "s"))
    entries, point = ([], None) if file is None else file.begin(resume, overwrite)
    return Dataset(tuple(_fill(work, list(entries), point, file, progress)))


def _fill(
    work: "_Work",
    entries: list[LabelledStructure],
    point: _Point | None,
    file: "_File | None",
    progress: Callable[[GenerationProgress], None] | None,
) -> list[LabelledStructure]:
    wanted = work.count * len(work.chains)
    reached = len(entries), point  # one assignment: Ctrl-C never finds the two apart
    try:
        for k in range(len(entries), wanted):
            entry, point = work.sample(k, reached[1])
            entries.append(entry)
            reached = k + 1, point
            if file is not None:
                file.keep(entries, point, last=k + 1 == wanted)
            if progress is not None:
                progress(_seen(entry, k + 1, wanted))
    except BaseException:  # Ctrl-C as well
        if file is not None:
            file.save(entries[: reached[0]], reached[1])
        raise
    return entries


def _seen(entry: LabelledStructure, done: int, wanted: int) -> GenerationProgress:
    force = 0.0 if entry.forces is None else float(np.linalg.norm(entry.forces, axis=1).max())
    energy = (entry.energy or 0.0) / entry.structure.n_atoms
    return GenerationProgress(done, wanted, entry.group, energy, force)


def _chains(starts: Any, moves: Any) -> list[_Chain]:
    structures = [starts] if isinstance(starts, Structure) else list(starts)
    ways = [moves] if isinstance(moves, Rattle | Heat) else list(moves)
    if not structures or not ways:
        raise InputError(
            "there is nothing to generate: give a structure to start from, and a Rattle or Heat."
        )
    for way in ways:
        if not isinstance(way, Rattle | Heat):
            instance("a move", way, Rattle, "Write Rattle(amplitude=0.1) or Heat(temperature=300).")
    for start in structures:
        _check_strain(require_structure(start, "a start"), ways)
    pairs = [(start, way) for start in structures for way in ways]
    return [_Chain(k, start, way) for k, (start, way) in enumerate(pairs)]


def _check_strain(start: Structure, ways: list[Any]) -> None:
    if any(isinstance(way, Rattle) and way.strain for way in ways) and not all(start.pbc):
        raise InputError(
            f"a structure that is periodic along {sum(start.pbc)} of 3 vectors cannot be strained as a "
            "whole: use strain = 0 for it."
        )


@dataclasses.dataclass
class _Work:
    """All samples of a run, by number."""

    potential: Potential
    labels: Potential
    chains: list[_Chain]
    count: int
    seed: int

    def __post_init__(self) -> None:
        self.shapes: dict[int, Capacity] = {}

    def settings(self) -> dict[str, Any]:
        """What must be the same when a run goes on; `count` may grow if there is one chain."""
        starts = Dataset(tuple(LabelledStructure(chain.start) for chain in self.chains)).fingerprint()
        several = {"count": self.count} if len(self.chains) > 1 else {}
        return {
            "potential": _identity(self.potential),
            "labels": _identity(self.labels),
            "starts": starts,
            "moves": [repr(chain.move) for chain in self.chains],
            "seed": self.seed,
            **several,
        }

    def sample(self, k: int, point: _Point | None) -> tuple[LabelledStructure, _Point | None]:
        """Sample number k, out of where the simulation stands."""
        chain, place = self.chains[k // self.count], k % self.count
        if isinstance(chain.move, Rattle):
            structure = _rattled(
                chain.start, chain.move, np.random.default_rng([self.seed, chain.number, place])
            )
            return self._labelled(structure, chain, place), None
        structure, point = self._simulated(chain, chain.move, place, point if place else None)
        return self._labelled(structure, chain, place), point

    def _simulated(
        self, chain: _Chain, heat: Heat, place: int, point: _Point | None
    ) -> tuple[Structure, _Point]:
        from mdsens.dynamics import langevin

        # a whole number of 31 bits for each sample: the noise of one says nothing about that of another
        seed = int(np.random.default_rng([self.seed, chain.number, place]).integers(2**31))
        steps = heat.equilibrate if point is None else heat.every
        start = chain.start if point is None else chain.start.at(jnp.asarray(point.positions))
        run = langevin(
            self.potential,
            start,
            velocities=None if point is None else point.velocities,
            steps=steps,
            record_every=steps,
            temperature=heat.temperature,
            timestep=heat.timestep,
            friction=heat.friction,
            seed=seed,
        )
        return run.last_structure(), _Point(np.array(run.positions[-1]), np.array(run.velocities[-1]))

    def _labelled(self, structure: Structure, chain: _Chain, place: int) -> LabelledStructure:
        kept = self.shapes.get(structure.n_atoms)
        neighbors = neighbors_of(self.labels, structure, capacity=kept)
        self.shapes[structure.n_atoms] = neighbors.capacity
        found = evaluate(self.labels, structure, neighbors)
        check_finite(found, structure, neighbors)
        volume = abs(np.linalg.det(np.asarray(structure.cell)))
        return LabelledStructure(
            structure,
            float(found.energy),
            np.array(found.forces),
            np.array(found.stress) if volume > 0 else None,
            group=chain.move.title,
            origin=f"start {chain.number}, sample {place}",
        )


def _rattled(start: Structure, rattle: Rattle, rng: np.random.Generator) -> Structure:
    strain = rattle.strain * rng.normal(size=(3, 3))
    moved = rattle.amplitude * rng.normal(size=(start.n_atoms, 3))
    deformation = np.eye(3) + (strain + strain.T) / 2
    structure = start.deformed(jnp.asarray(deformation)) if rattle.strain else start
    # atoms that are held stay where the cell puts them
    moved = np.where(np.asarray(start.fixed), 0.0, moved)
    return structure.at(structure.positions + moved)


def _identity(potential: Potential) -> str:
    """Name of the form, and what tells its parameters from others."""
    digest = hashlib.sha256()
    for array in parameter_arrays(potential):
        digest.update(array.name.encode() + np.ascontiguousarray(array.values).tobytes())
    return f"{type(potential).__name__} {digest.hexdigest()[:16]}"


class _File:
    """Where a run is kept, and what must be the same when it goes on."""

    def __init__(self, path: str | Path, settings: dict[str, Any], every: float):
        self.path = Path(path)
        if self.path.suffix.lower() not in (".h5", ".hdf5"):
            raise InputError(f"'{path}': a data set that is generated is kept in HDF5: end its name in .h5.")
        self.settings = json.loads(json.dumps(settings))
        self.every, self.saved = every, time.monotonic()

    def begin(self, resume: bool, overwrite: bool) -> tuple[tuple[LabelledStructure, ...], _Point | None]:
        """What is there already."""
        if not (resume and self.path.exists()):
            check_free(self.path, overwrite)
            return (), None
        data, content = read_own(self.path)
        state = content.get("generation")
        if state is None:
            raise FileFormatError(
                f"'{self.path}' is a data set that was not generated here: there is nothing to go on from. "
                "Write into another file."
            )
        self._check(json.loads(state["settings"]))
        point = _Point(state["positions"].value, state["velocities"].value) if "positions" in state else None
        return data.entries, point

    def keep(self, entries: list[LabelledStructure], point: _Point | None, last: bool) -> None:
        """Write, if it is time."""
        if last or time.monotonic() - self.saved > self.every:
            self.save(entries, point)

    def save(self, entries: list[LabelledStructure], point: _Point | None) -> None:
        """Write all there is."""
        from mdsens.io.hdf5 import Quantity

        if not entries:
            return
        state: dict[str, Any] = {"settings": json.dumps(self.settings)}
        if point is not None:
            state |= {
                "positions": Quantity(point.positions, "Å"),
                "velocities": Quantity(point.velocities, "Å/fs"),
            }
        write_dataset(self.path, Dataset(tuple(entries)), more={"generation": state}, overwrite=True)
        self.saved = time.monotonic()

    def _check(self, known: dict[str, Any]) -> None:
        for name, value in self.settings.items():
            if known.get(name) != value:
                raise InputError(
                    f"'{self.path}' is of another run: its {name} is {known.get(name)}, and here {value}. "
                    "Write into another file, or begin anew (overwrite=True, --overwrite)."
                )
