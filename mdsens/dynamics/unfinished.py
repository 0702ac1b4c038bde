"""A run that is not finished: a folder beside its output, from which it goes on with the same bits.

    md.h5.unfinished/
        records-00000000.h5    records in the order they were made, each file written once
        records-00000040.h5    named by the first of them
        state.h5               where the run stands, and how many records belong to it

state.h5 is replaced as a whole, after the records it counts. What a killed process wrote later does not count
and is made again. Sums over neighbors depend on their order in the last bit; therefore the state knows where
the lists were made, and makes them there again.
"""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from mdsens.dynamics.integrate import Record
from mdsens.errors import FileFormatError, InputError, OutputExistsError
from mdsens.io.files import errors_in_words, new_hdf5
from mdsens.io.modules import read_arrays, write_arrays
from mdsens.neighbors import Capacity

FORMAT = "mdsens-unfinished-run-1"
ENDING = ".unfinished"


class Point(NamedTuple):
    """Where a run stands between two calls of the device.

    Attributes:
        parts: state of the integrator, heat, and steps until the next record: a tree of arrays.
        done: steps.
        records: that were made.
        skin: of the lists, Å.
        listed_positions, listed_cells: where the lists were made, Å.
        capacity: shapes of the lists.
    """

    parts: Any
    done: int
    records: int
    skin: float
    listed_positions: Float[np.ndarray, "replicas atoms 3"]
    listed_cells: Float[np.ndarray, "replicas 3 3"]
    capacity: Capacity


class Unfinished:
    """The folder of a run, beside the file that its trajectory will be written to.

    Args:
        output: that file.
        settings: name to numbers and texts that decide how the run goes. A folder with others is refused.
    """

    def __init__(self, output: str | Path, settings: Mapping[str, Any]):
        self.output = Path(output)
        self.folder = self.output.with_name(self.output.name + ENDING)
        self.settings = json.loads(json.dumps(dict(settings)))  # as it comes back from the file
        self.written = 0  # records

    @property
    def state(self) -> Path:
        """The file that says how far the run came."""
        return self.folder / "state.h5"

    def check_free(self, overwrite: bool) -> None:
        """Raise if another run stands here.

        Raises:
            OutputExistsError: there is one, and `overwrite` is False.
        """
        if self.state.exists() and not overwrite:
            raise OutputExistsError(
                f"'{self.folder}' holds a run that was cut off. Go on with it by resume=True (--resume), or "
                "begin anew with overwrite=True (--overwrite)."
            )

    def remove(self) -> None:
        """Leave nothing.

        Raises:
            WriteError: nothing may be changed there.
        """
        with errors_in_words(self.state):
            self.state.unlink(missing_ok=True)  # first: what is half removed counts for nothing
        shutil.rmtree(self.folder, ignore_errors=True)

    # --- writing

    def write(self, point: Point, new: Record | None) -> None:
        """Keep where the run stands, and the records made since the last time."""
        if new is not None:
            self._write_records(new)
            self.written = point.records
        with new_hdf5(self.state, overwrite=True) as file:
            file.attrs["format"] = FORMAT
            file.attrs["settings"] = json.dumps(self.settings)
            for name in ("done", "records", "skin"):
                file.attrs[name] = getattr(point, name)
            file["capacity"] = np.array(point.capacity)
            file["listed_positions"], file["listed_cells"] = point.listed_positions, point.listed_cells
            write_arrays(file.create_group("parts"), map(_plain, jax.tree.leaves(point.parts)))

    def _write_records(self, records: Record) -> None:
        with new_hdf5(self.folder / f"records-{self.written:08d}.h5", overwrite=True) as file:
            for name, values in records._asdict().items():
                if values is not None:
                    file[name] = values

    # --- reading

    def read(self, like: Any) -> tuple[Point, Record] | None:
        """Where the run stood, and all records until then; None if there is no such run.

        Args:
            like: `Point.parts` of the same run at its start.
        Raises:
            FileFormatError: damaged, or of another version.
            InputError: a run of something else.
        """
        if not self.state.is_file():
            return None
        import h5py

        try:
            with h5py.File(self.state, "r") as file:
                found = self._read_state(file, like)
            records = self._read_records(found.records)
        except (OSError, KeyError, ValueError) as error:
            if isinstance(error, InputError):
                raise
            raise FileFormatError(
                f"'{self.folder}' is damaged: {type(error).__name__} {error}. Begin anew with overwrite=True "
                "(--overwrite)."
            ) from error
        self.written = found.records
        return found, records

    def _read_state(self, file: Any, like: Any) -> Point:
        attributes = file.attrs
        if attributes.get("format") != FORMAT:
            raise FileFormatError(
                f"'{self.state}' has the format {attributes.get('format')}, not {FORMAT}: go on with the "
                "version of mdsens that began the run."
            )
        self._check_settings(json.loads(attributes["settings"]))
        leaves = [
            _restored(*pair) for pair in zip(read_arrays(file["parts"]), jax.tree.leaves(like), strict=True)
        ]
        return Point(
            jax.tree.unflatten(jax.tree.structure(like), leaves),
            int(attributes["done"]),
            int(attributes["records"]),
            float(attributes["skin"]),
            file["listed_positions"][()],
            file["listed_cells"][()],
            Capacity(*(int(size) for size in file["capacity"][()])),
        )

    def _check_settings(self, known: Mapping[str, Any]) -> None:
        for name, value in self.settings.items():
            if known.get(name) != value:
                raise InputError(
                    f"'{self.folder}' holds another run: its {name} is {known.get(name)}, and here {value}. "
                    "Go on with what it began with, begin anew with overwrite=True (--overwrite), or name "
                    "another output."
                )

    def _read_records(self, records: int) -> Record:
        import h5py

        parts: list[dict[str, np.ndarray]] = []
        for path in sorted(self.folder.glob("records-*.h5")):
            if int(path.stem.removeprefix("records-")) < records:
                with h5py.File(path, "r") as file:
                    parts.append({name: file[name][()] for name in file})  # pyright: ignore
        if not parts:
            raise ValueError("no records")
        whole = {name: np.concatenate([part[name] for part in parts])[:records] for name in parts[0]}
        if len(whole["potential"]) != records:
            raise ValueError(f"{len(whole['potential'])} records of {records}")
        found: Any = whole
        return Record(**found)


def _plain(leaf: Any) -> np.ndarray:
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return np.asarray(jax.random.key_data(leaf))
    return np.asarray(leaf)


def _restored(array: np.ndarray, like: Any) -> Any:
    if jnp.issubdtype(like.dtype, jax.dtypes.prng_key):
        return jax.random.wrap_key_data(jnp.asarray(array), impl=jax.random.key_impl(like))
    return jnp.asarray(array)
