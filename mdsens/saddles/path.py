"""A path from one minimum to another, as images of the structure in between.

The straight line between two minima may push atoms into each other. The image dependent pair potential keeps
them apart: the distances of all pairs are interpolated instead of the positions, and each image takes the
positions across the line whose distances come closest to them,

    S_k = sum over pairs of (d_ij - d_ij^k)^2 / d_ij^4,    d^k = (1 - s_k) d^start + s_k d^end.

Along the line images stay where they are: distances alone do not tell mirror images from each other.

Source: Smidstrup, Pedersen, Stokbro, Jónsson, J. Chem. Phys. 140, 214106 (2014).
"""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from mdsens.arrays import on_device
from mdsens.errors import InputError
from mdsens.structure import Structure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SAME_MINIMUM = 0.05  # Å: minima whose atoms are all closer than this are one
IN_ORDER = 0.5  # of the motion that is left when atoms are matched: more of it says that their order differs
MOVES = 0.7  # Å: atoms that move less hop nowhere
ASIDE = 0.02  # Å
PAIRS_LIMIT = 600  # atoms up to which all pairs keep their distances; beyond, the straight line is taken

Images = Float[np.ndarray, "images atoms 3"]


@dataclasses.dataclass(frozen=True)
class ReactionPath:
    """Images of a structure from one minimum to another, both included.

    Attributes:
        start: the first image; cell, species and what is fixed are those of all.
        positions: of all images, Å. energies: eV.
        fmax: largest force across the path on a free atom of an image in between, eV/Å.
        climbing: the image that has climbed to the saddle point; -1: none.
        steps: of the band.
    """

    start: Structure
    positions: Images
    energies: Float[np.ndarray, "images"]
    fmax: float
    climbing: int
    steps: int

    @property
    def images(self) -> list[Structure]:
        """Each image as a structure."""
        return [self.start.at(on_device(x)) for x in self.positions]

    @property
    def distances(self) -> Float[np.ndarray, "images"]:
        """How far along the path each image lies: the lengths of the steps between images, added up, Å."""
        moves = np.diff(self.positions, axis=0)
        lengths = np.linalg.norm(moves.reshape(len(moves), -1), axis=1)
        return np.concatenate([[0.0], np.cumsum(lengths)])

    @property
    def highest(self) -> int:
        """The image of highest energy."""
        return int(np.argmax(self.energies))

    @property
    def intermediate_minima(self) -> list[int]:
        """Images in between that lie lower than both their neighbors."""
        E = self.energies
        lower = (E[1:-1] < E[:-2]) & (E[1:-1] < E[2:])
        return [int(k) + 1 for k in np.flatnonzero(lower)]

    def plot(self, path: str | Path | None = None, *, overwrite: bool = False) -> "Figure":
        """Energy along the path; written to `path` if given."""
        from mdsens.saddles.show import plot_profile

        return plot_profile(self, path, overwrite=overwrite)


def check_ends(start: Structure, end: Structure) -> None:
    """Raise unless two structures can be the ends of one path.

    Raises:
        InputError: other atoms, another order of them, another cell, other fixed coordinates.
    """
    if start.n_atoms != end.n_atoms:
        raise InputError(
            f"the start has {start.n_atoms} atoms and the end {end.n_atoms}: a path moves atoms, and makes "
            "none."
        )
    if start.pbc != end.pbc or not np.allclose(start.cell, end.cell, rtol=0, atol=1e-6):
        raise InputError(
            f"start and end have different cells ({_edges(start)} and {_edges(end)} Å, pbc {start.pbc} and "
            f"{end.pbc}): a path holds the cell. Give the end the cell of the start, "
            "end.at(positions, start.cell), and let it relax there."
        )
    different = np.flatnonzero(np.asarray(start.species) != np.asarray(end.species))
    if len(different):
        k = int(different[0])
        raise InputError(
            f"atom {k} is {start.symbols[k]} in the start and {end.symbols[k]} in the end: the atoms of both "
            "must stand in one order. ms.saddles.in_order(start, end) sorts the end."
        )
    if np.any(np.asarray(start.fixed) != np.asarray(end.fixed)):
        raise InputError("start and end hold different coordinates fixed: fix the same ones in both.")


