"""Potentials that are sums over atoms: E = sum_i e(shell of i), and how they are evaluated fast.

The shell of an atom holds the vectors d_ij to its neighbors. A form states the energy of an atom as a
function of its shell (`ShellPotential.shell_energies`), by operations on whole arrays (atoms, width) and
sums along the second axis. Pairs, bond angles, embedded atoms, bond orders and descriptors are of this kind.

With g_ij = dE/dd_ij, the gradient of the energy is

    dE/dx_i = sum over atoms k that see i of g_ki - sum_j g_ij,      dE/dcell = sum_ij n_ij^T g_ij,

where n_ij counts the cell vectors between j and the image that i sees. The first sum is a scatter. Where the
two atoms of a pair share one energy half and half (`reciprocal`), g_ki = -g_ik and both sums are one, over
the row of i.

Atoms are worked off in blocks whose arrays stay in the cache of a core: gradients are formed within a block,
so that nothing of the size (pairs, ...) is ever written to memory. The rule for this stands once, in
`_total`: its derivative is the gradient computed block by block, and that, being an ordinary function, has
derivatives of any order itself. An accelerator takes all atoms as one block.
"""

import functools
from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, NamedTuple, Self

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from mdsens.arrays import on_device
from mdsens.neighbors import Neighbors, beyond
from mdsens.neighbors.shapes import COARSE_ATOMS
from mdsens.potentials.base import HessianBlocks, Potential, pair_table
from mdsens.structure import Structure

PAIRS_IN_A_BLOCK = 8192  # whose arrays a core's cache holds: 64 KiB each, some tens of them at a time
PAIRS_BENT = 2048  # the same for second derivatives, which need more arrays
BLOCKS_IN_A_STAGE = 32  # after these, what belongs to other atoms is handed over to them

Row = Float[Array, "atoms width"]  # a number for each neighbor


class Shells(NamedTuple):
    """The neighbors of some atoms, a row for each.

    Attributes:
        d: x, y and z of the vectors to the neighbors, Å, (atoms, width) each. Apart from each other they are
            read from memory in long runs. Unused places point beyond any cutoff.
        valid: (atoms, width) False in unused places.
        center: (atoms,) index into `elements` of the atom in the middle; None if there is one species.
        others: (atoms, width) the same for its neighbors.
    """

    d: tuple[Row, Row, Row]
    valid: Bool[Array, "atoms width"]
    center: Int[Array, "atoms"] | None
    others: Int[Array, "atoms width"] | None

    def distances(self) -> Float[Array, "atoms width"]:
        """Lengths of the vectors, Å."""
        return _length(*self.d)

    def labels(self, table: Any) -> Int[Array, "atoms width"] | None:
        """What a (species, species) table says of each pair, center first; None if there is one species."""
        if self.center is None:
            return None
        return jnp.asarray(table)[self.center[:, None], self.others]

    def species(self) -> tuple[Int[Array, "atoms"], Int[Array, "atoms width"]]:
        """Index into `elements` of the atoms in the middle and of their neighbors, if there are several."""
        if self.center is None or self.others is None:
            raise AssertionError("there is one species: ask for no table")
        return self.center, self.others

    def cosines(self) -> Float[Array, "atoms width width"]:
        """Of the angle between every two of the vectors; meaningless for unused places."""
        r = self.distances()
        x, y, z = (dk / r for dk in self.d)
        product = lambda u: u[:, :, None] * u[:, None, :]
        return product(x) + product(y) + product(z)

    def at(self, places: Int[Array, "atoms few"], valid: Bool[Array, "atoms few"]) -> "Shells":
        """Some of the neighbors of each atom, by their places in the rows."""
        pick = lambda values: jnp.take_along_axis(values, places, axis=1)
        d = _far_unless(valid, [pick(dk) for dk in self.d], jnp.asarray(jnp.inf))
        others = None if self.others is None else pick(self.others)
        return Shells(d, valid, self.center, others)


@jax.custom_jvp
def inverse(r: Float[Array, "..."]) -> Float[Array, "..."]:
    """1/r; all its derivatives come from the one division, which costs as much as ten multiplications."""
    return 1.0 / r


