"""Campaigns: what a task costs beside its computation, and what is lost when workers are killed.

    python benchmarks/campaign.py                       # both, 200 tasks
    python benchmarks/campaign.py --tasks 2000          # the whole soak, two minutes on two cores
    python benchmarks/campaign.py --only constants

soak: relaxations of silicon with a vacancy (63 atoms, rattled, Stillinger and Weber) with derivatives of
    energy and volume by all parameters, on two workers of Dask; every 30 s one of them is killed. Counted
    are results, executions by their lines in a file, and the memory of the driver.
constants: what files and driver cost for a task that computes nothing, done and found again; on Dask, too.

Needs `pip install mdsens[campaign]`.
"""

import argparse
import os
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ase.build import bulk

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_platforms", "cpu")

import mdsens as ms  # noqa: E402
from mdsens.campaign import GivenTask, Task, load, local, run  # noqa: E402
from mdsens.campaign.kinds import KINDS  # noqa: E402

OPTIONS = {"observables": ["energy", "volume"], "fmax": 1e-8}


def counted(given: GivenTask) -> dict[str, Any]:
    """A sensitivity, with a line in a file when it begins."""
    options = dict(given.options)
    with Path(options.pop("log")).open("a") as log:
        log.write(f"{options.pop('number')} {os.getpid()}\n")
    return KINDS["sensitivity"].compute(GivenTask(given.structures, given.potential, options))


def nothing(given: GivenTask) -> dict[str, Any]:
    """A number."""
    return {"names": ["number"], "units": ["1"], "values": [float(given.options["number"])]}


def vacancies(count: int, log: Path) -> Iterator[Task]:
    """Silicon without an atom, shaken."""
    perfect = bulk("Si", "diamond", a=5.431, cubic=True).repeat(2)
    for k in range(count):
        atoms = perfect[1:]
        atoms.rattle(0.05, seed=k)
        options = {**OPTIONS, "log": str(log), "number": k}
        structure = ms.Structure.from_ase(atoms)
        potential = "si-stillinger-weber-1985"
        yield Task(structure, potential, options=options, kind="campaign:counted", name=f"vacancy-{k}")


def resident() -> float:
    """Memory of this process, MiB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


class Killer(threading.Thread):
    """Kills the worker that began a task last, every so many seconds."""

    def __init__(self, log: Path, every: float):
        super().__init__(daemon=True)
        self.log, self.every, self.killed = log, every, 0
        self.over = threading.Event()

    def run(self) -> None:
        """Until it is told that all is over."""
        while not self.over.wait(self.every):
            lines = self.log.read_text().splitlines() if self.log.exists() else []
            if lines:
                try:
                    os.kill(int(lines[-1].split()[1]), signal.SIGKILL)
                    self.killed += 1
                except ProcessLookupError:
                    continue


def soak(tasks: int, workers: int, every: float, folder: Path) -> None:
    memory: list[float] = []
    with local(workers) as engine:
        warm = vacancies(workers, folder / "warm.log")
        run(warm, folder / "warm", engine)  # compiled code is on disk from here on
        killer = Killer(folder / "log", every)
        killer.start()
        watch = lambda receipt: memory.append(resident())
        report = run(vacancies(tasks, folder / "log"), folder / "out", engine, window=50, on_receipt=watch)
        killer.over.set()
    lines = (folder / "log").read_text().splitlines()
    begun = [int(line.split()[0]) for line in lines]
    seconds = np.array([result.receipt.seconds for result in load(folder / "out")])
    tenth = max(len(memory) // 10, 1)
    first, last = np.mean(memory[tenth : 2 * tenth]), np.mean(memory[-tenth:])
    print(f"soak: {report}; {killer.killed} workers killed")
    print(f"  results {len(seconds)} of {tasks}; begun {len(begun)}, so {len(begun) - tasks} twice or more")
    print(f"  a task: median {np.median(seconds):.2f} s, mean {seconds.mean():.2f} s")
    share = seconds.sum() / (report.seconds * workers)
    print(f"  {report.seconds:.0f} s on {workers} workers, {share:.0%} of them inside tasks that were kept")
    print(f"  memory of the driver: {first:.0f} MiB in the second tenth, {last:.0f} MiB in the last")


def constants(tasks: int, folder: Path) -> None:
    potential, structure = "si-stillinger-weber-1985", ms.Structure.from_ase(bulk("Si", cubic=True).repeat(2))
    numbered = lambda k: {"options": {"number": k}, "kind": "campaign:nothing"}
    many = [Task(structure, potential, **numbered(k)) for k in range(tasks)]
    began = time.perf_counter()
    keys = len({task.key for task in many})
    per_key = (time.perf_counter() - began) / keys
    print(f"a key: {1e3 * per_key:.2f} ms")
    for name in ("here", "dask"):
        out = folder / name
        if name == "here":
            times = [run(many, out).seconds / tasks for _ in range(2)]
        else:
            with local(2) as engine:
                run([Task(structure, potential, **numbered(-k)) for k in (1, 2)], folder / "warm2", engine)
                times = [run(many, out, engine).seconds / tasks for _ in range(2)]
        done, found = (1e3 * t for t in times)
        print(f"{name}: {done:.2f} ms for a task that computes nothing, {found:.2f} ms for one that is there")
    files = [path.stat().st_size for path in (folder / "here" / "tasks").rglob("*") if path.is_file()]
    print(f"{len(files) / tasks:.1f} files a task, {sum(files) / tasks / 1024:.1f} kB")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tasks", type=int, default=200)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--every", type=float, default=30.0, help="seconds between two kills")
    parser.add_argument("--only", choices=["soak", "constants"])
    chosen = parser.parse_args()
    here = str(Path(__file__).parent)  # where workers find the kinds of this file
    os.environ["PYTHONPATH"] = os.pathsep.join([here, os.environ.get("PYTHONPATH", "")])
    folder = Path(tempfile.mkdtemp(prefix="mdsens-campaign-"))
    try:
        if chosen.only != "soak":
            constants(1000, folder)
        if chosen.only != "constants":
            soak(chosen.tasks, chosen.workers, chosen.every, folder)
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