def _edges(structure: Structure) -> str:
    lengths = np.linalg.norm(np.asarray(structure.cell), axis=1)
    return " x ".join(f"{x:.6g}" for x in lengths)


def nearest_images(start: Structure, end: Structure) -> Structure:
    """The end with every atom at that periodic image which is closest to where it starts."""
    move = np.asarray(end.positions) - np.asarray(start.positions)
    closest = np.asarray(start.positions) + move + lattice_shift(start, move)
    return end.at(on_device(closest))


def lattice_shift(structure: Structure, vectors: np.ndarray) -> np.ndarray:
    """What makes vectors as short as lattice vectors allow, Å (exact for vectors short beside the cell)."""
    periodic = np.asarray(structure.pbc)
    if not periodic.any():
        return np.zeros_like(vectors)
    cell = np.asarray(structure.cell)
    inverse = np.linalg.pinv(cell)
    whole = np.round(vectors @ inverse)
    return -(whole * periodic) @ cell


def check_numbering(start: Structure, end: Structure) -> None:
    """Raise if the atoms of the end seem to stand in another order: matching them leaves much less to move.

    Raises:
        InputError
    """
    straight = np.asarray(nearest_images(start, end).positions) - np.asarray(start.positions)
    moving = np.linalg.norm(straight, axis=1) > MOVES
    if np.sum(moving) < 2:
        return
    sorted_end = nearest_images(start, in_order(start, end))
    left = np.asarray(sorted_end.positions) - np.asarray(start.positions)
    if np.sum(left**2) < IN_ORDER * np.sum(straight**2):
        atoms = ", ".join(str(k) for k in np.flatnonzero(moving)[:8])
        raise InputError(
            f"{int(np.sum(moving))} atoms move by more than {MOVES} Å from start to end (atoms {atoms}, "
            "...), and far less would move if the atoms of the end were numbered otherwise: their order "
            "differs. Sort the end with ms.saddles.in_order(start, end) (--match on the command line), or "
            "pass check_order=False if atoms do change places."
        )


def in_order(start: Structure, end: Structure) -> Structure:
    """The end with its atoms in that order in which they move least from the start.

    Raises:
        InputError: other species than the start, or a different number of atoms.
    """
    from scipy.optimize import linear_sum_assignment

    if sorted(start.symbols) != sorted(end.symbols):
        raise InputError(
            "start and end are made of different atoms: no order makes one path of them. Compare "
            "start.symbols and end.symbols."
        )
    order = linear_sum_assignment(_costs(start, end))[1]
    sort = lambda values: on_device(np.asarray(values)[order])
    names = ["positions", "species", "masses", "fixed"]
    if end.charges is not None:
        names.append("charges")
    arrays: dict[str, Any] = {name: sort(getattr(end, name)) for name in names}
    columns = {name: sort(values) for name, values in end.columns.items()}
    return dataclasses.replace(end, **arrays, columns=columns)


def _costs(start: Structure, end: Structure) -> np.ndarray:
    """What it costs to let each atom of the start be each of the end: the square of its way, Å²."""
    first, last = np.asarray(start.positions), np.asarray(end.positions)
    apart = last[None] - first[:, None]
    apart = apart + lattice_shift(start, apart)
    one, other = np.asarray(start.species), np.asarray(end.species)
    forbidden = one[:, None] != other[None]
    return np.sum(apart**2, axis=2) + 1e6 * forbidden


