"""More molecular dynamics of alanine dipeptide with forces, by OpenMM: amber99sbildn, amber99_obc.

The solvent is implicit. No cutoff, no constraints, Langevin dynamics at 300 K with friction 1/ps and steps of
1 fs, a frame per ps. Written as it goes: what is there when the run is cut off stays, and --continue adds to
it. `pip install openmm` first; about 20 frames a second on one core.

    python workflows/alanine_dipeptide_data.py --frames 50000 --seed 1 --output results/alanine-dipeptide.h5

--phi DEGREES starts from, and --hold also restrains to, a value of the torsion phi: frames of the left-handed
basin (phi = 60), which free runs of 50 ns hardly ever visit. Their forces, without that of the restraint, are
as good as any for force matching; their frequencies are not those of equilibrium, so each gets the weight 0
in the likelihood: `mdsens flow train FRAMES.h5 --also THESE.h5`.
"""

import argparse
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from rich.progress import track

DATA = Path(__file__).parents[1] / "data"
TEMPERATURE, STEPS_PER_FRAME, KEEP = 300.0, 1000, 500  # K, fs, frames between writes
PHI = (4, 6, 8, 14)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--frames", type=int, default=10_000, help="frames in all, one per ps")
    parser.add_argument("--seed", type=int, default=1, help="of the bath and the first velocities")
    parser.add_argument(
        "--output", type=Path, default=Path("results/alanine-dipeptide.h5"), help="a new file"
    )
    parser.add_argument(
        "--continue", dest="resume", action="store_true", help="add to the file, from its last frame"
    )
    parser.add_argument("--phi", type=float, help="start from this value of phi, degrees")
    parser.add_argument("--hold", action="store_true", help="and restrain phi to it (50 kJ/mol/rad²)")
    options = parser.parse_args()
    if options.frames < 1:
        parser.error("--frames must be 1 or more")
    if options.hold and options.phi is None:
        parser.error("--hold needs --phi")
    if options.output.exists() and not options.resume:
        parser.error(f"{options.output} exists: choose another name, or --continue")
    run(options)


def run(options: argparse.Namespace) -> None:
    simulation, groups = prepare(options)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    done = 0
    if options.output.exists():
        with h5py.File(options.output) as file:
            last: Any = file["positions"]
            done = len(last)
            simulation.context.setPositions(last[-1].astype(float))
        simulation.context.setVelocitiesToTemperature(TEMPERATURE, options.seed + done)
        simulation.step(STEPS_PER_FRAME)
    names = ("positions", "forces", "potential_energy")
    kept: dict[str, list[Any]] = {name: [] for name in names}
    for frame in track(range(done, options.frames), description="frames"):
        simulation.step(STEPS_PER_FRAME)
        # in nm and kJ/mol, OpenMM's own units; without the restraint, which is in a group of its own
        state = simulation.context.getState(positions=True, forces=True, energy=True, groups=groups)
        kept["positions"].append(state.getPositions(asNumpy=True)._value)
        kept["forces"].append(state.getForces(asNumpy=True)._value)
        kept["potential_energy"].append(state.getPotentialEnergy()._value)
        if len(kept["positions"]) == KEEP or frame == options.frames - 1:
            kept["weights"] = [float(options.phi is None)] * len(kept["positions"])
            append(options.output, kept)
            kept = {name: [] for name in names}


def prepare(options: argparse.Namespace) -> tuple[Any, set[int]]:
    """A simulation that has settled for 50 ps, and the groups of forces that belong to the force field."""
    import openmm
    from openmm import app

    pdb = app.PDBFile(str(DATA / "alanine-dipeptide.pdb"))
    field = app.ForceField("amber99sbildn.xml", "amber99_obc.xml")
    system = field.createSystem(
        pdb.topology, nonbondedMethod=app.NoCutoff, constraints=None, rigidWater=False
    )
    if options.phi is not None:
        restraint = openmm.CustomTorsionForce(
            "0.5 * k * min(d, 2 * pi - d)^2; d = abs(theta - target); pi = 3.14159265358979"
        )
        restraint.addGlobalParameter("k", 500.0)
        restraint.addGlobalParameter("target", np.radians(options.phi))
        restraint.addTorsion(*PHI)
        restraint.setForceGroup(1)
        system.addForce(restraint)
    integrator = openmm.LangevinIntegrator(TEMPERATURE, 1.0, 1e-3)  # K, 1/ps, ps
    integrator.setRandomNumberSeed(options.seed)
    simulation = app.Simulation(
        pdb.topology, system, integrator, openmm.Platform.getPlatformByName("Reference")
    )
    simulation.context.setPositions(pdb.positions)
    simulation.minimizeEnergy()
    simulation.context.setVelocitiesToTemperature(TEMPERATURE, options.seed)
    simulation.step(50 * STEPS_PER_FRAME)
    if options.phi is not None:
        simulation.context.setParameter("k", 50.0 if options.hold else 0.0)
    return simulation, {0}


def append(path: Path, kept: dict[str, list[Any]]) -> None:
    """Add frames to the file's datasets."""
    units = {"positions": "nm", "forces": "kJ/mol/nm", "potential_energy": "kJ/mol", "weights": "1"}
    with h5py.File(path, "a") as file:
        file.attrs["temperature"], file.attrs["temperature_unit"] = TEMPERATURE, "K"
        for name, values in kept.items():
            new = np.asarray(values, np.float64 if name == "potential_energy" else np.float32)
            if name not in file:
                rest = new.shape[1:]
                file.create_dataset(
                    name, (0, *rest), new.dtype, maxshape=(None, *rest), chunks=True, compression="gzip"
                )
                file[name].attrs["unit"] = units[name]
            dataset: Any = file[name]
            dataset.resize(len(dataset) + len(new), axis=0)
            dataset[-len(new) :] = new


if __name__ == "__main__":
    main()
