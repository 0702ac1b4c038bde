"""What a training step of a flow costs.

Alanine dipeptide, about half a million parameters, batch 128, float32. Likelihood alone, likelihood with
force matching (second derivatives of the flow), smooth transforms and splines, and how fast samples and
forces come. Ratios from one run, medians of interleaved repetitions.

    python benchmarks/flow_training.py [REPETITIONS]
"""

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console
from rich.table import Table

jax.config.update("jax_enable_x64", True)

import mdsens as ms  # noqa: E402  (float64 first)
from mdsens.flows.train import FlowLoss  # noqa: E402
from mdsens.training import train_step  # noqa: E402

DATA = Path(__file__).parents[1] / "data"
BATCH = 128


def main() -> None:
    repetitions = int(sys.argv[1]) if len(sys.argv) > 1 else 20
    frames = ms.flows.read_force_data(DATA / "alanine-dipeptide.h5")
    molecule = ms.flows.read_molecule(DATA / "alanine-dipeptide.pdb")
    coordinates = ms.flows.choose_coordinates(molecule.topology, frames.positions)
    flows = {
        kind: ms.flows.MoleculeArchitecture.of(kind, hidden=(96, 96))
        .build(coordinates, frames.positions, jax.random.key(0))
        .astype(jnp.float32)
        for kind in ("smooth", "spline")
    }
    x, f = jnp.asarray(frames.positions[:BATCH]), jnp.asarray(frames.forces[:BATCH])
    work: dict[str, Callable[[], Any]] = {}
    for kind, flow in flows.items():
        size = sum(leaf.size for leaf in jax.tree.leaves(eqx.filter(flow, eqx.is_inexact_array)))
        for name, loss in (
            ("likelihood", ms.flows.Loss(force=0.0)),
            ("likelihood and forces", ms.flows.Loss()),
        ):
            work[f"{kind}, {size / 1e6:.2f} M parameters: step, {name}"] = stepper(flow, loss, x, f)
        work[f"{kind}: {BATCH} energies and forces"] = lambda flow=flow: ms.flows.energies_and_forces(flow, x)
        work[f"{kind}: {BATCH} samples"] = lambda flow=flow: draw(flow)
    compile_times, times = {}, {name: [] for name in work}
    for name, function in work.items():
        compile_times[name] = seconds(function)
    for _ in range(repetitions):
        for name, function in work.items():
            times[name].append(seconds(function))
    table = Table(
        "",
        "median (ms)",
        "least (ms)",
        "compile (s)",
        title=f"batch {BATCH}, float32, {jax.devices()[0].device_kind}",
    )
    for name, values in times.items():
        table.add_row(
            name, f"{1e3 * np.median(values):.1f}", f"{1e3 * min(values):.1f}", f"{compile_times[name]:.1f}"
        )
    Console(width=130).print(table)


def stepper(flow: Any, loss: Any, x: Any, f: Any) -> Callable[[], Any]:
    """A step of the optimizer, as `mdsens.flows.train` takes it."""
    schedule = ms.flows.Schedule()
    parameters, rest = eqx.partition(flow, eqx.is_inexact_array)
    state = schedule.optimizer.init(parameters)
    data, rows, step = {"positions": x, "forces": f, "weights": None}, np.arange(BATCH), jnp.asarray(0)
    loss = FlowLoss(loss)
    return lambda: train_step(loss, schedule.optimizer, rest, parameters, state, data, rows, 0, step)


@eqx.filter_jit
def draw(flow: Any) -> Any:
    return jax.vmap(flow.draw)(jax.random.split(jax.random.key(0), BATCH))


def seconds(function: Callable[[], Any]) -> float:
    start = time.perf_counter()
    jax.block_until_ready(function())
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
