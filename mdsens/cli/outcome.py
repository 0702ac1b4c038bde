"""How a command ends: one message and an exit code that scripts can act on."""

import traceback
from typing import Any

import typer
from rich.console import Console
from rich.text import Text
from typer.core import TyperGroup

from mdsens.errors import (
    CellCollapseError,
    MDSensError,
    NotConvergedError,
    OutputExistsError,
    SaddlePointError,
)

EXIT_CODES: dict[type[MDSensError], int] = {
    NotConvergedError: 3,
    CellCollapseError: 3,
    SaddlePointError: 4,
    OutputExistsError: 5,
}
EPILOG = (
    "Exit codes: 0 done; 2 wrong usage or input; 3 not converged, or the cell collapsed; 4 ended at a saddle "
    "point; "
    "5 an output file exists (see --overwrite). Compiling takes seconds: set JAX_COMPILATION_CACHE_DIR to a "
    "folder to keep "
    "compiled code between runs."
)


class Commands(TyperGroup):
    """The verbs of mdsens. Errors raised on purpose become one red message and an exit code; the others are bugs."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command, and report its errors."""
        try:
            return super().invoke(ctx)
        except MDSensError as error:
            if ctx.meta.get("debug"):
                traceback.print_exception(error)
            say_error(f"Error: {error}")
            raise typer.Exit(exit_code(error)) from error


def exit_code(error: MDSensError) -> int:
    """3 not converged, 4 saddle point, 5 output exists; 2 for everything that is wrong with the input."""
    return next((code for kind, code in EXIT_CODES.items() if isinstance(error, kind)), 2)


def say_error(message: str) -> None:
    """One red message on the error stream."""
    Console(stderr=True).print(Text(message, style="bold red"))
