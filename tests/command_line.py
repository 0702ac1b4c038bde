"""The command line, as typed."""

from typer.testing import CliRunner

from mdsens.cli.main import app


def run(*arguments) -> tuple[int, str]:
    """Exit code, and all that was printed with its line breaks undone."""
    result = CliRunner().invoke(app, [str(a) for a in arguments], env={"COLUMNS": "200"})
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, " ".join(result.output.replace("│", " ").split())
