"""Energies, forces and stresses of a data set as residuals of a fit.

    r_E = sqrt(w) (E - E_data) / n / t_E,    r_F = sqrt(w) (F - F_data) / t_F,    r_S = sqrt(w) (S -
    S_data) / t_S

with a tolerance t for each kind of label, n atoms, and the weights w of the data. Labels that are missing
have no residual. Where outliers must not decide, r is replaced by

    sign(r) sqrt(2 d² (sqrt(1 + r²/d²) - 1)),

whose square is r² for small r and 2 d |r| for large r (pseudo-Huber).

Programs and potentials count energies from different zeros. With `shift_energies` every element has an
energy e_z that is fitted along. It is in the residuals linearly, so it is eliminated and not searched:
with the compositions C the residuals are (1 - P) r_E, P the projector on the columns of C.
"""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from mdsens.checks import instance, number
from mdsens.datasets.batches import (
    BatchValues,
    LabelledBatch,
    lone_energy,
    make_batches,
    map_structures,
    voigt_of,
)
from mdsens.datasets.dataset import Dataset
from mdsens.errors import InputError
from mdsens.fitting.terms import Memory, TermRow, TermValue
from mdsens.neighbors import Neighbors
from mdsens.potentials.base import Potential
from mdsens.potentials.parameters import find_entries, follow_path, replace_by_vector
from mdsens.quantities import evaluate
from mdsens.structure import Structure

GROWTH = 1.1  # ratio of the reaches that lists are made for


class LabelTolerances(NamedTuple):
    """What labels may be off by: one standard error where errors of parameters should be right.

    Attributes:
        energy: eV per atom. forces: eV/Å. stress: eV/Å³. None leaves the labels out.
    """

    energy: float | None = 0.005
    forces: float | None = 0.05
    stress: float | None = 0.005


class ForceMatching:
    """A data set as a term of a fit; see the module.

    Args:
        data: labelled structures of any sizes.
        tolerances: of the labels.
        huber: d, in tolerances, from where on residuals count less; None: they never do.
        shift_energies: fit an energy of each element along.
        name: of the term.
    Raises:
        InputError: no labels, or a tolerance that is not positive.
    """

    def __init__(
        self,
        data: Dataset,
        *,
        tolerances: LabelTolerances | None = None,
        huber: float | None = None,
        shift_energies: bool = False,
        name: str = "data",
    ):
        self.name = name
        self.data = instance("data", data, Dataset, "Read one with ms.read_dataset(path).")
        self.tolerances = _checked(tolerances or LabelTolerances())
        self.huber = None if huber is None else number("huber", huber, "tolerances", above=0.0)
        self.shift_energies = shift_energies
        self._check_labels()
        self._batches: dict[float, list[LabelledBatch]] = {}

    def _check_labels(self) -> None:
        counts = self.data.counts()
        found = {"energy": counts.energies, "forces": counts.forces, "stress": counts.stresses}
        wanted = [n for n in LabelTolerances._fields if getattr(self.tolerances, n) is not None]
        if not any(found[name] for name in wanted):
            raise InputError(
                f"the data set '{self.name}' has {counts.structures} structures and no "
                f"{' or '.join(wanted)}: there is nothing to fit to. Say what the file calls its labels "
                "(ms.read_dataset(path, energy=..., forces=...)), or compute them (mdsens.datasets.label)."
            )

    def batches(self, potential: Potential) -> list[LabelledBatch]:
        """The data with lists that serve a potential.

        The reach is a power of 1.1 above the cutoff: it depends on the cutoff alone, and lists are made anew
        only if a fit moves the cutoff by ten percent.
        """
        cutoff = float(potential.cutoff)
        reach = (
            cutoff if np.isinf(cutoff) else float(GROWTH ** np.ceil(np.log(cutoff) / np.log(GROWTH) + 1e-9))
        )
        if reach not in self._batches:
            self._batches = {reach: make_batches(self.data, potential, reach=reach)}
        return self._batches[reach]

    def evaluate(self, potential: Potential, parameters: tuple[str, ...], memory: Memory) -> TermValue:
        """Residuals and their derivatives by the parameters."""
        theta = jnp.asarray(_values_of(potential, parameters))
        batches = self.batches(potential)
        found = [_values_and_derivatives(potential, parameters, theta, batch) for batch in batches]
        labels = {
            name: _joined([_residuals(name, *pair, tolerance) for pair in zip(batches, found, strict=True)])
            for name, tolerance in self.tolerances._asdict().items()
        }
        if self.shift_energies and len(labels["energy"].residuals):
            labels["energy"] = self._shifted(labels["energy"])
        rows = [_row(name, part, getattr(self.tolerances, name) or 1.0) for name, part in labels.items()]
        shown = [row for row in rows if row.count]
        every = _joined(list(labels.values()))
        residuals, jacobian = every.residuals, every.jacobian
        if self.huber is not None:
            residuals, jacobian = _softened(residuals, jacobian, self.huber)
        return TermValue(residuals, jacobian, tuple(shown))

    def _shifted(self, part: "_Residuals") -> "_Residuals":
        """Without what energies of the elements could take up."""
        columns = self.data.compositions()[part.entries] * part.factors[:, None]
        basis, sizes, _ = np.linalg.svd(columns, full_matrices=False)
        basis = basis[:, sizes > 1e-10 * sizes[0]]
        project = lambda array: array - basis @ (basis.T @ array)
        return part._replace(residuals=project(part.residuals), jacobian=project(part.jacobian))


