"""Frames of a potential at a temperature, by molecular dynamics: constant volume, or constant pressure.

Replicas run side by side, each with noise of its own. What they do at first is not yet equilibrium: these
frames are left out, as many as it takes for the rest to hold the most independent samples of the energy, and
never fewer than a share that is asked for.
"""

from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import numpy as np

from mdsens.arrays import fingerprint
from mdsens.checks import number, whole
from mdsens.dynamics import SimulationProgress, Trajectory, langevin, npt
from mdsens.dynamics.recorded import Callback
from mdsens.ensembles.correlation import equilibrated_from
from mdsens.errors import InputError
from mdsens.io.files import check_free
from mdsens.potentials.base import Potential, require_potential
from mdsens.precision import require_x64
from mdsens.relaxation.coordinates import CellOption, strain_basis
from mdsens.structure import Structure, require_structure
from mdsens.thermal import files
from mdsens.thermal.ensemble import Ensemble
from mdsens.thermal.frames import Frames

LEFT_OUT = 0.1  # of the records, at least, that are taken for the way to equilibrium
FEWEST = 10  # records that must remain

__all__ = ["SimulationProgress", "of_trajectory", "sample"]


def sample(
    potential: Potential,
    structure: Structure,
    temperature: float,
    *,
    pressure: float | None = None,
    cell: CellOption = "isotropic",
    steps: int = 10_000,
    record_every: int = 20,
    replicas: int = 4,
    timestep: float = 1.0,
    friction: float = 5e-3,
    barostat_time: float = 500.0,
    equilibration: int | None = None,
    seed: int = 0,
    skin: float | None = None,
    progress: Callback | None = None,
    output: str | Path | None = None,
    overwrite: bool = False,
    resume: bool = False,
) -> Ensemble:
    """Sample a potential at constant volume, or at constant pressure, by Langevin dynamics.

    Args:
        structure: where all replicas start; fixed coordinates are held. Best relaxed first.
        temperature: K.
        pressure: eV/Å³ (1 GPa is 1 / 160.2 eV/Å³, `mdsens.units.GPA`); None holds the cell.
        cell: which strains the cell takes under the pressure, as for `mdsens.dynamics.npt`.
        steps: of the dynamics, for each replica; a multiple of `record_every`.
        record_every: steps between frames.
        replicas: independent runs side by side.
        timestep: fs. friction: 1/fs; more than a simulation would have, for nothing but averages is wanted.
        barostat_time: in which the cell answers, fs.
        equilibration: steps left out at the beginning; by default as many as the energy needs to settle.
        seed: of velocities and noise.
        skin: extra reach of the neighbor list, Å.
        progress: called about once a second, with `SimulationProgress`.
        output: a file (.h5) for the ensemble. A run that was cut off stands beside it until it has ended.
        overwrite: replace the file.
        resume: go on with a run that was cut off, to the same bits; if the file is there, read it, provided
            that it was sampled with the same settings.
    Returns:
        `Ensemble`, whose `average` gives averages with derivatives and error bars.
    Raises:
        InputError: a temperature that is not positive, too few records, a file to be read that was sampled
            with other settings, and what `langevin` and `npt` raise.
        NonFiniteError, TimestepError, CellCollapseError: as of `langevin` and `npt`.
        OutputExistsError: the file is there, and neither `overwrite` nor `resume` is given.
    """
    require_x64()
    require_potential(potential)
    require_structure(structure)
    T = number("temperature", temperature, "K", above=0.0)
    begin = _settling(equilibration, steps, record_every)
    run_file, done = _files(output, overwrite, resume)
    settings = {
        "temperature": T,
        "pressure": pressure,
        "cell": None if pressure is None else fingerprint([strain_basis(cell, structure)])[:16],
        "steps": steps,
        "record_every": record_every,
        "replicas": replicas,
        "timestep": timestep,
        "friction": friction,
        "barostat_time": None if pressure is None else barostat_time,
        "equilibration": equilibration,
        "seed": seed,
        "skin": skin,
        "start": _mark_of_structure(structure),
        "potential": _mark_of_potential(potential),
    }
    if done is not None:
        files.check_settings(done, settings)
        return Ensemble.from_hdf5(done, potential)
    options: dict[str, Any] = {
        "temperature": T,
        "steps": steps,
        "record_every": record_every,
        "replicas": whole("replicas", replicas, at_least=1),
        "timestep": timestep,
        "friction": friction,
        "seed": seed,
        "skin": skin,
        "progress": progress,
        "output": run_file,
        "overwrite": overwrite,
        "resume": resume,
    }
    if pressure is None:
        run = langevin(potential, structure, **options)
    else:
        under = {"pressure": pressure, "cell": cell, "barostat_time": barostat_time}
        run = npt(potential, structure, **options, **under)
    ensemble = of_trajectory(potential, run, begin)
    if output is not None:
        files.write(ensemble, output, overwrite or resume, settings)
        assert run_file is not None
        run_file.unlink(missing_ok=True)
    return ensemble


