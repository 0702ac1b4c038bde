"""What derivatives of averages by all parameters cost, in energies of the frames.

    python benchmarks/thermal.py            # Stillinger-Weber silicon, 64 atoms, all 10 parameters
    python benchmarks/thermal.py 3          # 216 atoms

Frames of a rattled crystal; each has a list of neighbors of its own, made once in either case. "bare" leaves
the lists out: the compiled program alone. Processor time, so that other work on the machine counts little.
"""

import argparse
import time

import jax

jax.config.update("jax_enable_x64", True)

import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
import timing  # noqa: E402
from ase.build import bulk  # noqa: E402

import mdsens as ms  # noqa: E402
from mdsens.thermal import frames as measured  # noqa: E402

timing.clock = time.process_time
FRAMES = 128


def ensemble_of(repeat: int) -> ms.Ensemble:
    potential = ms.load_potential("si-stillinger-weber-1985")
    crystal = ms.Structure.from_ase(bulk("Si", "diamond", a=5.431, cubic=True)).repeat(repeat)
    noise = 0.1 * np.random.default_rng(0).normal(size=(FRAMES, crystal.n_atoms, 3))
    positions = np.asarray(crystal.positions) + noise
    return ms.Ensemble.of_frames(potential, crystal, positions, temperature=300.0)


def bare(ensemble: ms.Ensemble) -> tuple[float, float]:
    """Energies, and energies with their gradients by all parameters, ms."""
    potential, names = ensemble.potential, tuple(ensemble.parameters)
    places = np.arange(measured.TOGETHER)
    structures, neighbors, _ = measured._with_lists(potential, ensemble.frames, places, None, None)

    def run(names: tuple[str, ...], order: int) -> object:
        theta = measured.values_of(potential, names)
        return measured._measured(potential, names, theta, (measured.energy,), order, structures, neighbors)

    return timing.least(lambda: run((), 0), 5), timing.least(lambda: run(names, 1), 5)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("repeat", type=int, nargs="?", default=2)
    ensemble = ensemble_of(parser.parse_args().repeat)
    n, p = ensemble.frames.structure.n_atoms, len(ensemble.parameters)

    def energies() -> object:
        return measured.measure_frames(ensemble.potential, ensemble.frames, (measured.energy,))

    def derivatives() -> object:
        found = ensemble.average(["energy", "heat_capacity"])
        return jnp.asarray(found.derivatives)

    one, all_ = timing.least(energies, 3), timing.least(derivatives, 3)
    bare_one, bare_all = bare(ensemble)
    print(f"{n} atoms, {FRAMES} frames, {p} parameters; processor time, ms")
    print(f"energies of the frames               {one:8.0f}   bare {bare_one:8.1f}")
    print(f"averages with all their derivatives  {all_:8.0f}   bare {bare_all:8.1f}")
    print(f"ratio                                {all_ / one:8.2f}   bare {bare_all / bare_one:8.2f}")


if __name__ == "__main__":
    main()
