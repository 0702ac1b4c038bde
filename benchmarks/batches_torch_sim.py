"""Seconds a system of torch-sim's FIRE with its Lennard-Jones model: `batches.py --torch-sim PYTHON` asks.

    PYTHON benchmarks/batches_torch_sim.py SYSTEMS

Needs torch-sim 0.3 and ASE, and nothing of mdsens: it may live in an environment of its own. The walk of two
systems before is not counted.
"""

import sys
import time

import torch
import torch_sim as ts
from ase import Atoms
from ase.build import bulk
from torch_sim.models.lennard_jones import LennardJonesModel
from torch_sim.optimizers import fire


def start(seed: int) -> Atoms:
    atoms = bulk("Ar", "fcc", a=5.26, cubic=True).repeat(4)
    atoms.rattle(0.1, seed=seed)
    return atoms


def relaxed(model: LennardJonesModel, starts: list[Atoms]) -> float:
    """Seconds for all, and a check that they are where they should be."""
    converged = ts.generate_force_convergence_fn(force_tol=1e-3, include_cell_forces=False)
    begun = time.perf_counter()
    state = ts.optimize(starts, model, optimizer=fire, convergence_fn=converged, max_steps=5000)
    seconds = time.perf_counter() - begun
    largest = float(model(state)["forces"].norm(dim=1).max())
    if largest > 1e-3:
        raise SystemExit(f"torch-sim stopped at {largest:.1e} eV/Å")
    return seconds


def main() -> None:
    systems = int(sys.argv[1])
    model = LennardJonesModel(
        sigma=3.4, epsilon=0.0104, cutoff=8.5, dtype=torch.float64, compute_forces=True, compute_stress=False
    )
    relaxed(model, [start(1000 + k) for k in range(2)])
    print(relaxed(model, [start(k) for k in range(systems)]) / systems)


if __name__ == "__main__":
    main()
