"""Pairs of atoms within reach, for any cell and any periodicity.

A pair is (i, j, shift): atom j's image lies at x_j + shift @ cell. Every pair stands once, also an atom with
its own image, also several images of one atom: cells smaller than the cutoff are right. The list is made for
reach = cutoff + skin and stays complete while the atoms move little (`Neighbors.slack`). It holds the pairs
twice: flat (`i`, `j`, `shift`), and sorted by atom for forms that look at one atom after the other (`near`).

Two builders give the same pairs: vesin on the host (any cell), and jax-md's cell list on the device (cells at
least three reaches thick along every periodic vector). The second is chosen on an accelerator for
DEVICE_ATOMS or more, where a rebuild on the host would cost hundreds of force calls.
"""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer, eval_context
from jaxtyping import Array, Bool, Float, Int, Shaped

from mdsens.arrays import device_memory, on_device
from mdsens.errors import InputError, NonFiniteError, TracedError
from mdsens.neighbors import cell_list
from mdsens.neighbors.by_atom import (
    by_atom,
    by_atom_on_device,
    count_distinct,
    image_numbers,
    width_and_images,
)
from mdsens.neighbors.shapes import (
    COARSE_ATOMS,
    NOTHING_KEPT,
    Capacity,
    coarse_slots,
    exactly,
    shared,
    slots,
    with_some_room,
)
from mdsens.neighbors.waves import find_waves, outlast, padded
from mdsens.structure import Structure, complete_cell

ALL_PAIRS_LIMIT = 5000  # atoms; without a cutoff every pair counts and the list grows as N²
FEW_PAIRS = 2000  # up to which nobody asks what a pair takes
PAIRS_LIMIT = 2e8  # pairs of a list, by estimate: with all that is kept of each, 8 GB
DEVICE_ATOMS = 10_000  # atoms from which an accelerator builds its own list


class Table(NamedTuple):
    """The neighbors of each atom in a row, both directions of every pair; unused places hold 0.

    Attributes:
        j: (atoms, width) atom indices.
        shift: (atoms, width, 3) whole cell vectors between the image of j and j itself.
        valid: (atoms, width) False in unused places.
        reach: of the list, Å.
    """

    j: Int[Array, "atoms width"]
    shift: Float[Array, "atoms width 3"]
    valid: Bool[Array, "atoms width"]
    reach: Float[Array, ""]

    def vectors(self, structure: Structure) -> Float[Array, "atoms width 3"]:
        """Vectors from each atom to the images of its neighbors, Å. Unused places point beyond any cutoff."""
        x = structure.positions
        images = self.shift @ structure.cell
        d = x[self.j] - x[:, None] + images
        return _far_unless(self.valid, d, self.reach)


def beyond(reach: Float[Array, ""]) -> Float[Array, ""]:
    """A distance at which no pair of a list with this reach stands, Å: where unused places are put.

    An unused place must be harmless in every derivative: its vector is a constant of this length.
    """
    return jnp.where(jnp.isfinite(reach), 2 * reach, 1e3)


def _far_unless(valid: Bool[Array, "..."], d: Float[Array, "... 3"], reach: Float[Array, ""]):
    far = beyond(reach) * jnp.array([1.0, 0.0, 0.0])
    return jnp.where(valid[..., None], d, far)


