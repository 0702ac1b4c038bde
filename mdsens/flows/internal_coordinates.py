"""Internal coordinates: what of a molecule's shape its energy depends on.

Bonds, angles and torsions do not change when the molecule shifts or turns, and chemistry makes most of them
narrow: that is where a flow is easy to learn. Every map comes with the logarithm of its volume element, so
that a density of shapes becomes a density of positions.

The volume element. Place the atoms one by one. An atom with bond b, angle t and torsion p to three placed
atoms has spherical coordinates about the first of them, with the polar axis along a-b, so

    d³x = b² sin(t) db dt dp.

The first atom gives d³r of the origin. The second is at distance b in any direction: b² db times the solid
angle sin(B) dB dA of the Euler angles A, B. The third has b² sin(t) db dt, and its rotation about the first
axis is the third Euler angle C. With the rotations' own measure dO = sin(B) dA dB dC,

    d^3N x = d³r dO  prod_(i >= 2) b_i²  prod_(i >= 3) sin(t_i)  d(bonds) d(angles) d(torsions).
"""

from abc import abstractmethod
from functools import partial
from itertools import combinations
from typing import Any, Self

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from mdsens.errors import InputError
from mdsens.molecules.bonds import Bonds, read_bonds
from mdsens.molecules.placement import MISSING, Placement, place_atoms
from mdsens.units import to_nm

Fields = dict[str, Float[Array, "_"]]

SHORTEST_BOND, LONGEST_BOND = 0.03, 0.5  # nm: from below H-H (0.074) to above heavy metals (0.3)
SMALLEST_BEND = 1e-3  # rad from a straight line: below it float32 torsions keep three digits
# Rad: triple bonds vibrate by 0.15, and the widest bent angle (Si-O-Si, 150°) is 0.5 away
LINEAR_GROUP = 0.25

# GPUs multiply float32 matrices with ten bits unless told: too few for positions
product = partial(jnp.matmul, precision=jax.lax.Precision.HIGHEST)


class AbstractCoordinates(eqx.Module):
    """A one-to-one map between the shape of a molecule and named coordinates.

    `log_det` is that of the shape: d^3N x = d(origin) d(orientation) exp(log_det of inverse) d(fields), where
    d(orientation) is the invariant measure of rotations, whose total is 8 pi².
    """

    @abstractmethod
    def forward(self, positions: Float[Array, "atoms 3"]) -> tuple[Fields, Float[Array, ""]]:
        """Coordinates of the shape, and log|d(fields)/d(shape)|; positions in nm."""

    @abstractmethod
    def inverse(self, fields: Fields) -> tuple[Float[Array, "atoms 3"], Float[Array, ""]]:
        """Positions in the standard pose (nm), and log|d(shape)/d(fields)|."""

    @abstractmethod
    def check(self, positions: np.ndarray) -> None:
        """Find out on the host whether frames (atoms, 3) or (frames, atoms, 3) in nm have coordinates.

        Raises:
            InputError: they have none.
        """

    @abstractmethod
    def frame(self, positions: Float[Array, "atoms 3"]) -> tuple[Float[Array, "3"], Float[Array, "3 3"]]:
        """Origin (nm) and rotation R that bring the standard pose here: positions = origin + pose Rᵀ."""


