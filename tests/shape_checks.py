"""Array shapes promised by annotations, checked at every call.

`pytest --jaxtyping-packages=mdsens,shape_checks.checked`.
"""

import typing
from typing import Any

from beartype import beartype
from jaxtyping import AbstractArray


def checked(function):
    """Check the arguments and results that are annotated with a shape; leave all others alone.

    Others are pyright's business: at run time equinox puts placeholders into trees, and tests pass wrong
    values on purpose to see the error.
    """
    hints = getattr(function, "__annotations__", {})
    function.__annotations__ = {name: hint for name, hint in hints.items() if _has_shape(hint)}
    return beartype(function)


def _has_shape(hint: Any) -> bool:
    shape = isinstance(hint, type) and issubclass(hint, AbstractArray)
    return shape or any(_has_shape(part) for part in typing.get_args(hint))
