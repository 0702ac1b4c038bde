"""Newton's method from 0.1 to 1e-10 eV/Å: steps and products with the Hessian, line search against models.

    python benchmarks/newton_steps.py

Four landscapes: a vacancy in silicon (Stillinger-Weber, 63 atoms), the icosahedron of 55 Lennard-Jones
atoms, a copper surface (Gupta, 36 atoms), a packing of 64 soft spheres. Each is shaken, relaxed to 0.1
(packing: 1e-3) by FIRE, and finished by each method from the same point. Counts, not times: other work on
the machine does not matter.
"""

import jax
import numpy as np
from ase.build import bulk, fcc111
from ase.cluster import Icosahedron

jax.config.update("jax_enable_x64", True)

import mdsens as ms  # noqa: E402
from mdsens.relaxation import newton  # noqa: E402

METHODS = {
    "line search": ms.NewtonCG(),
    "model, q = 1 (AICN)": ms.DampedNewton(),
    "model, q = 1/2": ms.DampedNewton(order=0.5),
}
PRODUCTS = [0]


def count_products() -> None:
    """Make every solve of a Newton step add to the count."""
    solve = newton.conjugate_gradient

    def counted(*arguments, **options):
        result = solve(*arguments, **options)
        jax.debug.callback(lambda steps: PRODUCTS.__setitem__(0, PRODUCTS[0] + int(steps)), result.steps)
        return result

    newton.conjugate_gradient = counted


def vacancy():
    atoms = bulk("Si", cubic=True, a=5.431) * (2, 2, 2)
    del atoms[0]
    atoms.rattle(0.03, seed=1)
    return ms.load_potential("si-stillinger-weber-1985"), ms.Structure.from_ase(atoms)


def cluster():
    x = Icosahedron("Ar", 3, latticeconstant=1.58).positions
    d = np.linalg.norm(x[:, None] - x, axis=-1)
    x = 1.12 * x / d[d > 0].min() + 0.03 * np.random.default_rng(0).normal(size=x.shape)
    potential = ms.LennardJones(1.0, 1.0, ("Ar",), np.inf, ms.Truncated())
    return potential, ms.Structure.create(x, ["Ar"] * len(x))


def surface():
    slab = fcc111("Cu", (3, 3, 4), a=3.615, vacuum=8.0, periodic=True)
    slab.rattle(0.03, seed=1)
    return ms.load_potential("cu-gupta-1993"), ms.Structure.from_ase(slab)


def packing():
    rng = np.random.default_rng(5)
    edge = (64 * np.pi / 6 / 0.72) ** (1 / 3)
    x = edge * rng.random((64, 3))
    return ms.SoftSphere(1.0, 1.0, 2.0, ("Ar",)), ms.Structure.create(x, ["Ar"] * 64, [edge] * 3)


def main() -> None:
    count_products()
    print(f"{'landscape':12} {'method':22} {'steps':>6} {'products':>9} {'force':>9}")
    for make in (vacancy, cluster, surface, packing):
        potential, structure = make()
        first = 1e-3 if make is packing else 0.1
        options = dict(check_minimum=False, throw=False)
        start = ms.relax(potential, structure, fmax=first, solver=ms.FIRE(dt_max=0.2), **options).structure
        for name, solver in METHODS.items():
            PRODUCTS[0] = 0
            end = ms.relax(potential, start, fmax=1e-10, solver=solver, **options)
            jax.effects_barrier()
            row = f"{int(end.steps):6} {PRODUCTS[0]:9} {float(end.fmax):9.0e}"
            print(f"{make.__name__:12} {name:22} {row} {end.status.name.lower()}", flush=True)


if __name__ == "__main__":
    main()
