"""Lattice vibrations as a whole: bands, density of states, and the way to phonopy.

Force constants of one supercell say the frequencies of any wave: exactly for those that repeat with it, and
for all others as soon as it is wider than twice the range of the force constants (the default for potentials
that have one). In crystals of ions, forces never end; the field of long waves is put in for itself, and what
is left is smooth between the waves that are exact (`mdsens.observables.polar`).

These are plain numbers, without derivatives: observables such as `phonon` have them.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import equinox as eqx
import numpy as np
from jaxtyping import Complex, Float

from mdsens.checks import number, whole
from mdsens.errors import InputError
from mdsens.io.files import new_file
from mdsens.observables.force_constants import Images, Phi, Repetition, wide_supercell
from mdsens.observables.meshes import mesh_of
from mdsens.observables.observable import State
from mdsens.observables.polar import coulomb_parts, field_of_wave
from mdsens.observables.primitive import PrimitiveCell
from mdsens.observables.supercells import Supercell, repeated
from mdsens.potentials.base import Potential
from mdsens.relaxation.equilibrium import Equilibrium
from mdsens.relaxation.relax import Relaxed
from mdsens.structure import Structure
from mdsens.units import COULOMB, THZ

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WIDE_ENOUGH = 10.0  # Å: half the width of the default supercell where forces never end

Waves = Float[np.ndarray, "waves 3"]


class Bands(NamedTuple):
    """Frequencies along a path through the Brillouin zone.

    Attributes:
        waves: (waves, 3) in fractions of the reciprocal primitive cell.
        distances: (waves,) along the path, 1/Å.
        frequencies: (waves, modes) THz; negative if imaginary.
        ticks: where special points lie. labels: their names.
    """

    waves: Waves
    distances: Float[np.ndarray, "waves"]
    frequencies: Float[np.ndarray, "waves modes"]
    ticks: tuple[float, ...]
    labels: tuple[str, ...]


class DensityOfStates(NamedTuple):
    """Vibrations per THz of one primitive cell.

    Attributes:
        frequencies: THz. density: 1/THz; its integral is the number of modes, 3 n.
    """

    frequencies: Float[np.ndarray, "points"]
    density: Float[np.ndarray, "points"]


@dataclasses.dataclass(frozen=True)
class LatticeVibrations:
    """Force constants of a relaxed crystal.

    Attributes:
        potential, structure: what they are of.
        repetition: the supercell. images: the nearest images in it.
        force_constants: (atoms of the primitive cell, 3, cells, atoms, 3), eV/Å².
    """

    potential: Potential
    structure: Structure
    repetition: Repetition
    images: Images
    force_constants: Phi

    @classmethod
    def of(cls, relaxed: Relaxed | Equilibrium, supercell: Any = None) -> Self:
        """Computed for a relaxed state.

        Args:
            supercell: cells along each cell vector; by default wider than twice the range of the force
                constants, or 20 Å where forces never end.
        Raises:
            InputError: not periodic in three directions, no whole numbers, a supercell that is too large.
        """
        state = relaxed.equilibrium if isinstance(relaxed, Relaxed) else relaxed
        structure = state.structure
        if not all(structure.pbc):
            raise InputError(
                f"bands need a crystal that is periodic in three directions (pbc = {structure.pbc})."
            )
        primitive = PrimitiveCell.of(structure)
        chosen = _default_supercell(state) if supercell is None else Supercell.diagonal(mesh_of(supercell))
        repetition = Repetition.of(state, primitive, chosen, "force constants")
        phi = _force_constants(repetition, state.potential, State(structure, state.neighbors))
        images = Images.of(structure, repetition)
        return cls(state.potential, structure, repetition, images, phi)

    @property
    def n_modes(self) -> int:
        """Modes of each wave."""
        return 3 * self.repetition.primitive.n_atoms

    @property
    def is_polar(self) -> bool:
        """Whether long waves make a field."""
        return bool(coulomb_parts(self.potential))

    def dynamical_matrices(self, waves: Waves, direction: Any = None) -> Complex[np.ndarray, "waves m m"]:
        """D of any waves, eV/Å²/u.

        Args:
            waves: in fractions of the reciprocal primitive cell.
            direction: along which q = 0 is approached in a crystal of ions; by default without its field.
        """
        found = [self._matrix(np.asarray(q, float), direction) for q in waves]
        return np.array(found)

    def _matrix(self, q: Float[np.ndarray, "3"], direction: Any) -> Complex[np.ndarray, "m m"]:
        phi = np.asarray(self.force_constants)
        primitive = self.repetition.primitive
        phases = self._phases(q, (phi.shape[0], phi.shape[2], phi.shape[3]))
        n = self.n_modes
        sums = np.einsum("iaRjb,iRj,jk->iakb", phi, phases, primitive.of_kind, optimize=True)
        roots = np.repeat(np.sqrt(np.asarray(self.structure.masses)[list(primitive.first)]), 3)
        matrix = sums.reshape(n, n) / roots / roots[:, None]
        along = q if np.any(q) else direction
        if self.is_polar and along is not None:
            matrix = matrix + self._field(along, phases)
        return (matrix + matrix.conj().T) / 2

    def _phases(self, q: Float[np.ndarray, "3"], shape: tuple[int, int, int]) -> np.ndarray:
        turns = self.images.points.array @ q
        each = self.images.shares.array * np.exp(2j * np.pi * turns)
        total = np.zeros(int(np.prod(shape)), complex)
        np.add.at(total, self.images.pairs.array, each)
        return total.reshape(shape)

    def _field(self, q: Any, phases: np.ndarray) -> np.ndarray:
        # shared evenly among all cells of the supercell: nothing is changed at waves that repeat with it
        primitive = self.repetition.primitive
        field = np.asarray(field_of_wave(self.potential, self.structure, primitive, q))
        cells = self.repetition.supercell.n_cells * len(primitive.kinds) / primitive.n_atoms
        shares = np.einsum("iRj,jk->ik", phases, primitive.of_kind) / cells
        return field * np.repeat(np.repeat(shares, 3, axis=0), 3, axis=1)

    def frequencies(self, waves: Any, direction: Any = None) -> Float[np.ndarray, "waves modes"]:
        """Frequencies of any waves, THz, ascending; negative if imaginary. Arguments as above."""
        rows = np.atleast_2d(np.asarray(waves, float))
        squares = np.linalg.eigvalsh(self.dynamical_matrices(rows, direction))
        return THZ * np.sign(squares) * np.sqrt(np.abs(squares))

    def bands(self, path: str | None = None, points: int = 120) -> Bands:
        """Frequencies along a path of special points.

        Args:
            path: such as "GXWKGL"; by default the one that ASE proposes for the primitive cell.
            points: waves on the path, about.
        Raises:
            InputError: a name that is no special point of this lattice.
        """
        from ase.cell import Cell

        points = whole("points", points, at_least=2)
        cell = Cell(np.asarray(self.repetition.primitive.cell(self.structure)))
        try:
            line = cell.bandpath(path, npoints=points)
        except (KeyError, ValueError) as error:
            known = ", ".join(cell.bandpath(npoints=0).special_points)
            raise InputError(f"path = '{path}': special points of this lattice are {known}.") from error
        distances, ticks, labels = line.get_linear_kpoint_axis()
        waves = np.asarray(line.kpts)
        return Bands(waves, distances, self.frequencies(waves), tuple(map(float, ticks)), tuple(labels))

    def density(self, mesh: Any = 16, width: float = 0.1, points: int = 400) -> DensityOfStates:
        """Density of states, each vibration a Gaussian.

        Args:
            mesh: waves along each reciprocal vector of the primitive cell.
            width: standard deviation of the Gaussians, THz.
            points: frequencies.
        """
        width = number("width", width, "THz", above=0)
        counts = mesh_of(mesh)
        axes = [(np.arange(n) + 0.5) / n for n in counts]
        waves = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 3)
        found = self.frequencies(waves).ravel()
        low, high = min(found.min(), 0.0) - 4 * width, found.max() + 4 * width
        at = np.linspace(low, high, whole("points", points, at_least=2))
        edges = np.linspace(low, high, 20 * len(at) + 1)
        counted, _ = np.histogram(found, edges)
        centers = (edges[1:] + edges[:-1]) / 2
        bells = np.exp(-(((at[:, None] - centers) / width) ** 2) / 2) / (width * np.sqrt(2 * np.pi))
        return DensityOfStates(at, bells @ counted / len(waves))

    def to_phonopy(self) -> Any:
        """A `phonopy.Phonopy` with the primitive cell, these force constants, and charges of ions.

        Its frequencies are lower by 1e-7 of themselves: phonopy's constants are older than CODATA 2018.

        Raises:
            InputError: phonopy is not installed.
        """
        try:
            from phonopy import Phonopy  # type: ignore[import-not-found]
            from phonopy.structure.atoms import PhonopyAtoms  # type: ignore[import-not-found]
        except ImportError as error:
            raise InputError("phonopy is not installed: pip install 'mdsens[phonons]'.") from error
        primitive, s = self.repetition.primitive, self.structure
        first = list(primitive.first)
        symbols = [s.symbols[k] for k in first]
        positions, masses = np.asarray(s.positions)[first], np.asarray(s.masses)[first]
        cell = np.asarray(primitive.cell(s))
        unit = PhonopyAtoms(symbols=symbols, cell=cell, positions=positions, masses=masses)
        # phonopy has vectors in columns
        matrix = (self.repetition.supercell.matrix @ np.array(primitive.matrix)).T
        made = Phonopy(unit, supercell_matrix=matrix, primitive_matrix=np.eye(3), log_level=0)
        made.force_constants = self._in_order_of(made.supercell.positions)
        if self.is_polar:
            made.nac_params = self._charges_for_phonopy(len(first))
        return made

    def _in_order_of(self, positions: np.ndarray) -> np.ndarray:
        large = repeated(self.structure, self.repetition.supercell)
        inverse = np.linalg.inv(np.asarray(large.cell))
        off = (positions[:, None] - np.asarray(large.positions)) @ inverse
        off = off - np.rint(off)
        order = np.abs(off).sum(axis=2).argmin(axis=1)
        phi = np.asarray(self.force_constants)
        rows = np.moveaxis(phi.reshape(phi.shape[0], 3, -1, 3), 1, 2)
        return np.ascontiguousarray(rows[:, order])

    def _charges_for_phonopy(self, n: int) -> dict[str, Any]:
        ((weight, part), *_) = coulomb_parts(self.potential)
        charges = np.asarray(part.charges(self.structure))[list(self.repetition.primitive.first)]
        born = charges[:, None, None] * np.eye(3)
        return {"born": born.reshape(n, 3, 3), "dielectric": np.eye(3), "factor": weight * COULOMB}

    def plot(
        self,
        path: str | Path,
        *,
        bands: Bands | None = None,
        density: DensityOfStates | None = None,
        overwrite: bool = False,
    ) -> "Figure":
        """Bands, and the density of states beside them, as a PNG.

        Raises:
            OutputExistsError: the file exists, and `overwrite` is False.
        """
        bands = self.bands() if bands is None else bands
        density = self.density() if density is None else density
        figure = _figure(bands, density)
        with new_file(Path(path), overwrite) as unfinished:
            figure.savefig(unfinished, dpi=150, format="png")
        return figure


def _figure(bands: Bands, density: DensityOfStates) -> "Figure":
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.5), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=[3, 1])
    left.plot(bands.distances, bands.frequencies, color="C0", linewidth=1)
    for tick in bands.ticks:
        left.axvline(tick, color="0.8", linewidth=0.8)
    left.set_xticks(bands.ticks, [label.replace("G", "Γ") for label in bands.labels])
    left.set_xlim(bands.distances[0], bands.distances[-1])
    left.axhline(0, color="0.5", linewidth=0.8)
    left.set_ylabel("frequency (THz)")
    right.fill_betweenx(density.frequencies, density.density, color="C0", alpha=0.4)
    right.set_xlabel("states (1/THz)")
    right.set_xlim(left=0)
    return figure


def _default_supercell(state: Equilibrium) -> Supercell:
    potential = state.potential
    finite = potential.local and np.isfinite(float(potential.cutoff))
    reach = 2 * float(potential.cutoff) if finite else WIDE_ENOUGH
    return wide_supercell(state.structure, reach)


@eqx.filter_jit
def _force_constants(repetition: Repetition, potential: Potential, state: State) -> Phi:
    return repetition.force_constants(potential, state)


def special_points(vibrations: LatticeVibrations) -> dict[str, Sequence[float]]:
    """Special points of the Brillouin zone by name, in fractions of the reciprocal primitive cell."""
    from ase.cell import Cell

    cell = Cell(np.asarray(vibrations.repetition.primitive.cell(vibrations.structure)))
    points = cell.bandpath(npoints=0).special_points
    return {name: [float(x) for x in point] for name, point in points.items()}