def require_different(start: Structure, end: Structure) -> None:
    """Raise if two minima are one.

    Raises:
        InputError
    """
    move = np.asarray(nearest_images(start, end).positions) - np.asarray(start.positions)
    move = move - move.mean(axis=0)
    longest = float(np.linalg.norm(move, axis=1).max(initial=0.0))
    if longest < SAME_MINIMUM:
        raise InputError(
            f"start and end relax into the same minimum: no atom moves by more than {longest:.1e} Å between "
            f"them (at least {SAME_MINIMUM} is needed). Start one of them farther from the other."
        )


def straight_line(start: Structure, end: Structure, images: int) -> Images:
    """Positions of all images, ends included, on the straight line."""
    first, last = np.asarray(start.positions), np.asarray(end.positions)
    share = np.linspace(0, 1, images + 2)[:, None, None]
    return first + share * (last - first)


def interpolate(start: Structure, end: Structure, images: int) -> Images:
    """Positions of all images, ends included, with interpolated distances (see the module).

    Fixed coordinates keep to the straight line. Beyond 600 atoms it is the straight line.
    """
    line = straight_line(start, end, images)
    if start.n_atoms > PAIRS_LIMIT or start.n_atoms < 3:
        return line
    pairs = np.triu_indices(start.n_atoms, 1)
    middle = (line[0] + line[-1]) / 2
    shift = lattice_shift(start, middle[pairs[1]] - middle[pairs[0]])
    ends = [_distances(x, pairs, shift) for x in (line[0], line[-1])]
    free = ~np.asarray(start.fixed)
    along = (line[-1] - line[0])[free]
    along = along / max(np.linalg.norm(along), 1e-300)
    # an atom that would go straight through another one needs to be told on which side to pass
    aside = ASIDE * np.random.default_rng(0).normal(size=line[0].shape)
    for k in range(1, images + 1):
        share = k / (images + 1)
        wanted = (1 - share) * ends[0] + share * ends[1]
        objective = _distances_off(line[k], pairs, shift, wanted, free)
        line[k][free] = _across(objective, line[k][free], aside[free], along)
    return line


def _across(
    objective: Callable[[np.ndarray], tuple[float, np.ndarray]],
    flat: np.ndarray,
    aside: np.ndarray,
    along: np.ndarray,
) -> np.ndarray:
    """The minimum of an objective in the plane across a direction."""
    from scipy.optimize import minimize

    project = lambda v: v - (along @ v) * along

    def in_plane(moved: np.ndarray) -> tuple[float, np.ndarray]:
        value, gradient = objective(flat + moved)
        return value, project(gradient)

    found = minimize(in_plane, project(aside), jac=True, method="L-BFGS-B", options={"maxiter": 200})
    return flat + project(found.x)


def _distances(x: np.ndarray, pairs: tuple[np.ndarray, np.ndarray], shift: np.ndarray) -> np.ndarray:
    return np.linalg.norm(x[pairs[1]] - x[pairs[0]] + shift, axis=1)


def _distances_off(
    x: np.ndarray,
    pairs: tuple[np.ndarray, np.ndarray],
    shift: np.ndarray,
    wanted: np.ndarray,
    free: np.ndarray,
) -> Callable[[np.ndarray], tuple[float, np.ndarray]]:
    """S and its slope, as a function of the free coordinates; those of x that are fixed stay."""
    i, j = pairs

    def objective(flat: np.ndarray) -> tuple[float, np.ndarray]:
        y = x.copy()
        y[free] = flat
        d = y[j] - y[i] + shift
        r = np.maximum(np.linalg.norm(d, axis=1), 1e-3)
        off = r - wanted
        # S = off² / r⁴,  dS/dr = 2 off / r⁴ - 4 off² / r⁵
        slope = 2 * off / r**4 - 4 * off**2 / r**5
        along = (slope / r)[:, None] * d
        gradient = np.zeros_like(y)
        np.add.at(gradient, j, along)
        np.add.at(gradient, i, -along)
        return float(np.sum(off**2 / r**4)), gradient[free]

    return objective
