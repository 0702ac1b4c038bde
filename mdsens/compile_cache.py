"""Compiled code is kept on disk: the next process loads in milliseconds what this one compiled in seconds.

JAX can do that, and needs a folder. It gets one in the user's cache folder, unless one was chosen
before. Code is made for one kind of processor, and a home folder may be shared by several machines, so
each kind has a folder of its own, and so has each version of JAX:

    ~/.cache/mdsens/compiled/linux-x86_64-jax-0.10.1-jaxlib-0.10.1-3f1c82d09ab4

(JAX itself tells devices and options of the compiler apart.) Environment variables:

    MDSENS_COMPILE_CACHE         off, or another folder than ~/.cache/mdsens/compiled
    MDSENS_COMPILE_CACHE_SIZE    MiB that the folder may grow to, 1024 by default
    JAX_COMPILATION_CACHE_DIR    JAX's own folder: if it is set, or
                                 `jax_compilation_cache_dir` in `jax.config`, nothing is done here

Nothing here stops a computation: where no file can be written, one line says so and code is compiled again.
"""

import hashlib
import logging
import os
import platform
import shutil
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

FOLDER = "MDSENS_COMPILE_CACHE"
SIZE = "MDSENS_COMPILE_CACHE_SIZE"
DEFAULT_SIZE = 1024  # MiB
LEAST_SPACE = 256  # MiB free on the disk
# Loading a program takes 5 ms, and compiling the smallest one 15 to 30 ms. JAX would keep only what took 1 s,
# and a relaxation consists of dozens of programs that take less.
PAYS = 0.01  # s
# An entry counts as this much at least, so that there are never so many that looking at them takes long.
LEAST_SIZE = 65_536  # bytes
MIB = 2**20

logger = logging.getLogger("mdsens")


def set_up() -> Path | None:
    """Give JAX the folder for compiled code, if nobody else did. Returns the folder, or None without one."""
    import jax

    chosen = jax.config.jax_compilation_cache_dir  # pyright: ignore[reportAttributeAccessIssue]
    enabled = jax.config.jax_enable_compilation_cache  # pyright: ignore[reportAttributeAccessIssue]
    if chosen or not enabled or is_off():
        return None
    try:
        root = base_folder()
        folder = root / kind_of_machine()
        make_usable(folder)
        tidy(root, limit() * MIB)
    except (OSError, RuntimeError) as error:  # RuntimeError: there is no home folder
        logger.warning(
            "mdsens keeps no compiled code: %s. Every process compiles anew, which takes seconds. Set %s to "
            "a folder that can be written, or to off.",
            error,
            FOLDER,
        )
        return None
    jax.config.update("jax_compilation_cache_dir", str(folder))
    _keep_what_pays()
    _quiet()
    return folder


def is_off() -> bool:
    """Switched off by the user; or on a Mac with a jaxlib that crashes while it loads large programs."""
    text = os.environ.get(FOLDER, "").strip().lower()
    return text in ("off", "0", "no", "false") or (not text and _crashes_while_loading())


def _crashes_while_loading() -> bool:
    import jaxlib.version

    return sys.platform == "darwin" and jaxlib.version.__version_info__ < (0, 10)


def base_folder() -> Path:
    """The folder for all kinds of machines: the user's choice, or where the system keeps caches."""
    chosen = os.environ.get(FOLDER, "").strip()
    if chosen and chosen.lower() not in ("on", "1", "yes", "true"):
        return Path(chosen).expanduser().absolute()
    return _system_caches() / "mdsens" / "compiled"


def _system_caches() -> Path:
    local, xdg = os.environ.get("LOCALAPPDATA"), os.environ.get("XDG_CACHE_HOME")
    if sys.platform == "win32" and local:
        return Path(local)
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches"
    return Path(xdg) if xdg and Path(xdg).is_absolute() else Path.home() / ".cache"


# --- what code is compiled for


def kind_of_machine() -> str:
    """A name of the system, the versions of JAX, and a hash of all that is known of the processor."""
    import jax
    import jaxlib.version

    digest = hashlib.sha256("\n".join(processor()).encode()).hexdigest()[:12]
    system = f"{platform.system()}-{platform.machine()}".lower()
    return f"{system}-jax-{jax.__version__}-jaxlib-{jaxlib.version.__version__}-{digest}"


