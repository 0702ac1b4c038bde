"""Claims on derivatives by positions and strains: forces, Hessian, stress."""

from collections.abc import Iterator

import jax.numpy as jnp
import numpy as np

from mdsens.potentials.base import Potential
from mdsens.strain import UNIT_STRAINS, VOIGT, VOIGT_NAMES
from mdsens.structure import Structure, volume
from mdsens.testing.bench import Bench, Path
from mdsens.testing.probe import Check, dot, filled, largest, of_atoms, probe


def derivatives(bench: Bench) -> Iterator[Check]:
    """Forces, Hessian and stress against differences."""
    yield _forces(bench)
    yield from _hessian(bench)
    if float(volume(bench.structure)) == 0:
        bench.left_out.append("stress: the structure has no volume")
    else:
        yield _stress(bench)


def _along(bench: Bench, direction: np.ndarray) -> Path:
    """The atoms move along a direction."""
    x = np.asarray(bench.structure.positions)

    def at(s: float) -> tuple[Potential, Structure]:
        return bench.potential, bench.structure.at(jnp.asarray(x + s * direction))

    return at


def _strained(bench: Bench, strain: np.ndarray) -> Path:
    """The structure deforms by a strain."""

    def at(s: float) -> tuple[Potential, Structure]:
        deformation = jnp.asarray(np.eye(3) + s * strain)
        return bench.potential, bench.structure.deformed(deformation)

    return at


def _forces(bench: Bench) -> Check:
    n = bench.structure.n_atoms
    units = np.eye(3 * n).reshape(3 * n, n, 3)
    forces = bench.here.forces.reshape(-1)
    found, allowed = [], bench.rtol * bench.force
    for k in _some_coordinates(bench):
        slope, used = bench.slope(_along(bench, units[k]), 3e-4 * bench.shortest)
        allowed = max(allowed, bench.rtol * bench.force + bench.rounding / used)
        error = abs(float(slope.energy) + float(forces[k]))
        found.append((error, f"atom {k // 3}, {'xyz'[k % 3]}"))
    error, where = largest(found)
    return Check("forces are minus the gradient of the energy", error, allowed, "eV/Å", where)


def _some_coordinates(bench: Bench) -> np.ndarray:
    # all coordinates of a small structure; else some, the first and last atom among them, where lists go
    # wrong first
    n = bench.structure.n_atoms
    if n <= 24:
        return np.arange(3 * n)
    first = np.arange(3)
    last = first + 3 * n - 3
    between = bench.random.integers(0, 3 * n, 42)
    return np.unique(np.concatenate([first, last, between]))


def _hessian(bench: Bench) -> Iterator[Check]:
    potential, structure = bench.potential, bench.structure
    v, w = bench.random.normal(size=(2, structure.n_atoms, 3))
    still = filled(potential, 0.0)
    one = probe(potential, structure, bench.neighbors, jnp.asarray(v), still)
    other = probe(potential, structure, bench.neighbors, jnp.asarray(w), still)
    vhw, size = dot(v, other.product)
    whv, _ = dot(w, one.product)
    where = "along two random displacements"
    yield Check("the Hessian is symmetric", abs(vhw - whv), 1e-10 * size, "eV/Å²", where)

    slope, used = bench.slope(_along(bench, v), 3e-4 * bench.shortest / 4)
    error = np.abs(slope.forces + np.asarray(one.product))
    scale = float(np.abs(one.product).max())
    allowed = bench.rtol * scale + bench.rounding / bench.shortest / used
    yield of_atoms("the Hessian is the derivative of the forces", error, allowed, "eV/Å²")


def _stress(bench: Bench) -> Check:
    stress = np.array([bench.here.stress[a, b] for a, b in VOIGT])
    virial = float(volume(bench.structure)) * stress
    found, allowed = [], bench.rtol * bench.energy
    for k, strain in enumerate(UNIT_STRAINS):
        slope, used = bench.slope(_strained(bench, strain), 3e-4)
        allowed = max(allowed, bench.rtol * bench.energy + bench.rounding / used)
        error = abs(float(slope.energy) - virial[k])
        found.append((error, f"component {VOIGT_NAMES[k]}"))
    error, where = largest(found)
    return Check("stress times volume is the derivative of the energy by strain", error, allowed, "eV", where)
