"""`mdsens fit`: parameters of a potential, from a configuration file to a potential and a report."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer
from rich.console import Console

from mdsens.checks import nearest
from mdsens.cli import options
from mdsens.cli.progress import LiveLine
from mdsens.errors import InputError, NotConvergedError

if TYPE_CHECKING:
    from mdsens.fitting.config import FitConfig
    from mdsens.fitting.fit import FitProgress
    from mdsens.fitting.result import FitResult
    from mdsens.potentials.base import Potential

ConfigFile = Annotated[
    Path,
    typer.Argument(
        metavar="CONFIG.toml",
        help="What is free and what is to be met: see docs/fitting.md.",
        show_default=False,
    ),
]


def fit(
    config: ConfigFile,
    lammps: Annotated[
        str | None,
        typer.Option(
            metavar="ENDING",
            help="Write the potential for LAMMPS too: sw, tersoff, eam.alloy, eam.fs, snapcoeff, ...",
            show_default=False,
        ),
    ] = None,
    output: options.Output = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from PREFIX-checkpoint.h5.")] = False,
    overwrite: options.Overwrite = False,
    debug: options.Debug = False,
) -> None:
    """Fit parameters of a potential to relaxed properties and to data.

    Writes PREFIX.toml (the potential), PREFIX.md and PREFIX.h5 (targets before and after, parameters with
    errors, what the targets know and what the form cannot meet), PREFIX.png (correlations), and
    PREFIX-checkpoint.h5 after every step; PREFIX-parity.png, if the fit does not see a part of the data.
    PREFIX is the name of the file with -fitted, unless --output says otherwise. A fit that has not
    converged is written as well and says so.
    """
    options.turn_on_float64()
    from mdsens.fitting.config import read_fit_config
    from mdsens.fitting.fit import fit as run
    from mdsens.io.files import check_free
    from mdsens.potentials.parameter_sets import save_potential

    prefix = options.output_prefix(output, config, "fitted")
    files = {ending: prefix.with_name(f"{prefix.name}.{ending}") for ending in ("toml", "md", "h5", "png")}
    if lammps is not None:
        files["lammps"] = prefix.with_name(f"{prefix.name}.{lammps.lstrip('.')}")
    for file in files.values():
        check_free(file, overwrite)
    if files["toml"].resolve() == config.resolve():
        raise InputError(f"the potential would be written over '{config}': choose another --output.")
    console = Console()
    problem = None
    with LiveLine(console, "reading") as line:
        found = read_fit_config(config, notice=console.print)
        _check_written(found.space.potential, files.get("lammps"))
        if len(found.test):
            files["parity"] = prefix.with_name(f"{prefix.name}-parity.png")
            check_free(files["parity"], overwrite)
        line("relaxing and compiling")
        console.print(HEADER)
        try:
            result = run(
                found.space,
                found.terms,
                **found.options,
                checkpoint=prefix.with_name(f"{prefix.name}-checkpoint.h5"),
                resume=resume,
                overwrite=overwrite,
                progress=lambda now: console.print(in_words(now), markup=False, highlight=False),
            )
        except NotConvergedError as error:
            if error.partial is None or not hasattr(error.partial, "markdown"):
                raise
            problem, result = error, cast("FitResult", error.partial)
        save_potential(result.potential, files["toml"], overwrite=overwrite)
        if lammps is not None:
            save_potential(result.potential, files["lammps"], overwrite=overwrite)
        result.to_markdown(files["md"], overwrite=overwrite)
        result.to_hdf5(files["h5"], overwrite=overwrite)
        result.plot(files["png"], overwrite=overwrite)
    _say(console, result)
    if "parity" in files:
        _judge(console, found, result.potential, files["parity"], overwrite)
    options.say_files(console, files)
    if problem is not None:
        raise problem


HEADER = f"{'step':>4}  {'loss':>14}  {'change':>8}  {'radius':>8}  {'relaxations':>11}  {'time':>8}"


def in_words(now: "FitProgress") -> str:
    """One line of the table of progress."""
    line = (
        f"{now.step:4d}  {now.loss:14.8g}  {now.length:8.2g}  {now.radius:8.2g}  {now.relaxations:11d}  "
        f"{now.seconds:6.1f} s"
    )
    return line if now.taken else f"{line}  taken back: {now.note}"


def _check_written(potential: "Potential", file: Path | None) -> None:
    """Raise before the work if the form has no file of this kind.

    Raises:
        InputError: says what can be written.
    """
    if file is not None:
        from mdsens.potentials.lammps_write import WRITERS, lammps_texts

        if not file.name.endswith(tuple(WRITERS)):
            ending = file.suffix.removeprefix(".")
            known = [name.removeprefix(".") for name in WRITERS]
            raise InputError(
                f"--lammps {ending}: no such file of LAMMPS.{nearest(ending, known)} There are "
                f"{', '.join(known)}."
            )
        lammps_texts(potential, file)


def _judge(console: Console, found: "FitConfig", potential: "Potential", file: Path, overwrite: bool) -> None:
    """What the potential says of data that the fit did not see, as a table and a figure."""
    from mdsens.fitting.force_matching import ForceMatching
    from mdsens.fitting.parity import parity

    shifted = any(isinstance(term, ForceMatching) and term.shift_energies for term in found.terms)
    judged = parity(potential, found.test, shift_energies=shifted)
    judged.plot(file, overwrite=overwrite)
    console.print(f"{len(found.test)} structures that the fit did not see:", judged)


def _say(console: Console, result: "FitResult") -> None:
    from mdsens.fitting.show import floor_lines, identifiability_lines

    console.print(result.table(), result.parameter_table())
    for text in [*floor_lines(result), *identifiability_lines(result)]:
        console.print(text, markup=False, highlight=False)
