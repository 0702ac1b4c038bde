"""Any jax-md energy function as a potential.

jax-md bakes displacement, box and species into an energy function; here it is given positions, the box, the
neighbors if it wants them, and its parameters, and so gets everything mdsens does with a potential.

Limits, which are those of jax-md: it takes the nearest image of each atom, so a periodic cell must be thicker
than two cutoffs along every vector (checked); a structure is periodic along all vectors or along none. Some
of jax-md's own
forms have no derivatives where ours have them: all-pairs `lennard_jones_pair` and `stillinger_weber` give NaN
for d/dsigma in reverse mode, as they divide by the distance of an atom from itself.
`mdsens.testing.check_potential` tells.
"""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float

from mdsens.errors import InputError
from mdsens.neighbors import Neighbors
from mdsens.potentials.base import Potential
from mdsens.structure import Structure

if TYPE_CHECKING:
    from jax_md.partition import NeighborList

FORMATS = ("dense", "sparse", "ordered-sparse")


def _floats(tree: Any) -> Any:
    return jax.tree.map(
        lambda leaf: jnp.asarray(leaf, float) if isinstance(leaf, int | float) else jnp.asarray(leaf), tree
    )


class JaxMDPotential(Potential):
    """A potential from an energy function of jax-md, or any function of positions.

        displacement, _ = jax_md.space.periodic_general(box, fractional_coordinates=False)
        energy_fn = jax_md.energy.soft_sphere_pair(displacement)
        potential = JaxMDPotential(energy_fn, {"sigma": 1.0, "epsilon": 1.0}, cutoff=1.0)

    Called as `energy_fn(positions, **parameters)` for a cluster. In a periodic structure `box=` (columns are
    the cell vectors, Å) and `perturbation=` are added, which jax-md hands on to the displacement: use
    `space.periodic_general` with `fractional_coordinates=False`. Such a function stays periodic when it is
    given a cluster: for clusters make it with `space.free()`. With `neighbor_format` the list is added as
    `neighbor=`: what the second function of jax-md's `..._neighbor_list` takes.

    Attributes:
        energy_fn: energy in eV of positions in Å. Species are baked into it, so it belongs to one order of
            atoms.
        parameters: what the energy can be differentiated by: numbers, arrays or trees of them (network
            weights), by the name of the keyword argument that takes them.
        cutoff_radius: largest distance of two atoms that interact, Å, beyond which `energy_fn` itself gives
            nothing; inf for a cluster in which all do. Held fixed.
        neighbor_format: None (the function looks at all pairs), "dense", "sparse" or "ordered-sparse".
        elements: chemical symbols it is for; () if any.
        units: unit of each parameter, for tables.
        source: where the parameter values come from.
    """

    energy_fn: Callable[..., Float[Array, ""]] = eqx.field(static=True)
    parameters: dict[str, Any] = eqx.field(converter=_floats, metadata={"unit": "?"})
    cutoff_radius: float = eqx.field(static=True)
    neighbor_format: str | None = eqx.field(static=True)
    elements: tuple[str, ...] = eqx.field(static=True)
    units: tuple[tuple[str, str], ...] = eqx.field(static=True)
    source: str = eqx.field(static=True)

    def __init__(
        self,
        energy_fn: Callable[..., Float[Array, ""]],
        parameters: Mapping[str, Any],
        cutoff: float,
        *,
        neighbor_format: str | None = None,
        elements: tuple[str, ...] = (),
        units: Mapping[str, str] | None = None,
        source: str = "",
    ):
        """See the class.

        Raises:
            InputError: a cutoff that is no length, an unknown format.
        """
        if not cutoff > 0:
            raise InputError(
                f"cutoff = {cutoff} Å: it must be positive (inf for a cluster in which all atoms interact)."
            )
        if neighbor_format is not None and neighbor_format not in FORMATS:
            raise InputError(
                f"neighbor_format '{neighbor_format}' is unknown: use None (all pairs) or one of "
                f"{', '.join(FORMATS)}."
            )
        self.energy_fn = energy_fn
        self.parameters = dict(parameters)
        self.cutoff_radius = float(cutoff)
        self.neighbor_format = neighbor_format
        self.elements = tuple(elements)
        self.units = tuple((units or {}).items())
        self.source = source

    @property
    def cutoff(self) -> Float[Array, ""]:
        return jnp.asarray(self.cutoff_radius)

    def check_structure(self, structure: Structure) -> None:
        """Raise where jax-md's nearest images would not be all there are.

        Raises:
            InputError: periodic along some cell vectors only, or a cell thinner than two cutoffs.
        """
        if any(structure.pbc) and not all(structure.pbc):
            raise InputError(
                f"jax-md is periodic along all cell vectors or none, the structure has pbc = {structure.pbc}."
            )
        if all(structure.pbc) and not isinstance(structure.cell, Tracer):
            thickness = float(np.min(_thicknesses(structure.cell)))
            if thickness < 2 * self.cutoff_radius:
                raise InputError(
                    f"the cell is {thickness:.2f} Å thick, less than twice the cutoff "
                    f"({self.cutoff_radius:.2f} Å): jax-md sees only the nearest image of each atom and "
                    "would give a wrong energy. Repeat the cell, or use a potential of mdsens."
                )

    def energy(self, structure: Structure, neighbors: Neighbors) -> Float[Array, ""]:
        positions, arguments = structure.positions, dict(self.parameters)
        if any(structure.pbc):
            # The cell may have shrunk since `check_structure` saw it.
            thin = jnp.min(_thicknesses(structure.cell)) < 2 * self.cutoff_radius
            message = (
                "the cell became thinner than two cutoffs, where jax-md gives a wrong energy: start from a "
                "repeated cell."
            )
            cell = eqx.error_if(structure.cell, thin, message)
            # The derivative of jax-md's energy by `box` is not that of the energy: its rule for fractional
            # coordinates adds Å to fractions. So the box h0 is held, and the derivative goes through a
            # deformation F = h0^-1 h, which is one here: with x h^-1 h0 for the positions, each vector
            # between atoms is
            #     x_j - x_i + n h = [(x_j - x_i) h^-1 h0 + n h0] F,
            # whatever h0 is.
            held = jax.lax.stop_gradient(cell)
            positions = positions @ jnp.linalg.solve(cell, held)
            arguments |= {"box": held.T, "perturbation": jnp.linalg.solve(held, cell).T}
        if self.neighbor_format is not None:
            arguments["neighbor"] = _neighbor_list(
                structure, neighbors, self.cutoff_radius, self.neighbor_format
            )
        return jnp.sum(self.energy_fn(positions, **arguments))