@inverse.defjvp
def _inverse_jvp(primals: Any, tangents: Any) -> tuple[Array, Array]:
    (r,), (dr,) = primals, tangents
    found = inverse(r)
    return found, -found * found * dr


@jax.custom_jvp
def _length(x: Array, y: Array, z: Array) -> Array:
    return jnp.sqrt(x * x + y * y + z * z)


@_length.defjvp
def _length_jvp(primals: Any, tangents: Any) -> tuple[Array, Array]:
    # dr = d . dd / r, the division last: XLA never repeats a division.
    # So a gradient forms dE/dr / r once, and not once for each of x, y, z.
    (x, y, z), (dx, dy, dz) = primals, tangents
    r = _length(x, y, z)
    along = x * dx + y * dy + z * dz
    return r, along / r


def _far_unless(
    valid: Bool[Array, "atoms width"], d: Sequence[Array], reach: Float[Array, ""]
) -> tuple[Array, Array, Array]:
    # along x, beyond any cutoff
    x, y, z = d
    far = beyond(reach)
    return jnp.where(valid, x, far), jnp.where(valid, y, 0.0), jnp.where(valid, z, 0.0)


def sum_of_row(values: Float[Array, "... width"]) -> Float[Array, "..."]:
    """Sum over the neighbors of each atom, as a product with ones: XLA adds up rows one by one, slower."""
    ones = jnp.ones(values.shape[-1], values.dtype)
    return jnp.matmul(values, ones, precision=jax.lax.Precision.HIGHEST)


def every_two(values: Float[Array, "atoms width"]) -> Float[Array, "atoms width width"]:
    """Products of the values of every two neighbors: each two stand twice, and none with itself."""
    different = ~np.eye(values.shape[1], dtype=bool)
    return values[:, :, None] * values[:, None, :] * different


def closest(
    function: Callable[[Shells], Float[Array, "atoms"]],
    shells: Shells,
    near: Bool[Array, "atoms width"],
    widths: Sequence[int],
) -> Float[Array, "atoms"]:
    """A function of the near ones among the neighbors, on rows as short as they can be.

    A row of a list also holds what may come near while the atoms move. Sums over pairs of neighbors are
    spared that: the function gets rows of the first width that no atom has more neighbors near than, and the
    whole rows where there is none. It must not depend on neighbors that are not near.

    Args:
        widths: of short rows, rising.
    """
    if not widths or near.shape[1] <= widths[0]:
        return function(shells)
    enough, further = widths[0], widths[1:]
    width = near.shape[1]
    rank = jnp.cumsum(near, axis=1)  # the m-th of those near has rank m
    ranks = jnp.arange(1, enough + 1)
    place = rank[:, None, :] == ranks[:, None]
    place &= near[:, None, :]
    places = jnp.sum(jnp.where(place, jnp.arange(width), 0), axis=2)
    there = jnp.arange(enough) < rank[:, -1:]
    # A derivative keeps what both ways have formed, the one not taken too: of the long way nothing is kept.
    whole_rows = jax.checkpoint(lambda shells: closest(function, shells, near, further))
    short_rows = lambda shells: function(shells.at(places, there))
    fits = jnp.all(rank[:, -1] <= enough)
    return jax.lax.cond(fits, lambda: short_rows(shells), lambda: whole_rows(shells))


MOST_CURVATURES = 30_000_000  # numbers of all shells together, 240 MB: beyond, products serve better
SHORTEST = 5  # places: XLA's code for shorter rows is slower
FEW_ATOMS = 400  # up to which a full matrix is made of a Hessian anyway
WIDEST_ROW = 100  # blocks in a row of it: above, a product costs as much as the potential's own
IN_CACHE = 500_000  # blocks in all: more are read from memory at each product,
WIDEST_ROW_READ = 40  # and then rows must be shorter


def too_wide(n_atoms: int, row: int) -> bool:
    """Whether a Hessian with so many blocks in a row is better not written down."""
    widest = WIDEST_ROW if n_atoms * row <= IN_CACHE else WIDEST_ROW_READ
    return n_atoms > FEW_ATOMS and row > widest


