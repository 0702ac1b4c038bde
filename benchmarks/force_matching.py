"""What a pass over a data set costs in force matching, in force evaluations of the same structures.

    python benchmarks/force_matching.py              # 200 Stillinger-Weber structures of 64 atoms
    python benchmarks/force_matching.py 50 216

Three passes on one core, all with lists of neighbors made before: energies, forces and stresses alone; the
gradient of the loss by all parameters, as a step of an optimizer takes it; residuals with their
derivatives by nine parameters, as a step of Gauss-Newton takes them. KLIFF does the second with
differences of the loss, or with the parameters of its own networks; it is left out, with the reason, where
it is not installed.
"""

import os
import sys

os.environ.setdefault("OMP_NUM_THREADS", "1")
if hasattr(os, "sched_setaffinity"):  # before the threads of XLA are made
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from ase.build import bulk
from timing import least

jax.config.update("jax_enable_x64", True)

import mdsens as ms  # noqa: E402
from mdsens.datasets import Dataset, batch_values, label  # noqa: E402
from mdsens.fitting import ForceMatching, LabelTolerances  # noqa: E402
from mdsens.fitting.train_potential import PotentialLoss, PotentialParameters  # noqa: E402

KIM_MODEL = "SW_StillingerWeber_1985_Si__MO_405512056662_005"


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
        seconds = least(action, 5) / 1e3
        bare = bare or seconds
        _say(name, seconds, count, bare)
    seconds, reason = kliff_pass(data)
    if seconds is None:
        print(f"KLIFF: left out, {reason}")
        return
    # L-BFGS-B of scipy takes its gradient by differences
    for name, factor in (("KLIFF: energies and forces", 1), ("its gradient, by differences", len(names) + 1)):
        _say(name, factor * seconds, count, bare)


def _say(name: str, seconds: float, count: int, bare: float) -> None:
    each = 1e3 * seconds / count
    print(f"{name:32s} {seconds:8.3f} s   {each:7.3f} ms a structure   {seconds / bare:6.1f}")


def kliff_pass(data: Dataset) -> tuple[float | None, str]:
    """Seconds that KLIFF takes for energies and forces of all structures, or why there are none."""
    try:
        from kliff.dataset.dataset import Configuration
        from kliff.legacy.calculators import Calculator
        from kliff.models import KIMModel

        model = KIMModel(KIM_MODEL)
    except Exception as error:  # not installed, or without the library or the model
        return None, f"{type(error).__name__}: {error}"
    configurations = [
        Configuration(
            cell=np.asarray(entry.structure.cell),
            species=entry.structure.symbols,
            coords=np.asarray(entry.structure.positions),
            PBC=[True] * 3,
            energy=entry.energy,
            forces=entry.forces,
        )
        for entry in data
    ]
    calculator = Calculator(model)
    calculator.create(configurations)
    arguments = calculator.get_compute_arguments()

    def compute() -> list[float]:
        for one in arguments:
            calculator.compute(one)
        return [calculator.get_energy(one) for one in arguments]

    # the same potential, but for the last digits of the constants of the model
    assert np.allclose(compute(), [entry.energy for entry in data], rtol=1e-4)
    return least(compute, 5) / 1e3, ""


if __name__ == "__main__":
    main(*(int(text) for text in sys.argv[1:]))
