"""From data and a molecule to an untrained flow, and the frames to train it on.

The division into frames to train on and frames held out comes first. Coordinates, the widths of rings, soft
torsions, centers and scales are then chosen from the frames to train on: what the held-out frames say about a
model is what unseen frames say.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mdsens.errors import InputError
from mdsens.flows.boltzmann import BoltzmannGenerator
from mdsens.flows.data import DataSplit, ForceData
from mdsens.flows.internal_coordinates import AbstractCoordinates
from mdsens.flows.layers import Split
from mdsens.flows.molecule import MoleculeArchitecture, choose_coordinates
from mdsens.flows.outliers import check_bonds_move, check_handedness, inverted_frames
from mdsens.molecules.bonds import read_bonds
from mdsens.molecules.topology import Molecule

ENOUGH = 5000  # frames that centers and scales are taken from


class Prepared(NamedTuple):
    """All that a training begins with.

    Attributes:
        generator: the untrained flow of the molecule.
        data: frames to train on, and frames held out.
        choices: what was chosen, in sentences.
    """

    generator: BoltzmannGenerator
    data: DataSplit
    choices: tuple[str, ...]


def prepare(
    data: ForceData,
    molecule: Molecule,
    *,
    architecture: MoleculeArchitecture | None = None,
    held_out: float = 0.1,
    block: tuple[int, ...] | None = None,
    seed: int = 0,
    dtype: Any = jnp.float32,
    drop_outliers: bool = False,
    notice: Callable[[str], None] | None = None,
    source: str = "",
) -> Prepared:
    """Divide the data, choose coordinates, and build an untrained flow.

    Args:
        data: frames of the molecule.
        molecule: of `read_molecule`.
        architecture: size and kind of the flow.
        held_out: share of the frames, the last ones, that nothing here and no training sees.
        block: atoms of a stiff block that carries the others; by default the ring system, if there is one.
        seed: of the first weights.
        dtype: precision of the parameters: float32 trains twice as fast.
        drop_outliers: leave mirror images out instead of refusing them.
        notice: called with a sentence on what was left out.
        source: name of the data, kept in the file of the model.
    Raises:
        InputError: another number of atoms, mirror images among the frames, bonds that were held rigid, a
            molecule for which no coordinates can be chosen, or too few frames.
    """
    architecture = MoleculeArchitecture() if architecture is None else architecture
    if data.positions.shape[1] != len(molecule.species):
        raise InputError(
            f"positions of {data.positions.shape[1]} atoms, and the topology has {len(molecule.species)}: "
            "leave out what does not belong to the molecule (mdtraj: trajectory.atom_slice), or give the "
            "topology of these positions."
        )
    data = _without_outliers(data, molecule, drop_outliers, notice)
    split = data.divide(held_out, source)
    seen = split.training.positions
    coordinates = choose_coordinates(molecule.topology, seen, block)
    _check_held_out(coordinates, split)
    check_bonds_move(molecule.topology, seen, data.temperature)
    flow = architecture.build(coordinates, seen[:: max(1, len(seen) // ENOUGH)], jax.random.key(seed))
    generator = BoltzmannGenerator(flow, molecule.species, data.temperature, molecule.pdb).astype(dtype)
    return Prepared(generator, split, describe(generator, molecule.topology))


def describe(generator: BoltzmannGenerator, topology: Any) -> tuple[str, ...]:
    """What the coordinates of a flow are, in sentences."""
    coordinates, bonds = generator.coordinates, read_bonds(topology)
    said = [f"coordinates: {type(coordinates).__name__} of {generator.n_atoms} atoms"]
    block = getattr(coordinates, "atoms", ())
    if block:
        said.append(f"stiff block: {', '.join(bonds.names[i] for i in block)}")
    split = generator.flow.layers.layers[1]
    rows = getattr(coordinates, "rows", ())
    if isinstance(split, Split):
        soft = dict(split.targets).get("soft", ())
        torsions = rows[len(rows) - split.sources[0][1] :]
        names = ["-".join(bonds.names[atom] for atom in torsions[k]) for k in soft]
        said.append(f"{len(soft)} soft torsions: {', '.join(names) or 'none'}")
        said.append(f"{3 * generator.n_atoms - 6 - len(soft)} stiff coordinates")
    return tuple(said)


def _without_outliers(
    data: ForceData, molecule: Molecule, drop: bool, notice: Callable[[str], None] | None
) -> ForceData:
    finite = np.isfinite(data.positions).all(axis=(1, 2))
    if not finite.all() and not drop:
        raise InputError(
            f"positions of {np.sum(~finite)} frames are not finite, first in frame {np.argmin(finite)}. "
            "Leave these frames out (drop_outliers=True, --drop-outliers)."
        )
    usual = data.positions[finite]
    if not drop:
        remedy = "Leave these frames out (drop_outliers=True, --drop-outliers)."
        check_handedness(molecule.topology, usual, remedy=remedy)
        return data
    good = np.flatnonzero(finite)[~inverted_frames(molecule.topology, usual)]
    if len(good) < data.n_frames and notice is not None:
        notice(f"{data.n_frames - len(good)} of {data.n_frames} frames are mirror images: they are left out.")
    return data.rows(good) if len(good) < data.n_frames else data


def _check_held_out(coordinates: AbstractCoordinates, split: DataSplit) -> None:
    try:
        coordinates.check(split.held_out.positions)
    except InputError as error:
        n = split.held_out.n_frames
        raise InputError(f"among the {n} held-out frames, counted from 0: {error}") from error
