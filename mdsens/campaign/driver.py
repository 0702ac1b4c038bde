"""The driver: hands tasks to any engine, and remembers nothing that is not in a file.

Of an engine it asks what `concurrent.futures.Executor` promises: `submit`, and futures that say when they are
done. All that must survive lies in the folder of the campaign. A driver that is started again finds what is
finished, hands out the rest, and so does a second driver beside the first.
"""

import os
import pickle
import queue
import socket
import time
import uuid
from collections.abc import Callable, Iterable
from concurrent.futures import BrokenExecutor, CancelledError, Executor, Future
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from mdsens import __version__
from mdsens.campaign.attempts import forgive
from mdsens.campaign.folder import CampaignFolder, chunks
from mdsens.campaign.receipts import BUSY, CACHED, DONE, FAILED, Receipt, receipt_of
from mdsens.campaign.task import Task
from mdsens.campaign.worker import run_task
from mdsens.checks import instance, whole
from mdsens.errors import CampaignError, MDSensError
from mdsens.precision import require_x64

MOST_REASONS = 1000  # that a report holds; the folder has all
LOST_IN_A_ROW = 20  # tasks that an engine loses before it counts as broken
PAUSE = 1.0  # s between looks at tasks that another driver computes
SAVE = 10.0  # s between notes of how far a run has come

Watch = Callable[[Receipt], None]


@dataclass
class CampaignReport:
    """How a run of a campaign ended.

    Attributes:
        done: tasks computed in this run. cached: that were there. failed: now or before.
        seconds: of the run.
        reasons: name -> why, of the first thousand that failed.
    """

    done: int = 0
    cached: int = 0
    failed: int = 0
    seconds: float = 0.0
    reasons: dict[str, str] = field(default_factory=dict)

    def count(self, receipt: Receipt) -> None:
        """Take in the end of a task."""
        self.done += receipt.status == DONE
        self.cached += receipt.status == CACHED
        self.failed += receipt.status == FAILED
        if receipt.status == FAILED and len(self.reasons) < MOST_REASONS:
            self.reasons[receipt.label] = receipt.error

    def __str__(self) -> str:
        return f"{self.done} done, {self.cached} cached, {self.failed} failed in {self.seconds:.1f} s"


def run(
    tasks: Iterable[Task],
    out: str | Path,
    executor: Executor | None = None,
    *,
    window: int = 1000,
    retry_failed: bool = False,
    max_attempts: int = 3,
    on_receipt: Watch | None = None,
) -> CampaignReport:
    """Compute tasks whose results are not there yet.

    Args:
        tasks: any number of them; of a list the folder knows all at once, and `status` what remains.
        out: folder of the campaign; all workers see it under this path.
        executor: whatever has `submit(function, ...)` and gives futures of `concurrent.futures`; None: one
            task after the other in this process. `mdsens.campaign.local()` gives one.
        window: tasks that the engine holds at a time.
        retry_failed: begin failed tasks anew; else they stay failed.
        max_attempts: processes that may die of a task before it counts as failed.
        on_receipt: called with the `Receipt` of each task.
    Returns:
        `CampaignReport`. Tasks that fail are in it, and stop nothing.
    Raises:
        CampaignError: a folder of another schema; workers without mdsens or with another version; an engine
            that broke, or cannot send tasks. WriteError: the disk is full. KeyboardInterrupt. After each of
            them the same call goes on with what is left.
    """
    require_x64()
    folder = CampaignFolder.made(out)
    window = whole("window", window, at_least=1)
    driver = _Driver(folder, executor, window, max_attempts, retry_failed, on_receipt)
    return driver.run(tasks)


class InThisProcess:
    """An executor that computes at once, here."""

    def submit(self, function: Callable[..., Any], *args: Any, **options: Any) -> "Future[Any]":
        """Call the function; what it raises is in the future, but for Ctrl-C."""
        future: Future[Any] = Future()
        try:
            future.set_result(function(*args, **options))
        except Exception as error:
            future.set_exception(error)
        return future


