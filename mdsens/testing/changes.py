"""Claims on derivatives by parameters: the same in both modes, and what a change of them does."""

from collections.abc import Iterator
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from mdsens.neighbors import Neighbors
from mdsens.potentials.base import Potential
from mdsens.potentials.parameters import Entry, follow_path, parameter_entries
from mdsens.structure import Structure
from mdsens.testing.bench import Bench, Path
from mdsens.testing.probe import Check, Probe, dot, filled, largest, of_atoms, probe


def parameters(bench: Bench) -> Iterator[Check]:
    """Energy and forces by the parameters."""
    theta = eqx.filter(bench.potential, eqx.is_inexact_array)
    if not jax.tree.leaves(theta):
        bench.left_out.append("parameters: the potential has none")
        return
    v = jnp.asarray(bench.random.normal(size=(bench.structure.n_atoms, 3)))
    random = lambda t: jnp.asarray(_size(t) * bench.random.normal(size=t.shape))
    change = jax.tree.map(random, theta)
    found = probe(bench.potential, bench.structure, bench.neighbors, v, change)
    yield from _forward_and_reverse(found, v, change)
    yield _change_of_forces(bench, found, change)
    yield _change_of_energy(bench, found)
    if bench.potential.by_differences:
        bench.left_out.append("d²E/dtheta²: derivatives of the form are differences")
    else:
        yield from _second_derivatives(bench, v, change)


def _size(t: np.ndarray | Array) -> np.ndarray:
    """Of a change of a parameter that counts."""
    return np.where(np.abs(t) > 1e-12, np.abs(t), 1.0)


def _changed(bench: Bench, change: Potential) -> Path:
    """The parameters change."""
    theta, form = eqx.partition(bench.potential, eqx.is_inexact_array)

    def at(s: float) -> tuple[Potential, Structure]:
        moved_by = lambda t, d: jnp.asarray(np.asarray(t) + s * np.asarray(d))
        moved = jax.tree.map(moved_by, theta, change)
        return eqx.combine(moved, form), bench.structure

    return at


def _forward_and_reverse(found: Probe, v: Array, change: Potential) -> Iterator[Check]:
    where = "a random change of all"
    value, terms = dot(found.reverse, change)
    error = abs(value - float(found.forward))
    yield Check("dE/dtheta is the same forward and in reverse", error, 1e-11 * terms, "eV", where)
    value, terms = dot(found.forces_reverse, change)
    forward, scale = dot(v, found.forces_forward)
    error, allowed = abs(value - forward), 1e-10 * max(terms, scale)
    yield Check("dF/dtheta is the same forward and in reverse", error, allowed, "eV/Å", where)


def _change_of_forces(bench: Bench, found: Probe, change: Potential) -> Check:
    slope, used = bench.slope(_changed(bench, change), 1e-4)
    error = np.abs(slope.forces - np.asarray(found.forces_forward))
    scale = max(float(np.abs(found.forces_forward).max()), bench.force)
    allowed = bench.rtol * scale + bench.rounding / bench.shortest / used
    return of_atoms("dF/dtheta is what a change of parameters does", error, allowed, "eV/Å")


def _change_of_energy(bench: Bench, exact: Probe) -> Check:
    entries = parameter_entries(bench.potential)
    some = range(len(entries))
    if len(entries) > 40:
        some = sorted(bench.random.choice(len(entries), 40, replace=False))
    found, allowed = [], bench.rtol * bench.energy
    for entry in (entries[k] for k in some):
        values = np.asarray(follow_path(bench.potential, entry.path))
        size = float(_size(values[entry.index]))
        slope, used = bench.slope(_changed(bench, _unit_change(bench.potential, entry, size)), 3e-4)
        slope_by = np.asarray(follow_path(exact.reverse, entry.path))
        wanted = size * float(slope_by[entry.index])
        scale = max(bench.energy, abs(wanted))
        allowed = max(allowed, bench.rtol * scale + bench.rounding / used)
        found.append((abs(float(slope.energy) - wanted), entry.name))
    error, where = largest(found)
    return Check("theta dE/dtheta is what a change of theta does", error, allowed, "eV", where)


@eqx.filter_jit
def _curvatures(bench_of: tuple[Potential, Structure, Neighbors], change: Potential) -> tuple[Any, Any]:
    """d²E/dtheta² along a change, by forward over reverse and by reverse over forward differentiation."""
    potential, structure, neighbors = bench_of
    theta, form = eqx.partition(potential, eqx.is_inexact_array)

    def energy(theta: Potential) -> Array:
        return eqx.combine(theta, form).energy(structure, neighbors)

    def along(theta: Potential) -> Array:
        return jax.jvp(energy, (theta,), (change,))[1]

    return jax.jvp(jax.grad(energy), (theta,), (change,))[1], jax.grad(along)(theta)


def _second_derivatives(bench: Bench, v: Array, change: Potential) -> Iterator[Check]:
    where = (bench.potential, bench.structure, bench.neighbors)
    forward, reverse = _curvatures(where, change)
    value, terms = dot(forward, change)
    other, _ = dot(reverse, change)
    words = "a random change of all"
    claim = "d²E/dtheta² is the same by forward over reverse and by reverse over forward"
    yield Check(claim, abs(value - other), 1e-10 * terms + bench.rounding, "eV", words)

    def first(potential: Potential, structure: Structure, neighbors: Neighbors) -> Array:
        return probe(potential, structure, neighbors, v, change).forward

    slope, used = bench.slope(_changed(bench, change), 1e-4, first)
    allowed = bench.rtol * max(bench.energy, abs(value)) + bench.rounding / used
    claim = "d²E/dtheta² is what a change of theta does to dE/dtheta"
    yield Check(claim, abs(float(slope) - value), allowed, "eV", words)


def _unit_change(potential: Potential, entry: Entry, size: float) -> Potential:
    """A change of one entry of the parameters, and of nothing else."""
    array = np.zeros(follow_path(potential, entry.path).shape)
    array[entry.index] = size
    still = filled(potential, 0.0)
    return eqx.tree_at(lambda t: follow_path(t, entry.path), still, jnp.asarray(array))
