"""Claims on what changes nothing: shifts, turns, the order of atoms, images, what is out of reach."""

import dataclasses
from collections.abc import Iterator

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from mdsens.neighbors import Neighbors, find_neighbors
from mdsens.quantities import EnergyForcesStress, evaluate, neighbors_of
from mdsens.structure import Structure, volume
from mdsens.testing.bench import Bench
from mdsens.testing.probe import Check, filled, largest, probe


def _per_atom(s: Structure) -> tuple[Array, ...]:
    arrays = (s.positions, s.species, s.masses, s.fixed)
    charges = () if s.charges is None else (s.charges,)
    return (*arrays, *charges, *s.columns.values())


def invariances(bench: Bench) -> Iterator[Check]:
    """Energy, forces and stress of the same structure, written down otherwise."""
    yield _shift(bench)
    yield _turn(bench)
    if bench.potential.knows_atoms:
        bench.left_out.append("order of atoms, a doubled cell: the potential was made for these atoms")
    else:
        yield _order(bench)
    claim = "spare slots and pairs beyond the cutoff change nothing"
    spare = bench.list_of(bench.structure, bench.large_skin)
    yield _compare(bench, claim, bench.structure, spare, bench.here)
    if not any(bench.structure.pbc):
        bench.left_out.append("periodic images and a doubled cell: the structure is not periodic")
        return
    yield _images(bench)
    if bench.potential.knows_cell:
        bench.left_out.append("a doubled cell: the potential was made for this cell")
    elif not bench.potential.knows_atoms:
        yield _doubled(bench)
    if bench.potential.local and np.isfinite(bench.cutoff):
        yield _vacuum(bench, "a slab is a cell with vacuum on one side", 1)
        yield _vacuum(bench, "a cluster is a cell with vacuum around", 3)
    else:
        bench.left_out.append("slab and cluster as cells with vacuum: the interaction does not end")


def _compare(
    bench: Bench, claim: str, other: Structure, neighbors: Neighbors, wanted: EnergyForcesStress
) -> Check:
    """Energy, forces and stress of another structure against what they should be."""
    found = jax.tree.map(np.asarray, evaluate(bench.potential, other, neighbors))
    # all three as energies, to be told apart on one scale
    energy = abs(float(found.energy - wanted.energy))
    forces = float(np.abs(found.forces - wanted.forces).max()) * bench.shortest
    off = float(np.abs(found.stress - wanted.stress).max())
    stress = off * float(volume(other))
    error, what = largest([(energy, "energy"), (forces, "forces"), (stress, "stress")])
    return Check(claim, error, 100 * bench.rounding, "eV", what)


def _shift(bench: Bench) -> Check:
    x = np.asarray(bench.structure.positions)
    moved = bench.structure.at(jnp.asarray(x + bench.random.normal(size=3)))
    return _compare(bench, "a shift of everything changes nothing", moved, bench.list_of(moved), bench.here)


def _turn(bench: Bench) -> Check:
    energy, forces, stress = bench.here
    turn = np.linalg.qr(bench.random.normal(size=(3, 3)))[0]
    turn = turn * np.sign(np.linalg.det(turn))
    moved = bench.structure.deformed(jnp.asarray(turn))
    # rows x -> x R: forces turn along, and the stress as a matrix does
    wanted = EnergyForcesStress(energy, forces @ turn, turn.T @ stress @ turn)
    claim = "a turn of everything turns forces and stress"
    return _compare(bench, claim, moved, bench.list_of(moved), wanted)


def _order(bench: Bench) -> Check:
    energy, forces, stress = bench.here
    order = bench.random.permutation(bench.structure.n_atoms)
    leaves = _per_atom(bench.structure)
    sorted_anew = tuple(jnp.asarray(np.asarray(leaf)[order]) for leaf in leaves)
    moved = eqx.tree_at(_per_atom, bench.structure, sorted_anew)
    wanted = EnergyForcesStress(energy, forces[order], stress)
    return _compare(bench, "the order of atoms does not matter", moved, bench.list_of(moved), wanted)


