"""Samples of a flow as files: for averages in HDF5, and as frames for other programs.

The HDF5 file has the positions twice: to the last bit, as `mdsens.flows.read_force_data` reads them, and in
mdtraj's convention, float32, as `mdtraj.load` does.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from mdsens.io.files import new_hdf5
from mdsens.io.frames import HDF5, check_ending, mark_convention, put_quantity, write_frames
from mdsens.units import from_nm


class FlowSamples(NamedTuple):
    """Independent samples of a flow.

    Attributes:
        positions: nm.
        log_density: of the shape, positions in nm.
        species: atomic numbers.
        temperature: K.
        topology: the molecule as PDB text; may be empty.
        potential_energy: of a force field, kJ/mol, up to a constant; None without one.
        log_weights: averages over samples weighted with their exponentials are those of the force field.
    """

    positions: Float[np.ndarray, "samples atoms 3"]
    log_density: Float[np.ndarray, " samples"]
    species: tuple[int, ...]
    temperature: float
    topology: str = ""
    potential_energy: Float[np.ndarray, " samples"] | None = None
    log_weights: Float[np.ndarray, " samples"] | None = None

    def write(self, path: str | Path, *, overwrite: bool = False) -> None:
        """Write the samples in the format that the ending names.

        .h5 keeps everything. .extxyz holds positions, log density and log weights; .pdb, .dcd, .xtc, ... hold
        the positions.

        Raises:
            InputError: another ending.
            OutputExistsError: the file exists, and `overwrite` is False.
        """
        if check_ending(path) in HDF5:
            _write_hdf5(self, path, overwrite)
            return
        numbers = {"log_density": self.log_density, "log_weight": self.log_weights}
        known = {name: values for name, values in numbers.items() if values is not None}
        rows = zip(*(values.tolist() for values in known.values()), strict=True)
        info = [dict(zip(known, row, strict=True)) for row in rows]
        positions = from_nm(self.positions)
        write_frames(path, positions, self.species, pdb=self.topology, info=info, overwrite=overwrite)


def _write_hdf5(samples: FlowSamples, path: str | Path, overwrite: bool) -> None:
    quantities = {
        "positions": (samples.positions, "nm"),
        "log_density": (samples.log_density, "1"),
        "potential_energy": (samples.potential_energy, "kJ/mol"),
        "log_weights": (samples.log_weights, "1"),
    }
    with new_hdf5(path, overwrite) as file:
        for name, (values, unit) in quantities.items():
            if values is not None:
                file[name] = values
                file[name].attrs["unit"] = unit
        file["positions"].attrs["axes"] = "samples, atoms, xyz"
        file["species"] = np.array(samples.species)
        # a dataset of this name would be one number for each frame to mdtraj
        file.attrs["temperature"] = samples.temperature
        mark_convention(file, samples.species, samples.topology)
        put_quantity(file, "coordinates", samples.positions, "nanometers")
        put_quantity(file, "time", np.arange(len(samples.positions)), "picoseconds")