# in /proc/cpuinfo of x86 and of ARM
FACTS = {
    "vendor_id", "cpu family", "model", "model name", "stepping", "flags",
    "CPU implementer", "CPU architecture", "CPU variant", "CPU part", "Features",
}  # fmt: skip


def processor() -> list[str]:
    """Model and instruction sets of the processor, as the system states them."""
    facts = [platform.machine(), platform.processor()]
    try:
        first, *_ = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").split("\n\n")
    except OSError:
        return facts  # not Linux
    return facts + [line for line in first.splitlines() if line.partition(":")[0].strip() in FACTS]


# --- a folder that can be written, and does not grow for ever


def make_usable(folder: Path) -> None:
    """Make the folder.

    Raises:
        OSError: nothing can be written there, or the disk is nearly full.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder) as probe:
        probe.write(b"0")
    free = shutil.disk_usage(folder).free // MIB
    if free < LEAST_SPACE:
        raise OSError(f"{free} MiB are free on the disk of '{folder}', and {LEAST_SPACE} MiB are asked for")


def limit() -> float:
    """What all entries may take together, MiB."""
    text = os.environ.get(SIZE, "").strip()
    try:
        limit = float(text or DEFAULT_SIZE)
    except ValueError:
        limit = 0.0
    if not 0 < limit < float("inf"):
        logger.warning(
            "%s=%s: give a number of MiB above 0, such as 500. %d is used.", SIZE, text, DEFAULT_SIZE
        )
        return DEFAULT_SIZE
    return limit


def tidy(root: Path, limit: float) -> None:
    """Remove entries that were cut off, and then those used longest ago until the others fit."""
    entries = sorted(_entries(root), reverse=True)  # the youngest first
    kept = 0
    for last_used, size, path in entries:
        kept += max(size, LEAST_SIZE)
        if kept > limit or _cut_off(last_used, size):
            path.unlink(missing_ok=True)


def _entries(root: Path) -> Iterator[tuple[float, int, Path]]:
    """When each entry of any kind of machine was last used, its size, its path. Other files are not ours."""
    for path in root.glob("*-jax-*-jaxlib-*/*-cache"):
        try:
            status = path.stat()
        except FileNotFoundError:  # another process tidies up, too
            continue
        yield max(status.st_atime, status.st_mtime), status.st_size, path


def _cut_off(last_used: float, size: int) -> bool:
    # Where a process is killed or a disk is full, writing ends in the middle, at a page of memory or
    # disk. JAX would try that entry for ever. Of the whole ones one in 4096 ends there: it is compiled
    # once more.
    return size % 4096 == 0 and time.time() - last_used > 60  # not what another process is writing


# --- what JAX keeps, and what it says


def _keep_what_pays() -> None:
    import jax

    threshold = jax.config.jax_persistent_cache_min_compile_time_secs  # pyright: ignore[reportAttributeAccessIssue]
    if threshold == 1.0:  # JAX's default: not chosen by the user
        jax.config.update("jax_persistent_cache_min_compile_time_secs", PAYS)


def _quiet() -> None:
    """No lines about files of the cache that cannot be read or written, nor about processors that differ.

    XLA compares what it compiled for with the processor, and takes a preference of the compiler (prefer-
    no-gather) for an instruction that is missing: it would fill pages with warnings of SIGILL on the
    very machine that compiled the code (openxla/xla issue 44565).
    """
    import jax

    for verb in ("reading", "writing"):
        warnings.filterwarnings("ignore", f"Error {verb} persistent compilation cache entry")
    if os.environ.get("TF_CPP_MIN_LOG_LEVEL", "1") == "1":  # JAX's own setting: not chosen by the user
        level = jax.config.jax_logging_level  # pyright: ignore[reportAttributeAccessIssue]
        jax.config.update("jax_logging_level", "CRITICAL")  # of XLA as well,
        jax.config.update("jax_logging_level", level)  # which keeps it when there was none before
