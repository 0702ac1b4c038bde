"""Functions that workers import: `module:function`, a kind of task or a potential of a user."""

import importlib
from collections.abc import Callable
from typing import Any

from mdsens.errors import InputError


def names_function(text: str) -> bool:
    """Whether it reads `module:function`."""
    module, colon, function = text.partition(":")
    parts = [*module.split("."), function]
    return bool(colon) and all(part.isidentifier() for part in parts)


def imported(name: str) -> Callable[..., Any]:
    """The function.

    Raises:
        InputError: a module or function that this process cannot import.
    """
    module, _, function = name.partition(":")
    try:
        return getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise InputError(
            f"this process cannot import '{name}': {error}. Install the module on all workers, or put its "
            "folder on their PYTHONPATH."
        ) from error