class ShellPotential(Potential):
    """Base of the forms whose energy is a sum over atoms, each a function of its own shell.

    Attributes:
        reciprocal: the two atoms of a pair share its energy half and half, and nothing else counts. Then the
            force on an atom is known from its own shell.
    """

    reciprocal: ClassVar[bool] = False
    ghosts = True  # they are left out of the sum

    @abstractmethod
    def shell_energies(self, shells: Shells) -> Float[Array, "atoms"]:
        """Energy of each of these atoms, eV."""

    def energy(self, structure: Structure, neighbors: Neighbors) -> Float[Array, ""]:
        return _total(self, structure.positions, structure.cell, self._surroundings(structure, neighbors))

    def site_energies(self, structure: Structure, neighbors: Neighbors) -> Float[Array, "atoms"]:
        """Energy of each atom, eV: half of each of its pairs, and the angles it is the center of."""
        around = self._surroundings(structure, neighbors)
        points = around.extended_positions(structure.positions, structure.cell)
        rows = around.all_rows(structure.positions)
        energies = self.shell_energies(around.shells(points, rows))
        return energies if structure.real is None else jnp.where(rows.real, energies, 0.0)

    def by_pair(self, values: Float[Array, "..."], shells: Shells) -> Float[Array, "..."]:
        """Entries for unordered pairs, as each pair has them: of a shape that fits (atoms, width)."""
        if shells.center is None:
            return jnp.reshape(values, ())
        return values[shells.labels(pair_table(len(self.elements)))]

    def by_triple(self, values: Float[Array, "..."], shells: Shells) -> Float[Array, "..."]:
        """Entries for triples (center, unordered pair), of a shape that fits (atoms, width, width)."""
        if shells.center is None:
            return jnp.reshape(values, ())
        count = len(self.elements)
        center, others = shells.species()
        pairs = jnp.asarray(pair_table(count))
        ends = pairs[others[:, :, None], others[:, None, :]]
        by_center = jnp.reshape(values, (count, -1))
        return by_center[center[:, None, None], ends]

    def hessian_blocks(self, structure: Structure, neighbors: Neighbors) -> HessianBlocks | None:
        """Second derivatives by pairs of atoms, from those of the shells; None if these need much memory.

        d_ij = x_j - x_i. So with K = d²e/dd dd of a shell, the atoms a and b in it have K_ab between them and
        the center has minus the sum over either.
        """
        if type(self).energy is not ShellPotential.energy:  # a form with more than its shells
            return None
        n, width = neighbors.near.shape
        there = np.asarray(neighbors.near) < neighbors.nobody
        around = self._surroundings(structure, neighbors)
        if self.reciprocal:
            large = too_wide(n, width) or 9 * n * width > MOST_CURVATURES
            return None if large else self._blocks_of_pairs(structure, around)
        # neighbors of neighbors are at least four times as many
        if too_wide(n, 4 * int(np.sum(there) / n)):
            return None
        groups = _by_length(there)
        if 9 * sum(len(rows) * long**2 for rows, long in groups) > MOST_CURVATURES:
            return None
        parts = [self._blocks_of_shells(structure, around, *group) for group in groups]
        return HessianBlocks(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))

    def _blocks_of_pairs(self, structure: Structure, around: "Surroundings") -> HessianBlocks:
        near = np.asarray(around.neighbors.near)
        valid = near < around.neighbors.nobody
        # e is half the energy of each pair, and the other half stands in the shell of the neighbor
        K = 2 * np.asarray(_pair_curvatures(self, structure, around))[valid]
        i, j = np.nonzero(valid)[0], around.owners()[near[valid]]
        columns = np.concatenate([i, j])
        return HessianBlocks(np.concatenate([i, i]), columns, np.concatenate([K, -K]))

    def _blocks_of_shells(
        self, structure: Structure, around: "Surroundings", chosen: np.ndarray, width: int
    ) -> HessianBlocks:
        rows = around.some_rows(structure.positions, chosen, width)
        K = np.asarray(self.shell_curvatures(structure, around, rows))
        to_center, of_center = _with_center(K)
        near = np.asarray(rows.near)
        valid = near < around.neighbors.nobody
        owners = around.owners()[near]
        both = valid[:, :, None] & valid[:, None, :]
        first = np.broadcast_to(owners[:, :, None], both.shape)[both]
        second = np.broadcast_to(owners[:, None, :], both.shape)[both]
        centers = np.broadcast_to(chosen[:, None], valid.shape)[valid]
        others, between = owners[valid], to_center[valid]
        return HessianBlocks(
            np.concatenate([first, centers, others, chosen]),
            np.concatenate([second, others, centers, chosen]),
            np.concatenate([K[both], between, between.swapaxes(1, 2), of_center]),
        )

    def shell_curvatures(
        self, structure: Structure, around: "Surroundings", rows: "Rows"
    ) -> Float[Array, "atoms width width 3 3"]:
        """d²e/dd dd between all neighbors of some atoms, eV/Å²; a form may know a shorter way."""
        return _shell_curvatures(self, structure, around, rows)

    def _surroundings(self, structure: Structure, neighbors: Neighbors) -> "Surroundings":
        types = self.types(structure) if len(self.elements) > 1 else None
        return Surroundings.of(neighbors, types, structure.real)