def _mark_of_structure(structure: Structure) -> str:
    """A text that differs where anything differs that decides how its atoms move."""
    charges = () if structure.charges is None else (structure.charges,)
    carried = (*charges, *structure.columns.values())
    atoms = (structure.species, structure.masses, structure.fixed)
    return fingerprint([structure.positions, structure.cell, *atoms, *carried], str(structure.pbc))[:16]


def _mark_of_potential(potential: Potential) -> str:
    numbers = jax.tree.leaves(eqx.filter(potential, eqx.is_array_like))
    return f"{type(potential).__name__} {fingerprint(numbers)[:16]}"


def _settling(equilibration: Any, steps: Any, record_every: Any) -> int | None:
    """Records to leave out at the beginning, if it is said how many."""
    n = whole("steps", steps, at_least=1) // whole("record_every", record_every, at_least=1)
    if n < 2 * FEWEST:
        raise InputError(
            f"steps = {steps} with record_every = {record_every} make {n} frames of each replica: averages "
            f"need {2 * FEWEST} or more."
        )
    if equilibration is None:
        return None
    begin = -(-whole("equilibration", equilibration) // record_every)
    if n - begin < FEWEST:
        raise InputError(
            f"equilibration = {equilibration} steps of {steps} leave {n - begin} frames of each replica: run "
            "longer, or leave out less."
        )
    return begin


def _files(output: Any, overwrite: bool, resume: bool) -> tuple[Path | None, Path | None]:
    """Where the run is kept until it has ended; and the ensemble, if it is there already."""
    if output is None:
        return None, None
    path = Path(output)
    if path.suffix.lower() not in (".h5", ".hdf5"):
        raise InputError(f"output = '{output}': ensembles are written in HDF5, end the name in .h5.")
    if resume and path.is_file():
        return None, path
    check_free(path, overwrite)
    return path.with_name(f"{path.stem}.run.h5"), None


def of_trajectory(potential: Potential, run: Trajectory, begin: int | None = None) -> Ensemble:
    """The records of a run in a bath as an ensemble.

    Args:
        begin: the first record that counts, 0 is the start; by default found from the energy.
    Raises:
        InputError: a run without a bath, or too few records.
    """
    if run.temperature is None or (run.friction is None and run.thermostat_time is None):
        raise InputError(
            "this run had no bath, so its frames have no temperature: use langevin, nvt_nose_hoover or npt."
        )
    if len(run.time) < 2 * FEWEST:
        raise InputError(f"{len(run.time)} records are too few for averages: {2 * FEWEST} or more.")
    replicas = run.positions.shape[1] if run.positions.ndim == 4 else 1
    lead = run.potential.reshape(len(run.time), replicas)
    if begin is None:
        least = int(np.ceil(LEFT_OUT * len(lead)))
        begin = max(least, equilibrated_from(lead))
    # the start itself is no record of the bath
    kept = slice(max(begin, 1), None)
    flat = lambda values: np.asarray(values)[kept].reshape(-1, *values.shape[run.potential.ndim :])
    structure = run.structures(0)[0]
    cells = np.asarray(structure.cell) if run.cell_velocity is None else flat(run.cell)
    positions = flat(run.positions)
    interval = float(run.time[1] - run.time[0])
    return Ensemble(
        potential,
        Frames(structure, positions, cells),
        flat(run.potential),
        float(run.temperature),
        run.pressure,
        replicas,
        np.zeros(len(positions)),
        interval,
        run.seed,
    )