class Neighbors(eqx.Module):
    """Pairs within `reach`, padded so that a rebuilt list has the shape of the old one.

    The pairs stand twice. Flat: `i`, `j`, `shift`, each pair once. By atom: `near`, each pair seen from both
    its atoms, over the n atoms of the structure followed by the images of atoms that lie within reach of it.
    A neighbor is then one whole number, and its position one look-up (see `extended`).

    Attributes:
        i, j: (pairs,) atom indices; padded slots hold 0.
        shift: (pairs, 3) whole cell vectors between the image of j and j itself.
        valid: (pairs,) False in padded slots.
        reach: cutoff + skin the list was made for, Å (inf: all pairs of a cluster).
        positions, cell: where the list was made, Å; `slack` compares with them.
        near: (atoms, width) the neighbors of each atom: k < n for atom k, n + k for image k, and `nobody` in
            unused places.
        owner, image: (images,) the atom that each image is of, and (images, 3) the whole cell vectors between
            the two; padded slots are copies of atom 0 that nobody has for a neighbor.
        waves: (waves, 3) whole numbers of the waves of the cell that sums over waves need (see
            `mdsens.neighbors.waves`); padded slots hold 0. None: nobody asked for waves.
    """

    i: Int[Array, "pairs"]
    j: Int[Array, "pairs"]
    shift: Float[Array, "pairs 3"]
    valid: Bool[Array, "pairs"]
    reach: Float[Array, ""]
    positions: Float[Array, "atoms 3"]
    cell: Float[Array, "3 3"]
    near: Int[Array, "atoms width"]
    owner: Int[Array, "images"]
    image: Float[Array, "images 3"]
    waves: Int[Array, "waves 3"] | None = None

    @property
    def width(self) -> int:
        """Places in a row of `near`, enough for the neighbors of any atom."""
        return self.near.shape[-1]

    @property
    def capacity(self) -> Capacity:
        """Shapes to keep when the list is made anew, so that nothing is compiled again."""
        waves = 0 if self.waves is None else self.waves.shape[0]
        return Capacity(self.i.shape[0], self.width, self.owner.shape[0], waves)

    @property
    def n_atoms(self) -> int:
        """Atoms the list is for."""
        return self.positions.shape[0]

    @property
    def nobody(self) -> int:
        """What unused places of `near` hold: one more than the last image."""
        return self.n_atoms + self.owner.shape[0]

    def extended(self, values: Shaped[Array, "atoms ..."]) -> Shaped[Array, "extended ..."]:
        """Values of the atoms, of the atoms that the images are of, and a zero for nobody."""
        return jnp.concatenate([values, values[self.owner], jnp.zeros_like(values[:1])])

    def image_shifts(self) -> Float[Array, "extended 3"]:
        """Whole cell vectors between each extended atom and the atom it is of."""
        none = jnp.zeros((self.n_atoms, 3), self.image.dtype)
        return jnp.concatenate([none, self.image, none[:1]])

    def vectors(self, structure: Structure) -> Float[Array, "pairs 3"]:
        """Vectors from i to the image of j, Å. Padded slots point farther than any cutoff."""
        x = structure.positions
        images = self.shift @ structure.cell
        d = x[self.j] - x[self.i] + images
        return _far_unless(self.valid, d, self.reach)

    def atoms_of(self, chosen: Bool[Array, "pairs"]) -> Bool[Array, "atoms"]:
        """True for each atom that belongs to one of the chosen pairs; padded slots count for nothing."""
        chosen = chosen & self.valid
        of_i = jnp.zeros(self.n_atoms, bool).at[self.i].max(chosen)
        return of_i.at[self.j].max(chosen)

    def table(self) -> Table:
        """The same pairs by atom, for forms that need all neighbors of an atom together."""
        owners = self.extended(jnp.arange(self.n_atoms))
        shift = self.image_shifts()[self.near]
        return Table(owners[self.near], shift, self.near < self.nobody, self.reach)

    def slack(self, structure: Structure, cutoff: Float[Array, ""]) -> Float[Array, ""]:
        """How far, in Å, the list is from missing a pair within `cutoff`; negative: rebuild."""
        # Old cell h, new cell h F. A pair left out had |d| > reach; now it is d F + (w_j - w_i) with
        # w = x - x_old F:
        #     |d F + w_j - w_i|  >=  (1 - |F - 1|) reach - 2 max|w|
        # so the list is complete while this bound is above the cutoff. Only periodic vectors count: along the
        # others, which may be zero or anything, F is one, and what moves there is part of w.
        missing = ~jnp.array(structure.pbc)
        fill = complement(jnp.where(missing[:, None], 0.0, self.cell), missing)
        old = jnp.where(missing[:, None], fill, self.cell)
        new = jnp.where(missing[:, None], fill, structure.cell)
        deformation = jnp.linalg.solve(old, new)
        moved = structure.positions - self.positions @ deformation
        stretch = jnp.sqrt(jnp.sum((deformation - jnp.eye(3)) ** 2))
        longest = jnp.sqrt(jnp.max(jnp.sum(moved**2, axis=-1)))
        bound = (1.0 - stretch) * self.reach - 2.0 * longest
        return jnp.where(jnp.isfinite(self.reach), bound - cutoff, jnp.inf)


