"""What a worker does: one task, from plain data to a file. The only thing of a campaign that an engine sees.

It returns a receipt of less than 10 kB and never an array: results travel through the file system, where they
stay when worker, driver and engine are gone.
"""

import errno
import shutil
import socket
import time
import traceback
from pathlib import Path
from typing import Any

from mdsens import __version__
from mdsens.campaign.attempts import Claimed, Exhausted, claim
from mdsens.campaign.folder import CampaignFolder, cannot_write
from mdsens.campaign.kinds import GivenTask, content_of
from mdsens.campaign.potentials import load_placed
from mdsens.campaign.receipts import BUSY, DONE, FAILED, Receipt, receipt_of
from mdsens.campaign.task import Task
from mdsens.checks import whole
from mdsens.errors import CampaignError, MDSensError, WriteError
from mdsens.io.hdf5 import write_hdf5
from mdsens.potentials.parameters import replace_parameters

KIND = "result of a campaign"
FULL = (errno.ENOSPC, errno.EDQUOT)  # no fault of a task


def run_task(
    task: Task, out: str | Path, *, max_attempts: int = 3, version: str | None = None, run_name: str = ""
) -> dict[str, Any]:
    """Compute a task, unless its result is there, and keep the result as a file.

    Args:
        task: what to compute.
        out: folder of the campaign, which all workers see under this path.
        max_attempts: processes that may die of the task before it counts as failed.
        version: of mdsens that the sender has; None: any.
        run_name: of the driver that asks, for the receipt.
    Returns:
        the receipt as a dictionary; its status is "done", "cached", "failed" or "busy" (another process has
        the task). Whatever goes wrong in the task itself is a receipt that says so.
    Raises:
        CampaignError: another version of mdsens here than there, a folder of another schema.
        WriteError: the disk is full: that is not the task's fault, and it counts as not begun.
    """
    _require_version(version)
    turn_on_float64()
    whole("max_attempts", max_attempts, at_least=1)
    folder = CampaignFolder.made(out) if version is None else _seen(out)
    found = folder.receipt(task.key)
    if found is not None:
        return found.again().to_dict()
    try:
        with claim(folder, task.key, max_attempts) as attempt:
            # it may have been finished between the two looks
            found = folder.receipt(task.key)
            receipt = found.again() if found else _computed(task, folder, attempt, run_name)
    except Claimed:
        receipt = receipt_of(task, BUSY)
    except Exhausted as died:
        receipt = _exhausted(task, folder, died.args[0])
    return receipt.to_dict()


def turn_on_float64() -> None:
    """Let JAX compute in float64: a worker's process is its own."""
    import jax

    jax.config.update("jax_enable_x64", True)


def _seen(out: str | Path) -> CampaignFolder:
    """The folder that the sender has made; a worker that sees another disk would write where nobody looks."""
    if not Path(out).is_dir():
        raise CampaignError(
            f"the worker on {socket.gethostname()} does not see the folder '{out}': let it lie on a disk "
            "that all machines have under one path."
        )
    return CampaignFolder.there(out)


def _require_version(version: str | None) -> None:
    if version is not None and version != __version__:
        raise CampaignError(
            f"this worker has mdsens {__version__}, and the campaign was started with {version}: install one "
            "version on all machines. Results of two versions would stand side by side."
        )


def _computed(task: Task, folder: CampaignFolder, attempt: int, run_name: str) -> Receipt:
    began = time.perf_counter()
    of_run = {"run": run_name, "attempts": attempt}
    scratch = folder.scratch(task.key)
    try:
        content = content_of(task.kind, _given(task, folder, scratch))
        _write(task, content, folder, scratch)
    except (WriteError, CampaignError):
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno in FULL:
            raise cannot_write(folder.result(task.key), error) from error
        receipt = receipt_of(task, FAILED, error=_in_words(error), **_took(began), **of_run)
    else:
        path = folder.result_name(task.key)
        receipt = receipt_of(task, DONE, path=path, device=_device(), **_took(began), **of_run)
    folder.finish(receipt)
    shutil.rmtree(scratch, ignore_errors=True)
    return receipt


def _took(began: float) -> dict[str, Any]:
    return {"seconds": round(time.perf_counter() - began, 4)}


def _given(task: Task, folder: CampaignFolder, scratch: Path) -> GivenTask:
    potential = None
    if task.potential is not None:
        loaded = load_placed(task.potential, folder.path)
        potential = replace_parameters(loaded, task.params)
    files = {name: files.place(folder.path) for name, files in task.files.items()}
    return GivenTask(task.structures(), potential, task.options, files, scratch)


def _write(task: Task, content: dict[str, Any], folder: CampaignFolder, scratch: Path) -> None:
    # written aside and moved: `tasks/` holds whole files only, and nobody looks through thousands of them
    about = {"key": task.key, "name": task.name, "kind": task.kind, "params": dict(task.params) or None}
    unfinished = scratch / "result.h5"
    write_hdf5(unfinished, {"task": about, "result": content}, kind=KIND, overwrite=True)
    unfinished.replace(folder.result(task.key))


def _exhausted(task: Task, folder: CampaignFolder, attempts: int) -> Receipt:
    error = (
        f"{attempts} processes died while they computed it: out of memory, ended by a walltime, or crashed. "
        "Give it more of these, and try again with retry_failed=True (--retry-failed)."
    )
    receipt = receipt_of(task, FAILED, error=error, attempts=attempts)
    folder.finish(receipt)
    shutil.rmtree(folder.scratch(task.key), ignore_errors=True)
    return receipt


def _in_words(error: Exception) -> str:
    text = f"{type(error).__name__}: {error}"
    if isinstance(error, MDSensError):
        return text
    # a fault of a program: where it is belongs to what is known
    where = traceback.format_exception(error)
    return f"{text}\n{''.join(where)}"


def _device() -> str:
    import jax

    return str(jax.devices()[0])
