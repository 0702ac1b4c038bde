"""How the structures of a batch are relaxed: the keywords of `relax`, typed once for all functions here."""

from collections.abc import Sequence
from typing import Any, TypedDict

from jaxtyping import Array

from mdsens.checks import nearest
from mdsens.errors import InputError
from mdsens.implicit.linear import AbstractLinearSolver
from mdsens.relaxation.coordinates import CellOption
from mdsens.relaxation.plan import AbstractRelaxer


class RelaxOptions(TypedDict, total=False):
    """Keywords of `mdsens.relax`, with its meanings and defaults."""

    cell: CellOption
    pressure: float | Array
    stress: Sequence[float] | Array | None
    fmax: float
    solver: AbstractRelaxer | None
    max_steps: int
    skin: float | None
    linear_solver: AbstractLinearSolver | None
    check_minimum: bool


def check_known(options: RelaxOptions) -> None:
    """Raise for a keyword that no relaxation has.

    Raises:
        InputError: names it, and the nearest one.
    """
    known = RelaxOptions.__annotations__
    for name in options:
        if name not in known:
            hint: Any = nearest(name, known)
            raise InputError(f"'{name}' is no option of a relaxation.{hint} There are {', '.join(known)}.")