def complement(cell: Float[Array, "3 3"], missing: Bool[Array, "3"]) -> Float[Array, "3 3"]:
    """Unit vectors orthogonal to the cell vectors that are there, one in each missing row."""
    # Unit vectors orthogonal to the cell vectors present, one in each missing row. The last right singular
    # vectors span what the rows leave out.
    orthogonal = jnp.linalg.svd(cell)[2]
    place = jnp.sum(~missing) + jnp.cumsum(missing) - 1
    return orthogonal[jnp.clip(place, 0, 2)]


# positions and cell in Å, what is periodic, reach in Å, shapes to keep, and the number of ghosts at the end
# of the positions (None: there can be none)
Builder = Callable[[np.ndarray, np.ndarray, tuple[bool, bool, bool], float, Capacity, int | None], Neighbors]


def find_neighbors(
    structure: Structure,
    cutoff: float,
    skin: float = 0.0,
    capacity: Capacity | None = None,
    builder: Builder | None = None,
    *,
    shortest_wave: float = np.inf,
    bytes_per_pair: Callable[[], float] | None = None,
) -> Neighbors:
    """All pairs within cutoff + skin.

    Args:
        structure: concrete positions and cell, or differentiated ones (the list itself has no derivative).
        cutoff: Å; inf for a free cluster whose atoms all interact.
        skin: extra reach, Å, so that the list outlives small moves.
        capacity: shapes at least kept (those of an older list): fewer pairs then compile nothing.
        builder: `search_on_host` or `search_on_device`; by default the host, and an accelerator for large
            cells.
        shortest_wave: waves of the cell longer than this belong to the list, Å (see `Potential`); by default
            none. They are as many as serve as long as the pairs do.
        bytes_per_pair: memory that the forces take of each pair, where it is much (see `Potential`); asked
            for where there are more than a few pairs.
    Raises:
        InputError: a cutoff or skin that is no length; an infinite cutoff with periodic boundaries or for
            more than ALL_PAIRS_LIMIT atoms; a reach that more pairs lie within than PAIRS_LIMIT, or than the
            memory holds; a cell too small for the builder asked for.
        NonFiniteError: NaN or infinite positions or cell.
        TracedError: called under jit or vmap, where positions have no values.
    """
    reach, kept = _reach(cutoff, skin), capacity or NOTHING_KEPT

    # A list is piecewise constant in positions and cell. The custom rule says so, and lets the host see the
    # values behind any number of nested derivatives.
    def build(positions, cell):
        if isinstance(positions, Tracer) or isinstance(cell, Tracer):
            raise TracedError(
                "neighbors are searched on the host and need concrete positions: under jax.jit or jax.vmap "
                "pass neighbors=find_neighbors(structure, cutoff, skin) made outside."
            )
        positions, cell = np.asarray(positions), np.asarray(cell)
        ghosts = _checked(structure, positions, cell, reach, bytes_per_pair)
        search = builder or choose_builder(len(positions), cell, structure.pbc, reach, jax.default_backend())
        pairs = search(positions, cell, structure.pbc, reach, kept, ghosts)
        if np.isinf(shortest_wave) or not all(structure.pbc):
            return pairs
        whole = find_waves(cell, outlast(2 * np.pi / shortest_wave, skin / reach))
        # their number grows with the volume, in steps of whole stars of waves
        coarse = ghosts is not None and len(positions) <= COARSE_ATOMS
        room = coarse_slots if coarse else slots
        wanted = int(1.1 * len(whole))
        size = kept.waves if len(whole) <= kept.waves else room(wanted, 0)
        return dataclasses.replace(pairs, waves=on_device(padded(whole, size)))

    behind = jax.custom_jvp(build)

    @behind.defjvp
    def rule(primals, tangents):
        neighbors = behind(*primals)
        return neighbors, jax.tree.map(_zero_tangent, neighbors)

    # Plain values do without: under jax.jacfwd, a vmap, the rule would hand out tracers of that vmap.
    traced = isinstance(structure.positions, Tracer) or isinstance(structure.cell, Tracer)
    return (behind if traced else build)(structure.positions, structure.cell)


