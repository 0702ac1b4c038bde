"""What an edit of weights must leave as it is: energies and forces of structures, properties of crystals.

Each is a row of the same least-norm problem as the targets, held at the value that it had:

    E_s / n_s                energy per atom of each structure,
    c_k . f_s                combinations of its forces,
    O_j                      relaxed properties of other crystals, such as lattice constants.

A structure of n atoms has 3 n forces, of which 3 n - 3 are independent. All of them may be held; or a few
orthonormal combinations c_k, drawn at random: what is left of a change of all forces is then, on the
average, the share that the combinations do not span.

    d (c . f) / d theta = - d/dtheta (c . dE/dx),     the derivative along c of dE/dtheta: one pass for each.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from mdsens.batching import map_rows
from mdsens.checks import whole
from mdsens.datasets.batches import LabelledBatch, batch_values, lone_energy, make_batches
from mdsens.datasets.dataset import Dataset
from mdsens.errors import InputError
from mdsens.fitting.targets import RelaxedTargets, Target, TargetStructure, most
from mdsens.fitting.terms import Memory
from mdsens.fitting.weights import Rows, WeightVector
from mdsens.neighbors import Capacity
from mdsens.potentials.base import Potential
from mdsens.structure import Structure, require_structure


@dataclasses.dataclass(frozen=True)
class KeptProperties:
    """What stays as it is, to first order of each step.

    Attributes:
        structures: whose energies and forces are held; all periodic in the same directions.
        crystals: relaxed crystals by name. properties: of each of them that are held, by name.
        combinations: of the forces of each structure that are held; None for all.
        seed: of the combinations.
    """

    structures: Sequence[Structure] = ()
    crystals: Mapping[str, TargetStructure] = dataclasses.field(default_factory=dict)
    properties: tuple[str, ...] = ("lattice_constant",)
    combinations: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        for k, structure in enumerate(self.structures):
            require_structure(structure, f"structures[{k}]")
        if self.combinations is not None:
            whole("combinations", self.combinations, at_least=1)
        if not len(self.structures) and not self.crystals:
            raise InputError("nothing is kept: give structures, crystals, or no KeptProperties.")


class KeptValues(NamedTuple):
    """Rows that are held, at some weights.

    Attributes:
        values: in eV, eV/Å, and units of the properties.
        memories: relaxed states by name of the crystal.
        relaxations: how many it took.
    """

    values: Float[np.ndarray, "rows"]
    memories: Mapping[str, Memory]
    relaxations: int


class KeptRows:
    """`KeptProperties` for one potential: lists and combinations are made once."""

    def __init__(self, keep: KeptProperties, potential: Potential, room: Capacity | None = None):
        """Args: room: of lists of neighbors, at least."""
        self.vector = WeightVector.of(potential)
        self.batch = batch_of(keep.structures, potential) if len(keep.structures) else None
        rng = np.random.default_rng(keep.seed)
        self.combinations = [_combinations(s.n_atoms, keep.combinations, rng) for s in keep.structures]
        self.crystals = {name: _held(setup, keep.properties) for name, setup in keep.crystals.items()}
        rooms = [term.room(potential) for term in self.crystals.values()]
        self.room = most([*rooms, *([] if room is None else [room])]) if self.crystals else room

    def values(self, potential: Potential, memories: Mapping[str, Memory]) -> KeptValues:
        """Values alone."""
        return self._all(potential, memories, None)

    def rows(self, potential: Potential, memories: Mapping[str, Memory], out: Rows) -> KeptValues:
        """Values, and d values / d weights into `out`."""
        return self._all(potential, memories, out)

    def _all(self, potential: Potential, memories: Mapping[str, Memory], out: Rows | None) -> KeptValues:
        parts = [] if self.batch is None else [self._of_structures(potential)]
        done = sum(len(part) for part in parts)
        if out is not None:
            self._rows_of_structures(potential, out[:done])
        after = {}
        for name, term in self.crystals.items():
            memory, derivatives = memories.get(name, {}), out is not None
            found = term.by_weights(potential, self.vector, memory, derivatives, self.room)
            after[name] = found.memory
            parts.append(found.residuals)
            if out is not None:
                out[done : done + len(found.jacobian)] = found.jacobian
            done += len(found.residuals)
        return KeptValues(np.concatenate(parts), after, len(after))

    def _of_structures(self, potential: Potential) -> np.ndarray:
        assert self.batch is not None
        found = labels_of(potential, self.batch)
        values = []
        for energy, forces, combinations in zip(found.energy, found.forces, self.combinations, strict=True):
            n = combinations.shape[1] // 3
            held = combinations @ np.asarray(forces)[:n].ravel()
            values += [float(energy) / n, *held]
        return np.array(values)

    def _rows_of_structures(self, potential: Potential, out: Rows) -> None:
        if self.batch is None:
            return
        theta = jnp.asarray(self.vector.values(potential))
        most, done = max(1, *(len(c) for c in self.combinations)), 0
        for k, combinations in enumerate(self.combinations):
            one = jax.tree.map(lambda leaf, k=k: leaf[k : k + 1], self.batch)
            filled = np.zeros((most, one.forces[0].size))
            filled[: len(combinations), : combinations.shape[1]] = combinations
            energy, forces = _slopes(potential, self.vector, theta, one, jnp.asarray(filled))
            end = done + 1 + len(combinations)
            out[done] = np.asarray(energy)
            out[done + 1 : end] = np.asarray(forces)[: len(combinations)]
            done = end


def batch_of(structures: Sequence[Structure], potential: Potential) -> LabelledBatch:
    """Structures of any sizes in one shape: one program serves all."""
    return make_batches(Dataset.create(list(structures)), potential, one_shape=True)[0]


labels_of = eqx.filter_jit(batch_values)


@eqx.filter_jit
def _slopes(
    potential: Potential,
    vector: WeightVector,
    theta: Float[Array, "weights"],
    one: LabelledBatch,
    combinations: Float[Array, "rows coordinates"],
) -> tuple[Float[Array, "weights"], Float[Array, "rows weights"]]:
    """Derivatives of the energy per atom of one structure, and of combinations of its forces."""
    structure, neighbors, ghosts = jax.tree.map(
        lambda leaf: leaf[0], (one.structure, one.neighbors, one.ghosts)
    )
    shape = structure.positions.shape

    def energy(theta: Array, x: Array) -> Array:
        here = vector.replaced(potential, theta)
        moved = structure.at(structure.positions + x.reshape(shape))
        return here.energy(moved, neighbors) - ghosts * lone_energy(here, one)

    still = jnp.zeros(structure.positions.size)
    slope = lambda x: jax.grad(energy)(theta, x)
    along = lambda c: -jax.jvp(slope, (still,), (c,))[1]
    forces = map_rows(along, combinations, at_once=potential.rows_at_once)
    return slope(still) / one.sizes[0], forces


def _combinations(n: int, count: int | None, rng: np.random.Generator) -> np.ndarray:
    """Orthonormal combinations of the forces of n atoms, whose sum is zero."""
    # columns of the complement of the three uniform shifts
    shifts = np.tile(np.eye(3), (n, 1)) / np.sqrt(n)
    basis = np.linalg.svd(shifts, full_matrices=True)[0][:, 3:]
    if count is None or count >= basis.shape[1]:
        return basis.T
    mixed, _ = np.linalg.qr(rng.normal(size=(basis.shape[1], count)))
    return (basis @ mixed).T


def _held(setup: TargetStructure, properties: Sequence[str]) -> RelaxedTargets:
    # the values wished for do not matter: rows are compared with what they were
    return RelaxedTargets(setup, [Target(name, 1.0, 1.0) for name in properties])
