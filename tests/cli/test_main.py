"""`mdsens` and `mdsens potentials`: help, version, and what there is to know about parameter sets."""

import pytest
from typer.testing import CliRunner

import mdsens as ms
from mdsens.cli.main import app
from mdsens.cli.outcome import exit_code
from mdsens.potentials.parameter_sets import save_potential


def run(*arguments: str, width: int = 200) -> tuple[int, str]:
    """Exit code and output."""
    result = CliRunner().invoke(app, arguments, env={"COLUMNS": str(width)})
    return result.exit_code, result.output


def test_help_lists_every_command_and_the_exit_codes():
    code, text = run("--help")
    assert code == 0
    for command in app.registered_commands:
        name = command.callback.__name__.replace("_", "-")
        assert name in text
        code, help_of_command = run(name, "--help")
        assert code == 0
        assert "Exit codes: 0 done; 2 wrong usage or input; 3 not converged" in help_of_command


def test_without_a_command_the_help_is_shown():
    assert "Usage" in run()[1]
    assert run("melt")[0] == 2


def test_version_is_that_of_the_package():
    assert run("--version") == (0, f"mdsens {ms.__version__}\n")


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ms.errors.InputError("x"), 2),
        (ms.errors.FileFormatError("x"), 2),
        (ms.errors.NonFiniteError("x"), 2),
        (ms.errors.NotConvergedError("x"), 3),
        (ms.errors.CellCollapseError("x"), 3),
        (ms.errors.SaddlePointError("x"), 4),
        (ms.errors.OutputExistsError("x"), 5),
    ],
)
def test_errors_have_the_exit_codes_that_help_states(error, code):
    assert exit_code(error) == code


def test_potentials_lists_all_parameter_sets():
    code, text = run("potentials")
    assert code == 0
    for record in ms.available_potentials():
        assert record.name in text
        assert record.form in text
    assert "doi:10.1103/PhysRevB.31.5262" in text


def test_potentials_describes_one_set_or_file(tmp_path):
    code, text = run("potentials", "kob-andersen")
    assert code == 0
    assert (
        "epsilon[Ar-Kr]" in text
        and "1.5" in text
        and "eV" in text
        and "> 0" in text
        and "Kob, Andersen" in text
    )
    save_potential(ms.load_potential("cu-morse"), tmp_path / "mine.toml")
    code, text = run("potentials", str(tmp_path / "mine.toml"))
    assert code == 0
    assert "Morse (Cu)" in text
    code, text = run("potentials", "kob-anderson")
    assert code == 2
    assert "kob-andersen" in text
