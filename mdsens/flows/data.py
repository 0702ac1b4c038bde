"""Molecular dynamics to learn from: positions, forces and energies, in the units of a flow.

Flows of molecules measure length in nm and energy in kT. `read_force_data` turns files into these units.
Frames are divided into those to train on and those held out, and known again by distances between atoms.
"""

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Self

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from mdsens.batching import map_pieces
from mdsens.errors import InputError
from mdsens.io.hdf5 import Quantity, write_hdf5
from mdsens.units import BOLTZMANN, KJ_PER_MOL


class ForceData(NamedTuple):
    """Frames of one molecule at one temperature.

    Attributes:
        positions: nm.
        forces: kT/nm, or None.
        energies: kT, or None; up to one constant.
        temperature: K.
        weights: of each frame in averages over the equilibrium, as the likelihood is one: 0 for a frame of
            enhanced sampling, which teaches forces only; None if all count alike.
        force_weights: of each frame in the mean squared force error; None if all count alike.
    """

    positions: Float[np.ndarray, "frames atoms 3"]
    forces: Float[np.ndarray, "frames atoms 3"] | None
    energies: Float[np.ndarray, " frames"] | None
    temperature: float
    weights: Float[np.ndarray, " frames"] | None = None
    force_weights: Float[np.ndarray, " frames"] | None = None

    @property
    def n_frames(self) -> int:
        """Number of frames."""
        return len(self.positions)

    def rows(self, rows: Any) -> Self:
        """Some of the frames."""
        arrays = {name: part for name, part in self._asdict().items() if isinstance(part, np.ndarray)}
        return self._replace(**{name: array[rows] for name, array in arrays.items()})

    def split(self, held_out: float) -> tuple[Self, Self]:
        """Frames to train on, and the last ones, a share `held_out` of all, to test on.

        The last and not any: neighboring frames of a trajectory are alike. Of frames with weight zero, which
        are of another simulation, the last ones as well.

        Raises:
            InputError: a part would be empty.
        """
        last = self._last(held_out)
        return self.rows(np.setdiff1d(np.arange(self.n_frames), last)), self.rows(last)

    def divide(self, held_out: float, source: str = "") -> "DataSplit":
        """The same division, with which frame went where.

        Args:
            held_out: share of the frames.
            source: where the frames are from, to be kept in the file of a model.
        """
        training, test = self.split(held_out)
        return DataSplit(training, test, self._last(held_out), source)

    def join(self, other: Self) -> Self:
        """These frames and frames of enhanced sampling, from which forces are learned and no frequencies.

        The other frames get weight zero in the likelihood, whatever they had; weights in the force error
        stay.

        Raises:
            InputError: another number of atoms or temperature, or forces on one side only.
        """
        if other.positions.shape[1] != self.positions.shape[1]:
            raise InputError(
                f"frames of {self.positions.shape[1]} and of {other.positions.shape[1]} atoms are not of one "
                "molecule."
            )
        if abs(other.temperature - self.temperature) > 1e-6 * self.temperature:
            raise InputError(
                f"frames at {self.temperature:g} K and at {other.temperature:g} K do not belong together: "
                "energies are in kT."
            )
        if (self.forces is None) != (other.forces is None):
            raise InputError("only one of the two sets of frames has forces.")
        own = _ones(self.weights, self.n_frames)
        parts = (self.force_weights, other.force_weights)
        in_forces = None
        if any(part is not None for part in parts):
            in_forces = _joined(_ones(parts[0], self.n_frames), _ones(parts[1], other.n_frames))
        return type(self)(
            np.concatenate([self.positions, other.positions]),
            _joined(self.forces, other.forces),
            None,  # equal up to a constant in each set, not in both
            self.temperature,
            np.concatenate([own, np.zeros(other.n_frames)]),
            in_forces,
        )

    def labelled_by(self, energy: Callable[[Array], Array]) -> Self:
        """The same frames with the energies and forces of an energy function.

        Args:
            energy: reduced energy u(x) in kT of one frame in nm, differentiable once
                (`mdsens.calculators.reduced`).
        """
        positions = np.asarray(self.positions, float)
        energies, gradients = map_pieces(lambda x: _energies_and_gradients(energy, x), positions)
        return self._replace(energies=energies, forces=-gradients)

    def signatures(self) -> Float[np.ndarray, "frames numbers"]:
        """Some distances between atoms of each frame, nm: they know it again, turned or rounded."""
        return signatures(self.positions)

    def fingerprint(self) -> str:
        """A text that differs where frames, forces, weights or temperature differ."""
        known = hashlib.blake2b(digest_size=12)
        optional = () if self.force_weights is None else (self.force_weights,)
        for part in (self.positions, self.forces, self.weights, *optional):
            known.update(b"-" if part is None else np.ascontiguousarray(part).tobytes())
        frames, atoms = self.positions.shape[0], self.positions.shape[1:]
        return f"{frames} frames {atoms}, {self.temperature:g} K, {known.hexdigest()}"

    def write(self, path: str | Path, *, overwrite: bool = False) -> None:
        """Write HDF5 that `read_force_data` reads: positions (nm), forces, energies (kJ/mol), both weights.

        Raises:
            OutputExistsError: the file exists, and `overwrite` is False.
        """
        kT = BOLTZMANN * self.temperature / KJ_PER_MOL
        content = {
            "positions": Quantity(self.positions, "nm", "frames, atoms, xyz"),
            "forces": _quantity(self.forces, kT, "kJ/mol/nm", "frames, atoms, xyz"),
            "potential_energy": _quantity(self.energies, kT, "kJ/mol", "frames"),
            "weights": _quantity(self.weights, 1.0, "1", "frames"),
            "force_weights": _quantity(self.force_weights, 1.0, "1", "frames"),
            "temperature": Quantity(self.temperature, "K"),
        }
        write_hdf5(path, content, overwrite=overwrite)

    def _last(self, held_out: float) -> Int[np.ndarray, " held_out"]:
        """Rows of the frames that are held out."""
        if self.weights is None:
            return _tail(np.arange(self.n_frames), held_out)
        sampled = np.flatnonzero(self.weights > 0)
        enhanced = np.flatnonzero(self.weights <= 0)
        parts = [_tail(part, held_out) for part in (sampled, enhanced) if len(part)]
        return np.sort(np.concatenate(parts))