def room_for(structure: Structure, cutoff: float, skin: float) -> Capacity:
    """Shapes of the list of pairs that `find_neighbors` makes on the host, without making it.

    Args:
        structure: plain numbers. cutoff, skin: as for `find_neighbors`.
    Raises:
        InputError, NonFiniteError: as `find_neighbors`.
    """
    reach = _reach(cutoff, skin)
    positions, cell = np.asarray(structure.positions), np.asarray(structure.cell)
    ghosts = _checked(structure, positions, cell, reach)
    i, j, shift = pairs_on_host(_without(ghosts, positions), cell, structure.pbc, reach)
    n = len(positions)
    needed = Capacity(len(i), *width_and_images(i, j, shift, n))
    return _shapes(ghosts)(n, needed, NOTHING_KEPT)


def _reach(cutoff: float, skin: float) -> float:
    if not cutoff > 0 or not 0 <= skin < np.inf:
        raise InputError(
            f"cutoff = {cutoff} Å and skin = {skin} Å: the cutoff must be positive, the skin zero or "
            "positive and finite."
        )
    return float(cutoff + skin)


def _checked(
    structure: Structure,
    positions: np.ndarray,
    cell: np.ndarray,
    reach: float,
    bytes_per_pair: Callable[[], float] | None = None,
) -> int | None:
    """The number of ghosts, of a structure whose pairs can be searched; None: there can be none."""
    real = structure.real
    ghosts = None if real is None else int(np.sum(~np.asarray(real)))
    _check_finite(positions, cell)
    _check_independent(cell, structure.pbc)
    _check_number_of_pairs(_without(ghosts, positions), cell, structure.pbc, reach, bytes_per_pair)
    return ghosts


def _zero_tangent(leaf):
    if jnp.issubdtype(leaf.dtype, jnp.inexact):
        return jnp.zeros_like(leaf)
    return np.zeros(leaf.shape, jax.dtypes.float0)


def _check_finite(positions: np.ndarray, cell: np.ndarray) -> None:
    if not (np.isfinite(positions).all() and np.isfinite(cell).all()):
        bad = np.flatnonzero(~np.isfinite(positions).all(1))
        where = f"the cell is not finite, {cell.tolist()}"
        if len(bad):
            where = f"atom {bad[0]} is at {positions[bad[0]]}"
        raise NonFiniteError(f"cannot search neighbors: {where}. Check the structure that was read or built.")


def _check_independent(cell: np.ndarray, pbc: tuple[bool, ...]) -> None:
    with np.errstate(invalid="ignore"):  # dependent vectors have no normal, and give NaN
        volume = abs(np.linalg.det(_periodic_cell(cell, pbc)))
    if any(pbc) and not volume > 1e-10:
        raise InputError(
            f"the periodic cell vectors are linearly dependent or zero (cell = {cell.tolist()} Å, pbc = "
            f"{pbc}): the cell has no volume. Correct the cell, or set pbc=False along vectors that do not "
            "repeat."
        )


def _check_number_of_pairs(
    positions: np.ndarray,
    cell: np.ndarray,
    pbc: tuple[bool, ...],
    reach: float,
    bytes_per_pair: Callable[[], float] | None,
) -> None:
    d = sum(pbc)
    if d == 0 or np.isinf(reach):  # clusters have no more pairs than atoms allow
        return
    found = _expected_pairs(positions, cell, pbc, reach)
    limit, why = PAIRS_LIMIT, f"a list holds {PAIRS_LIMIT:.0e}"
    if bytes_per_pair is not None and found > FEW_PAIRS:
        each, memory = bytes_per_pair(), device_memory()
        if memory < limit * each:
            limit = memory / each
            why = (
                f"the forces take {each:.1e} bytes of each, and the {memory / 1e9:.0f} GB of memory hold "
                f"{limit:.1e}"
            )
    if found > limit:
        shorter = reach * (limit / found) ** (1 / d)
        raise InputError(
            f"about {found:.1e} pairs of the {len(positions)} atoms and their images lie within {reach:g} Å "
            f"(cutoff + skin); {why}. Take a cutoff below {shorter:.3g} Å or fewer atoms, or for a "
            "molecule or cluster pbc=False, with an infinite cutoff if all its atoms interact."
        )


