"""Plain data as bytes that are the same for equal values, in every process and on every machine.

The name of a result is a hash of all that decides about it. Pickles of equal values can differ (an array that
is a view, a dictionary filled in another order, another version of Python), so values are spelled out:

    a letter for what it is, the length, the value; keys in order; numbers of arrays little-endian, 64 bits.
"""

import hashlib
import struct
from collections.abc import Mapping
from typing import Any

import numpy as np

from mdsens.checks import short
from mdsens.errors import InputError

KINDS = {"b": "?", "i": "<i8", "u": "<i8", "f": "<f8"}  # of arrays, and how their numbers are spelled


def digest_of(value: Any) -> str:
    """SHA-256 of plain data, as 64 hexadecimal digits.

    Raises:
        InputError: as `canonical`.
    """
    return hashlib.sha256(canonical(value)).hexdigest()


def canonical(value: Any, where: str = "") -> bytes:
    """Plain data spelled out: None, truth values, numbers, texts, bytes, arrays, lists and mappings of these.

    Args:
        where: what to call the value in a message.
    Raises:
        InputError: something else; it is named.
    """
    match value:
        case None:
            return b"N"
        case bool() | np.bool_():
            return b"T" if bool(value) else b"F"
        case int() | np.integer():
            return _marked(b"i", str(int(value)).encode())
        case float() | np.floating():
            return _marked(b"f", struct.pack("<d", float(value) + 0.0))  # -0.0 is 0.0
        case str():
            return _marked(b"s", value.encode())
        case bytes():
            return _marked(b"y", value)
        case np.ndarray():
            return _array(value, where)
        case list() | tuple():
            items = [canonical(item, f"{where}[{k}]") for k, item in enumerate(value)]
            return _marked(b"l", b"".join(items))
        case Mapping():
            return _mapping(value, where)
    raise InputError(
        f"{where or 'a value'} is of type {type(value).__name__} ({short(value)}): a task takes plain data "
        "only, which are numbers, texts, NumPy arrays, lists and mappings of these."
    )


def _mapping(value: Mapping[Any, Any], where: str) -> bytes:
    parts = []
    for key in sorted(value, key=str):
        inside = f"{where}.{key}" if where else str(key)
        parts += [canonical(str(key)), canonical(value[key], inside)]
    return _marked(b"m", b"".join(parts))


def _array(array: np.ndarray, where: str) -> bytes:
    kind = array.dtype.kind
    if kind not in KINDS:
        raise InputError(f"{where or 'an array'} has the type {array.dtype}: give real numbers or booleans.")
    plain = np.ascontiguousarray(array, KINDS[kind])
    if kind == "f":
        plain = plain + 0.0
    shape = canonical(list(array.shape))
    return _marked(b"a", KINDS[kind].encode() + shape + plain.tobytes())


def _marked(letter: bytes, content: bytes) -> bytes:
    return letter + str(len(content)).encode() + b":" + content