def _images(bench: Bench) -> Check:
    structure = bench.structure
    x, cell = np.asarray(structure.positions), np.asarray(structure.cell)
    shifts = bench.random.integers(-2, 3, (structure.n_atoms, 3))
    images = shifts * np.array(structure.pbc)
    moved = structure.at(jnp.asarray(x + images @ cell))
    claim = "it does not matter which image of an atom is given"
    return _compare(bench, claim, moved, bench.list_of(moved), bench.here)


def _doubled(bench: Bench) -> Check:
    structure, (energy, forces, stress) = bench.structure, bench.here
    x, cell = np.asarray(structure.positions), np.asarray(structure.cell)
    axis = structure.pbc.index(True)
    twice = tuple(jnp.asarray(np.concatenate([leaf, leaf])) for leaf in _per_atom(structure))
    longer = cell.copy()
    longer[axis] *= 2
    places = np.concatenate([x, x + cell[axis]])
    doubled = eqx.tree_at(_per_atom, structure, twice).at(jnp.asarray(places), jnp.asarray(longer))
    wanted = EnergyForcesStress(2 * energy, jnp.concatenate([forces, forces]), stress)
    neighbors = neighbors_of(bench.potential, doubled)
    return _compare(bench, "a cell twice as long has twice the energy", doubled, neighbors, wanted)


def _vacuum(bench: Bench, claim: str, open_vectors: int) -> Check:
    """Open along the last vectors; against cells that are too long for anything to be felt across."""
    structure = bench.structure
    pbc = tuple(along and k < 3 - open_vectors for k, along in enumerate(structure.pbc))
    cell = np.asarray(structure.cell)
    reach = float(np.ptp(np.asarray(structure.positions), axis=0).max()) + 2 * bench.cutoff
    # the height of a cell above a face is 1 over the length of the reciprocal vector
    heights = 1 / np.linalg.norm(np.linalg.inv(cell), axis=0)
    stretch = np.ones(3)
    stretch[3 - open_vectors :] = np.ceil(2 * reach / heights[3 - open_vectors :])
    roomy = structure.at(structure.positions, jnp.asarray(stretch[:, None] * cell))
    inside = jax.tree.map(np.asarray, evaluate(bench.potential, roomy, bench.list_of(roomy)))
    wanted = inside._replace(stress=inside.stress * np.prod(stretch))  # of the volume that the open one has
    opened = dataclasses.replace(structure, pbc=pbc)
    return _compare(bench, claim, opened, bench.list_of(opened), wanted)


def locality(bench: Bench) -> Iterator[Check]:
    """Nothing is felt beyond the ranges that a local form states."""
    potential, structure = bench.potential, bench.structure
    if not potential.local or not np.isfinite(bench.cutoff):
        bench.left_out.append("locality: the form does not say that interactions end")
        return
    claim = "atoms out of range of each other feel nothing of each other, as a local form says"
    d = np.linalg.norm(np.asarray(bench.neighbors.vectors(structure)), axis=-1)
    ranges = potential.ranges(structure, bench.neighbors)
    ratio = np.where(bench.neighbors.valid, ranges / d, 0.0)
    if not ratio.max() * bench.shortest <= 1.001 * bench.cutoff:
        yield Check(claim, np.inf, 0.0, "eV/Å²", "`ranges` reach beyond the cutoff: set local = False")
        return
    # Swollen until its closest atoms are just out of range. If one of them, i, moves, the force on another,
    # j, changes by H_ji: nothing of an interaction, whatever field each atom is in.
    swollen = structure.deformed(jnp.asarray(1.02 * ratio.max() * np.eye(3)))
    neighbors = find_neighbors(swollen, bench.cutoff, capacity=bench.capacity)
    atom = int(bench.neighbors.i[int(ratio.argmax())])
    moved = jnp.zeros((structure.n_atoms, 3)).at[atom].set(1.0)
    product = probe(potential, swollen, neighbors, moved, filled(potential, 0.0)).product
    felt = np.delete(np.abs(np.asarray(product)), atom, axis=0)
    scale = bench.force / bench.shortest
    yield Check(claim, float(felt.max(initial=0.0)), 1e-10 * scale, "eV/Å²", f"when atom {atom} moves")
