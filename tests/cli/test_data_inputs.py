"""Options that say how a data file is to be understood: one table for all commands that read one."""

import inspect

import typer
from typer.testing import CliRunner

from mdsens.cli.data import inputs
from mdsens.cli.data.info import convert, info


def test_commands_that_read_data_share_all_options_and_keep_their_own():
    for command, own in ((info, ["file"]), (convert, ["file", "output", "overwrite"])):
        signature = inspect.signature(command)
        names = list(signature.parameters)
        assert "labels" not in names
        assert set(inputs.LABELS) < set(names)
        assert set(own) < set(names)
        # arguments stand before options, as the command line takes them
        required = [p.default is inspect.Parameter.empty for p in signature.parameters.values()]
        assert required == sorted(required, reverse=True)
        for name, (_, default) in inputs.LABELS.items():
            assert signature.parameters[name].default == default


def test_labels_arrive_in_one_argument_with_what_was_typed():
    arrived = []

    @inputs.with_labels
    def command(file: str, labels: dict, shout: bool = False) -> None:
        """Say it."""
        arrived.append((file, labels, shout))

    app = typer.Typer()
    app.command()(command)
    runner = CliRunner()
    typed = ["a.xyz", "--energy", "dft_energy", "--nan", "missing", "--positive-in-compression", "--shout"]
    assert runner.invoke(app, typed).exit_code == 0
    assert runner.invoke(app, ["b.xyz"]).exit_code == 0
    (file, labels, shout), (other, defaults, quiet) = arrived
    assert (file, shout, other, quiet) == ("a.xyz", True, "b.xyz", False)
    assert labels["energy"] == "dft_energy" and labels["nan"] == "missing"
    assert labels["positive_in_compression"] is True
    assert defaults == {name: default for name, (_, default) in inputs.LABELS.items()}
    assert "Say it." in runner.invoke(app, ["--help"]).output


def test_names_are_those_that_reading_takes():
    from mdsens.datasets import read_dataset

    assert set(inputs.LABELS) <= set(inspect.signature(read_dataset).parameters)
