"""`mdsens campaign`, `campaign-status`, `campaign-collect`: a plan, how far it is, one table of all."""

import importlib.util
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress

from mdsens.checks import existing_file, nearest
from mdsens.cli import options
from mdsens.cli.progress import counting_bar
from mdsens.errors import CampaignError, InputError

if TYPE_CHECKING:
    from mdsens.campaign.receipts import Receipt

MOST_SHOWN = 10  # reasons of failure at the end; the status has all

Folder = Annotated[Path, typer.Argument(metavar="DIR", help="Folder of the campaign.", show_default=False)]


def campaign(
    plan: Annotated[
        Path,
        typer.Argument(
            metavar="PLAN.toml",
            help="Structures, parameter sets, and what to compute: see docs/campaigns.md.",
            show_default=False,
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(
            "--out", metavar="DIR", help="Folder of all results; the same goes on.", show_default=False
        ),
    ],
    executor: Annotated[
        str | None,
        typer.Option(
            metavar="local|SITE.py:MAKE",
            help="local: Dask on this machine. SITE.py:MAKE: a function of yours that gives an executor. "
            "Default: one task after the other in this process.",
            show_default=False,
        ),
    ] = None,
    workers: Annotated[
        str, typer.Option(metavar="N|auto", help="Of --executor local; auto: one a GPU, else one a core.")
    ] = "auto",
    window: Annotated[int, options.count("Tasks that the engine holds at a time.")] = 1000,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Begin failed tasks anew.")] = False,
    max_attempts: Annotated[
        int, options.count("Processes that may die of a task before it counts as failed.")
    ] = 3,
    debug: options.Debug = False,
) -> None:
    """Compute all tasks of a plan whose results are not in DIR yet.

    Tasks that fail are named with their reasons, and the others go on. After Ctrl-C, a crash or a full disk
    the same command goes on with what is left.
    """
    options.turn_on_float64()
    if executor is not None:
        _leave_accelerators_to_workers()
    from mdsens.campaign import run
    from mdsens.campaign.plan import read_plan

    console = Console()
    chosen = _executor(executor, workers)
    tasks = read_plan(plan)
    for file, reason in tasks.unreadable.items():
        console.print(f"[red]left out[/] {escape(file)}: {escape(reason)}", soft_wrap=True)
    with chosen() as engine, counting_bar(console) as bar:
        watch = _Watch(bar, len(tasks))
        how: dict[str, Any] = {"window": window, "retry_failed": retry_failed, "max_attempts": max_attempts}
        report = run(tasks, out, engine, on_receipt=watch, **how)
    console.print(f"{report}: {out}", soft_wrap=True, highlight=False, markup=False)
    for name, reason in list(report.reasons.items())[:MOST_SHOWN]:
        first = reason.strip().splitlines()[0]
        console.print(f"[red]failed[/] {escape(name)}: {escape(first)}", soft_wrap=True)
    if report.failed > MOST_SHOWN:
        console.print(f"and {report.failed - MOST_SHOWN} more: mdsens campaign-status {out}", soft_wrap=True)
    if report.failed == len(tasks):
        raise InputError("every task of the campaign failed, see above.")


def campaign_status(out: Folder, debug: options.Debug = False) -> None:
    """How far a campaign is: done, failed with reasons, rate, and what remains."""
    from mdsens.campaign import status

    Console().print(status(out))


def campaign_collect(
    out: Folder,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="TABLE.csv", help="A table as .csv, .h5 or .parquet.")
    ] = Path("table.csv"),
    overwrite: options.Overwrite = False,
    debug: options.Debug = False,
) -> None:
    """All numbers of a campaign as one table: a row for each task, and of batches for each structure."""
    options.turn_on_float64()
    from mdsens.campaign import collect
    from mdsens.campaign.table import writer_of
    from mdsens.io.files import check_free

    check_free(output, overwrite)
    writer_of(output)
    table = collect(out)
    table.write(output, overwrite=overwrite)
    console = Console()
    console.print(f"{len(table)} rows, {len(table.columns)} columns")
    options.say_files(console, {"table": output})


def _leave_accelerators_to_workers() -> None:
    # a driver computes nothing; JAX would take most of the memory of a GPU all the same
    import jax

    jax.config.update("jax_platforms", "cpu")


Make = Callable[[], Any]  # a context that gives an executor, or None


def _executor(text: str | None, workers: str) -> Make:
    if text is None:
        return _none
    if text == "local":
        from mdsens.campaign.machine import local, require_dask

        require_dask()
        return lambda: local(_workers(workers))
    file, colon, name = text.rpartition(":")
    if not colon or not file.endswith(".py"):
        raise InputError(
            f"--executor {text}: write local, or SITE.py:MAKE, a Python file and a function in it that gives "
            f"an executor.{nearest(text, ['local'])}"
        )
    return _of_site(existing_file(file, "file with an executor"), name)


def _workers(text: str) -> int | str:
    if text == "auto":
        return text
    if not text.isdigit() or int(text) < 1:
        raise InputError(f"--workers {text}: give auto, or a whole number of 1 or more.")
    return int(text)


@contextmanager
def _none() -> Iterator[None]:
    yield None


def _of_site(file: Path, name: str) -> Make:
    """A function of the user's file: it gives an executor, or a context that gives one."""
    spec = importlib.util.spec_from_file_location(file.stem, file)
    assert spec is not None and spec.loader is not None  # the name ends in .py
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise CampaignError(f"'{file}' cannot be imported: {type(error).__name__}: {error}") from error
    make = getattr(module, name, None)
    if not callable(make):
        functions = [key for key, value in vars(module).items() if callable(value)]
        raise InputError(f"'{file}' has no function '{name}'.{nearest(name, functions)}")
    return lambda: _entered(make(), f"{file}:{name}")


@contextmanager
def _entered(made: Any, where: str) -> Iterator[Any]:
    if hasattr(made, "submit") and not hasattr(made, "__enter__"):
        yield made
        return
    if not hasattr(made, "__enter__"):
        raise CampaignError(
            f"{where} gave {type(made).__name__}, and an executor is needed: something with "
            "submit(function, ...), or a context that gives it."
        )
    with made as engine:
        if not hasattr(engine, "submit"):
            raise CampaignError(f"the context of {where} gave {type(engine).__name__}, which has no submit.")
        yield engine


class _Watch:
    """Shows the progress of a campaign on a bar."""

    def __init__(self, bar: Progress, total: int):
        self.bar, self.task = bar, bar.add_task("starting", total=total)
        self.ended = self.failed = 0

    def __call__(self, receipt: "Receipt") -> None:
        """One task more."""
        self.ended += 1
        self.failed += receipt.status == "failed"
        text = f"{self.failed} failed" if self.failed else "tasks"
        self.bar.update(self.task, completed=self.ended, description=text)
