"""Structures of different sizes side by side, in few shapes: a compiled program serves all of one shape.

Structures are filled up with ghosts: atoms at the end that are in nobody's list. A ghost feels no force
and adds to no stress, and its energy e_0 is that of an atom that is alone, so

    E(n atoms)  =  E(n atoms and g ghosts) - g e_0.

That holds for every local potential, networks included. One with interactions that no list holds (Coulomb
sums) would see ghosts: its structures share shapes only if they have as many atoms.

Rows are filled up too: a batch that is not full repeats its last structure with the weight zero.
"""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from mdsens.datasets.dataset import Dataset, LabelledStructure
from mdsens.errors import InputError
from mdsens.ghosts import ghost_places
from mdsens.neighbors import Capacity, Neighbors, find_neighbors, list_of_pairs
from mdsens.potentials.base import Potential, check_elements
from mdsens.potentials.graphs import GraphPotential
from mdsens.potentials.mapped import MappedPotential
from mdsens.potentials.shells import ShellPotential
from mdsens.potentials.sums import SumPotential
from mdsens.quantities import evaluate
from mdsens.strain import VOIGT
from mdsens.structure import Structure

ATOMS_AT_ONCE = 4096  # in a batch, unless told: more save no calls
ATOMS_IN_CACHE = 64  # that a core works off together
STEPS = 4  # sizes between one power of two and the next: a quarter of ghosts at most, beyond SMALL
SMALL = (4, 8)


class LabelledBatch(eqx.Module):
    """Structures of one shape with their labels; every array has an axis for structures in front.

    Attributes:
        structure: atoms and ghosts. neighbors: of the atoms; ghosts have none.
        ghosts: how many of the atoms are ghosts.
        energy: eV. energy_weight: zero where it is not known.
        forces: eV/Å. forces_weight: of each atom, zero where they are not known.
        stress: eV/Å³, Voigt order. stress_weight: zero where it is not known.
        entry: place in the data set; -1 in rows that only fill the batch.
    """

    structure: Structure
    neighbors: Neighbors
    ghosts: Float[Array, "rows"]
    energy: Float[Array, "rows"]
    energy_weight: Float[Array, "rows"]
    forces: Float[Array, "rows atoms 3"]
    forces_weight: Float[Array, "rows atoms"]
    stress: Float[Array, "rows 6"]
    stress_weight: Float[Array, "rows"]
    entry: Int[Array, "rows"]

    @property
    def sizes(self) -> Float[Array, "rows"]:
        """Number of atoms without ghosts."""
        return self.forces.shape[1] - self.ghosts


class BatchValues(NamedTuple):
    """What a potential says of a batch: energies in eV, forces in eV/Å, stresses in eV/Å³ and Voigt order."""

    energy: Float[Array, "rows"]
    forces: Float[Array, "rows atoms 3"]
    stress: Float[Array, "rows 6"]


