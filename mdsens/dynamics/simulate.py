"""Molecular dynamics of crystals and clusters under a potential, and of molecules under a flow.

The equation of motion is

    m d²x/dt² = -dE/dx.

Runs without a bath (`nve`) are the sharpest test there is of a force field: velocity Verlet conserves the
total energy up to an oscillation of the order of timestep², as long as forces are smooth. Where they jump, as
those of splines do at every knot, each jump leaves an error of its own, and the total energy walks away.

The integrators are jax-md's, and for a cell that moves `mdsens.dynamics.barostat`. Steps run compiled, all
replicas at once; the host (`mdsens.dynamics.host`) looks at what was recorded in between, and searches
neighbors when atoms have used up the skin of their list.
"""

from pathlib import Path
from typing import Any

from mdsens.checks import number
from mdsens.dynamics.host import Simulation
from mdsens.dynamics.notes import Keep
from mdsens.dynamics.recorded import Callback
from mdsens.dynamics.setup import Choices, Environment, prepare
from mdsens.dynamics.trajectory import Trajectory
from mdsens.precision import require_x64
from mdsens.relaxation.coordinates import CellOption


def nve(
    system: Any,
    positions: Any,
    *,
    steps: int,
    velocities: Any = None,
    temperature: float | None = None,
    timestep: float = 1.0,
    record_every: int = 10,
    seed: int = 0,
    masses: Any = None,
    replicas: int | None = None,
    skin: float | None = None,
    progress: Callback | None = None,
    output: str | Path | None = None,
    overwrite: bool = False,
    resume: bool = False,
    note_every: float = 60.0,
) -> Trajectory:
    """Move atoms at constant energy, by velocity Verlet.

    Computed in float64. Compiled once for a system and a number of replicas; importing jax-md takes seconds,
    at the first use. To go on where a run ended, pass its `Trajectory` as positions (`Trajectory.from_hdf5`
    reads one). ASE takes the same steps with `ase.md.verlet.VelocityVerlet` and `MDSens` or
    `FlowCalculator`.

    A run that ends early, by Ctrl-C or by an error (of `progress`, say), is written to `output` up to the
    last record, and is the `partial` of the exception.

    Args:
        system: any potential of mdsens; a `BoltzmannGenerator`, a reduced potential, or `Movable`, made of
            any energy function.
        positions: for a potential a `Structure`, periodic or not, or a list of them, the replicas; fixed
            coordinates are held. For the others positions (atoms, 3), or (replicas, atoms, 3) for several
            runs at once; Å. Best from an equilibrium sample. A `Trajectory` goes on from its last record,
            with its velocities, masses and temperature.
        steps: how many; a multiple of `record_every`.
        velocities: as the positions, Å/fs, used as they are. Unless given, drawn from the Maxwell
            distribution, with the center of mass at rest if no coordinate is fixed.
        temperature: of the velocities that are drawn, K; unless told that of the system, if it has one.
        timestep: fs. A bond to hydrogen swings in 9 fs: take 1 fs at most.
        record_every: steps between records.
        seed: of the velocities. What a replica draws does not depend on how many there are.
        masses: (atoms,), u; unless told those of the structure, or the standard atomic weights.
        replicas: runs from one start, each with velocities of its own.
        skin: extra reach of the neighbor list, Å; unless told a tenth of the cutoff.
        progress: called about once a second.
        output: a file for the trajectory, as `Trajectory.write` names them; written when the run ends, in
            whatever way.
        overwrite: replace the file if it exists.
        resume: go on with a run that was cut off, if there is one: same call, same output. It ends with the
            bits of a run that never was. `steps` may be more than before.
        note_every: s between notes on where the run stands, in the folder OUTPUT.unfinished, which is
            removed in the end: all that a killed process loses.
    Returns:
        `Trajectory`, the start included; `drift()` tells how well the energy was conserved.
    Raises:
        InputError: shapes or numbers that do not fit, atoms without parameters.
        NonFiniteError: energy or forces became NaN or infinite, or atoms fly apart. `partial` is the
            trajectory up to the record before.
        TimestepError: the conserved energy runs away: the timestep is too large.
        OutputExistsError: there is a file `output`, or a run that was cut off, and `overwrite` is False.
        PrecisionError: float64 is off.
    """
    require_x64()
    choices = Choices(steps, record_every, timestep, temperature, velocities, masses, replicas, skin, seed)
    setup = prepare(system, positions, choices, Environment())
    return Simulation(setup, _keep(output, overwrite, resume, note_every)).run(progress)


