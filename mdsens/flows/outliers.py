"""Frames that do not belong to the density of the others, and bonds that have no density.

An atom with four neighbors keeps its handedness: the four corners of a tetrahedron trade places at no
temperature at which the molecule lives. A frame whose corners are the other way around is a mirror image, or
numbers its atoms differently. One of them among thousands makes a torsion that swings by some degrees look as
if it went around.

A bond that the simulation held rigid has one length, and positions on such a surface have no density. Files
that keep three decimals hide that: rounding moves the bond by some 1e-4 nm, ten times less than heat does.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from mdsens.errors import InputError
from mdsens.molecules.bonds import Bonds, read_bonds

RARE = 0.25  # centers that are inverted more often than this have no handedness (planar, say)
# Å-scale springs of 1500 N/m (C≡C, the stiffest there are) move by 0.0017 nm at 300 K; rounding to 0.001 nm
# by 0.0004
RIGID = 7e-4  # nm at 300 K
FEWEST = 20  # frames that a width needs


def inverted_frames(
    topology: Any,
    frames: Float[np.ndarray, "frames atoms 3"],
    like: Float[np.ndarray, "others atoms 3"] | None = None,
) -> Bool[np.ndarray, " frames"]:
    """Which frames have an atom with four neighbors the other way around than most.

    Args:
        topology: see `read_bonds`.
        frames: positions, in any unit.
        like: frames that say which way around is right; by default the frames themselves.
    """
    centers, corners = _tetrahedra(read_bonds(topology))
    if not centers:
        return np.zeros(len(frames), bool)
    own = _handedness(frames, corners)
    reference = own if like is None else _handedness(like, corners)
    usual = np.sign(reference.sum(0))
    inverted = own * usual < 0
    fixed = np.mean(reference * usual < 0, axis=0) < RARE
    return (inverted & fixed).any(1)


def check_handedness(
    topology: Any,
    frames: Float[np.ndarray, "frames atoms 3"],
    like: Float[np.ndarray, "others atoms 3"] | None = None,
    remedy: str = "Leave these frames out (--drop-outliers).",
) -> None:
    """Refuse frames that are mirror images of the others.

    Raises:
        InputError: there are some; the first and their number are named.
    """
    wrong = np.flatnonzero(inverted_frames(topology, frames, like))
    if len(wrong):
        raise InputError(
            f"{len(wrong)} of {len(frames)} frames have a tetrahedral atom the other way around, first frame "
            f"{wrong[0]}: they are mirror images, or their atoms are numbered differently. {remedy}"
        )


def check_bonds_move(topology: Any, frames: Float[np.ndarray, "frames atoms 3"], temperature: float) -> None:
    """Refuse bonds that the simulation held rigid.

    Args:
        topology: see `read_bonds`.
        frames: nm.
        temperature: K.
    Raises:
        InputError: the length of a bond varies less than heat makes the stiffest bond vary.
    """
    bonds = read_bonds(topology)
    pairs = np.array([(i, j) for i, bonded in enumerate(bonds.neighbors) for j in bonded if i < j])
    if len(frames) < FEWEST or not len(pairs):
        return
    i, j = pairs[:, 0], pairs[:, 1]
    lengths = np.linalg.norm(frames[:, i] - frames[:, j], axis=-1)
    widths = lengths.std(axis=0)
    limit = RIGID * np.sqrt(temperature / 300.0)
    rigid = np.flatnonzero(widths < limit)
    if len(rigid):
        first = rigid[0]
        raise InputError(
            f"{len(rigid)} of {len(pairs)} bonds are rigid: that of {bonds.name(*pairs[first])} varies by "
            f"{widths[first]:.1e} nm, while heat moves the stiffest by more than {limit:.1e} nm. "
            "Positions with constrained bonds have no density, rounded (.xtc) or not. Run the dynamics "
            "without constraints (OpenMM: constraints=None, rigidWater=False; GROMACS: constraints = none), "
            "in steps of 1 fs or less."
        )


def tree_of(rows: Iterable[tuple[int, ...]], n_atoms: int) -> tuple[int, list[tuple[int, int]]]:
    """The bonds along which atoms are placed, as a topology: atom to its first parent."""
    return n_atoms, [(int(row[0]), int(row[1])) for row in rows if row[1] >= 0]


def _tetrahedra(bonds: Bonds) -> tuple[list[int], Int[np.ndarray, "centers 4"]]:
    centers = [i for i, bonded in enumerate(bonds.neighbors) if len(bonded) == 4]
    corners = np.array([bonds.neighbors[i] for i in centers], int)
    return centers, corners.reshape(-1, 4)


def _handedness(
    frames: Float[np.ndarray, "frames atoms 3"], corners: Int[np.ndarray, "centers 4"]
) -> Float[np.ndarray, "frames centers"]:
    """Sign of the volume that the four corners span; zero in a frame that is not finite."""
    at = np.nan_to_num(np.asarray(frames, float)[:, corners])
    edges = at[:, :, 1:] - at[:, :, :1]
    a, b, c = np.moveaxis(edges, 2, 0)
    sign = np.sign(np.sum(a * np.cross(b, c), axis=-1))
    finite = np.asarray(np.isfinite(frames).all(axis=(1, 2)))
    return sign * finite[:, None]