def make_batches(
    data: Dataset,
    potential: Potential,
    *,
    reach: float | None = None,
    atoms_at_once: int = ATOMS_AT_ONCE,
    one_shape: bool = False,
    rule: Callable[[int], int] | None = None,
) -> list[LabelledBatch]:
    """A data set in batches for a potential.

    Args:
        potential: whose lists are made.
        reach: of the lists, Å; by default the cutoff.
        atoms_at_once: about as many atoms, ghosts included, are in a batch.
        one_shape: all structures in one batch of one shape.
        rule: number of atoms -> size; all structures of one size in one batch, as small as the largest of
            them. By default sizes are closer (`size_for`), and batches hold `atoms_at_once`.
    Raises:
        InputError: an empty data set; elements without parameters; structures that are periodic in different
            ways, or of different sizes for a potential that is not local, in one shape.
    """
    if not len(data):
        raise InputError("the data set is empty: there is nothing to evaluate.")
    for entry in data:
        _check(potential, entry)
    reach = float(potential.cutoff) if reach is None else reach
    listed = [_listed(entry.structure, potential, reach) for entry in data]
    found: list[LabelledBatch] = []
    for rows, size in _shapes(data, potential, one_shape, rule):
        shape = _common([listed[k].neighbors.capacity for k in rows])
        together = one_shape or rule is not None
        at_once = len(rows) if together else max(1, min(len(rows), atoms_at_once // size))
        for part in _parts(rows, at_once):
            found.append(_batch(data, [listed[k] for k in part], part, size, shape, reach))
    return found


def batch_values(potential: Potential, batch: LabelledBatch) -> BatchValues:
    """Energies, forces and stresses of a batch; can be traced, and differentiated by the parameters."""
    found = map_structures(lambda structure, neighbors: evaluate(potential, structure, neighbors), batch)
    energies = found.energy - batch.ghosts * lone_energy(potential, batch)
    return BatchValues(energies, found.forces, voigt_of(found.stress))


def map_structures(function: Callable[[Structure, Neighbors], Any], batch: LabelledBatch) -> Any:
    """A function of every structure of a batch and its list, stacked.

    On a CPU some after the other: what belongs to one then stays in the cache of a core. SW forces of 64
    atoms take a seventh of the time that they take all at once.
    """
    rows = batch.structure, batch.neighbors
    if jax.default_backend() != "cpu":
        return jax.vmap(function)(*rows)
    together = max(1, ATOMS_IN_CACHE // batch.forces.shape[1])
    batch_size = together if together > 1 else None
    return jax.lax.map(lambda row: function(*row), rows, batch_size=batch_size)


def lone_energy(potential: Potential, batch: LabelledBatch) -> Float[Array, ""]:
    """Energy of a ghost, eV; zero for potentials that never meet one."""
    if not sees_no_ghosts(potential):
        return jnp.zeros(())
    first = jax.tree.map(lambda leaf: leaf[0], batch.structure)
    charges = None if first.charges is None else jnp.zeros(1)
    lone = dataclasses.replace(
        first,
        positions=jnp.zeros((1, 3)),
        species=first.species[-1:],
        masses=jnp.ones(1),
        fixed=jnp.zeros((1, 3), bool),
        charges=charges,
        columns={name: jnp.zeros((1, *values.shape[1:])) for name, values in first.columns.items()},
    )
    none, no_shift = np.zeros(0, np.int32), np.zeros((0, 3))
    place, no_cell = np.zeros((1, 3)), np.zeros((3, 3))
    nobody = list_of_pairs(none, none, no_shift, place, no_cell, 1.0, Capacity(1, 1, 1))
    nobody = dataclasses.replace(nobody, reach=batch.neighbors.reach[0], cell=first.cell)
    return potential.energy(lone, nobody)


def voigt_of(tensors: Float[Array, "*rows 3 3"]) -> Float[Array, "*rows 6"]:
    """Stresses in Voigt order."""
    components = [tensors[..., a, b] for a, b in VOIGT]
    return jnp.stack(components, axis=-1)


# --- what goes together


def _check(potential: Potential, entry: LabelledStructure) -> None:
    try:
        check_elements(potential, entry.structure)
    except InputError as error:
        raise InputError(f"{entry.name}: {error}") from error


def sees_no_ghosts(potential: Potential) -> bool:
    """Whether the energy of a potential comes from its list alone."""
    if isinstance(potential, SumPotential | MappedPotential):
        return all(sees_no_ghosts(part) for part in potential.parts)
    return isinstance(potential, ShellPotential | GraphPotential) and potential.local


def size_for(n: int) -> int:
    """Atoms and ghosts in the arrays of n atoms.

    Closer than `mdsens.ghosts.size_for`: a data set is gone through often, and ghosts cost each time, where a
    relaxation is compiled for a size and may never see it again.
    """
    for size in SMALL:
        if n <= size:
            return size
    step = (1 << (n.bit_length() - 1)) // STEPS
    return -(-n // step) * step


def _shapes(
    data: Dataset, potential: Potential, one_shape: bool, rule: Callable[[int], int] | None
) -> Iterator[tuple[list[int], int]]:
    """Entries that share a shape, and its number of atoms."""
    sizes = [entry.structure.n_atoms for entry in data]
    kinds = [(e.structure.pbc, e.structure.charges is None, (*e.structure.columns,)) for e in data]
    if one_shape:
        _check_one_shape(potential, kinds, sizes)
        yield list(range(len(data))), max(sizes)
        return
    size_of = rule or size_for
    groups: dict[Any, list[int]] = {}
    ghosts = sees_no_ghosts(potential)
    for k, (kind, n) in enumerate(zip(kinds, sizes, strict=True)):
        size = size_of(n) if ghosts else n
        groups.setdefault((*kind, size), []).append(k)
    for (*_, size), rows in groups.items():
        largest = max(sizes[k] for k in rows)
        yield rows, size if rule is None else largest


def _check_one_shape(potential: Potential, kinds: list[Any], sizes: list[int]) -> None:
    if len(set(kinds)) > 1:
        raise InputError(
            f"structures that are periodic along different vectors ({_in_words(kinds)}), or only some with "
            "charges or columns, have no common shape: train on one kind, or put molecules into large "
            "periodic cells."
        )
    if not sees_no_ghosts(potential) and len(set(sizes)) > 1:
        raise InputError(
            f"structures of {min(sizes)} to {max(sizes)} atoms have no common shape for "
            f"{type(potential).__name__}, which sees more than lists of neighbors: give structures of one "
            "size."
        )


def _in_words(kinds: list[Any]) -> str:
    return ", ".join(sorted({str(kind[0]) for kind in kinds}))


def _parts(rows: list[int], at_once: int) -> Iterator[list[int]]:
    """Pieces of equal length; the last one is filled up with -1."""
    for start in range(0, len(rows), at_once):
        part = rows[start : start + at_once]
        yield part + [-1] * (at_once - len(part))


# --- lists


class _Listed(NamedTuple):
    """A structure with its list as it comes."""

    structure: Structure
    neighbors: Neighbors


def _listed(structure: Structure, potential: Potential, reach: float) -> _Listed:
    found = find_neighbors(structure, reach, shortest_wave=potential.shortest_wave)
    return _Listed(structure, found)


def _common(shapes: Sequence[Capacity]) -> Capacity:
    # at least one place of each kind, waves apart: forms may look at the first of an array
    *lists, waves = (max(sizes) for sizes in zip(*shapes, strict=True))
    pairs, width, images = (max(1, size) for size in lists)
    return Capacity(pairs, width, images, waves)


def _batch(
    data: Dataset, listed: list[_Listed], part: list[int], size: int, shape: Capacity, reach: float
) -> LabelledBatch:
    real = np.array(part) >= 0
    last = int(np.flatnonzero(real)[-1])
    chosen = [k if row >= 0 else last for k, row in enumerate(part)]
    ghost = int(np.asarray(listed[0].structure.species)[0])
    structures = [_filled(listed[k].structure, size, ghost) for k in chosen]
    pairs = zip(chosen, structures, strict=True)
    lists = [_list_of(listed[k], filled, shape, reach) for k, filled in pairs]
    ghosts = [size - listed[k].structure.n_atoms for k in chosen]
    return LabelledBatch(
        structure=_stacked(structures),
        neighbors=_stacked(lists),
        ghosts=jnp.asarray(ghosts, float),
        entry=jnp.asarray(part),
        **_columns([_labels(data[part[k]], size) for k in chosen], real),
    )


def _columns(labels: list[dict[str, Any]], real: np.ndarray) -> dict[str, Array]:
    """An array of each label and weight; rows that only fill a batch up weigh nothing."""
    columns = {name: np.array([label[name] for label in labels]) for name in labels[0]}
    for name in ("energy_weight", "forces_weight", "stress_weight"):
        weights = columns[name]
        further = [1] * (weights.ndim - 1)
        columns[name] = weights * real.reshape(-1, *further).astype(float)
    return {name: jnp.asarray(column) for name, column in columns.items()}


def _stacked(trees: Sequence[Any]) -> Any:
    def stacked(*leaves: Any) -> Array:
        return jnp.asarray(np.stack([np.asarray(leaf) for leaf in leaves]))

    return jax.tree.map(stacked, *trees)


def _filled(structure: Structure, size: int, ghost: int) -> Structure:
    """With ghosts at the end, far away and held."""
    spare = size - structure.n_atoms
    if not spare:
        return structure
    charges = structure.charges
    return dataclasses.replace(
        structure,
        positions=_extended(structure.positions, ghost_places(spare)),
        species=_extended(structure.species, np.full(spare, ghost, np.int32)),
        masses=_extended(structure.masses, np.ones(spare)),
        fixed=_extended(structure.fixed, np.ones((spare, 3), bool)),
        charges=None if charges is None else _extended_by_zeros(charges, spare),
        columns={name: _extended_by_zeros(values, spare) for name, values in structure.columns.items()},
    )


def _extended(values: Array, further: np.ndarray) -> Array:
    return jnp.asarray(np.concatenate([np.asarray(values), further]))


def _extended_by_zeros(values: Array, spare: int) -> Array:
    return _extended(values, np.zeros((spare, *values.shape[1:])))


def _list_of(listed: _Listed, filled: Structure, shape: Capacity, reach: float) -> Neighbors:
    """The same pairs in arrays of a given shape, for the structure with its ghosts."""
    old = listed.neighbors
    valid = np.asarray(old.valid)
    found = (old.i, old.j, old.shift)
    i, j, shift = (np.asarray(part)[valid] for part in found)
    places, cell = np.asarray(filled.positions), np.asarray(filled.cell)
    made = list_of_pairs(i, j, shift, places, cell, reach, shape)
    if old.waves is None:
        return made
    spare = shape.waves - old.waves.shape[0]
    waves = np.pad(np.asarray(old.waves), [(0, spare), (0, 0)])
    return dataclasses.replace(made, waves=jnp.asarray(waves))


def _labels(entry: LabelledStructure, size: int) -> dict[str, Any]:
    n = entry.structure.n_atoms
    forces, known = np.zeros((size, 3)), np.zeros(size)
    if entry.forces is not None:
        forces[:n] = entry.forces
        known[:n] = 1.0 if entry.known is None else entry.known
    energy = 0.0 if entry.energy is None else entry.energy
    stress = np.zeros((3, 3)) if entry.stress is None else entry.stress
    weights = entry.weights
    labels: dict[str, Any] = {"energy": energy, "forces": forces}
    labels["stress"] = np.array([stress[a, b] for a, b in VOIGT])
    labels["energy_weight"] = weights.energy * (entry.energy is not None)
    labels["forces_weight"] = weights.forces * known
    labels["stress_weight"] = weights.stress * (entry.stress is not None)
    return labels
