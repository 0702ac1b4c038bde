"""Kinds of tasks for tests of engines: functions that cost nothing, die, or wait. Workers import them."""

import os
import signal
import time
from pathlib import Path


def square(given):
    """The square of a number."""
    x = given.options["x"]
    if x < 0:
        raise ValueError(f"x = {x} is below zero")
    return {"names": ["square"], "units": ["eV"], "values": [float(x) ** 2]}


def noted(given):
    """The same, with a line in a file for each time that it is computed."""
    with Path(given.options["log"]).open("a") as log:
        log.write(f"{given.options['x']} {os.getpid()}\n")
    time.sleep(given.options.get("seconds", 0.0))
    return square(given)


def poison(given):
    """Takes its process with it."""
    os.kill(os.getpid(), signal.SIGKILL)


def fills_the_disk(given):
    """As if there were no room."""
    raise OSError(28, "No space left on device")