def langevin(
    system: Any,
    positions: Any,
    *,
    steps: int,
    friction: float = 1e-3,
    velocities: Any = None,
    temperature: float | None = None,
    timestep: float = 1.0,
    record_every: int = 10,
    seed: int = 0,
    masses: Any = None,
    replicas: int | None = None,
    skin: float | None = None,
    progress: Callback | None = None,
    output: str | Path | None = None,
    overwrite: bool = False,
    resume: bool = False,
    note_every: float = 60.0,
) -> Trajectory:
    """Move atoms in a bath, by Langevin's equation: in the long run a sample of the Boltzmann distribution.

    Arguments, result and errors are those of `nve`, except:

    Args:
        friction: 1/fs; 1e-3 is one per ps. The center of mass feels bath and friction too: the molecule
            diffuses.
        temperature: of the bath, K; unless told that of the system, if it has one.
        seed: of velocities and noise. A run that goes on from another one needs another seed, and is refused
            with the same.
    Source: the splitting BAOAB of Leimkuhler and Matthews, Appl. Math. Res. eXpress 2013, 34 (2013), as
    jax-md has it.
    """
    require_x64()
    friction = number("friction", friction, "1/fs; without friction use nve", above=0.0)
    choices = Choices(steps, record_every, timestep, temperature, velocities, masses, replicas, skin, seed)
    setup = prepare(system, positions, choices, Environment(friction))
    if setup.run.temperature is None:
        number("temperature", None, "K, of the bath")
    return Simulation(setup, _keep(output, overwrite, resume, note_every)).run(progress)


def nvt_nose_hoover(
    system: Any,
    positions: Any,
    *,
    steps: int,
    thermostat_time: float = 100.0,
    velocities: Any = None,
    temperature: float | None = None,
    timestep: float = 1.0,
    record_every: int = 10,
    seed: int = 0,
    masses: Any = None,
    replicas: int | None = None,
    skin: float | None = None,
    progress: Callback | None = None,
    output: str | Path | None = None,
    overwrite: bool = False,
    resume: bool = False,
    note_every: float = 60.0,
) -> Trajectory:
    """Move atoms at a constant temperature without noise, by a chain of Nose-Hoover thermostats.

    Atoms move as by themselves but for a common factor, so that what they do in time (diffusion, spectra) is
    disturbed less than by `langevin`. Something as harmonic as a cold crystal may not visit everything it
    should: then take `langevin`. Arguments, result and errors are those of `nve`, except:

    Args:
        thermostat_time: in which the chain acts, fs; a hundred timesteps are usual.
        temperature: of the bath, K; unless told that of the system, if it has one. It is that of the
            coordinates that share the kinetic energy (`Trajectory.freedom`): the center of mass rests, and a
            free cluster does not turn, unless `velocities` say otherwise.
    Source: Martyna, Klein, Tuckerman, J. Chem. Phys. 97, 2635 (1992); Tuckerman et al., J. Phys. A 39, 5629
    (2006), as jax-md has it, with three thermostats.
    """
    require_x64()
    time = number("thermostat_time", thermostat_time, "fs", above=0.0)
    choices = Choices(steps, record_every, timestep, temperature, velocities, masses, replicas, skin, seed)
    setup = prepare(system, positions, choices, Environment(thermostat_time=time))
    return Simulation(setup, _keep(output, overwrite, resume, note_every)).run(progress)


def npt(
    system: Any,
    positions: Any,
    *,
    steps: int,
    pressure: float = 0.0,
    cell: CellOption = "isotropic",
    friction: float = 1e-3,
    barostat_time: float = 500.0,
    velocities: Any = None,
    temperature: float | None = None,
    timestep: float = 1.0,
    record_every: int = 10,
    seed: int = 0,
    masses: Any = None,
    replicas: int | None = None,
    skin: float | None = None,
    progress: Callback | None = None,
    output: str | Path | None = None,
    overwrite: bool = False,
    resume: bool = False,
    note_every: float = 60.0,
) -> Trajectory:
    """Move atoms and their cell at constant temperature and pressure.

    Atoms and cell are each in a Langevin bath; in the long run a sample of exp(-(E + pressure V) / kT). The
    `cell` of the trajectory has one for each record. Arguments, result and errors are those of `nve`, except:

    Args:
        positions: a periodic `Structure`, or a list of them; cells of replicas may differ.
        pressure: eV/Å³; 1 GPa is 1 / 160.2 eV/Å³ (`mdsens.units.GPA`). Positive compresses.
        cell: which strains the cell takes: "isotropic" (its shape stays), "full", or six bools in Voigt order
            xx yy zz yz xz xy. A liquid resists no shear: under "full" its cell flattens in the end.
        friction: of the atoms' bath, 1/fs.
        barostat_time: in which the cell answers, fs: its mass is in proportion to the square of it, its
            friction is one over it.
        temperature: of both baths, K.
        seed: of velocities and noise, as for `langevin`.
    Raises:
        InputError: also where no cell can follow: a cluster, a slab pressed along its open direction, atoms
            held in a direction in which the cell moves.
        CellCollapseError: the volume became many times larger or smaller, or the cell flat. `partial` is the
            trajectory up to there.
    Source: see `mdsens.dynamics.barostat`.
    """
    require_x64()
    friction = number("friction", friction, "1/fs", above=0.0)
    time = number("barostat_time", barostat_time, "fs", above=0.0)
    pressure = number("pressure", pressure, "eV/Å³")
    choices = Choices(steps, record_every, timestep, temperature, velocities, masses, replicas, skin, seed)
    environment = Environment(friction, pressure=pressure, barostat_time=time, cell=cell)
    setup = prepare(system, positions, choices, environment)
    return Simulation(setup, _keep(output, overwrite, resume, note_every)).run(progress)


def _keep(output: str | Path | None, overwrite: bool, resume: bool, note_every: float) -> Keep:
    every = number("note_every", note_every, "s", at_least=0.0)
    return Keep(output, overwrite, bool(resume), every)