class ZMatrix(AbstractCoordinates):
    """Bonds (atoms - 1), angles (atoms - 2) and torsions (atoms - 3) along a tree of bonds; nm and rad.

    Angles lie in (0, pi), torsions in (-pi, pi] with the sign of IUPAC and of `mdtraj.compute_dihedrals`. All
    three are in the order of the rows. Derivatives are finite wherever no angle is 0 or pi, planar torsions
    included. The standard pose has the first atom at the origin, the second on +z and the third in the xz
    plane with x > 0.

    Attributes:
        rows: atom, a, b, c for each atom (see `Placement`).
        proper: for each torsion, whether it is a rotation about a bond (soft), or relative to a sibling
            (stiff).
    """

    rows: tuple[tuple[int, int, int, int], ...] = eqx.field(static=True)
    proper: tuple[bool, ...] = eqx.field(static=True)

    def __init__(self, placement: Placement):
        if len(placement.rows) < 3:
            raise InputError(
                f"{len(placement.rows)} atoms have no angle, and so no orientation with three Euler angles: "
                "a Z-matrix needs three or more. A diatomic has one coordinate, its bond length."
            )
        self.rows = whole_rows(placement)
        self.proper = tuple(bool(p) for p in placement.proper)

    @classmethod
    def from_topology(cls, topology: Any) -> Self:
        """Choose the tree of bonds.

        Args:
            topology: of mdtraj, OpenMM or ASE, or (number of atoms, bonded pairs); see `read_bonds`.
        Raises:
            InputError: a molecule in pieces, with less than three atoms, or, where the topology knows
                positions (ASE), with three atoms in a line.
        """
        coordinates = cls(place_atoms(topology))
        if type(topology).__module__.startswith("ase."):
            positions = to_nm(topology.positions)
            check_not_linear(read_bonds(topology), positions)
            coordinates.check(positions)
        return coordinates

    @property
    def n_atoms(self) -> int:
        """Number of atoms."""
        return len(self.rows)

    def forward(self, positions: Float[Array, "atoms 3"]) -> tuple[Fields, Float[Array, ""]]:
        """Bonds, angles and torsions, and log|d(fields)/d(shape)|; positions in nm."""
        fields = measure(positions, np.array(self.rows))
        return fields, -log_volume(fields)

    def inverse(self, fields: Fields) -> tuple[Float[Array, "atoms 3"], Float[Array, ""]]:
        """Positions in the standard pose (nm), and log|d(shape)/d(fields)|."""
        bonds, angles, torsions = fields["bonds"], fields["angles"], fields["torsions"]
        rows = np.array(self.rows)
        zero = jnp.zeros_like(bonds[0])
        # the angle of the third atom opens from -z if it hangs on the second atom, from +z if on the first
        along = bonds[1] * jnp.cos(angles[0])
        across = bonds[1] * jnp.sin(angles[0])
        on_second = rows[2, 1] == rows[1, 0]
        height = bonds[0] - along if on_second else along
        second = jnp.stack([zero, zero, bonds[0]])
        third = jnp.stack([across, zero, height])
        three = jnp.stack([jnp.zeros_like(second), second, third])
        nowhere = jnp.zeros((self.n_atoms, 3), three.dtype)
        positions = nowhere.at[rows[:3, 0]].set(three)
        placed = place(positions, rows[3:], bonds[2:], angles[1:], torsions)
        return placed, log_volume(fields)

    def frame(self, positions: Float[Array, "atoms 3"]) -> tuple[Float[Array, "3"], Float[Array, "3 3"]]:
        """The first atom, and the rotation R with positions = origin + pose Rᵀ."""
        first, second, third = (positions[row[0]] for row in self.rows[:3])
        z = _unit(second - first)
        y = _unit(jnp.cross(z, third - first))
        return first, jnp.stack([jnp.cross(y, z), y, z], axis=-1)

    def check(self, positions: np.ndarray) -> None:
        """Find out on the host whether these positions have internal coordinates.

        Args:
            positions: (atoms, 3) or (frames, atoms, 3), nm.
        Raises:
            InputError: another number of atoms, values that are not finite, Å instead of nm, a molecule cut
                by a periodic boundary, or three atoms in a line.
        """
        rows = np.array(self.rows)
        frames = check_frames(positions, self.n_atoms)
        check_bonds(frames, rows[1:])
        third, others = rows[2:, :3], rows[3:, 1:]
        check_angles(frames, np.concatenate([third, others]))


def whole_rows(placement: Placement) -> tuple[tuple[int, int, int, int], ...]:
    """Atom, a, b, c of each row, as plain numbers."""
    rows = np.asarray(placement.rows).tolist()
    return tuple((atom, a, b, c) for atom, a, b, c in rows)


