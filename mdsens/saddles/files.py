"""Paths and barriers as HDF5: a path is written while its band settles, and a cut-off run goes on from it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mdsens.errors import FileFormatError, InputError
from mdsens.io.hdf5 import Quantity, read_hdf5, write_hdf5
from mdsens.saddles.barrier import Barrier
from mdsens.saddles.path import ReactionPath
from mdsens.structure import Structure


def path_content(path: ReactionPath) -> dict[str, Any]:
    """A path as content of an HDF5 file."""
    return {
        "start": path.start,
        "positions": Quantity(path.positions, "Å", "images, atoms, xyz"),
        "energies": Quantity(path.energies, "eV", "images"),
        "distances": Quantity(path.distances, "Å", "images"),
        "fmax": Quantity(path.fmax, "eV/Å"),
        "climbing": path.climbing,
        "steps": path.steps,
    }


def write_path(
    file: str | Path,
    path: ReactionPath,
    *,
    settings: Mapping[str, Any] | None = None,
    overwrite: bool = False,
) -> None:
    """Write a path, all of it or nothing.

    Args:
        settings: numbers and texts that say how the band is made, kept beside it.
    Raises:
        OutputExistsError: the file exists, and `overwrite` is False.
    """
    content = {"path": path_content(path), "settings": dict(settings or {})}
    write_hdf5(file, content, kind="path", overwrite=overwrite)


def write_barrier(file: str | Path, barrier: Barrier, *, overwrite: bool = False, **more: Any) -> None:
    """Write a barrier: its three states, its path, and whatever else is given.

    Args:
        more: further content, as for `write_hdf5`.
    Raises:
        OutputExistsError: the file exists, and `overwrite` is False.
    """
    states = {
        name: {
            "structure": state.structure,
            "energy": Quantity(float(state.energy), "eV"),
            "fmax": Quantity(float(state.fmax), "eV/Å"),
        }
        for name, state in barrier.states.items()
    }
    content = {
        "path": path_content(barrier.path),
        "states": states,
        "mode": Quantity(barrier.saddle.mode, "1", "atoms, xyz"),
        "barrier": Quantity(float(barrier.forward), "eV"),
        "backward_barrier": Quantity(float(barrier.backward), "eV"),
        **more,
    }
    write_hdf5(file, content, kind="barrier", overwrite=overwrite)


def read_path(file: str | Path, *, settings: Mapping[str, Any] | None = None) -> ReactionPath:
    """The path of a file that `write_path` or `write_barrier` wrote.

    Args:
        settings: what the file must agree with, of what was kept beside the path.
    Raises:
        FileFormatError: no such file, or no path in it. InputError: other settings.
    """
    content = read_hdf5(file)
    kept = content.get("path")
    if not isinstance(kept, dict) or "positions" not in kept or not isinstance(kept.get("start"), Structure):
        raise FileFormatError(f"'{file}' holds no path: mdsens barrier writes one, and write_path.")
    _check_settings(file, content.get("settings", {}), settings or {})
    return ReactionPath(
        kept["start"],
        np.asarray(kept["positions"].value),
        np.asarray(kept["energies"].value),
        float(kept["fmax"].value),
        int(kept["climbing"]),
        int(kept["steps"]),
    )


def _check_settings(file: str | Path, written: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    for name, value in wanted.items():
        there = written.get(name)
        there = there.value if isinstance(there, Quantity) else there
        same = there is not None and str(np.asarray(there)) == str(np.asarray(value))
        if not same:
            raise InputError(
                f"'{file}' was made with {name} = {there}, and now {name} = {value}: give the same, or begin "
                "anew without --resume."
            )
