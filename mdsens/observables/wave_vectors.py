"""Wave vectors as fractions of the reciprocal cell: what may be asked for, and what is near.

q stands for the wave exp(2 pi i q . R) over the whole primitive vectors R. It repeats with a supercell if its
components are fractions; a supercell of N cells serves if N is a multiple of their denominators.
"""

import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import numpy as np

from mdsens.checks import number, short
from mdsens.errors import InputError

MOST_CELLS = 256  # of the supercell that a wave repeats with
LARGEST = 24  # denominator of one component
EXACT = 1e-9  # how near to a fraction a component must be

Wave = tuple[Fraction, Fraction, Fraction]


def wave_vector(q: Any) -> Wave:
    """q as fractions.

    Args:
        q: three numbers, or texts such as "1/3".
    Raises:
        InputError: no three numbers, or a wave that repeats with no supercell in reach; the nearest that do
            are named.
    """
    values = three("q", q)
    a, b, c = (Fraction(x).limit_denominator(LARGEST) for x in values)
    cells = math.lcm(a.denominator, b.denominator, c.denominator)
    pairs = zip(values, (a, b, c), strict=True)
    off = max(abs(float(x - y)) for x, y in pairs)
    if off > EXACT or cells > MOST_CELLS:
        near = " or ".join(written(wave) for wave in _nearest(values))
        raise InputError(
            f"q = {[float(x) for x in values]} is commensurate with no supercell of at most {MOST_CELLS} "
            f"cells (denominators up to {LARGEST}). The nearest that are: {near}. Fractions may be written "
            'as such, q=[1/3, 1/3, 0] or q=["1/3", "1/3", 0]; bands go anywhere (mdsens.observables.bands).'
        )
    return a, b, c


def written(wave: Sequence[Fraction]) -> str:
    """As text: [1/2, 0, 1/2]."""
    return f"[{', '.join(str(x) for x in wave)}]"


def _nearest(values: Sequence[Fraction]) -> list[tuple[Fraction, ...]]:
    # one with small denominators, one that is nearer
    found: list[tuple[Fraction, ...]] = []
    for largest in (4, 6):
        wave = tuple(Fraction(x).limit_denominator(largest) for x in values)
        if wave not in found:
            found.append(wave)
    return found


def three(name: str, q: Any) -> list[Fraction]:
    """Three numbers as they are.

    Raises:
        InputError: something else.
    """
    if isinstance(q, str) or not isinstance(q, Sequence | np.ndarray) or len(q) != 3:
        raise InputError(
            f"{name} = {short(q)}: give three fractions of the reciprocal cell, such as [0.5, 0, 0.5]."
        )
    return [_component(x) for x in q]


def _component(value: Any) -> Fraction:
    if isinstance(value, Fraction):
        return value
    if isinstance(value, str):
        try:
            return Fraction(value.replace(" ", ""))
        except (ValueError, ZeroDivisionError) as error:
            raise InputError(f"q: '{value}' is no fraction: write 1/3 or 0.25.") from error
    return Fraction(number("q", value))
