"""What was asked for in a simulation, checked: atoms and where they start, velocities, numbers of the run."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from mdsens.checks import number, whole
from mdsens.dynamics.barostat import Barostat, orthonormal_strains
from mdsens.dynamics.energies import InElectronvolts, SinglePrecision, as_energy
from mdsens.dynamics.freedom import count_freedom, without_rotation
from mdsens.dynamics.steps import Resting, Scales, System, Thermostats
from mdsens.dynamics.trajectory import Trajectory
from mdsens.errors import InputError, NonFiniteError
from mdsens.neighbors import find_neighbors
from mdsens.potentials.base import Potential, check_elements
from mdsens.potentials.parameters import check_parameters
from mdsens.strain import volume_of
from mdsens.structure import Structure
from mdsens.units import ACCELERATION, BOLTZMANN

TOO_CLOSE = 0.3  # Å: nuclei do not come that near; those of H2 are 0.74 Å apart
FEW = 64  # atoms up to which all distances are looked at, instead of searching neighbors
SKIN = 0.1  # of the cutoff, unless told


@dataclasses.dataclass(frozen=True)
class Choices:
    """What a call of `nve`, `langevin`, ... chose, as it was passed in; `nve` says what each is."""

    steps: Any
    record_every: Any
    timestep: Any
    temperature: Any
    velocities: Any
    masses: Any
    replicas: Any
    skin: Any
    seed: Any


@dataclasses.dataclass(frozen=True)
class Environment:
    """What a run is coupled to: nothing, a bath, a chain of thermostats, or a bath and a pressure."""

    friction: float | None = None  # of the bath, 1/fs
    thermostat_time: float | None = None  # of a chain of Nose and Hoover, fs
    pressure: float | None = None  # eV/Å³
    barostat_time: float = 1.0  # fs
    cell: Any = None  # which strains the cell takes under the pressure

    @property
    def needs_heat(self) -> bool:
        """A chain and a barostat have masses in proportion to kT."""
        return self.thermostat_time is not None or self.pressure is not None


@dataclasses.dataclass(frozen=True)
class Run:
    """Numbers of a run."""

    steps: int
    every: int
    timestep: float  # fs
    temperature: float | None  # K
    environment: Environment
    seed: int
    skin: float  # Å
    begun: float = 0.0  # fs, the time of the start


@dataclasses.dataclass(frozen=True)
class Setup:
    """Everything that a simulation starts from.

    Attributes:
        system: what moves.
        positions: Å.
        velocities: Å/fs.
        cells: Å; zeros without a cell.
        cell_velocities: of cells that move, 1/fs.
        strains: free ones of a cell that moves, orthogonal and of norm 1.
        run: numbers of the run.
        single: one run, whose results have no axis for replicas.
        topology: PDB text, if known.
    """

    system: System
    positions: Float[np.ndarray, "replicas atoms 3"]
    velocities: Float[np.ndarray, "replicas atoms 3"]
    cells: Float[np.ndarray, "replicas 3 3"]
    cell_velocities: Float[np.ndarray, "replicas 3 3"]
    strains: Float[np.ndarray, "strains 3 3"]
    run: Run
    single: bool
    topology: str

    @property
    def species(self) -> tuple[int, ...]:
        """Atomic numbers."""
        return tuple(int(z) for z in np.asarray(self.system.structure.species))

    @property
    def masses(self) -> Float[np.ndarray, " atoms"]:
        """u."""
        return np.asarray(self.system.structure.masses)

    @property
    def uses_neighbors(self) -> bool:
        """Whether the energy looks at a list of neighbors."""
        return getattr(self.system.potential, "uses_neighbors", True)

    @property
    def electronvolt(self) -> float:
        """One eV in u Å² / timestep², the unit of energy of the integrator."""
        return ACCELERATION * self.run.timestep**2

    @property
    def kT(self) -> float:
        """Of the bath, u Å² / timestep²; zero without a temperature."""
        return BOLTZMANN * (self.run.temperature or 0.0) * self.electronvolt

    @property
    def scales(self) -> Scales:
        """Numbers of the run, for the integrator."""
        environment, timestep = self.run.environment, self.run.timestep
        friction, time = environment.friction, environment.thermostat_time
        return Scales(
            electronvolt=jnp.asarray(self.electronvolt),
            kT=jnp.asarray(self.kT),
            friction=None if friction is None else jnp.asarray(friction * timestep),
            chain=None if time is None else Thermostats(jnp.asarray(time / timestep)),
            barostat=None if environment.pressure is None else self._barostat(environment.pressure),
        )

    def _barostat(self, pressure: float) -> Barostat:
        # W = (n + 3) kT time² / 3: alone, with volume and pressure of an ideal gas, a cell swings about once
        # in that time
        time = self.run.environment.barostat_time / self.run.timestep
        free = int((~np.asarray(self.system.structure.fixed)).sum())
        return Barostat(
            pressure=jnp.asarray(pressure * self.electronvolt),
            mass=jnp.asarray((free + 3) * self.kT * time**2 / 3),
            friction=jnp.asarray(1 / time),
            strains=jnp.asarray(self.strains),
        )

    @property
    def rest(self) -> Resting:
        """The atoms without their momenta."""
        x = jnp.asarray(self.positions)
        masses = jnp.tile(self.system.structure.masses[:, None], (len(x), 1, 1))
        return Resting(x, masses, self.keys, jnp.asarray(self.cells), self.freedom)

    @property
    def freedom(self) -> int:
        """Coordinates that the temperature counts."""
        structure = self.system.structure
        return count_freedom(
            self.masses, np.asarray(structure.fixed), structure.pbc, self.positions, self.velocities
        )

    @property
    def momenta(self) -> Float[np.ndarray, "replicas atoms 3"]:
        """u Å / timestep."""
        return self.masses[:, None] * self.velocities * self.run.timestep

    @property
    def keys(self) -> Array:
        """Random numbers of each replica; they do not depend on how many there are."""
        replicas = range(len(self.positions))
        words = np.array([(self.run.seed, k) for k in replicas], np.uint32)
        return jax.random.wrap_key_data(jnp.asarray(words), impl="threefry2x32")

    def of(self, replica: int) -> str:
        """The words that name a replica, where there are several."""
        return "" if self.single else f" of replica {replica}"


def prepare(system: Any, start: Any, choices: Choices, environment: Environment) -> Setup:
    """Check everything that was passed to `nve`, `langevin`, ...

    Raises:
        InputError: shapes or numbers that do not fit, atoms that the system does not know, a pressure on
            something without a cell that could follow.
        NonFiniteError: positions or velocities that are not finite.
    """
    energy = as_energy(system)
    begun, flows = 0.0, None
    if isinstance(start, Trajectory):
        begun, flows = float(start.time[-1]), start.cell_velocity
        start, choices = _going_on(energy, start, choices, environment)
    if isinstance(energy, InElectronvolts):
        structure, positions = _molecule(energy, start, choices.masses)
        cells = np.asarray(structure.cell)[None]
        if choices.temperature is None:
            choices = dataclasses.replace(choices, temperature=energy.reduced.temperature)
    else:
        structure, positions, cells = _crystal(energy, start, choices.masses, environment)
    strains = _strains(energy, structure, environment)
    run = _run(choices, environment, _skin(energy, choices.skin), begun)
    n, single = structure.n_atoms, positions.ndim == 2 and choices.replicas is None
    shape = positions.shape
    frames = _with_replicas(positions, "positions", "Å", n, single)
    if choices.replicas is not None:
        frames = _repeated(frames, whole("replicas", choices.replicas, at_least=1))
    cells = np.broadcast_to(cells, (len(frames), 3, 3))
    _check_distances(structure, frames, cells, single)
    if choices.velocities is None:
        drawn = _drawn(structure, frames, run)
    else:
        drawn = _given(choices.velocities, shape, frames, structure, single)
    flows = _flows(flows, cells, environment)
    known = System(energy, structure, _has_stress(energy, structure))
    topology = getattr(system, "topology", "")
    return Setup(known, frames, drawn, cells, flows, strains, run, single, topology)


def _strains(energy: Any, structure: Structure, environment: Environment) -> np.ndarray:
    if environment.pressure is None:
        return np.zeros((0, 3, 3))
    if isinstance(energy, InElectronvolts):
        raise InputError(
            "a pressure acts on the cell of a periodic structure, and a reduced energy has none. Move it "
            "with nve or langevin."
        )
    strains = orthonormal_strains(environment.cell, structure)
    if environment.pressure and not float(volume_of(structure.cell)) > 0:
        raise InputError(
            f"pressure = {environment.pressure:g} eV/Å³ acts on a volume, and the cell lacks a vector: it "
            "has none. Give the cell a vector along the open direction, or pressure=0."
        )
    return strains


def _has_stress(energy: Any, structure: Structure) -> bool:
    periodic = any(structure.pbc) and float(volume_of(structure.cell)) > 0
    return periodic and not isinstance(energy, InElectronvolts)


def _flows(
    recorded: np.ndarray | None, cells: np.ndarray, environment: Environment
) -> Float[np.ndarray, "replicas 3 3"]:
    """How the cells move at the start, 1/fs: as in the run that goes on, or not at all."""
    if recorded is None or environment.pressure is None:
        return np.zeros(cells.shape)
    return np.broadcast_to(recorded[-1], cells.shape)


def _going_on(
    energy: Any, trajectory: Trajectory, choices: Choices, environment: Environment
) -> tuple[Any, Choices]:
    """The last record of a trajectory as a start; what the call does not choose stays as it was."""
    noise = environment.friction is not None and trajectory.friction is not None
    if noise and choices.seed == trajectory.seed:
        raise InputError(
            f"seed = {choices.seed}: the run that this one goes on from had the same, so the same noise "
            "would come again. Give another seed."
        )
    known = {
        "velocities": trajectory.velocities[-1],
        "masses": trajectory.masses,
        "temperature": trajectory.temperature,
    }
    kept = {name: value for name, value in known.items() if getattr(choices, name) is None}
    choices = dataclasses.replace(choices, **kept)
    if isinstance(energy, InElectronvolts):
        return trajectory.positions[-1], choices
    if trajectory.positions.ndim == 3:
        return trajectory.last_structure(), choices
    replicas = range(trajectory.positions.shape[1])
    return [trajectory.last_structure(replica) for replica in replicas], choices


def _run(choices: Choices, environment: Environment, skin: float, begun: float) -> Run:
    steps = whole("steps", choices.steps, at_least=1)
    every = whole("record_every", choices.record_every, at_least=1)
    timestep = number("timestep", choices.timestep, "fs", above=0.0)
    temperature = choices.temperature
    if steps % every:
        raise InputError(
            f"steps = {steps} is no multiple of record_every = {every}: the run would not end with a record. "
            f"Take {-(-steps // every) * every} steps."
        )
    if temperature is not None:
        temperature = number("temperature", temperature, "K", at_least=0.0)
    if environment.needs_heat:
        temperature = number("temperature", temperature, "K, of the bath", above=0.0)
    seed = whole("seed", choices.seed)
    if seed >= 2**32:
        raise InputError(f"seed = {seed}: it must be a number from 0 to 2³² - 1.")
    return Run(steps, every, timestep, temperature, environment, seed, skin, begun)


def _skin(energy: Any, skin: float | None) -> float:
    cutoff = float(energy.cutoff)
    if not np.isfinite(cutoff):
        return 0.0
    return SKIN * cutoff if skin is None else number("skin", skin, "Å", above=0.0)


def _molecule(energy: InElectronvolts, start: Any, masses: Any) -> tuple[Structure, np.ndarray]:
    """Atoms of a reduced energy, and where they start."""
    species = energy.reduced.species
    if isinstance(start, Structure):
        found = tuple(int(z) for z in np.asarray(start.species))
        if found != tuple(species) or any(start.pbc):
            raise InputError(
                f"the structure has the atoms {found}, periodic along {start.pbc}, and the system is a free "
                f"molecule of {tuple(species)}: give the same atoms in the same order, and pbc=False."
            )
        masses = np.asarray(start.masses) if masses is None else masses
        return _with_masses(start, masses), np.asarray(start.positions)
    n = len(species)
    places = Structure.create(np.arange(3.0 * n).reshape(n, 3), species)
    return _with_masses(places, masses), np.asarray(start, float)


def _crystal(
    energy: Any, start: Any, masses: Any, environment: Environment
) -> tuple[Structure, np.ndarray, np.ndarray]:
    """Atoms of a potential, where they start, and in which cells: one structure, or several as replicas."""
    several = isinstance(start, Sequence) and len(start) > 0
    structures: list[Any] = list(start) if several else [start]
    if not all(isinstance(structure, Structure) for structure in structures):
        raise InputError(
            f"{type(energy).__name__} moves the atoms of a mdsens.Structure, or of a list of them, not "
            f"{type(start).__name__}: give Structure.create(positions, species, cell), or "
            "Structure.from_ase(atoms)."
        )
    first = structures[0]
    for k, other in enumerate(structures):
        if not _alike(first, other, cells=environment.pressure is None):
            raise InputError(
                f"structures 0 and {k} differ in more than positions: replicas have the same atoms, cell and "
                "fixed coordinates. Move them in runs of their own."
            )
    potential = energy.potential if isinstance(energy, SinglePrecision) else energy
    if isinstance(potential, Potential):
        check_parameters(potential)
        check_elements(potential, first)
    positions = [np.asarray(structure.positions, float) for structure in structures]
    cells = np.stack([np.asarray(structure.cell, float) for structure in structures])
    return _with_masses(first, masses), np.stack(positions) if several else positions[0], cells


def _alike(one: Structure, other: Structure, cells: bool) -> bool:
    names = ("species", "masses", "fixed", "charges", *(["cell"] if cells else []))
    values = ((np.asarray(getattr(one, name)), np.asarray(getattr(other, name))) for name in names)
    same = [np.array_equal(mine, theirs) for mine, theirs in values]
    return all(same) and one.pbc == other.pbc and _same_columns(one.columns, other.columns)


def _same_columns(mine: Mapping[str, Any], theirs: Mapping[str, Any]) -> bool:
    return mine.keys() == theirs.keys() and all(np.array_equal(mine[name], theirs[name]) for name in mine)


def _with_masses(structure: Structure, masses: Any) -> Structure:
    m = np.asarray(structure.masses if masses is None else masses, float)
    if m.shape != (structure.n_atoms,) or not (m > 0).all():
        raise InputError(
            f"masses of shape {m.shape}, the smallest {m.min(initial=np.inf):g} u: give {structure.n_atoms} "
            "positive ones."
        )
    return dataclasses.replace(structure, masses=jnp.asarray(m))


def _with_replicas(value: Any, name: str, unit: str, n: int, single: bool) -> np.ndarray:
    array = np.asarray(value, float)
    if array.ndim not in (2, 3) or array.shape[-2:] != (n, 3) or not array.size:
        raise InputError(
            f"{name} have the shape {array.shape}: give ({n}, 3) or (replicas, {n}, 3), in {unit}, for the "
            f"system's {n} atoms."
        )
    array = array.reshape(-1, n, 3)
    if not np.isfinite(array).all():
        replica, atom = np.argwhere(~np.isfinite(array).all(-1))[0]
        of = "" if single else f" of replica {replica}"
        raise NonFiniteError(f"{name}: atom {atom}{of} has {array[replica, atom]} {unit}.")
    return array


def _repeated(frames: np.ndarray, replicas: int) -> np.ndarray:
    if len(frames) not in (1, replicas):
        raise InputError(
            f"replicas = {replicas}, and {len(frames)} frames to start from: give one, or as many."
        )
    return np.tile(frames, (replicas // len(frames), 1, 1))


def _given(
    velocities: Any, shape: tuple[int, ...], frames: np.ndarray, structure: Structure, single: bool
) -> np.ndarray:
    """Velocities as they were passed in; held coordinates have none."""
    if np.shape(velocities) not in (shape, frames.shape):
        raise InputError(
            f"velocities have the shape {np.shape(velocities)}, positions {shape}: they must be the same."
        )
    v = _with_replicas(velocities, "velocities", "Å/fs", structure.n_atoms, single)
    held = np.broadcast_to(np.asarray(structure.fixed), v.shape) & (v != 0)
    if held.any():
        replica, atom, _ = np.argwhere(held)[0]
        raise InputError(
            f"atom {atom} is fixed and has the velocity {v[replica, atom]} Å/fs: set it to zero along the "
            "fixed coordinates, or let the atom move (fixed=False)."
        )
    return np.broadcast_to(v, frames.shape).copy()


def _drawn(
    structure: Structure, frames: Float[np.ndarray, "replicas atoms 3"], run: Run
) -> Float[np.ndarray, "replicas atoms 3"]:
    # Maxwell: each component is normal with the variance kT / m. Without a bath of noise the total momentum
    # stays what it is: take away the velocity of the center of mass, which leaves 3 n - 3 components of the
    # temperature asked for. (jax-md takes the same momentum from each atom, which heats hydrogens: by a
    # fifth in alanine dipeptide.) Along an axis in which atoms are held, momentum is not conserved anyway.
    if run.temperature is None:
        raise InputError("velocities are drawn at a temperature: give temperature= in K, or velocities=.")
    masses, held = np.asarray(structure.masses), np.asarray(structure.fixed)
    shape = (structure.n_atoms, 3)
    generators = [np.random.default_rng((run.seed, k)) for k in range(len(frames))]
    normal = np.stack([generator.normal(size=shape) for generator in generators])
    spread = np.sqrt(BOLTZMANN * run.temperature * ACCELERATION / masses)
    velocities = np.where(held, 0.0, normal * spread[:, None])
    if run.environment.friction is not None or structure.n_atoms == 1:
        return velocities
    center = np.average(velocities, axis=1, weights=masses)[:, None]
    velocities = velocities - np.where(held.any(0), 0.0, center)
    # A chain of thermostats scales all momenta alike: a cluster would turn about one axis for ever.
    if run.environment.thermostat_time is not None and not any(structure.pbc) and not held.any():
        return without_rotation(masses, frames, velocities)
    return velocities


def _check_distances(structure: Structure, frames: np.ndarray, cells: np.ndarray, single: bool) -> None:
    for replica, (frame, cell) in enumerate(zip(frames, cells, strict=True)):
        i, j, distance = _closest(structure.at(structure.positions, jnp.asarray(cell)), frame)
        if distance < TOO_CLOSE:
            of = "" if single else f" of replica {replica}"
            raise InputError(
                f"atoms {i} and {j}{of} are {distance:.3g} Å apart, below {TOO_CLOSE} Å, where no nuclei "
                "come. If these positions are in nm, as those of mdtraj, multiply them by 10."
            )


def _closest(structure: Structure, frame: np.ndarray) -> tuple[int, int, float]:
    """Two atoms that are closer than TOO_CLOSE, if there are any; else the distance is inf."""
    if len(frame) <= FEW and not any(structure.pbc):
        i, j = np.triu_indices(len(frame), 1)
        vectors = frame[j] - frame[i]
    else:
        moved = structure.at(jnp.asarray(frame))
        near = find_neighbors(moved, TOO_CLOSE)
        valid = np.asarray(near.valid)
        i = np.asarray(near.i)[valid]
        j = np.asarray(near.j)[valid]
        vectors = np.asarray(near.vectors(moved))[valid]
    if not len(i):
        return 0, 0, np.inf
    distances = np.linalg.norm(vectors, axis=1)
    k = int(np.argmin(distances))
    first, second = sorted((int(i[k]), int(j[k])))
    return first, second, float(distances[k])