class _Residuals(NamedTuple):
    """Residuals of one kind of label.

    Attributes:
        entries: which structure each is of. factors: by which differences were multiplied.
    """

    residuals: Float[np.ndarray, "rows"]
    jacobian: Float[np.ndarray, "rows parameters"]
    entries: np.ndarray
    factors: Float[np.ndarray, "rows"]


def _residuals(
    name: str, batch: LabelledBatch, found: tuple[BatchValues, BatchValues], tolerance: float | None
) -> _Residuals:
    """Weighted residuals of the labels that are there, and their derivatives."""
    values, slopes = (np.asarray(getattr(part, name)) for part in found)
    factors = np.sqrt(np.asarray(getattr(batch, f"{name}_weight")))
    factors = factors * (0.0 if tolerance is None else 1 / tolerance)
    if name == "energy":
        factors = factors / np.asarray(batch.sizes)
    along = lambda array: np.broadcast_to(_extended(array, values.ndim), values.shape)
    factors, entries = along(factors), along(np.asarray(batch.entry))
    there = factors > 0
    chosen, off = factors[there], (values - np.asarray(getattr(batch, name)))[there]
    return _Residuals(chosen * off, chosen[:, None] * slopes[there], entries[there], chosen)


def _extended(array: np.ndarray, ndim: int) -> np.ndarray:
    """With axes of length one behind its own."""
    return array.reshape(*array.shape, *[1] * (ndim - array.ndim))


def _joined(parts: list[_Residuals]) -> _Residuals:
    return _Residuals(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


UNITS = {"energy": "eV per atom", "forces": "eV/Å", "stress": "eV/Å³"}
TITLES = {"energy": "energy", "forces": "force", "stress": "stress"}


def _row(name: str, part: _Residuals, tolerance: float) -> TermRow:
    """Root mean square of the residuals, in the unit of the label."""
    n = len(part.residuals)
    rms = tolerance * float(np.sqrt(np.mean(part.residuals**2))) if n else 0.0
    return TermRow(f"{TITLES[name]} rmse", UNITS[name], rms, 0.0, tolerance, n)


def _softened(
    r: Float[np.ndarray, "rows"], jacobian: Float[np.ndarray, "rows parameters"], d: float
) -> tuple[np.ndarray, np.ndarray]:
    # s = sign(r) sqrt(rho), rho = 2 d² (u - 1), u = sqrt(1 + r²/d²). With u - 1 = (r/d)² / (u + 1):
    #     s = r sqrt(2 / (u + 1)),        ds/dr = (d rho / dr) / 2 s = (r / u) / s
    u = np.sqrt(1 + (r / d) ** 2)
    factor = np.sqrt(2 / (u + 1))
    return factor * r, (1 / (u * factor))[:, None] * jacobian


def _checked(tolerances: LabelTolerances) -> LabelTolerances:
    for name in LabelTolerances._fields:
        value = getattr(tolerances, name)
        if value is not None:
            number(f"tolerance of the {name}", value, UNITS[name], above=0.0)
    return tolerances


def _values_of(potential: Potential, parameters: tuple[str, ...]) -> np.ndarray:
    entries = find_entries(potential, parameters)
    return np.array([np.asarray(follow_path(potential, entry.path))[entry.index] for entry in entries])


@eqx.filter_jit
def _values_and_derivatives(
    potential: Potential, parameters: tuple[str, ...], theta: Float[Array, "parameters"], batch: LabelledBatch
) -> tuple[BatchValues, BatchValues]:
    """Energies, forces and stresses, and the same with an axis of derivatives by theta at the end."""

    def of(theta: Array, structure: Structure, neighbors: Neighbors) -> BatchValues:
        found = evaluate(replace_by_vector(potential, parameters, theta), structure, neighbors)
        return BatchValues(found.energy, found.forces, voigt_of(found.stress))

    def both(structure: Structure, neighbors: Neighbors) -> tuple[BatchValues, BatchValues]:
        values, push = jax.linearize(lambda theta: of(theta, structure, neighbors), theta)
        return values, jax.vmap(push, out_axes=-1)(jnp.eye(len(theta)))

    lone = lambda theta: lone_energy(replace_by_vector(potential, parameters, theta), batch)
    values, slopes = map_structures(both, batch)
    e_0, slope_0 = lone(theta), jax.jacfwd(lone)(theta)
    return (
        values._replace(energy=values.energy - batch.ghosts * e_0),
        slopes._replace(energy=slopes.energy - batch.ghosts[:, None] * slope_0),
    )
