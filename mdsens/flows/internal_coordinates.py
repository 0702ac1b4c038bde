"""Internal coordinates: what of a molecule's shape its energy depends on.

Bonds, angles and torsions do not change when the molecule shifts or turns, and chemistry makes most of them narrow:
that is where a flow is easy to learn. Every map comes with the logarithm of its volume element, so that a density of
shapes becomes a density of positions.

The volume element. Place the atoms one by one. An atom with bond b, angle t and torsion p to three placed atoms
has spherical coordinates about the first of them, with the polar axis along a-b, so

    d³x = b² sin(t) db dt dp.

The first atom gives d³r of the origin. The second is at distance b in any direction: b² db times the solid angle
sin(B) dB dA of the Euler angles A, B. The third has b² sin(t) db dt, and its rotation about the first axis is the
third Euler angle C. With the rotations' own measure dO = sin(B) dA dB dC,

    d^3N x = d³r dO  prod_(i >= 2) b_i²  prod_(i >= 3) sin(t_i)  d(bonds) d(angles) d(torsions).
"""

from abc import abstractmethod
from typing import Any, Self

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from mdsens.errors import InputError
from mdsens.flows.topology import Placement, place_atoms

Fields = dict[str, Float[Array, "_"]]


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
    def frame(self, positions: Float[Array, "atoms 3"]) -> tuple[Float[Array, "3"], Float[Array, "3 3"]]:
        """Origin (nm) and rotation R that bring the standard pose here: positions = origin + pose Rᵀ."""


class ZMatrix(AbstractCoordinates):
    """Bonds (atoms - 1), angles (atoms - 2) and torsions (atoms - 3) along a tree of bonds; nm and rad.

    Angles lie in (0, pi), torsions in (-pi, pi] with the sign of IUPAC and of `mdtraj.compute_dihedrals`. All three are
    in the order of the rows. Derivatives are finite wherever no angle is 0 or pi, planar torsions included.
    The standard pose has the first atom at the origin, the second on +z and the third in the xz plane with x > 0.

    Attributes:
        rows: atom, a, b, c for each atom (see `Placement`).
        proper: for each torsion, whether it is a rotation about a bond (soft), or relative to a sibling (stiff).
    """

    rows: tuple[tuple[int, int, int, int], ...] = eqx.field(static=True)
    proper: tuple[bool, ...] = eqx.field(static=True)

    def __init__(self, placement: Placement):
        if len(placement.rows) < 3:
            raise InputError(
                f"{len(placement.rows)} atoms have no angle, and so no orientation with three Euler angles: "
                "a Z-matrix needs three or more. A diatomic has one coordinate, its bond length."
            )
        self.rows = tuple((int(atom), int(a), int(b), int(c)) for atom, a, b, c in placement.rows)
        self.proper = tuple(bool(p) for p in placement.proper)

    @classmethod
    def from_topology(cls, topology: Any) -> Self:
        """Choose the tree of bonds.

        Args:
            topology: of mdtraj, OpenMM or ASE, or (number of atoms, bonded pairs); see `read_bonds`.
        Raises:
            InputError: a molecule in pieces, with less than three atoms, or with linear angles.
        """
        return cls(place_atoms(topology))

    @property
    def n_atoms(self) -> int:
        """Number of atoms."""
        return len(self.rows)

    def forward(self, positions: Float[Array, "atoms 3"]) -> tuple[Fields, Float[Array, ""]]:
        """Bonds, angles and torsions, and log|d(fields)/d(shape)|; positions in nm."""
        rows = np.array(self.rows)
        fields = {
            "bonds": bond_lengths(positions, rows[1:]),
            "angles": bond_angles(positions, rows[2:]),
            "torsions": torsion_angles(positions, rows[3:]),
        }
        return fields, -log_volume(fields)

    def inverse(self, fields: Fields) -> tuple[Float[Array, "atoms 3"], Float[Array, ""]]:
        """Positions in the standard pose (nm), and log|d(shape)/d(fields)|."""
        bonds, angles, torsions = fields["bonds"], fields["angles"], fields["torsions"]
        rows = np.array(self.rows)
        zero = jnp.zeros_like(bonds[0])
        first, second = jnp.stack([zero, zero, zero]), jnp.stack([zero, zero, bonds[0]])
        # the angle of the third atom opens from -z if it hangs on the second atom, from +z if on the first
        on_second = rows[2, 1] == rows[1, 0]
        along, across = bonds[1] * jnp.cos(angles[0]), bonds[1] * jnp.sin(angles[0])
        third = jnp.stack([across, zero, bonds[0] - along if on_second else along])
        placed = place(jnp.stack([first, second, third]), rows[:3, 0], rows[3:], bonds[2:], angles[1:], torsions)
        return placed, log_volume(fields)

    def frame(self, positions: Float[Array, "atoms 3"]) -> tuple[Float[Array, "3"], Float[Array, "3 3"]]:
        """The first atom, and the rotation R with positions = origin + pose Rᵀ."""
        first, second, third = (positions[self.rows[k][0]] for k in range(3))
        z = _unit(second - first)
        y = _unit(jnp.cross(z, third - first))
        return first, jnp.stack([jnp.cross(y, z), y, z], axis=-1)