class _Driver:
    """One run. Holds the tasks that are out, and nothing of those that are finished."""

    def __init__(
        self,
        folder: CampaignFolder,
        executor: Executor | None,
        window: int,
        max_attempts: int,
        retry_failed: bool,
        on_receipt: Watch | None,
    ):
        self.folder = folder
        self.executor = executor or InThisProcess()
        self.window = 1 if executor is None else window
        self.chunk = window  # tasks of a list, where it is not known how many come
        self.max_attempts = whole("max_attempts", max_attempts, at_least=1)
        self.retry_failed = retry_failed
        self.on_receipt = on_receipt
        self.report = CampaignReport()
        self.ended: queue.SimpleQueue[Future[Any]] = queue.SimpleQueue()
        self.out: dict[Future[Any], Task] = {}
        self.keys: set[str] = set()  # of tasks that are out
        self.later: list[Task] = []  # that another process computes, or that are asked for twice
        self.lost: dict[str, int] = {}  # by the engine, and how often
        self.in_a_row = 0
        self.began, self.saved = time.time(), 0.0
        self.total: int | None = None
        self.name = f"{int(self.began * 1000)}-{uuid.uuid4().hex[:8]}"

    def run(self, tasks: Iterable[Task]) -> CampaignReport:
        """All tasks, then those that had to wait."""
        try:
            self._all(tasks)
        except BaseException as error:
            self._abandon()
            error.add_note(self._left())
            raise
        finally:
            self.report.seconds = time.time() - self.began
            self._save(ended=True)
        return self.report

    def _all(self, tasks: Iterable[Task]) -> None:
        if hasattr(tasks, "__len__"):
            self.total = len(tasks)  # pyright: ignore[reportArgumentType]
            for chunk in chunks(tasks, 1000):
                self.folder.keep_list([_line(task) for task in chunk])
            self._feed(tasks)
        else:
            for chunk in chunks(tasks, self.chunk):
                self.folder.keep_list([_line(task) for task in chunk])
                self._feed(chunk)
        while self.out or self.later:
            if self.out:
                self._take()
            else:
                self._wait_for_others()

    def _feed(self, tasks: Iterable[Task]) -> None:
        for task in tasks:
            instance("a task", task, Task, "Make one with mdsens.campaign.Task(structure, potential).")
            while len(self.out) >= self.window:
                self._take()
            self._begin(task)

    def _begin(self, task: Task) -> None:
        """Hand out a task, unless it is finished."""
        if task.key in self.keys:
            self.later.append(task)
            return
        found = self.folder.receipt(task.key)
        if found is not None and found.status == FAILED and self.retry_failed:
            self.folder.forget(task.key)
            found = None
        if found is not None:
            self._say(_as_named(found.again(), task))
        else:
            self._submit(task.placed(self.folder.path))

    def _submit(self, task: Task) -> None:
        options = {"max_attempts": self.max_attempts, "version": __version__, "run_name": self.name}
        try:
            future = self.executor.submit(run_task, task, str(self.folder.path.absolute()), **options)
        except Exception as error:
            raise _broken(error) from error
        self.out[future] = task
        self.keys.add(task.key)
        future.add_done_callback(self.ended.put)

    def _take(self) -> None:
        """Wait for the next task to end."""
        future = self.ended.get()
        task = self.out.pop(future)
        self.keys.discard(task.key)
        try:
            content = future.result()
        except (Exception, CancelledError) as error:
            self._lose(task, error)
            return
        self.in_a_row = 0
        receipt = Receipt.from_dict(content)
        if receipt.status == CACHED and receipt.run == self.name:
            receipt = replace(receipt, status=DONE)  # the engine lost the receipt, and asked once more
        if receipt.status == BUSY:
            self.later.append(task)
        else:
            self.lost.pop(task.key, None)
            self._say(_as_named(receipt, task))

    def _lose(self, task: Task, error: BaseException) -> None:
        """The engine gives no receipt: a worker died, or nothing works at all."""
        if isinstance(error, MDSensError):
            raise error
        if _is_broken(error):
            forgive(self.folder, task.key)
            raise _broken(error) from error
        self.in_a_row += 1
        times = self.lost[task.key] = self.lost.get(task.key, 0) + 1
        if self.in_a_row > LOST_IN_A_ROW:
            raise _broken(error) from error
        if times <= self.max_attempts:
            self._submit(task)  # the file of attempts says when it is enough
            return
        self.lost.pop(task.key)
        text = f"the engine gave no result {times} times. {type(error).__name__}: {error}"
        receipt = receipt_of(task, FAILED, error=text, attempts=times)
        self.folder.finish(receipt)
        self._say(receipt)

    def _wait_for_others(self) -> None:
        """Begin again what others had, or what was asked for twice."""
        waiting, self.later = self.later, []
        for task in waiting:
            while len(self.out) >= self.window:
                self._take()
            self._begin(task)
        while self.out:
            self._take()
        if len(self.later) == len(waiting):
            time.sleep(PAUSE)

    def _say(self, receipt: Receipt) -> None:
        self.report.count(receipt)
        if time.time() - self.saved > SAVE:
            self._save(ended=False)
        if self.on_receipt is not None:
            self.on_receipt(receipt)

    def _save(self, ended: bool) -> None:
        self.saved = time.time()
        counts = {name: getattr(self.report, name) for name in ("done", "cached", "failed")}
        times = {"began": self.began, "seconds": self.saved - self.began, "ended": ended}
        who = {"host": socket.gethostname(), "pid": os.getpid(), "total": self.total}
        try:
            self.folder.keep_run(self.name, {**counts, **times, **who})
        except MDSensError:
            return  # a full disk is said where results are written

    def _abandon(self) -> None:
        """Take back what has not begun; attempts under way were no deaths."""
        for future, task in self.out.items():
            cancel = getattr(future, "cancel", None)
            if cancel is not None:
                cancel()
            forgive(self.folder, task.key)

    def _left(self) -> str:
        finished = self.report.done + self.report.cached
        of = "" if self.total is None else f" of {self.total}"
        return f"{finished}{of} tasks are finished; the same campaign goes on from there."


