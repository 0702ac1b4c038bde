"""Every error a user can meet. One base class, so that `except MDSensError` catches them all."""


class MDSensError(Exception):
    """Base of all errors raised on purpose by mdsens."""


class InputError(MDSensError, ValueError):
    """What was passed in cannot be used: says which value, against which limit, and what to do."""


class PrecisionError(MDSensError):
    """JAX runs in float32 where float64 is needed."""


class ForkError(MDSensError, RuntimeError):
    """JAX was used before this process was forked off: computing here would hang."""


class TracedError(MDSensError, TypeError):
    """A host loop was called under `jax.jit` or `jax.vmap`."""


class NonFiniteError(MDSensError):
    """Energy, forces or a loss became NaN or infinite: atoms overlap, or the potential left its range.

    `partial` holds the last good state of a computation that went on until then.
    """

    def __init__(self, message: str, partial: object = None):
        super().__init__(message)
        self.partial = partial


class NotConvergedError(MDSensError):
    """An iteration stopped before its tolerance. `partial` holds what was reached."""

    def __init__(self, message: str, partial: object = None):
        super().__init__(message)
        self.partial = partial


class SaddlePointError(MDSensError):
    """The forces vanish but the energy falls along some direction. `partial` holds the state found."""

    def __init__(self, message: str, partial: object = None):
        super().__init__(message)
        self.partial = partial


class TimestepError(NonFiniteError):
    """A simulation blows up: its timestep is too large for what moves. `partial` is the trajectory."""


class CellCollapseError(MDSensError):
    """The cell lost its volume, or grew without bound, in a relaxation or a simulation.

    `partial` holds what was reached, where there is something.
    """

    def __init__(self, message: str, partial: object = None):
        super().__init__(message)
        self.partial = partial


class MeltedError(MDSensError):
    """A crystal does not hold at a temperature: atoms leave their sites. `partial`: what was reached."""

    def __init__(self, message: str, partial: object = None):
        super().__init__(message)
        self.partial = partial


class FileFormatError(InputError):
    """A file cannot be read as what its name says it is."""


class OutputExistsError(MDSensError, FileExistsError):
    """Results would overwrite a file."""


class WriteError(MDSensError, OSError):
    """A result cannot be written: the disk is full, or the folder is not one's own."""


class CampaignError(MDSensError):
    """A campaign cannot go on: its folder, its executor or its workers lack something that is said."""


class ConformanceError(MDSensError, AssertionError):
    """A potential is not what it claims to be. `partial` holds the whole report."""

    def __init__(self, message: str, partial: object = None):
        super().__init__(message)
        self.partial = partial
