"""Where a fit stands between two steps, and the file that keeps it."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np

from mdsens.errors import FileFormatError, InputError
from mdsens.fitting.terms import SumValue, TermRow
from mdsens.io.files import check_free
from mdsens.io.hdf5 import Quantity, read_hdf5, write_hdf5

KIND = "fit"


class StepRecord(NamedTuple):
    """One step that was tried.

    Attributes:
        taken: the loss fell. lost: a state could not be followed, or a number was not finite.
        loss: of what was kept. length: largest change of a variable.
        radius: of the step after it.
        relaxations: how many it took. note: why it was taken back.
    """

    taken: bool
    lost: bool
    loss: float
    length: float
    radius: float
    relaxations: int
    note: str


class FitState(NamedTuple):
    """A fit between two steps.

    Attributes:
        z: the variables. value: all terms there. radius: of the next step.
        history: of all steps tried. before: rows of the report at the start.
    """

    z: np.ndarray
    value: SumValue
    radius: float
    history: tuple[StepRecord, ...]
    before: tuple[TermRow, ...]

    @property
    def step(self) -> int:
        """Steps tried."""
        return len(self.history)

    def taken(self, z: np.ndarray, value: SumValue, length: float, radius: float) -> Self:
        """After a step that was kept."""
        record = StepRecord(True, False, value.loss, length, radius, value.relaxations, "")
        return self._replace(z=z, value=value, radius=radius, history=(*self.history, record))

    def refused(
        self, length: float, radius: float, note: str, lost: bool = False, relaxations: int = 0
    ) -> Self:
        """After a step that was taken back."""
        record = StepRecord(False, lost, self.value.loss, length, radius, relaxations, note)
        return self._replace(radius=radius, history=(*self.history, record))


class FitFile:
    """The file of a fit: everything that the next step needs, written anew after every one.

    Args:
        path: ends in .h5.
        settings: what must be the same when the fit goes on.
    """

    def __init__(self, path: str | Path, settings: Mapping[str, Any]):
        self.path = Path(path)
        if self.path.suffix not in (".h5", ".hdf5"):
            raise InputError(f"checkpoint = '{path}': fits are kept in HDF5, end the name in .h5.")
        self.settings = json.loads(json.dumps(settings))  # as it comes back from the file

    def start(self, resume: bool, overwrite: bool) -> bool:
        """Whether there is something to go on from.

        Raises:
            OutputExistsError: a file stands here, and neither `resume` nor `overwrite` is given.
        """
        if resume and self.path.exists():
            return True
        check_free(self.path, overwrite)
        return False

    def write(self, state: FitState) -> None:
        """Keep a state."""
        value = state.value
        content = {
            "settings": json.dumps(self.settings),
            "z": state.z,
            "radius": state.radius,
            "residuals": value.residuals,
            "jacobian": Quantity(value.jacobian, "1", "residuals, variables"),
            "reach": value.reach,
            "relaxations": value.relaxations,
            "memories": dict(value.memories),
            # rows and records are lists of texts and numbers
            "rows": json.dumps(value.rows),
            "before": json.dumps(state.before),
            "history": json.dumps(state.history),
        }
        write_hdf5(self.path, content, kind=KIND, overwrite=True)

    def read(self) -> FitState:
        """The state to go on from.

        Raises:
            FileFormatError: no file of a fit. InputError: of another fit.
        """
        content = read_hdf5(self.path, kind=KIND)
        try:
            return self._state(content)
        except (KeyError, TypeError, ValueError) as error:
            if isinstance(error, InputError):
                raise
            raise FileFormatError(
                f"'{self.path}' is no whole file of a fit ({error}): begin anew."
            ) from error

    def _state(self, content: Mapping[str, Any]) -> FitState:
        known = json.loads(_text(content["settings"]))
        for name, value in self.settings.items():
            if known.get(name) != value:
                raise InputError(
                    f"'{self.path}' is the file of another fit: its {name} are {known.get(name)}, and here "
                    f"{value}. Fit into another file, or pass overwrite=True."
                )
        value = SumValue(
            content["residuals"],
            content["jacobian"].value,
            _rows(content["rows"]),
            content["memories"],
            content["reach"],
            int(content["relaxations"]),
        )
        history = tuple(StepRecord(*record) for record in json.loads(_text(content["history"])))
        return FitState(content["z"], value, float(content["radius"]), history, _rows(content["before"]))


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _rows(text: Any) -> tuple[TermRow, ...]:
    return tuple(TermRow(*row) for row in json.loads(_text(text)))
