"""What a potential says of a data set: labels of its own, to compare with or to fit to."""

import equinox as eqx
import numpy as np

from mdsens.checks import instance
from mdsens.datasets.batches import BatchValues, LabelledBatch, batch_values, make_batches
from mdsens.datasets.dataset import Dataset, LabelledStructure, tensor_of
from mdsens.errors import NonFiniteError
from mdsens.potentials.base import Potential, require_potential
from mdsens.potentials.parameters import check_parameters
from mdsens.precision import require_x64


def label(potential: Potential, data: Dataset) -> Dataset:
    """The same structures with the energies, forces and stresses of a potential.

    Structures of different sizes share compiled programs. Weights, groups and origins stay.

    Raises:
        InputError: no structures, or elements that the potential does not know.
        NonFiniteError: names a structure whose energy or forces are not finite.
    """
    require_x64()
    instance("data", data, Dataset, "Read one with ms.read_dataset(path).")
    check_parameters(require_potential(potential))
    found: dict[int, LabelledStructure] = {}
    for batch in make_batches(data, potential):
        values = _values(potential, batch)
        for row, k in enumerate(np.asarray(batch.entry).tolist()):
            if k >= 0:
                found[k] = _labelled(data[k], values, row)
    return Dataset(tuple(found[k] for k in range(len(data))))


@eqx.filter_jit
def _values(potential: Potential, batch: LabelledBatch) -> BatchValues:
    return batch_values(potential, batch)


def _labelled(entry: LabelledStructure, values: BatchValues, row: int) -> LabelledStructure:
    n = entry.structure.n_atoms
    energy = float(values.energy[row])
    forces = np.array(values.forces[row][:n])
    if not (np.isfinite(energy) and np.isfinite(forces).all()):
        raise NonFiniteError(
            f"energy or forces of {entry.name} are not finite: atoms are on top of each other, or a "
            "parameter lies where the potential is not defined."
        )
    volume = abs(np.linalg.det(np.asarray(entry.structure.cell)))
    stress = tensor_of(np.asarray(values.stress[row])) if volume > 0 else None
    return entry._replace(energy=energy, forces=forces, stress=stress, known=None)