class Rows(NamedTuple):
    """Rows of the list that are worked off together: positions, neighbors, species; False for padding.

    Ghosts are padding, too.
    """

    positions: Float[Array, "atoms 3"]
    near: Int[Array, "atoms width"]
    types: Int[Array, "atoms"] | None
    real: Bool[Array, "atoms"]


class Surroundings(NamedTuple):
    """What does not move: who is near whom, and of which species, images included; who is no ghost."""

    neighbors: Neighbors
    types: Int[Array, "extended"] | None
    real: Bool[Array, "atoms"] | None

    @classmethod
    def of(
        cls, neighbors: Neighbors, types: Int[Array, "atoms"] | None, real: Bool[Array, "atoms"] | None
    ) -> Self:
        """From the species of the atoms, None if there is one, and from `Structure.real`."""
        return cls(neighbors, None if types is None else neighbors.extended(types), real)

    def extended_positions(
        self, positions: Float[Array, "atoms 3"], cell: Float[Array, "3 3"]
    ) -> tuple[Float[Array, "extended"], ...]:
        """x, y, z of all atoms and images."""
        points = self.neighbors.extended(positions) + self.neighbors.image_shifts() @ cell
        return tuple(points[:, k] for k in range(3))

    def shells(self, points: tuple[Float[Array, "extended"], ...], rows: Rows) -> Shells:
        """The shells of some rows."""
        valid = rows.near < self.neighbors.nobody
        centers = rows.positions.T[:, :, None]
        along_axes = zip(points, centers, strict=True)
        d = [p[rows.near] - center for p, center in along_axes]
        d = _far_unless(valid, d, self.neighbors.reach)
        others = None if self.types is None else self.types[rows.near]
        return Shells(d, valid, rows.types, others)

    def all_rows(self, positions: Float[Array, "atoms 3"]) -> Rows:
        """All atoms at once."""
        near = self.neighbors.near
        types = None if self.types is None else self.types[: near.shape[0]]
        real = jnp.ones(near.shape[0], bool) if self.real is None else self.real
        return Rows(positions, near, types, real)

    def some_rows(self, positions: Float[Array, "atoms 3"], chosen: np.ndarray, width: int) -> Rows:
        """The beginnings of some rows, on the host.

        Those of atoms with more neighbors are left empty, and those of atoms chosen a second time in a row.
        """
        whole = np.asarray(self.neighbors.near)[chosen]
        nobody = self.neighbors.nobody
        fits = np.all(whole[:, width:] == nobody, axis=1) & (np.diff(chosen, prepend=-1) > 0)
        near = np.where(fits[:, None], whole[:, :width], nobody)
        types = None if self.types is None else on_device(np.asarray(self.types)[chosen])
        real = fits if self.real is None else fits & np.asarray(self.real)[chosen]
        return Rows(on_device(np.asarray(positions)[chosen]), on_device(near), types, on_device(real))

    def owners(self) -> Int[np.ndarray, "extended"]:
        """The atoms that all atoms, images and nobody are of, on the host."""
        atoms = np.arange(self.neighbors.n_atoms)
        return np.concatenate([atoms, np.asarray(self.neighbors.owner), atoms[:1]])

    def staged(self, rows: Rows, pairs: int = PAIRS_IN_A_BLOCK) -> Rows:
        """Rows in stages of blocks, (stages, blocks, atoms, ...), the last ones padded.

        Args:
            pairs: places in a block.
        """
        n_rows, width = rows.near.shape
        stages, blocks, atoms = _division(n_rows, width, pairs)
        spare = stages * blocks * atoms - len(rows.positions)

        def cut(values: Array, fill: Any) -> Array:
            further = [(0, 0)] * (values.ndim - 1)
            filled = jnp.pad(values, [(0, spare), *further], constant_values=fill)
            return filled.reshape(stages, blocks, atoms, *values.shape[1:])

        types = None if rows.types is None else cut(rows.types, 0)
        near = cut(rows.near, self.neighbors.nobody)
        return Rows(cut(rows.positions, 0.0), near, types, cut(rows.real, False))


