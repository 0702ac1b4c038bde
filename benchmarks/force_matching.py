"""What a pass over a data set costs in force matching, in force evaluations of the same structures.

    python benchmarks/force_matching.py              # 200 Stillinger-Weber structures of 64 atoms
    python benchmarks/force_matching.py 50 216

Three passes on one core, all with lists of neighbors made before: energies, forces and stresses alone; the
gradient of the loss by all parameters, as a step of an optimizer takes it; residuals with their
derivatives by nine parameters, as a step of Gauss-Newton takes them. KLIFF does the second with
differences of the loss, or with the parameters of its own networks; it is left out, with the reason, where
it is not installed.
"""

import importlib.util
import os
import sys
import time
from collections.abc import Callable

os.environ.setdefault("OMP_NUM_THREADS", "1")
if hasattr(os, "sched_setaffinity"):  # before the threads of XLA are made
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})

import equinox as eqx
import jax
import jax.numpy as jnp
from ase.build import bulk

jax.config.update("jax_enable_x64", True)

import mdsens as ms  # noqa: E402
from mdsens.datasets import Dataset, batch_values, label  # noqa: E402
from mdsens.fitting import ForceMatching, LabelTolerances  # noqa: E402
from mdsens.fitting.train_potential import PotentialLoss, PotentialParameters  # noqa: E402


def least(action: Callable[[], object], repetitions: int = 5) -> float:
    """Shortest time of an action, s, after a first call that compiles."""
    jax.block_until_ready(action())
    times = []
    for _ in range(repetitions):
        start = time.perf_counter()
        jax.block_until_ready(action())
        times.append(time.perf_counter() - start)
    return min(times)


def rattled(count: int, atoms: int) -> Dataset:
    """Silicon crystals of about so many atoms."""
    edge = round((atoms / 8) ** (1 / 3))
    structures = []
    for seed in range(count):
        crystal = bulk("Si", a=5.431, cubic=True) * (edge, edge, edge)
        crystal.rattle(0.1, seed=seed)
        structures.append(ms.Structure.from_ase(crystal))
    return Dataset.create(structures)


def main(count: int = 200, atoms: int = 64) -> None:
    potential = ms.load_potential("si-stillinger-weber-1985")
    data = label(potential, rattled(count, atoms))
    term = ForceMatching(data)
    batches = term.batches(potential)
    loss = PotentialLoss(potential, LabelTolerances())
    model = PotentialParameters.of(potential)
    names = tuple(name for name in ms.parameter_values(potential) if name != "epsilon")

    values = eqx.filter_jit(batch_values)
    slope = eqx.filter_jit(eqx.filter_grad(lambda model, batch: loss(model, batch, None)[0]))
    passes = {
        "energies, forces, stresses": lambda: [values(potential, batch) for batch in batches],
        "gradient of the loss": lambda: [slope(model, batch) for batch in batches],
        f"residuals and {len(names)} derivatives": lambda: jnp.asarray(
            term.evaluate(potential, names, {}).residuals
        ),
    }
    bare = None
    print(f"{count} structures of {data[0].structure.n_atoms} atoms in {len(batches)} batches, one core")
    for name, action in passes.items():
        seconds = least(action)
        bare = bare or seconds
        each = 1e3 * seconds / count
        print(f"{name:32s} {seconds:8.3f} s   {each:7.3f} ms a structure   {seconds / bare:6.1f}")
    if importlib.util.find_spec("kliff") is None:
        print("KLIFF: not installed (pip install kliff, and the KIM API), left out")


if __name__ == "__main__":
    main(*(int(text) for text in sys.argv[1:]))
