"""How a command ends: one message and an exit code that scripts can act on."""

import codecs
import io
import os
import sys
import traceback
from typing import Any, NoReturn, cast

import typer
from rich.console import Console
from rich.text import Text
from typer.core import TyperGroup

from mdsens.errors import (
    CellCollapseError,
    MDSensError,
    MeltedError,
    NotConvergedError,
    OutputExistsError,
    SaddlePointError,
    WriteError,
)

EXIT_CODES: dict[type[MDSensError], int] = {
    NotConvergedError: 3,
    CellCollapseError: 3,
    MeltedError: 3,
    SaddlePointError: 4,
    OutputExistsError: 5,
    WriteError: 6,
}
INTERRUPTED = 130  # as shells say of a program that Ctrl-C ended
EPILOG = (
    "Exit codes: 0 done; 2 wrong usage or input; 3 not converged, the cell collapsed or the crystal melted; "
    "4 ended at a saddle point; 5 an output file exists (see --overwrite); 6 something could not be written "
    "or read; 130 ended by Ctrl-C. Compiling takes seconds the first time, and is kept in the user's cache "
    "folder: MDSENS_COMPILE_CACHE names another folder, or is off."
)


class Commands(TyperGroup):
    """The verbs of mdsens. Errors raised on purpose become one message and an exit code; others are bugs."""

    def main(self, *args: Any, **options: Any) -> Any:
        """Run with texts that the terminal can show."""
        for stream in (sys.stdout, sys.stderr):
            write_plainly(stream)
        return super().main(*args, **options)

    def invoke(self, ctx: Any) -> Any:
        """Run the command, and report its errors."""
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()  # a full disk is noticed here, and not while Python ends
            return result
        except BrokenPipeError:
            _write_nowhere()
            raise typer.Exit(1) from None  # the reader, such as head, has seen enough
        except OSError as error:
            if isinstance(error, MDSensError):
                raise_exit(ctx, error, exit_code(error))
            _write_nowhere()
            raise_exit(ctx, error, 6)
        except MDSensError as error:
            raise_exit(ctx, error, exit_code(error))
        except KeyboardInterrupt as error:
            say_error(" ".join(["interrupted.", *getattr(error, "__notes__", ())]))
            raise typer.Exit(INTERRUPTED) from error


def raise_exit(ctx: Any, error: Exception, code: int) -> NoReturn:
    """Report an error, and end with this exit code."""
    if ctx.meta.get("debug"):
        traceback.print_exception(error)
    say_error(f"Error: {error}")
    raise typer.Exit(code) from error


def exit_code(error: MDSensError) -> int:
    """As in EPILOG; 2 for everything that is wrong with the input."""
    return next((code for kind, code in EXIT_CODES.items() if isinstance(error, kind)), 2)


def say_error(message: str) -> None:
    """One red message on the error stream."""
    Console(stderr=True).print(Text(message, style="bold red"))


# --- terminals that cannot show every character, and streams that take no more

PLAIN = {
    "Å": "A", "²": "^2", "³": "^3", "θ": "theta", "ε": "epsilon", "σ": "sigma", "λ": "lambda", "π": "pi",
    "±": "+-", "°": " deg", "×": "x", "·": "*", "−": "-", "–": "-", "…": "...", "•": "-", "≤": "<=",
    "≥": ">=",
}  # fmt: skip


def write_plainly(stream: Any) -> None:
    """Let a stream replace the characters that its encoding lacks: θ by theta, frames of tables by -."""
    if isinstance(stream, io.TextIOWrapper) and not (stream.encoding or "").lower().startswith("utf"):
        codecs.register_error("mdsens-plain", _plain)
        stream.reconfigure(errors="mdsens-plain")


def _plain(error: UnicodeError) -> tuple[str, int]:
    failed = cast("UnicodeEncodeError", error)
    text = failed.object[failed.start : failed.end]
    return "".join(PLAIN.get(character, _frame(character)) for character in text), failed.end


def _frame(character: str) -> str:
    if "\u2500" <= character <= "\u257f":  # lines of tables
        return "-" if character in "─━╌╍┄┅┈┉═" else "|" if character in "│┃║" else "+"
    return "?"


def _write_nowhere() -> None:
    # Python flushes what is left when it ends, and would complain once more
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (OSError, ValueError, io.UnsupportedOperation):
        return
