"""What dipoles cost beside the same charges without them: energy and forces of a rattled crystal of ions.

    python benchmarks/dipoles.py            # 216 and 1000 ions of rock salt
    python benchmarks/dipoles.py 1000

Processor time, so that other work on the machine counts little.
"""

import argparse
import time

import jax

jax.config.update("jax_enable_x64", True)

import equinox as eqx  # noqa: E402
import numpy as np  # noqa: E402
import timing  # noqa: E402
from ase.build import bulk  # noqa: E402

import mdsens as ms  # noqa: E402

timing.clock = time.process_time
CHARGES = {"charge": [1.0, -1.0], "elements": ("Na", "Cl")}


@eqx.filter_jit
def energy_and_slope(potential, structure, neighbors):
    energy = lambda x: potential.energy(structure.at(x), neighbors)
    return jax.value_and_grad(energy)(structure.positions)


def crystal(ions: int) -> ms.Structure:
    """About so many, rattled by 0.1 Å."""
    cell = ms.Structure.from_ase(bulk("NaCl", "rocksalt", a=5.64, cubic=True))
    whole = cell.repeat(round((ions / 8) ** (1 / 3)))
    noise = 0.1 * np.random.default_rng(0).normal(size=whole.positions.shape)
    return whole.at(whole.positions + noise)


def cost(potential: ms.Potential, structure: ms.Structure) -> float:
    """ms."""
    near = ms.neighbors_of(potential, structure)
    return timing.least(lambda: energy_and_slope(potential, structure, near), 3)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("ions", type=int, nargs="*", default=[216, 1000])
    print(f"{'ions':>6}{'charges, ms':>14}{'dipoles, ms':>14}{'ratio':>8}")
    for ions in parser.parse_args().ions:
        structure = crystal(ions)
        alone = cost(ms.Ewald(**CHARGES), structure)
        dipoles = ms.InducedDipoles(polarizability=[0.18, 3.0], thole=0.39, **CHARGES)
        together = cost(dipoles, structure)
        print(f"{structure.n_atoms:6d}{alone:14.0f}{together:14.0f}{together / alone:8.1f}", flush=True)


if __name__ == "__main__":
    main()