def _thicknesses(cell: Float[Array, "3 3"]) -> Float[Array, "3"]:
    # distance between opposite faces: the rows of the inverse, transposed, are normals of length 1 /
    # thickness
    return 1 / jnp.sqrt(jnp.sum(jnp.linalg.inv(cell) ** 2, axis=0))


def _neighbor_list(structure: Structure, neighbors: Neighbors, cutoff: float, form: str) -> "NeighborList":
    """Our list in jax-md's form. Spare places hold n_atoms, as there."""
    from jax_md.partition import NeighborList, NeighborListFormat, PartitionError

    # jax-md works out by itself which image of an atom is meant: the nearest. Ours may list several, those
    # beyond the cutoff (within the skin) too. Only one of them can be within the cutoff, and only that one
    # may stay.
    n = structure.n_atoms
    within = lambda d: jnp.sum(d * d, axis=-1) < cutoff**2
    if form == "dense":
        table = neighbors.table()
        keep = table.valid & within(table.vectors(structure))
        index = jnp.where(keep, table.j, n)
        kind = NeighborListFormat.Dense
    else:
        # A spare pair has n_atoms in front, by which jax-md knows it, and behind it atom 0, so that its
        # distance, which is computed all the same, is not zero.
        keep = neighbors.valid & within(neighbors.vectors(structure))
        i, j = neighbors.i, neighbors.j
        spare = jnp.stack([jnp.full_like(i, n), jnp.zeros_like(i)])
        pairs = jnp.stack([jnp.minimum(i, j), jnp.maximum(i, j)])
        index, kind = jnp.where(keep, pairs, spare), NeighborListFormat.OrderedSparse
        if form == "sparse":
            turned = jnp.where(keep, pairs[::-1], spare)
            index = jnp.concatenate([index, turned], axis=1)
            kind = NeighborListFormat.Sparse

    def update(*_: Any, **__: Any) -> "NeighborList":
        raise InputError(
            "this neighbor list belongs to mdsens, which rebuilds it: do not update it inside the energy "
            "function."
        )

    fields: dict[str, Any] = {
        "idx": index,
        "reference_position": neighbors.positions,
        "max_occupancy": index.shape[1],
        "format": kind,
    }
    unused: dict[str, Any] = dict.fromkeys(("cell_list_capacity", "cell_size", "cell_list_fn"))
    no_error: dict[str, Any] = {"code": jnp.zeros((), jnp.uint8)}
    fields |= {"error": PartitionError(**no_error), "update_fn": update}
    return NeighborList(**fields, **unused)