def _line(task: Task) -> dict[str, Any]:
    instance("a task", task, Task, "Make one with mdsens.campaign.Task(structure, potential).")
    about = {"key": task.key, "name": task.name, "kind": task.kind}
    return {**about, "tags": dict(task.tags), "params": dict(task.params)}


def _as_named(receipt: Receipt, task: Task) -> Receipt:
    """The receipt of an equal task, under the name of this one."""
    return replace(receipt, name=task.name, tags=dict(task.tags))


# --- engines that do not work


def _is_broken(error: BaseException) -> bool:
    """Whether an error is of the engine, and not of a task."""
    without_us = isinstance(error, ModuleNotFoundError) and (error.name or "").split(".")[0] == "mdsens"
    return without_us or isinstance(error, BrokenExecutor) or _is_of_pickle(error)


def _is_of_pickle(error: BaseException) -> bool:
    text = str(error).lower()
    told = any(word in text for word in ("pickle", "serializ"))
    return isinstance(error, pickle.PicklingError) or (
        told and isinstance(error, (TypeError, AttributeError))
    )


def _broken(error: BaseException) -> CampaignError:
    said = f"{type(error).__name__}: {error}"
    if isinstance(error, ModuleNotFoundError):
        return CampaignError(
            f"the workers cannot import mdsens ({said}): install mdsens {__version__} where they run, in the "
            "environment that starts them."
        )
    if _is_of_pickle(error):
        return CampaignError(
            f"the executor cannot send tasks to its workers ({said}): give one whose processes import "
            "mdsens, such as mdsens.campaign.local(), a Dask or a Parsl executor."
        )
    return CampaignError(
        f"the executor does not work any more ({said}). What is finished stays: start the campaign again. "
        "Where a worker died, mdsens.campaign.local() says of which task, and goes on without it."
    )
