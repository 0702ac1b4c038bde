"""What one step of a fit to relaxed properties costs once all is compiled.

    python benchmarks/fit_step.py

Eight atoms of silicon (Stillinger-Weber): the lattice constant and three elastic constants with four free
parameters. Each step changes the parameters by 0.3 %, relaxes the crystal from where the last step said it
would be, measures it, and differentiates all four properties by all four parameters. Processor time stands
beside the time on the clock: other work on the machine adds to the latter.
"""

import time

import jax
import numpy as np
from ase.build import bulk

jax.config.update("jax_enable_x64", True)

import mdsens as ms  # noqa: E402
from mdsens.fitting import RelaxedTargets, Target, TargetStructure  # noqa: E402
from mdsens.fitting.terms import Memory  # noqa: E402

FREE = ("epsilon", "sigma", "lambda", "costheta0")
WANTED = {"lattice_constant": 5.431, "C11": 165.8, "C12": 63.9, "C44": 79.6}
COMPILES = 3  # first steps: the walk from afar, the walk from nearby, and what the latter meets once
STEPS = 12
CHANGE = 0.003


def main() -> None:
    silicon = ms.load_potential("si-stillinger-weber-1985")
    crystal = ms.Structure.from_ase(bulk("Si", a=5.431, cubic=True))
    wanted = [Target(name, value) for name, value in WANTED.items()]
    targets = RelaxedTargets(TargetStructure(crystal, cell="isotropic"), wanted)
    start = {name: ms.parameter_values(silicon)[name] for name in FREE}
    memory: Memory = {}
    times = []
    for step in range(COMPILES + STEPS):
        theta = {name: value * (1 + CHANGE * step) for name, value in start.items()}
        there = ms.replace_parameters(silicon, theta)
        clocks = time.perf_counter(), time.process_time()
        memory = targets.evaluate(there, FREE, memory).memory
        times.append((time.perf_counter() - clocks[0], time.process_time() - clocks[1]))
    first, warm = times[0], np.array(times[COMPILES:])
    print(f"first step, with compiling   {first[0]:8.2f} s   {first[1]:8.2f} s of the processor")
    for title, of in (("a warm step, least", np.min), ("median", np.median), ("most", np.max)):
        clock, processor = of(warm, axis=0)
        print(f"{title:28} {clock:8.3f} s   {processor:8.3f} s of the processor")


if __name__ == "__main__":
    main()
