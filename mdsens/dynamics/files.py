"""Trajectories as files: HDF5 in the layout of mdtraj, and what other programs read, chosen by the ending.

The HDF5 file has two parts. At its root are the datasets of mdtraj's convention (nm, ps, kJ/mol, float32, one
after another if there are replicas: all of the first record, then all of the second), which `mdtraj.load` and
`mdsens.flows.read_force_data` read. The group `mdsens` has the same to the last bit, in Å, fs and eV.

Source: the HDF5 format of mdtraj, convention "Pande" 1.1.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mdsens.checks import existing_file
from mdsens.errors import FileFormatError
from mdsens.io.files import new_hdf5
from mdsens.io.frames import (
    BY_MDTRAJ,
    HDF5,
    check_ending,
    mark_convention,
    mdtraj_topology,
    put_quantity,
    save_frames,
    save_with_ase,
)
from mdsens.units import NM, PS, to_kJ_per_mol, to_nm

if TYPE_CHECKING:
    from ase import Atoms

Trajectory = Any  # `mdsens.dynamics.trajectory.Trajectory`, which stands on this file


# what the group `mdsens` holds: unit, and axes after those of records and replicas
RECORDED = {
    "time": "fs",
    "positions": "Å",
    "velocities": "Å/fs",
    "potential": "eV",
    "kinetic": "eV",
    "forces": "eV/Å",
    "masses": "u",
    "cell": "Å",
    "fixed": "1",
    "conserved": "eV",
    "stress": "eV/Å³",
    "cell_velocity": "1/fs",
    "charges": "e",
}
NUMBERS = {
    "temperature": "K",
    "timestep": "fs",
    "friction": "1/fs",
    "seed": "1",
    "pressure": "eV/Å³",
    "thermostat_time": "fs",
}


def write(trajectory: Trajectory, path: str | Path, overwrite: bool = False) -> None:
    """Write one run, in the format that the ending names; HDF5 holds replicas as well."""
    ending = check_ending(path)
    if ending in HDF5:
        write_hdf5(trajectory, path, overwrite)
    elif ending in BY_MDTRAJ or (ending == ".pdb" and trajectory.topology):
        _write_mdtraj(trajectory, path, overwrite)
    else:
        _write_ase(trajectory, path, overwrite)


# --- HDF5 -----------------------------------------------------------------------------------------------


def write_hdf5(trajectory: Trajectory, path: str | Path, overwrite: bool = False) -> None:
    """Both parts of the file."""
    with new_hdf5(path, overwrite) as file:
        _write_convention(file, trajectory)
        _write_exact(file.create_group("mdsens"), trajectory)


def _write_convention(file: Any, trajectory: Trajectory) -> None:
    mark_convention(file, trajectory.species, trajectory.topology)
    if trajectory.temperature is not None:
        file.attrs["temperature"] = trajectory.temperature
    replicas = trajectory.positions.shape[1] if trajectory.positions.ndim == 4 else 1
    file.attrs["replicas"] = replicas

    def put(name: str, values: Any, unit: str) -> None:
        flat = np.asarray(values)
        if replicas > 1:
            flat = flat.reshape(-1, *flat.shape[2:])
        elif trajectory.positions.ndim == 4:
            flat = flat[:, 0]
        put_quantity(file, name, flat, unit)

    each = trajectory.potential.shape  # records, and replicas

    def spread(values: np.ndarray) -> np.ndarray:
        between = [1] * (len(each) - 1)
        lead = values.reshape(len(values), *between, *values.shape[1:])
        return np.broadcast_to(lead, (*each, *values.shape[1:]))

    put("coordinates", to_nm(trajectory.positions), "nanometers")
    put("time", spread(trajectory.time / PS), "picoseconds")
    put("velocities", trajectory.velocities * (PS / NM), "nanometers/picosecond")
    put("potentialEnergy", to_kJ_per_mol(trajectory.potential), "kilojoules_per_mole")
    put("kineticEnergy", to_kJ_per_mol(trajectory.kinetic), "kilojoules_per_mole")
    put("temperature", trajectory.temperatures, "kelvin")
    if trajectory.forces is not None:
        put("forces", to_kJ_per_mol(trajectory.forces) * NM, "kilojoules_per_mole/nanometer")
    if all(trajectory.pbc):  # mdtraj knows cells that are periodic in all directions, or none
        lengths, angles = _lengths_and_angles(trajectory)
        of_each = (lambda values: values) if lengths.ndim == 3 else spread
        put("cell_lengths", of_each(to_nm(lengths)), "nanometers")
        put("cell_angles", of_each(angles), "degrees")


def _lengths_and_angles(trajectory: Trajectory) -> tuple[np.ndarray, np.ndarray]:
    from ase.geometry.cell import cell_to_cellpar

    cells = trajectory.cells()
    assert cells is not None
    parameters = np.array([cell_to_cellpar(cell) for cell in cells.reshape(-1, 3, 3)])
    parameters = parameters.reshape(*cells.shape[:-2], 6)
    return parameters[..., :3], parameters[..., 3:]


def _write_exact(group: Any, trajectory: Trajectory) -> None:
    axes = "records, replicas" if trajectory.positions.ndim == 4 else "records"
    for name, unit in RECORDED.items():
        value = getattr(trajectory, name)
        if value is None:
            continue
        group[name] = value
        group[name].attrs["unit"] = unit
        if name in ("positions", "velocities", "forces"):
            group[name].attrs["axes"] = f"{axes}, atoms, xyz"
    for name, unit in NUMBERS.items():
        value = getattr(trajectory, name)
        if value is not None:
            group[name] = value
            group[name].attrs["unit"] = unit
    for name, values in trajectory.columns.items():
        group[f"columns/{name}"] = values
    group["species"] = np.array(trajectory.species)
    group["pbc"] = np.array(trajectory.pbc)
    group["topology"] = trajectory.topology


def read_hdf5(path: str | Path) -> dict[str, Any]:
    """What a `Trajectory` is made of, to the last bit.

    Raises:
        FileFormatError: no such file, not HDF5, or not written by `Trajectory.to_hdf5`.
    """
    import h5py

    path = existing_file(path, "trajectory")
    if not h5py.is_hdf5(path):
        raise FileFormatError(f"'{path}' is no HDF5 file.")
    with h5py.File(path, "r") as file:
        group: Any = file.get("mdsens")
        if group is None or "positions" not in group:
            raise FileFormatError(
                f"'{path}' has no group 'mdsens' with a trajectory, but {sorted(file)}: Trajectory.to_hdf5 "
                "writes one. Files of other programs are read by mdtraj.load, or "
                "mdsens.flows.read_force_data."
            )
        found = {name: group[name][()] for name in RECORDED if name in group}
        numbers = {name: group[name][()].item() for name in NUMBERS if name in group}
        return {
            "temperature": None,
            **found,
            **numbers,
            "species": tuple(int(z) for z in group["species"][()]),
            "pbc": tuple(bool(along) for along in group["pbc"][()]),
            "topology": group["topology"].asstr()[()],
            "columns": {name: values[()] for name, values in group.get("columns", {}).items()},
        }


# --- other programs -------------------------------------------------------------------------------------


def _write_mdtraj(trajectory: Trajectory, path: str | Path, overwrite: bool) -> None:
    import mdtraj

    topology = mdtraj_topology(trajectory.species, trajectory.topology)
    places = to_nm(trajectory.positions).astype(np.float32)
    frames: Any = mdtraj.Trajectory(places, topology, trajectory.time / PS)
    if all(trajectory.pbc):
        lengths, frames.unitcell_angles = _lengths_and_angles(trajectory)
        frames.unitcell_lengths = to_nm(lengths)
    save_frames(path, overwrite, lambda file: frames.save(str(file)))


def _write_ase(trajectory: Trajectory, path: str | Path, overwrite: bool) -> None:
    frames = [_atoms(trajectory, k, structure) for k, structure in enumerate(trajectory.structures())]
    save_with_ase(path, frames, overwrite)


def _atoms(trajectory: Trajectory, k: int, structure: Any) -> "Atoms":
    """One record with all that ASE has a place for."""
    from ase.calculators.singlepoint import SinglePointCalculator
    from ase.stress import full_3x3_to_voigt_6_stress
    from ase.units import fs

    atoms = structure.to_ase()
    atoms.set_velocities(trajectory.velocities[k] / fs)
    atoms.info["time"] = float(trajectory.time[k])  # fs
    atoms.info["kinetic_energy"] = float(trajectory.kinetic[k])
    if trajectory.temperature is not None:
        atoms.info["temperature"] = float(trajectory.temperature)
    results: dict[str, Any] = {"energy": float(trajectory.potential[k])}
    if trajectory.forces is not None:
        results["forces"] = trajectory.forces[k]
    if trajectory.stress is not None:
        results["stress"] = full_3x3_to_voigt_6_stress(trajectory.stress[k])
    atoms.calc = SinglePointCalculator(atoms, **results)
    return atoms