def _expected_pairs(positions: np.ndarray, cell: np.ndarray, pbc: tuple[bool, ...], reach: float) -> float:
    # With d periodic vectors, every atom sees all atoms in each cell of a ball of d dimensions; along an open
    # direction only those at most the reach above and below it.
    periodic = np.asarray(pbc)
    rows = cell[periodic]
    d = len(rows)
    of_unit_radius = {1: 2.0, 2: np.pi, 3: 4 / 3 * np.pi}
    ball = of_unit_radius[d] * reach**d
    cells = ball / np.sqrt(np.linalg.det(rows @ rows.T))
    extents = np.ptp(positions @ _periodic_cell(cell, pbc)[~periodic].T, axis=0)
    seen = np.prod(np.minimum(1.0, 2 * reach / np.maximum(extents, 1e-300)))
    return float(len(positions) ** 2 / 2 * cells * seen)


def _periodic_cell(cell: np.ndarray, pbc: tuple[bool, ...]) -> np.ndarray:
    # The vectors that repeat, and unit vectors orthogonal to them in place of the others, whatever those are.
    return complete_cell(np.where(np.asarray(pbc)[:, None], cell, 0.0))


def _without_voids(
    positions: np.ndarray, cell: np.ndarray, pbc: tuple[bool, ...], reach: float
) -> np.ndarray:
    # Two atoms on either side of a void wider than the reach are no pair, however wide it is. Along each open
    # direction such voids are narrowed to a little more than the reach: the same pairs in a compact box. A
    # search by boxes would else need more of them than fit into memory.
    for k in np.flatnonzero(~np.asarray(pbc)):
        along = positions @ cell[k]
        order = np.argsort(along)
        gaps = np.diff(along[order])
        too_wide = np.maximum(gaps - 1.01 * reach, 0.0)
        surplus = np.concatenate([[0.0], np.cumsum(too_wide)])
        if surplus[-1] > 0:
            shift = np.empty_like(along)
            shift[order] = surplus
            positions = positions - shift[:, None] * cell[k]
    return positions


def _with_ghost(positions: np.ndarray, box: np.ndarray, pbc: tuple[bool, ...], reach: float) -> np.ndarray:
    # vesin cuts the extent of the atoms into boxes and looks as many boxes far as the reach needs, along open
    # directions too: a reach far beyond a thin extent costs (reach / extent)^2 or more for nothing. One atom
    # out of reach of all others makes the extent as long as the reach. Its pairs with its own images are
    # taken out.
    open_vectors = box[~np.asarray(pbc)]
    along = positions @ open_vectors.T
    thin = np.ptp(along, axis=0) < reach
    if not thin.any():
        return positions
    away = np.where(thin, 1.01 * reach, 0.0) @ open_vectors
    last = along[:, thin.argmax()].argmax()
    return np.vstack([positions, positions[last] + away])


def choose_builder(
    n_atoms: int, cell: np.ndarray, pbc: tuple[bool, ...], reach: float, backend: str
) -> Builder:
    """The builder that suits: the device for large cells on an accelerator, else the host."""
    large = n_atoms >= DEVICE_ATOMS and np.isfinite(reach) and cell_list.fits(cell, pbc, reach)
    return search_on_device if large and backend != "cpu" else search_on_host


def search_on_host(
    positions: np.ndarray,
    cell: np.ndarray,
    pbc: tuple[bool, bool, bool],
    reach: float,
    capacity: Capacity,
    ghosts: int | None = None,
) -> Neighbors:
    """All pairs within `reach` (Å) of any cell, by vesin; all pairs of a cluster if `reach` is infinite."""
    pairs = pairs_on_host(_without(ghosts, positions), cell, pbc, reach)
    return list_of_pairs(*pairs, positions, cell, reach, capacity, _shapes(ghosts))