def _division(n_atoms: int, width: int, pairs: int) -> tuple[int, int, int]:
    # stages, blocks in a stage, atoms in a block: blocks of equal size, so that few rows are padding
    if jax.default_backend() != "cpu":
        return 1, 1, n_atoms
    blocks = -(-n_atoms * max(width, 1) // pairs)
    stages = -(-blocks // BLOCKS_IN_A_STAGE)
    blocks = -(-blocks // stages)
    return stages, blocks, -(-n_atoms // (stages * blocks))


# --- the energy of all atoms, and its gradient

Moving = tuple[Any, Any, Any]  # potential, positions, cell, with None for every array that is held


@eqx.filter_custom_jvp
def _total(
    potential: ShellPotential, positions: Array, cell: Array, around: Surroundings
) -> Float[Array, ""]:
    points = around.extended_positions(positions, cell)

    def block(rows: Rows) -> Float[Array, ""]:
        return _block_energy(potential, around.shells(points, rows), rows.real)

    return jnp.sum(_each(functools.partial(_each, block), around.staged(around.all_rows(positions))))


@_total.def_jvp
def _total_jvp(primals: Any, tangents: Any) -> tuple[Array, Array]:
    *inputs, around = primals
    directions = tuple(tangents[:3])
    moves = jax.tree.map(lambda t: t is not None, directions, is_leaf=lambda t: t is None)
    moving, still = eqx.partition(tuple(inputs), moves)
    value, gradient = _value_and_gradient(moving, still, around)
    changes = jax.tree.leaves(jax.tree.map(jnp.vdot, gradient, directions))
    return value, sum(changes, jnp.zeros_like(value))


def _block_energy(potential: ShellPotential, shells: Shells, real: Bool[Array, "atoms"]) -> Float[Array, ""]:
    return jnp.sum(jnp.where(real, potential.shell_energies(shells), 0.0))


def _each(function: Any, rows: Any) -> Any:
    """The function of one block (or stage) after the other."""
    return _scan(lambda _, one: (None, function(one)), None, rows)[1]


def _scan(step: Any, carry: Any, rows: Any) -> tuple[Any, Any]:
    """`jax.lax.scan`; one block (or stage) alone needs no loop."""
    if jax.tree.leaves(rows)[0].shape[0] > 1:
        return jax.lax.scan(step, carry, rows)
    carry, out = step(carry, jax.tree.map(lambda leaf: leaf[0], rows))
    return carry, jax.tree.map(lambda leaf: leaf[None], out)


def _value_and_gradient(moving: Moving, still: Moving, around: Surroundings) -> tuple[Array, Moving]:
    """The energy, and its derivative w.r.t. every array that moves, formed within the blocks."""
    potential, positions, cell = eqx.combine(moving, still)
    atoms_move, cell_moves = moving[1] is not None, moving[2] is not None
    # What an image receives says what the cell feels; where nothing is received, the g_ij say it themselves.
    scattered = (cell_moves or atoms_move) and not potential.reciprocal
    points = around.extended_positions(positions, cell)
    shifts = around.neighbors.image_shifts().T

    # A derivative of the gradient forms a block anew instead of keeping what the block was formed from.
    @functools.partial(jax.checkpoint, prevent_cse=False)
    def block(rows: Rows) -> _Block:
        found = _differentiated(moving[0], still[0], around.shells(points, rows), rows.real)
        if scattered:
            return found
        sums = _sums_of_rows(found.g) if atoms_move else None
        return found._replace(g=sums, of_cell=_of_cell(shifts, rows.near, found.g) if cell_moves else None)

    def stage(received: Any, rows: Rows) -> tuple[Any, _Block]:
        blocks = _each(block, rows)
        if scattered:
            received = _scattered(received, rows.near, blocks.g)
            # outside of the block: XLA would form the g_ij twice, once for either use
            blocks = blocks._replace(g=_sums_of_rows(blocks.g))
        return received, _summed(blocks)

    nobody_yet = tuple(jnp.zeros_like(p) for p in points) if scattered else None
    received, stages = _scan(stage, nobody_yet, around.staged(around.all_rows(positions)))
    total = _summed(stages)
    if total.g is None:
        return total.value, (total.slopes, None, total.of_cell)
    n_atoms = len(positions)
    own = jnp.stack([g.reshape(-1)[:n_atoms] for g in total.g], axis=-1)
    if received is None:  # reciprocal: g_ki = -g_ik
        return total.value, (total.slopes, -2.0 * own, total.of_cell)
    of_atoms, of_cell = _of_atoms_and_cell(around.neighbors, own, jnp.stack(received, axis=-1))
    wanted = (of_atoms if atoms_move else None, of_cell if cell_moves else None)
    return total.value, (total.slopes, *wanted)


class _Block(NamedTuple):
    """Energy of some atoms, and its derivatives.

    Attributes:
        slopes: in the parameters that move.
        g: x, y, z of g_ij or of sum_j g_ij; None if they are not wanted.
        of_cell: sum_ij n_ij^T g_ij; None if it is not wanted, or known otherwise.
    """

    value: Array
    slopes: Any
    g: Any
    of_cell: Array | None = None


def _differentiated(parameters: Any, rest: Any, shells: Shells, real: Bool[Array, "atoms"]) -> _Block:
    def energy(parameters: Any, d: Any) -> Array:
        return _block_energy(eqx.combine(parameters, rest), shells._replace(d=d), real)

    differentiated = jax.value_and_grad(energy, argnums=(0, 1))
    value, (slopes, g) = differentiated(parameters, shells.d)
    return _Block(value, slopes, tuple(jnp.where(shells.valid, gk, 0.0) for gk in g))


def _sums_of_rows(g: Any) -> Any:
    return jax.tree.map(sum_of_row, g)


def _of_cell(
    shifts: Float[Array, "3 extended"], near: Int[Array, "atoms width"], g: tuple[Array, ...]
) -> Float[Array, "3 3"]:
    """sum_ij n_ij^T g_ij."""
    n = [shift[near] for shift in shifts]
    # added up by rows: a product of (3, pairs) with (pairs, 3) takes twice as long
    row = lambda nk: jnp.stack([jnp.sum(sum_of_row(nk * gk)) for gk in g])
    return jnp.stack([row(nk) for nk in n])


def _summed(blocks: _Block) -> _Block:
    add = lambda leaf: jnp.sum(leaf, axis=0)
    slopes, of_cell = jax.tree.map(add, (blocks.slopes, blocks.of_cell))
    return _Block(add(blocks.value), slopes, blocks.g, of_cell)


def _scattered(received: tuple[Array, ...], near: Array, g: tuple[Array, ...]) -> tuple[Array, ...]:
    at = near.reshape(-1)
    along_axes = zip(received, g, strict=True)
    return tuple(r.at[at].add(gk.reshape(-1)) for r, gk in along_axes)


def _of_atoms_and_cell(
    neighbors: Neighbors, own: Float[Array, "atoms 3"], received: Float[Array, "extended 3"]
) -> tuple[Float[Array, "atoms 3"], Float[Array, "3 3"]]:
    n = len(own)
    of_images = received[n:-1]
    of_atoms = received[:n].at[neighbors.owner].add(of_images) - own
    return of_atoms, neighbors.image.T @ of_images


# --- second derivatives of the shells


@eqx.filter_jit
def _pair_curvatures(
    potential: ShellPotential, structure: Structure, around: Surroundings
) -> Float[Array, "atoms width 3 3"]:
    """d²e/dd² of each pair: all at once, as none knows of another."""

    def block(gradient: Any, d: Any) -> Array:
        one, none = jnp.ones_like(d[0]), jnp.zeros_like(d[0])
        axes = (one, none, none), (none, one, none), (none, none, one)
        return jnp.stack([_change_along(gradient, d, axis) for axis in axes], axis=-1)

    return _of_slopes(block, potential, structure, around, around.all_rows(structure.positions))


@eqx.filter_jit
def _shell_curvatures(
    potential: ShellPotential, structure: Structure, around: Surroundings, rows: Rows
) -> Float[Array, "atoms width width 3 3"]:
    """d²e/dd dd between all neighbors of an atom: along one direction of one place after the other."""
    width = rows.near.shape[1]
    grid = jnp.meshgrid(jnp.arange(width), jnp.arange(3), indexing="ij")
    places = jnp.stack(grid, axis=-1)

    def block(gradient: Any, d: Any) -> Array:
        def column(at: Int[Array, "2"]) -> Float[Array, "atoms width 3"]:
            chosen = jnp.arange(width) == at[0]
            direction = chosen & (at[1] == jnp.arange(3))[:, None]
            direction = direction[:, None].astype(d[0].dtype)
            x, y, z = jnp.broadcast_to(direction, (3, *shape))
            one = (x, y, z)
            return _change_along(gradient, d, one)

        shape = d[0].shape
        columns = jax.lax.map(column, places.reshape(-1, 2))
        columns = columns.reshape(width, 3, *shape, 3)
        return jnp.moveaxis(columns, (0, 1, 2, 3, 4), (2, 4, 0, 1, 3))

    return _of_slopes(block, potential, structure, around, rows)


def _change_along(gradient: Any, d: Any, direction: Any) -> Float[Array, "atoms width 3"]:
    return jnp.stack(jax.jvp(gradient, (d,), (direction,))[1], axis=-1)


def _of_slopes(
    function: Any, potential: ShellPotential, structure: Structure, around: Surroundings, rows: Rows
) -> Array:
    """A function of (de/dd, d) of some atoms, block by block."""

    def block(shells: Shells, real: Bool[Array, "atoms"]) -> Array:
        energy = lambda d: _block_energy(potential, shells._replace(d=d), real)
        return function(jax.grad(energy), shells.d)

    return by_blocks(block, structure, around, rows)


def by_blocks(
    function: Callable[[Shells, Array], Any], structure: Structure, around: Surroundings, rows: Rows
) -> Any:
    """Arrays with a row for each atom, as a function of its shell (and False for padding), block by block."""
    points = around.extended_positions(structure.positions, structure.cell)
    block = lambda rows: function(around.shells(points, rows), rows.real)
    blocks = _each(functools.partial(_each, block), around.staged(rows, PAIRS_BENT))
    count = len(rows.near)
    return jax.tree.map(lambda found: found.reshape(-1, *found.shape[3:])[:count], blocks)


def _with_center(
    K: Float[np.ndarray, "atoms width width 3 3"],
) -> tuple[Float[np.ndarray, "atoms width 3 3"], Float[np.ndarray, "atoms 3 3"]]:
    """What stands between the center and each neighbor, and the center and itself."""
    # nothing changes if all move together
    to_center = -np.sum(K, axis=1)
    return to_center, -np.sum(to_center, axis=1)


def _by_length(there: Bool[np.ndarray, "atoms width"]) -> list[tuple[np.ndarray, int]]:
    """Atoms whose rows are worked off together, and how much of their rows: (indices, width)."""
    # The work on a row grows with the cube of its length, and few atoms of many have the longest. So these
    # go by themselves, the last one as often as it takes to a power of two.
    n, width = there.shape
    if n <= COARSE_ATOMS:
        return [(np.arange(n), width)]
    lengths = np.max(np.where(there, np.arange(1, width + 1), 0), axis=1, initial=0)
    longest = int(np.max(lengths, initial=1))
    longer = [int(np.sum(lengths > short)) for short in range(longest + 1)]
    padded = [0 if count == 0 else 1 << (count - 1).bit_length() for count in longer]
    least = min(SHORTEST, longest)
    work = [n * short**3 + padded[short] * longest**3 for short in range(least, longest + 1)]
    short = least + int(np.argmin(work))
    groups = [(np.arange(n), short)]
    if padded[short]:
        spare = padded[short] - longer[short]
        groups.append((np.pad(np.flatnonzero(lengths > short), (0, spare), "edge"), longest))
    return groups