class GlobalFrame(eqx.Module):
    """Shape coordinates completed by where the molecule is: a one-to-one map of all 3 N positions.

    Adds the fields "origin" (3,) in nm and "orientation": Euler angles (A, B, C) of R = Rz(A) Ry(B) Rz(C), with A and C
    in (-pi, pi], B in (0, pi). At B = 0 and pi they have no unique values, as on the poles of a globe.
    """

    shape: AbstractCoordinates

    def forward(self, positions: Float[Array, "atoms 3"]) -> tuple[Fields, Float[Array, ""]]:
        """All coordinates, and log|d(fields)/d(positions)|; positions in nm."""
        fields, log_det = self.shape.forward(positions)
        origin, R = self.shape.frame(positions)
        # third column of R: (cos A sin B, sin A sin B, cos B); third row: (-sin B cos C, sin B sin C, cos B)
        sine = jnp.sqrt(R[0, 2] ** 2 + R[1, 2] ** 2)
        orientation = jnp.stack([_atan2(R[1, 2], R[0, 2]), _atan2(sine, R[2, 2]), _atan2(R[2, 1], -R[2, 0])])
        return {"origin": origin, "orientation": orientation, **fields}, log_det - jnp.log(sine)

    def inverse(self, fields: Fields) -> tuple[Float[Array, "atoms 3"], Float[Array, ""]]:
        """Positions (nm), and log|d(positions)/d(fields)|."""
        pose, log_det = self.shape.inverse({name: value for name, value in fields.items() if name not in ("origin", "orientation")})
        A, B, C = fields["orientation"]
        R = _turn(A, 2) @ _turn(B, 1) @ _turn(C, 2)
        return fields["origin"] + pose @ R.T, log_det + jnp.log(jnp.sin(B))


def bond_lengths(positions: Float[Array, "atoms 3"], rows: np.ndarray) -> Float[Array, "rows"]:
    """Distance of each row's atom from a (unit of the positions)."""
    return _length(positions[rows[:, 0]] - positions[rows[:, 1]])


def bond_angles(positions: Float[Array, "atoms 3"], rows: np.ndarray) -> Float[Array, "rows"]:
    """Angle atom-a-b of each row, in (0, pi)."""
    vertex = positions[rows[:, 1]]
    v, w = positions[rows[:, 0]] - vertex, positions[rows[:, 2]] - vertex
    # from sine and cosine together: acos loses half the digits near 0 and pi
    return jnp.arctan2(_length(jnp.cross(v, w)), jnp.sum(v * w, axis=-1))


def torsion_angles(positions: Float[Array, "atoms 3"], rows: np.ndarray) -> Float[Array, "rows"]:
    """Torsion atom-a-b-c of each row, in (-pi, pi]: zero if atom and c are on the same side (cis)."""
    atom, a, b, c = (positions[rows[:, k]] for k in range(4))
    axis, before, after = b - a, a - atom, c - b
    n, m = jnp.cross(before, axis), jnp.cross(axis, after)
    # n and m are normal to the two planes: n . m = |n||m| cos p, and |axis| (before . m) = |n||m| sin p
    return _atan2(_length(axis) * jnp.sum(before * m, axis=-1), jnp.sum(n * m, axis=-1))


