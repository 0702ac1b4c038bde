"""Forked processes: refused in words where they would hang, let through where they would not."""

import os
import subprocess
import sys

FORKED = """
import os, sys, warnings
warnings.simplefilter("ignore")
import mdsens as ms
import jax
jax.config.update("jax_enable_x64", True)
{before}
child = os.fork()
if child == 0:
    from mdsens.precision import require_x64
    {inside}
    try:
        require_x64()
        print("ready", flush=True)
    except ms.errors.MDSensError as error:
        print(type(error).__name__, error, flush=True)
    os._exit(0)
os.waitpid(child, 0)
"""
USED = "jax.numpy.zeros(1).block_until_ready()"


def run(before: str, inside: str = "", **environment: str) -> str:
    code = FORKED.format(before=before, inside=inside)
    done = subprocess.run(
        [sys.executable, "-c", code],
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
        env=os.environ | {"JAX_PLATFORMS": "cpu"} | environment,
    )
    return done.stdout.strip()


def test_a_child_forked_off_after_jax_was_used_is_told_to_spawn():
    text = run(USED, 'import pickle; error = pickle.loads(pickle.dumps(ms.errors.ForkError("one")))')
    assert text.startswith("ForkError process") and 'get_context("spawn")' in text


def test_a_child_forked_off_before_that_computes():
    assert run("", USED) == "ready"


def test_the_check_can_be_switched_off():
    assert run(USED, MDSENS_ALLOW_FORK="1") == "ready"
