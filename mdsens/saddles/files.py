"""Paths and barriers as HDF5: a path is written while its band settles, and a cut-off run goes on from it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mdsens.errors import FileFormatError, InputError
from mdsens.io.hdf5 import Quantity, read_hdf5, write_hdf5
from mdsens.relaxation.relax import Relaxed
from mdsens.saddles.barrier import Barrier
from mdsens.saddles.path import ReactionPath
from mdsens.structure import Structure


def path_content(path: ReactionPath) -> dict[str, Any]:
    """A path as content of an HDF5 file."""
    content: dict[str, Any] = {"start": path.start, "climbing": path.climbing, "steps": path.steps}
    content["positions"] = Quantity(path.positions, "Å", "images, atoms, xyz")
    content["energies"] = Quantity(path.energies, "eV", "images")
    content["distances"] = Quantity(path.distances, "Å", "images")
    content["fmax"] = Quantity(path.fmax, "eV/Å")
    return content


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
    content: dict[str, Any] = {"path": path_content(barrier.path), **more}
    content["states"] = {name: _state_content(state) for name, state in barrier.states.items()}
    content["mode"] = Quantity(barrier.saddle.mode, "1", "atoms, xyz")
    content["barrier"] = Quantity(float(barrier.forward), "eV")
    content["backward_barrier"] = Quantity(float(barrier.backward), "eV")
    write_hdf5(file, content, kind="barrier", overwrite=overwrite)


def _state_content(state: Relaxed) -> dict[str, Any]:
    energy, fmax = float(state.energy), float(state.fmax)
    forces = Quantity(fmax, "eV/Å")
    return {"structure": state.structure, "energy": Quantity(energy, "eV"), "fmax": forces}


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
    positions, energies = (np.asarray(kept[name].value) for name in ("positions", "energies"))
    fmax, climbing, steps = float(kept["fmax"].value), int(kept["climbing"]), int(kept["steps"])
    return ReactionPath(kept["start"], positions, energies, fmax, climbing, steps)


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
