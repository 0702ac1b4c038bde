"""How good is a cheap derivative? Exact, ridge, Neumann series, truncated conjugate gradients.

    python workflows/approximate_derivatives.py

The response of a silicon vacancy (Stillinger-Weber, 63 atoms) to lambda, the strength of its angles: how far
each cheap way is off, against the products with the Hessian it takes. Writes approximate_derivatives.png.
"""

import argparse
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

jax.config.update("jax_enable_x64", True)

import mdsens as ms  # noqa: E402
from mdsens.implicit.approximate import Neumann, Ridge, TruncatedCG  # noqa: E402
from mdsens.implicit.linear import identity  # noqa: E402

PRODUCTS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
RIDGES = (1e-3, 1e-2, 1e-1, 1.0, 10.0)  # eV/Å²


def problem(times: int = 2) -> tuple[np.ndarray, np.ndarray]:
    """Hessian and right-hand side, eV/Å²: of the motions that cost energy."""
    from ase.build import bulk

    potential = ms.load_potential("si-stillinger-weber-1985")
    atoms = bulk("Si", cubic=True, a=5.431) * (times, times, times)
    del atoms[0]
    atoms.rattle(0.02, seed=1)
    structure = ms.relax(potential, ms.Structure.from_ase(atoms), fmax=1e-10).structure
    near = ms.neighbors_of(potential, structure)
    gauge = ms.find_gauge(potential, structure, near, 0)

    def gradient(x, scale):
        moved = eqx.tree_at(lambda p: p.lambda_, potential, potential.lambda_ * scale)
        return jax.grad(lambda v: moved.energy(structure.at(v.reshape(-1, 3)), near))(x)

    x = structure.positions.ravel()
    H = np.asarray(jax.jit(jax.jacfwd(gradient))(x, 1.0))
    b = -np.asarray(jax.jit(jax.jacfwd(gradient, argnums=1))(x, 1.0))
    values, vectors = np.linalg.eigh(gauge.matrix)
    basis = vectors[:, values > 0.5]
    return basis.T @ H @ basis, basis.T @ b


def errors(H: np.ndarray, b: np.ndarray) -> dict[str, tuple[tuple[float, ...], list[float]]]:
    """Relative error of the response by each way, against its number of products or its ridge."""
    exact = np.linalg.solve(H, b)
    largest = float(np.linalg.norm(H, 2))
    product = jax.jit(lambda v: jnp.asarray(H) @ v)

    def off(solver) -> float:
        y = solver.solve(product, jnp.asarray(b), identity, identity)
        return float(np.linalg.norm(y - exact) / np.linalg.norm(exact))

    return {
        "Neumann": (PRODUCTS, [off(Neumann(K, 1 / largest)) for K in PRODUCTS]),
        "conjugate gradients": (PRODUCTS, [off(TruncatedCG(K)) for K in PRODUCTS[:7]]),
        "ridge": (RIDGES, [off(Ridge(r)) for r in RIDGES]),
    }


def plot(found: dict, condition: float, path: Path) -> None:
    """Both in one figure."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained", sharey=True)
    for name in ("Neumann", "conjugate gradients"):
        counts, off = found[name]
        left.loglog(counts[: len(off)], off, "o-", label=name)
    left.axvline(condition, color="0.6", ls=":", label="condition number")
    left.set(xlabel="products with the Hessian", ylabel="relative error of the response", ylim=(1e-8, 3))
    left.legend()
    right.loglog(*found["ridge"], "s-", color="C2")
    right.set(xlabel="ridge (eV/Å²)")
    figure.savefig(path, dpi=130)
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--times", type=int, default=2, help="conventional cells along each edge")
    parser.add_argument("--output", type=Path, default=Path("approximate_derivatives.png"))
    options = parser.parse_args()
    H, b = problem(options.times)
    values = np.linalg.eigvalsh(H)
    print(f"{len(H)} unknowns, condition number {values[-1] / values[0]:.0f}")
    found = errors(H, b)
    for name, (at, off) in found.items():
        print(f"{name:20}", "  ".join(f"{x:g}: {e:.1e}" for x, e in zip(at, off, strict=False)))
    plot(found, values[-1] / values[0], options.output)


if __name__ == "__main__":
    main()