def log_volume(fields: Fields) -> Float[Array, ""]:
    """Log of b² for every bond and sin(t) for every angle: the volume element in the module's docstring."""
    return 2 * jnp.sum(jnp.log(fields["bonds"])) + jnp.sum(jnp.log(jnp.sin(fields["angles"])))


def place(
    seed: Float[Array, "seed 3"],
    seed_atoms: np.ndarray,
    rows: np.ndarray,
    bonds: Float[Array, "rows"],
    angles: Float[Array, "rows"],
    torsions: Float[Array, "rows"],
) -> Float[Array, "atoms 3"]:
    """Positions of all atoms in their own order, from those of the seed and the coordinates of the rows (nm, rad)."""
    rows, shift = _share_axes(rows)
    torsions = torsions + jnp.where(shift >= 0, torsions[shift], 0.0) if len(rows) else torsions
    # Atoms whose parents are all there are placed together, level by level of the tree: few levels, each vectorised.
    at = {int(atom): k for k, atom in enumerate(seed_atoms)}  # where an atom stands among those placed so far
    placed, waiting = seed, list(range(len(rows)))
    while waiting:
        ready = [k for k in waiting if all(int(parent) in at for parent in rows[k, 1:])]
        a, b, c = (placed[np.array([at[int(rows[k, column])] for k in ready])] for column in (1, 2, 3))
        level = np.array(ready)
        new = _extend(a, b, c, bonds[level], angles[level], torsions[level])
        at |= {int(rows[k, 0]): len(at) + n for n, k in enumerate(ready)}
        placed = jnp.concatenate([placed, new])
        waiting = [k for k in waiting if k not in ready]
    return placed[np.array([at[atom] for atom in range(len(at))])]


def _share_axes(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    # An improper torsion is measured from a sibling about the same axis a-b, and the sibling's torsion from c about
    # that axis too. Torsions about one axis add up, so the atom need not wait for its sibling.
    row_of = {int(atom): k for k, atom in enumerate(rows[:, 0])}
    parents, shift = rows.copy(), np.full(len(rows), -1)
    for k, (_, a, b, c) in enumerate(rows):
        sibling = row_of.get(int(c), -1)
        if sibling >= 0 and shift[sibling] < 0 and tuple(rows[sibling, 1:3]) == (a, b):
            parents[k, 3], shift[k] = rows[sibling, 3], sibling
    return parents, shift


def _extend(a: Array, b: Array, c: Array, bond: Array, angle: Array, torsion: Array) -> Array:
    # Axes at a: u towards b; p away from the axis on c's side (torsion 0); q = p x u (torsion 90°).
    u = _unit(b - a)
    q = _unit(jnp.cross(c - b, u))
    p = jnp.cross(u, q)
    sine = jnp.sin(angle)
    local = jnp.cos(angle)[:, None] * u + (sine * jnp.cos(torsion))[:, None] * p + (sine * jnp.sin(torsion))[:, None] * q
    return a + bond[:, None] * local


def _length(v: Array) -> Array:
    return jnp.sqrt(jnp.sum(v * v, axis=-1))


def _unit(v: Array) -> Array:
    return v / _length(v)[..., None]


def _atan2(y: Array, x: Array) -> Array:
    # atan2(-0, -1) is -pi: the same angle as pi, which is the one in (-pi, pi]
    angle = jnp.arctan2(y, x)
    return angle + jnp.where(angle <= -jnp.pi, 2 * jnp.pi, 0.0).astype(angle.dtype)


def _turn(angle: Array, axis: int) -> Array:
    """Rotation matrix about a coordinate axis."""
    i, j = (axis + 1) % 3, (axis + 2) % 3
    c, s = jnp.cos(angle), jnp.sin(angle)
    return jnp.zeros((3, 3), angle.dtype).at[axis, axis].set(1).at[i, i].set(c).at[j, j].set(c).at[j, i].set(s).at[i, j].set(-s)