class GlobalFrame(eqx.Module):
    """Shape coordinates completed by where the molecule is: a one-to-one map of all 3 N positions.

    Adds the fields "origin" (3,) in nm and "orientation": Euler angles (A, B, C) of R = Rz(A) Ry(B) Rz(C),
    with A and C in (-pi, pi], B in (0, pi). At B = 0 and pi they have no unique values, as on the poles of a
    globe.
    """

    shape: AbstractCoordinates

    def forward(self, positions: Float[Array, "atoms 3"]) -> tuple[Fields, Float[Array, ""]]:
        """All coordinates, and log|d(fields)/d(positions)|; positions in nm."""
        fields, log_det = self.shape.forward(positions)
        origin, R = self.shape.frame(positions)
        # third column of R: (cos A sin B, sin A sin B, cos B); third row: (-sin B cos C, sin B sin C, cos B)
        square = R[0, 2] ** 2 + R[1, 2] ** 2
        sine = jnp.sqrt(square)
        A = _atan2(R[1, 2], R[0, 2])
        B = _atan2(sine, R[2, 2])
        C = _atan2(R[2, 1], -R[2, 0])
        orientation = jnp.stack([A, B, C])
        return {"origin": origin, "orientation": orientation, **fields}, log_det - jnp.log(sine)

    def inverse(self, fields: Fields) -> tuple[Float[Array, "atoms 3"], Float[Array, ""]]:
        """Positions (nm), and log|d(positions)/d(fields)|."""
        placed = ("origin", "orientation")
        shape = {name: value for name, value in fields.items() if name not in placed}
        pose, log_det = self.shape.inverse(shape)
        A, B, C = fields["orientation"]
        R = product(_turn(A, 2), product(_turn(B, 1), _turn(C, 2)))
        positions = fields["origin"] + product(pose, R.T)
        return positions, log_det + jnp.log(jnp.sin(B))


def measure(positions: Float[Array, "atoms 3"], rows: np.ndarray) -> Fields:
    """Bond atom-a, angle atom-a-b and torsion atom-a-b-c of every row that has these parents (nm, rad)."""
    # the first rows lack parents
    lacking = np.sum(rows == MISSING, axis=0)
    two, three, four = (int(n) for n in lacking[1:])

    def difference(row: int, i: int, j: int) -> Array:
        ends = rows[row:]
        return positions[ends[:, i]] - positions[ends[:, j]]

    # atom - a, b - a, c - b
    v = difference(two, 0, 1)
    w = difference(three, 2, 1)
    u = difference(four, 3, 2)
    bonds = _length(v)
    # Angle between v and w, from sine and cosine together: acos loses half the digits near 0 and pi.
    v = v[three - two :]
    n = jnp.cross(v, w)
    angles = jnp.arctan2(_length(n), jnp.sum(v * w, axis=-1))
    # Torsion: angle between the normals v × w and u × w of the two planes. Their product is |n||m| cos p; and
    # |w| (v . m) = |n||m| sin p, positive if, seen from a towards b, the bond to atom turns clockwise to
    # cover the one to c.
    v = v[four - three :]
    w = w[four - three :]
    n = n[four - three :]
    m = jnp.cross(u, w)
    sine = _length(w) * jnp.sum(v * m, axis=-1)
    torsions = _atan2(sine, jnp.sum(n * m, axis=-1))
    return {"bonds": bonds, "angles": angles, "torsions": torsions}


def log_volume(fields: Fields) -> Float[Array, ""]:
    """Log of b² for every bond and sin(t) for every angle: the volume element in the module's docstring."""
    lengths = jnp.sum(jnp.log(fields["bonds"]))
    sines = jnp.sum(jnp.log(jnp.sin(fields["angles"])))
    return 2 * lengths + sines