def pairs_on_host(
    positions: np.ndarray, cell: np.ndarray, pbc: tuple[bool, bool, bool], reach: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """i, j and shift of all pairs within `reach` (Å), each once."""
    extent = float(np.linalg.norm(np.ptp(positions, axis=0)))
    if np.isinf(reach) or (not any(pbc) and reach > extent):  # nothing lies beyond the extent of a cluster
        i, j = _all_pairs(len(positions), pbc)
        shift = np.zeros((len(i), 3))
    else:
        import vesin

        box = _periodic_cell(cell, pbc)
        search = vesin.NeighborList(cutoff=reach, full_list=False)
        points = _without_voids(positions, box, pbc, reach)
        points = _with_ghost(points, box, pbc, reach)
        i, j, shift = search.compute(points=points, box=box, periodic=list(pbc), quantities="ijS")
        real = np.maximum(i, j) < len(positions)
        if not real.all():
            i, j, shift = i[real], j[real], shift[real]
    return i.astype(np.int32), j.astype(np.int32), shift


def _without(ghosts: int | None, positions: np.ndarray) -> np.ndarray:
    return positions[: len(positions) - (ghosts or 0)]


def _shapes(ghosts: int | None) -> Callable[[int, Capacity, Capacity], Capacity]:
    return with_some_room if ghosts is None else shared


def list_of_pairs(
    i: np.ndarray,
    j: np.ndarray,
    shift: np.ndarray,
    positions: np.ndarray | Array,
    cell: np.ndarray | Array,
    reach: float,
    capacity: Capacity = NOTHING_KEPT,
    shapes: Callable[[int, Capacity, Capacity], Capacity] = exactly,
) -> Neighbors:
    """A list of pairs known already, each once.

    Args:
        capacity: shapes at least kept.
        shapes: of the arrays, from the number of atoms, what is needed and what is kept; by default no larger
            than both.
    """
    rows = by_atom(i, j, shift, len(positions))
    needed = Capacity(len(i), rows.width, len(rows.owner))
    pairs, width, images, _ = shapes(len(positions), needed, capacity)
    arrays = {
        "i": _filled_up(i, pairs),
        "j": _filled_up(j, pairs),
        "shift": _filled_up(shift.astype(float), pairs),
        "valid": np.arange(pairs) < len(i),
        "reach": np.array(reach, float),
        "positions": np.array(positions),
        "cell": np.array(cell),
        "near": rows.rows(width, len(positions) + images),
        "owner": _filled_up(rows.owner, images),
        "image": _filled_up(rows.image.astype(float), images),
    }
    with eval_context():  # plain numbers stay plain, also while JAX traces
        # all in one call; nobody else holds any of them
        return Neighbors(**jax.device_put(arrays))


def _filled_up(values: np.ndarray, slots: int) -> np.ndarray:
    full = np.zeros((slots, *values.shape[1:]), values.dtype)
    full[: len(values)] = values
    return full


def search_on_device(
    positions: np.ndarray,
    cell: np.ndarray,
    pbc: tuple[bool, bool, bool],
    reach: float,
    capacity: Capacity,
    ghosts: int | None = None,
) -> Neighbors:
    """The same by jax-md's cell list on the device, for a cell three reaches thick along periodic vectors."""
    real = _without(ghosts, positions)
    pairs = cell_list.find_pairs(real, cell, pbc, reach, lambda found: slots(found, capacity.pairs))
    numbers = image_numbers(pairs.shift, pairs.j, pairs.i, pairs.valid)
    room = slots(int(count_distinct(numbers)), capacity.images)
    width = slots(pairs.most, capacity.width)
    near, owner, image = by_atom_on_device(*pairs[:4], numbers, len(positions), width, room)
    return Neighbors(
        *pairs[:4],
        reach=jnp.asarray(reach, float),
        positions=jnp.asarray(positions),
        cell=jnp.asarray(cell),
        near=near,
        owner=owner,
        image=image,
    )


def _all_pairs(n: int, pbc: tuple[bool, ...]) -> tuple[np.ndarray, np.ndarray]:
    if any(pbc):
        raise InputError(
            "this potential has no cutoff, so a periodic structure has infinitely many pairs: give it a "
            "cutoff."
        )
    if n > ALL_PAIRS_LIMIT:
        raise InputError(
            f"all pairs of {n} atoms do not fit (limit {ALL_PAIRS_LIMIT}): give the potential a cutoff "
            "that is shorter than the structure."
        )
    return np.triu_indices(n, 1)
