"""Sensitivity analysis for molecular dynamics.

Relaxed states, and how they move with the potential's parameters.

Every public name stands in `mdsens.public`, which is loaded when one of them is first asked for: JAX takes
most of a second to import, and `mdsens --help` computes nothing.
"""

import importlib
import sys
from typing import TYPE_CHECKING, Any

import mdsens.processes  # noqa: F401  (notices a fork only if it was there before)

__version__ = "0.1.0"

if TYPE_CHECKING:
    from mdsens.public import *  # noqa: F403
else:

    def __getattr__(name: str) -> Any:
        if name.startswith("_") and name != "__all__":  # Python and debuggers ask for many; they load nothing
            raise _missing(name)
        try:
            return importlib.import_module(f"mdsens.{name}")  # a package, such as `mdsens.flows`
        except ModuleNotFoundError as error:
            if error.name != f"mdsens.{name}":
                raise
        public = vars(importlib.import_module("mdsens.public"))
        if name not in public:
            raise _missing(name)
        return globals().setdefault(name, public[name])

    def __dir__() -> list[str]:
        return sorted({*globals(), *__getattr__("__all__")})

    def _missing(name: str) -> AttributeError:
        # from `name` and `obj` Python makes its "Did you mean ...?"
        return AttributeError(
            f"module 'mdsens' has no attribute '{name}'", name=name, obj=sys.modules["mdsens"]
        )