def place(
    positions: Float[Array, "atoms 3"],
    rows: np.ndarray,
    bonds: Float[Array, "rows"],
    angles: Float[Array, "rows"],
    torsions: Float[Array, "rows"],
) -> Float[Array, "atoms 3"]:
    """Fill in the positions of the rows' atoms, one after the other (nm, rad); all others are given."""
    # Step by step, not level by level of the tree: for 22 atoms the loop compiles three times and runs 1.6
    # times as fast as the four levels written out, whose few vectors are too short to gain anything (128
    # frames, two cores).

    def attach(positions: Array, row: tuple[Array, ...]) -> tuple[Array, None]:
        atom, parents, bond, angle, torsion = row
        a, b, c = positions[parents]
        # Axes at a: u towards b; p away from the axis on the side of c (torsion 0); q = p x u (torsion 90°).
        u = _unit(b - a)
        q = _unit(jnp.cross(c - b, u))
        p = jnp.cross(u, q)
        around = jnp.cos(torsion) * p + jnp.sin(torsion) * q
        local = jnp.cos(angle) * u + jnp.sin(angle) * around
        return positions.at[atom].set(a + bond * local), None

    atoms = jnp.asarray(rows[:, 0])
    parents = jnp.asarray(rows[:, 1:])
    placed, _ = jax.lax.scan(attach, positions, (atoms, parents, bonds, angles, torsions))
    return placed


def check_frames(positions: np.ndarray, n_atoms: int) -> np.ndarray:
    """Frames (frames, atoms, 3) of one or more, with the right number of atoms and finite values.

    Raises:
        InputError
    """
    frames = np.asarray(positions, float)
    if frames.ndim not in (2, 3) or frames.shape[-1] != 3:
        raise InputError(
            f"positions have shape {frames.shape}; give (atoms, 3) or (frames, atoms, 3), in nm."
        )
    if frames.shape[-2] != n_atoms:
        raise InputError(
            f"positions of {frames.shape[-2]} atoms, and the topology has {n_atoms}: leave out what does not "
            "belong to the molecule (mdtraj: trajectory.atom_slice), or give the topology of these positions."
        )
    frames = frames.reshape(-1, n_atoms, 3)
    bad = np.argwhere(~np.isfinite(frames))
    if len(bad):
        raise InputError(
            f"the position of atom {bad[0, 1]} in frame {bad[0, 0]} is {frames[tuple(bad[0])]}: leave out "
            "frames like this one."
        )
    return frames


def check_bonds(frames: np.ndarray, rows: np.ndarray) -> None:
    """Raise `InputError` if bonds are no bonds: Å instead of nm, or a molecule in pieces."""
    i, j = rows[:, 0], rows[:, 1]
    vectors = frames[:, i] - frames[:, j]
    lengths = np.linalg.norm(vectors, axis=-1)
    typical = np.median(lengths)
    if typical > LONGEST_BOND:
        raise InputError(
            f"a typical bond is {typical:.3g} long, and bonds are 0.07 to 0.3 nm: these positions seem to be "
            "in Å. Multiply them by 0.1."
        )
    if typical < SHORTEST_BOND:
        raise InputError(
            f"a typical bond is {typical:.3g} nm long, and bonds are 0.07 to 0.3 nm: are these positions in "
            "nm?"
        )
    frame, k = np.unravel_index(np.argmax(lengths), lengths.shape)
    if lengths[frame, k] > LONGEST_BOND:
        raise InputError(
            f"the bond between atoms {rows[k, 0]} and {rows[k, 1]} is {lengths[frame, k]:.3g} nm long in "
            f"frame {frame}, above {LONGEST_BOND} nm: the molecule is cut by a periodic boundary (mdtraj: "
            "trajectory.make_molecules_whole()), or the topology numbers the atoms differently."
        )
    frame, k = np.unravel_index(np.argmin(lengths), lengths.shape)
    if lengths[frame, k] < SHORTEST_BOND:
        raise InputError(
            f"bonded atoms {rows[k, 0]} and {rows[k, 1]} are {lengths[frame, k]:.3g} nm apart in frame "
            f"{frame}, below {SHORTEST_BOND} nm: they overlap. Leave out this frame."
        )


