"""What is written of a Gaussian state, with units, for files of HDF5."""

import numpy as np

from mdsens.equilibria.gaussian import GaussianState
from mdsens.io.hdf5 import Quantity


def gaussian_content(state: GaussianState) -> dict[str, Quantity]:
    """Numbers of a state as `mdsens.write_hdf5` takes them."""
    values = {
        "temperature": (state.temperature, "K"),
        "free_energy": (state.free_energy, "eV"),
        "energy": (state.energy, "eV"),
        "stress": (state.stress, "eV/Å³"),
        "frequencies": (state.frequencies, "THz"),
        "force_constants": (state.force_constants, "eV/Å²"),
        "covariance": (state.covariance, "Å²"),
        "cell": (state.structure.cell, "Å"),
        "positions": (state.structure.positions, "Å"),
    }
    return {name: Quantity(np.asarray(value), unit) for name, (value, unit) in values.items()}
