"""What the documentation shows is run.

Python blocks in order, `mdsens` commands, and the output printed below them.
"""

import contextlib
import importlib
import io
import re
import shlex
import tomllib
from pathlib import Path

import pytest

from mdsens.relaxation.memory import forget

ROOT = Path(__file__).parents[1]
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted(ROOT.glob("*/README.md")),
]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(page: Path) -> list[tuple[str, str, int]]:
    """Language, text and first line of each fenced block."""
    text = page.read_text()
    return [(m[1], m[2], text.count("\n", 0, m.start()) + 2) for m in BLOCK.finditer(text)]


def runs(language: str, text: str) -> bool:
    """Python blocks run, and shell blocks whose lines are all commands of mdsens."""
    return language == "python" or (
        language == "bash" and all(line.startswith("mdsens ") for line in commands(text))
    )


def commands(text: str) -> list[str]:
    """Lines of a shell block, joined where they are continued, without comments."""
    lines = text.replace("\\\n", " ").splitlines()
    return [line for line in lines if line.strip() and not line.lstrip().startswith("#")]


def run_command(line: str) -> str:
    """Output of one `mdsens ...` line, through the function that the console script calls."""
    from typer.testing import CliRunner

    forget()  # a command is a process of its own, that remembers no relaxation
    module, name = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]["mdsens"].split(
        ":"
    )
    result = CliRunner().invoke(
        getattr(importlib.import_module(module), name), shlex.split(line, comments=True)[1:]
    )
    assert result.exit_code == 0, f"{line}\n{result.output}\n{result.exception!r}"
    return result.output


def words(text: str) -> list[str]:
    """Text without what differs between machines.

    Widths and lines of tables, and how large rounding errors are.
    """
    text = re.sub(r"\(error bars: \S+ or less\)", "", text)
    return re.sub(r"[─━│┃┏┓┗┛┡┩┌┐└┘├┤┬┴┼╇╞╡╪┳┻╋]", " ", text).split()


@pytest.mark.parametrize(
    "page", [p for p in PAGES if any(runs(*b[:2]) for b in blocks(p))], ids=lambda p: str(p.relative_to(ROOT))
)
def test_blocks_run_and_print_what_is_shown(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").symlink_to(ROOT / "data")
    namespace: dict[str, object] = {"__name__": "__main__"}
    printed = None
    for language, text, line in blocks(page):
        if language == "text" and printed is not None:
            assert words(printed) == words(text), (
                f"{page.name}:{line} shows another output; printed was\n{printed}"
            )
        printed = None
        if not runs(language, text):
            continue
        if language == "python":
            with contextlib.redirect_stdout(io.StringIO()) as output:
                # the line numbers of a traceback are those of the page
                exec(compile("\n" * (line - 1) + text, str(page), "exec"), namespace)
            printed = output.getvalue()
        else:
            printed = "".join(run_command(command) for command in commands(text))
