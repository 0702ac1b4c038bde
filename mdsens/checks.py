"""What may be passed in: checks that every public function shares, with the sentences they fail with."""

import difflib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from mdsens.errors import FileFormatError, InputError


def nearest(word: str, known: Iterable[str], cutoff: float = 0.4) -> str:
    """The sentence " Did you mean ...?" if something known is spelled alike, else nothing."""
    words = list(known)
    # capitals first: kr is Kr and not Zr
    alike = [other for other in words if other.lower() == word.lower()]
    close = alike or difflib.get_close_matches(word, words, n=1, cutoff=cutoff)
    return f" Did you mean '{close[0]}'?" if close else ""


def existing_file(path: str | Path, what: str = "file") -> Path:
    """The path of a file that is there.

    Raises:
        FileFormatError: there is none, or it is a folder.
    """
    path = Path(path)
    if path.is_dir():
        raise FileFormatError(f"'{path}' is a folder, and a {what} is needed.")
    if not path.is_file():
        raise FileFormatError(f"no {what} '{path}'. The path is relative to {Path.cwd()}.")
    return path


def number(
    name: str,
    value: Any,
    unit: str = "",
    *,
    above: float = -np.inf,
    at_least: float = -np.inf,
    at_most: float = np.inf,
    finite: bool = True,
) -> float:
    """A real number within bounds; the number itself is returned as a float.

    Raises:
        InputError: no number (a text, None, complex, an array), NaN, or outside the bounds.
    """
    shown = f"{name} = {short(value)}"
    try:
        array = np.asarray(value)
        text = isinstance(value, (str, bytes))
        real = array.shape == () and array.dtype.kind in "iuf" and not text
        result = float(array) if real else np.nan
    except (TypeError, ValueError):
        real, result = False, np.nan
    if not real:
        raise InputError(f"{shown}: give one real number{f' in {unit}' if unit else ''}.")
    low, high = max(above, at_least), at_most
    if (finite and not np.isfinite(result)) or not (result > above and low <= result <= high):
        bounds = [
            *(["finite"] if finite else []),
            *([f"above {above:g}"] if above > -np.inf else []),
            *([f"at least {at_least:g}"] if at_least > -np.inf else []),
            *([f"at most {at_most:g}"] if at_most < np.inf else []),
        ]
        raise InputError(
            f"{shown}: it must be {' and '.join(bounds) or 'a number'}{f' ({unit})' if unit else ''}."
        )
    return result


def whole(name: str, value: Any, *, at_least: int = 0) -> int:
    """A whole number.

    Raises:
        InputError: no whole number, or a smaller one.
    """
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, np.integer)) or value < at_least:
        raise InputError(f"{name} = {short(value)}: give a whole number, {at_least} or more.")
    return int(value)


def instance(name: str, value: Any, kind: type, hint: str) -> Any:
    """The value, if it is of the class asked for.

    Args:
        hint: the call to write instead.
    Raises:
        InputError: it is of another class.
    """
    if not isinstance(value, kind):
        given = f"the class {value.__name__} itself" if isinstance(value, type) else type(value).__name__
        article = "an" if kind.__name__[0] in "AEIOUaeiou" else "a"
        raise InputError(f"{name} must be {article} {kind.__name__}, not {given} ({short(value)}). {hint}")
    return value


def short(value: Any) -> str:
    """A value as it may stand in a message: one line of 60 characters or less."""
    from jax.core import Tracer  # the command line checks its options without JAX

    text = "traced" if isinstance(value, Tracer) else " ".join(repr(value).split())
    return text if len(text) <= 60 else f"{text[:57]}..."