def check_not_linear(bonds: Bonds, positions: np.ndarray) -> None:
    """Raise `InputError` if all atoms of the molecule lie in a line, as those of CO2, HCN and C2H2 do.

    Args:
        bonds: of the molecule.
        positions: (atoms, 3) or (frames, atoms, 3), nm.
    """
    frames = check_frames(positions, bonds.n_atoms)
    triples = [(i, j, k) for j, bonded in enumerate(bonds.neighbors) for i, k in combinations(bonded, 2)]
    if not triples:
        return
    bend = np.median(_bends(_angles(frames, np.array(triples))), axis=0)
    if bend.max() < LINEAR_GROUP:
        raise InputError(
            f"{bonds.name(*range(bonds.n_atoms))} lie in a line: a linear molecule has no torsions and only "
            "two angles of orientation, so it has no internal coordinates here, and no "
            "block helps. Flows are for molecules with three atoms that are not in a line."
        )


def _angles(frames: np.ndarray, triples: np.ndarray) -> np.ndarray:
    """Angles (frames, triples) between the bonds of three atoms, rad."""
    vertex = frames[:, triples[:, 1]]
    v = frames[:, triples[:, 0]] - vertex
    w = frames[:, triples[:, 2]] - vertex
    sine = np.linalg.norm(np.cross(v, w), axis=-1)
    return np.arctan2(sine, np.sum(v * w, axis=-1))


def _bends(angles: np.ndarray) -> np.ndarray:
    """How far angles are from a line, rad."""
    return np.minimum(angles, np.pi - angles)


def check_angles(frames: np.ndarray, triples: np.ndarray) -> None:
    """Raise `InputError` if three atoms of the coordinates lie in a line, as a rule or in some frame."""
    angles = _angles(frames, triples)
    bend = _bends(angles)
    typical = np.median(bend, axis=0)
    k = int(np.argmin(typical))
    if typical[k] < LINEAR_GROUP:
        raise InputError(
            f"atoms {triples[k, 0]}, {triples[k, 1]} and {triples[k, 2]} form a linear group: their angle is "
            f"typically {np.degrees(np.median(angles[:, k])):.1f}°, and torsions about a line are not "
            "defined. Put them, with a bonded atom off the line, into a reference block (block= of "
            "choose_coordinates and prepare, --block of mdsens flow train)."
        )
    frame, k = np.unravel_index(np.argmin(bend), bend.shape)
    if bend[frame, k] < SMALLEST_BEND:
        others = np.sum(bend.min(1) < SMALLEST_BEND) - 1
        raise InputError(
            f"atoms {triples[k, 0]}, {triples[k, 1]} and {triples[k, 2]} lie in a line in frame {frame}: "
            f"their angle is {np.degrees(angles[frame, k]):.4f}°, within {SMALLEST_BEND} rad of 0° or 180°, "
            f"where torsions are not defined. Leave out this frame; {others} others are like it."
        )


def _length(v: Array) -> Array:
    return jnp.sqrt(jnp.sum(v * v, axis=-1))


def _unit(v: Array) -> Array:
    return v / _length(v)[..., None]


def _atan2(y: Array, x: Array) -> Array:
    # atan2(-0, -1) is -pi: the same angle as pi, which is the one in (-pi, pi]
    angle = jnp.arctan2(y, x)
    turn = jnp.where(angle <= -jnp.pi, 2 * jnp.pi, 0.0)
    return angle + turn.astype(angle.dtype)


def _turn(angle: Array, axis: int) -> Array:
    """Rotation matrix about a coordinate axis."""
    i, j = (axis + 1) % 3, (axis + 2) % 3
    c, s = jnp.cos(angle), jnp.sin(angle)
    matrix = jnp.zeros((3, 3), angle.dtype).at[axis, axis].set(1)
    matrix = matrix.at[i, i].set(c)
    matrix = matrix.at[j, j].set(c)
    matrix = matrix.at[j, i].set(s)
    return matrix.at[i, j].set(-s)