class DataSplit(NamedTuple):
    """Frames to train on, and frames that no part of a model has seen.

    Attributes:
        training: the first ones.
        held_out: the last ones.
        rows: which rows of all frames are held out.
        source: where the frames are from.
    """

    training: ForceData
    held_out: ForceData
    rows: Int[np.ndarray, " held_out"]
    source: str = ""

    def parts(self) -> Mapping[str, ForceData]:
        """Both parts by name."""
        return {"training": self.training, "held_out": self.held_out}

    def record(self) -> dict[str, Any]:
        """What the file of a model keeps: source, which rows were held out, the signatures of the others."""
        return {
            "source": self.source,
            "n_frames": self.training.n_frames + self.held_out.n_frames,
            "temperature": self.training.temperature,
            "fingerprint": self.training.fingerprint(),
            "held_out": self.rows,
            "trained_on": self.training.signatures(),
        }


# Rounding to 0.001 nm (.xtc) moves a distance by 0.001 sqrt(2 / 12) = 0.0004 nm, heat by 0.0025 and more.
SIGNATURE, SAME = 16, 7e-4  # distances in a signature; nm: root mean square difference of the same frame


def signatures(positions: Float[np.ndarray, "frames ..."]) -> Float[np.ndarray, "frames numbers"]:
    """Distances of up to 16 pairs of atoms, always the same pairs; of frames without atoms the numbers."""
    if positions.ndim != 3 or positions.shape[1] < 2:
        return np.asarray(positions.reshape(len(positions), -1)[:, :SIGNATURE], np.float32)
    i, j = np.triu_indices(positions.shape[1], 1)
    some = np.sort(np.random.default_rng(0).permutation(len(i))[:SIGNATURE])
    ends = np.asarray(positions, float)
    vectors = ends[:, i[some]] - ends[:, j[some]]
    return np.linalg.norm(vectors, axis=-1).astype(np.float32)


def known_again(
    frames: Float[np.ndarray, "frames numbers"], known: Float[np.ndarray, "others others_numbers"]
) -> Bool[np.ndarray, " frames"]:
    """Which frames are among the known ones, by their signatures."""
    from scipy.spatial import KDTree

    if frames.shape[1] != known.shape[1]:
        return np.zeros(len(frames), bool)
    reach = SAME * np.sqrt(known.shape[1])
    distance, _ = KDTree(known).query(frames, distance_upper_bound=reach)
    return np.isfinite(distance)


@eqx.filter_jit
def _energies_and_gradients(energy: Callable[[Array], Array], frames: Array) -> tuple[Array, Array]:
    return jax.vmap(jax.value_and_grad(energy))(jnp.asarray(frames))


def _ones(weights: np.ndarray | None, n: int) -> np.ndarray:
    return np.ones(n) if weights is None else weights


def _joined(one: np.ndarray | None, other: np.ndarray | None) -> np.ndarray | None:
    return None if one is None or other is None else np.concatenate([one, other])


def _quantity(array: np.ndarray | None, factor: float, unit: str, axes: str) -> Quantity | None:
    return None if array is None else Quantity(array * factor, unit, axes)


def _tail(rows: Int[np.ndarray, " rows"], share: float) -> Int[np.ndarray, " tail"]:
    n = round(len(rows) * share)
    if not 0 < n < len(rows):
        raise InputError(
            f"held_out = {share:g} of {len(rows)} frames leaves {n} to test on: neither part may be empty."
        )
    return rows[-n:]
