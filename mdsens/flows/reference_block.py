"""A stiff group of atoms, such as a ring, described by how it deviates from a reference geometry.

A ring closes through a bond that no tree of bonds holds, so its bonds, angles and torsions cannot be chosen
one by one. Its small vibrations about a reference can: turn the group until it lies on the reference as well
as it can, and expand what is left in the principal directions of the data, each in units of its own width.
"""

from typing import Any, Self

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from mdsens.errors import InputError
from mdsens.flows.internal_coordinates import (
    AbstractCoordinates,
    Fields,
    check_angles,
    check_bonds,
    check_frames,
    log_volume,
    measure,
    place,
    product,
    whole_rows,
)
from mdsens.molecules.graph import rings
from mdsens.molecules.placement import Placement, place_atoms


class ReferenceBlock(AbstractCoordinates):
    """Shape of n atoms as 3 n - 6 displacements from a reference.

    They are the field "block", in units of their widths.

    The standard pose is the Eckart frame: centroid at the origin, and sum_i x0_i × x_i = 0 with the reference
    x0. Shapes must be near enough to the reference for that to have one nearest solution: a vibrating ring
    is, a chain that folds is not (`check`).

    Attributes:
        reference: (n, 3), nm, centroid at the origin.
        directions: (3 n - 6, 3 n), orthonormal displacements, orthogonal to shifts and turns of the
            reference.
        widths: (3 n - 6,), nm: standard deviations along the directions.

    Source: Eckart, Phys. Rev. 47, 552 (1935).
    """

    # static: an optimizer must not move them, least of all its weight decay
    reference: tuple[tuple[float, ...], ...] = eqx.field(static=True)
    directions: tuple[tuple[float, ...], ...] = eqx.field(static=True)
    widths: tuple[float, ...] = eqx.field(static=True)

    @classmethod
    def from_frames(cls, frames: np.ndarray) -> Self:
        """Reference, directions and widths from data: the mean shape and its principal components.

        Args:
            frames: (frames, n, 3), nm, in any position and orientation; more than 3 n - 6 of them.
        Raises:
            InputError: less than three atoms, atoms in a line, too few frames, or directions in which nothing
            moves.
        """
        frames = np.asarray(frames, float)
        if frames.ndim != 3 or frames.shape[2] != 3:
            raise InputError(f"frames have shape {frames.shape}; give (frames, atoms, 3), in nm.")
        n = frames.shape[1]
        if n < 3:
            raise InputError(
                f"a block of {n} atoms has no orientation: give three or more that do not lie in a line."
            )
        check_frames(frames, n)
        if len(frames) <= 3 * n - 6:
            raise InputError(
                f"{len(frames)} frames cannot say how {n} atoms move in {3 * n - 6} directions: give ten "
                "times as many."
            )
        reference, aligned = _mean_shape(frames)
        complement = _complement(reference)
        amplitudes = (aligned - reference).reshape(len(frames), -1) @ complement.T
        variances, axes = np.linalg.eigh(amplitudes.T @ amplitudes / len(frames))
        widths = np.sqrt(np.maximum(variances[::-1], 0))  # softest first
        if widths[-1] < 1e-5 * widths[0] or widths[-1] < 1e-7:
            raise InputError(
                f"the block moves by {widths[0]:.1e} nm in one direction and by {widths[-1]:.1e} nm in "
                f"another: a density needs all {3 * n - 6} to move. Bonds or angles that the simulation held "
                "rigid must be left out of the block."
            )
        directions = _nested(axes.T[::-1] @ complement)
        return cls(_nested(reference), directions, tuple(widths.tolist()))

    @property
    def n_atoms(self) -> int:
        """Number of atoms."""
        return len(self.reference)

    def forward(self, positions: Float[Array, "atoms 3"]) -> tuple[Fields, Float[Array, ""]]:
        """The field "block", and its log-determinant log|d(block)/d(shape)|; positions in nm."""
        reference, directions, widths = self._constants(positions.dtype)
        origin, R = self.frame(positions)
        pose = product(positions - origin, R)
        block = product(directions, (pose - reference).reshape(-1)) / widths
        return {"block": block}, -self._log_volume(pose)

    def inverse(self, fields: Fields) -> tuple[Float[Array, "atoms 3"], Float[Array, ""]]:
        """Positions in the standard pose (nm), and log|d(shape)/d(block)|."""
        reference, directions, widths = self._constants(fields["block"].dtype)
        pose = reference + product(widths * fields["block"], directions).reshape(-1, 3)
        return pose, self._log_volume(pose)

    def frame(self, positions: Float[Array, "atoms 3"]) -> tuple[Float[Array, "3"], Float[Array, "3 3"]]:
        """The centroid, and the rotation R with positions = origin + pose Rᵀ."""
        reference, _, _ = self._constants(positions.dtype)
        origin = jnp.mean(positions, axis=0)
        return origin, eckart_rotation(product(reference.T, positions - origin)).T

    def check(self, positions: np.ndarray) -> None:
        """Find out on the host whether these positions are near enough to the reference.

        Args:
            positions: (n, 3) or (frames, n, 3), nm.
        Raises:
            InputError: another number of atoms, values that are not finite, or a shape too far from the
            reference.
        """
        frames = check_frames(positions, self.n_atoms)
        reference = np.array(self.reference)
        aligned = _aligned(frames, reference)
        displacements = (aligned - reference).reshape(len(frames), -1)
        distance = np.sqrt(np.sum(displacements**2, axis=1) / self.n_atoms)
        along = displacements @ np.array(self.directions).T
        in_widths = np.abs(along / np.array(self.widths)).max(1, initial=0)
        frame = int(np.argmax(in_widths))
        # where the smallest of M (see _log_volume) comes to zero, two orientations are equally good
        least = np.linalg.eigvalsh(_mixed_inertia(reference, aligned[frame]))[0]
        stiffness = least / np.linalg.eigvalsh(_mixed_inertia(reference, reference))[0]
        if in_widths[frame] > 20 or stiffness < 0.2:
            raise InputError(
                f"frame {frame} is {distance[frame]:.2g} nm (root mean square) and {in_widths[frame]:.0f} "
                "widths away from the reference of the block. A block must be stiff: choose the ring alone, "
                "and check that atoms are numbered alike and positions are in nm."
            )

    def _log_volume(self, pose: Array) -> Array:
        # x_i = r + R y_i with y = x0 + sum_k q_k u_k. Turned back by R, a change of x is
        #     Rᵀ dx_i = dr + dw × y_i + sum_k dq_k u_ki.
        # Orthonormal to all u_k are the shifts e_a / sqrt(n) and the turns (e_b × x0_i) I0^-1/2, where
        # I0 = sum_i (x0_i² 1 - x0_i x0_iᵀ). Their products with the columns of dr and dw leave, as sum_i y_i
        # = 0,
        #     d^3n x = dr dw n^3/2 det(M) det(I0)^-1/2 dq,      M = sum_i ((x0_i . y_i) 1 - y_i x0_iᵀ),
        # and q_k = width_k block_k. At the reference M = I0.
        x0 = np.array(self.reference)
        log_inertia = np.linalg.slogdet(_mixed_inertia(x0, x0))[1]
        log_widths = np.sum(np.log(self.widths))
        constant = 1.5 * np.log(len(x0)) - 0.5 * log_inertia + log_widths
        M = _inertia(product(jnp.asarray(x0.T, pose.dtype), pose))
        return jnp.log(jnp.abs(_det(M))) + jnp.asarray(constant, pose.dtype)

    def _constants(self, dtype: Any) -> tuple[Array, Array, Array]:
        constants = (self.reference, self.directions, self.widths)
        reference, directions, widths = (jnp.asarray(values, dtype) for values in constants)
        return reference, directions, widths


class MixedCoordinates(AbstractCoordinates):
    """A stiff block, and Z-matrix rows for all atoms that hang on it; nm and rad.

    Fields "block" (3 block atoms - 6), and "bonds", "angles", "torsions" with one value for each other atom,
    in the order of the rows. The block also says how the molecule is oriented: the standard pose is that of
    the block.

    Attributes:
        block: displacements of the block's atoms.
        atoms: indices of the block's atoms in the molecule.
        rows: atom, a, b, c for each other atom (see `Placement`).
        proper: for each torsion, whether it is a rotation about a bond (soft), or relative to a sibling
            (stiff).
    """

    block: ReferenceBlock
    atoms: tuple[int, ...] = eqx.field(static=True)
    rows: tuple[tuple[int, int, int, int], ...] = eqx.field(static=True)
    proper: tuple[bool, ...] = eqx.field(static=True)

    def __init__(self, block: ReferenceBlock, atoms: tuple[int, ...], placement: Placement):
        if len(atoms) != block.n_atoms:
            raise InputError(
                f"{len(atoms)} atoms for a block of {block.n_atoms}: give the index of each atom of the "
                "block."
            )
        self.block = block
        self.atoms = tuple(int(i) for i in atoms)
        self.rows = whole_rows(placement)
        self.proper = tuple(bool(p) for p in placement.proper)

    @classmethod
    def from_topology(cls, topology: Any, frames: np.ndarray, atoms: tuple[int, ...] | None = None) -> Self:
        """Choose the block and the tree of bonds around it.

        Args:
            topology: of mdtraj, OpenMM or ASE, or (number of atoms, bonded pairs); see `read_bonds`.
            frames: (frames, atoms, 3), nm: give the block its reference and widths.
            atoms: the block's; by default the ring system of the molecule.
        Raises:
            InputError: no ring or several and no `atoms`, atoms that do not hold together, or frames that do
            not fit.
        """
        if atoms is None:
            systems = rings(topology)
            if not systems:
                raise InputError(
                    "the molecule has no ring: use ZMatrix.from_topology, or say with atoms= which ones form "
                    "a stiff block."
                )
            if len(systems) > 1:
                raise InputError(
                    f"the molecule has {len(systems)} ring systems {systems}: name with atoms= the one that "
                    "carries the molecule. The others then get bonds, angles and torsions, valid but "
                    "coupled by the closing of their rings."
                )
            atoms = systems[0]
        placement = place_atoms(topology, tuple(atoms))
        frames = check_frames(frames, len(atoms) + len(placement.rows))
        mixed = cls(ReferenceBlock.from_frames(frames[:, list(atoms)]), tuple(atoms), placement)
        mixed.check(frames)
        return mixed

    @property
    def n_atoms(self) -> int:
        """Number of atoms."""
        return len(self.atoms) + len(self.rows)

    def forward(self, positions: Float[Array, "atoms 3"]) -> tuple[Fields, Float[Array, ""]]:
        """Block, bonds, angles and torsions, and log|d(fields)/d(shape)|; positions in nm."""
        block, log_det = self.block.forward(positions[np.array(self.atoms)])
        hanging = measure(positions, self._rows())
        return block | hanging, log_det - log_volume(hanging)

    def inverse(self, fields: Fields) -> tuple[Float[Array, "atoms 3"], Float[Array, ""]]:
        """Positions in the standard pose (nm), and log|d(shape)/d(fields)|."""
        pose, log_det = self.block.inverse({"block": fields["block"]})
        nowhere = jnp.zeros((self.n_atoms, 3), pose.dtype)
        positions = nowhere.at[np.array(self.atoms)].set(pose)
        positions = place(positions, self._rows(), fields["bonds"], fields["angles"], fields["torsions"])
        return positions, log_det + log_volume(fields)

    def frame(self, positions: Float[Array, "atoms 3"]) -> tuple[Float[Array, "3"], Float[Array, "3 3"]]:
        """The block's centroid, and the rotation R with positions = origin + pose Rᵀ."""
        return self.block.frame(positions[np.array(self.atoms)])

    def check(self, positions: np.ndarray) -> None:
        """Find out on the host whether these positions have coordinates.

        Raises:
            InputError: as for `ZMatrix` and `ReferenceBlock`.
        """
        frames, rows = check_frames(positions, self.n_atoms), self._rows()
        if len(rows):
            check_bonds(frames, rows)
            check_angles(frames, np.concatenate([rows[:, :3], rows[:, 1:]]))
        self.block.check(frames[:, list(self.atoms)])

    def _rows(self) -> np.ndarray:
        return np.array(self.rows, int).reshape(-1, 4)


@jax.custom_jvp
def eckart_rotation(correlation: Float[Array, "3 3"]) -> Float[Array, "3 3"]:
    """Rotation R that lays points x on references x0, both with centroid zero.

    It has the smallest sum_i |R x_i - x0_i|².

    With equal weights this is the Eckart frame: sum_i x0_i × R x_i = 0. Derivatives of any order, finite for
    planar and for symmetric points alike, unlike those of a singular value decomposition.

    Args:
        correlation: C = sum_i x0_i x_iᵀ.
    Source: quaternions, Horn, J. Opt. Soc. Am. A 4, 629 (1987).
    """
    # The sum to make smallest is a constant minus 2 tr(R Cᵀ), and tr(R Cᵀ) is a quadratic form qᵀ N q of R's
    # quaternion: q is the eigenvector of N's largest eigenvalue.
    C = correlation / jnp.sqrt(jnp.sum(correlation**2))
    trace = jnp.trace(C)
    turn = -_axial(C)
    corner = C + C.T - trace * jnp.eye(3, dtype=C.dtype)
    first = jnp.concatenate([trace[None], turn])
    others = jnp.concatenate([turn[:, None], corner], axis=1)
    N = jnp.concatenate([first[None], others])
    # Its powers, of which only that eigenvector survives, once all eigenvalues are made positive: they are at
    # least -sqrt(3).
    largest = np.sqrt(3).astype(C.dtype)
    shifted = N + largest * jnp.eye(4, dtype=C.dtype)

    def square(_: int, power: Array) -> Array:
        return product(power, power) / jnp.sum(power * power)  # the new trace is 1

    power = jax.lax.fori_loop(0, SQUARINGS, square, shifted)

    # Newton steps on Eckart's condition bring back the digits: a further turn w changes sum_i x0_i × R x_i by
    # M w.
    def correct(_: int, R: Array) -> Array:
        S = product(C, R.T)
        w = -_solve(_inertia(S), _axial(S))
        return product(_rotation(jnp.concatenate([jnp.ones(1, C.dtype), w / 2])), R)

    return jax.lax.fori_loop(0, 3, correct, _rotation(power[jnp.argmax(jnp.diagonal(power))]))


# The power 2^18 of the first two eigenvalues' ratio is 1e-8 for a rod that is a hundred times as long as it
# is thick.
SQUARINGS = 18


@eckart_rotation.defjvp
def _eckart_rotation_jvp(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    # sum_i x0_i × R x_i = 0 stays zero when x moves by dx and R turns by w, dR x = w × R x:
    #     sum_i x0_i × (w × R x_i) + sum_i x0_i × R dx_i = M w + axial(dC Rᵀ) = 0.
    (C,), (dC,) = primals, tangents
    R = eckart_rotation(C)
    turned, change = product(C, R.T), product(dC, R.T)
    w = -_solve(_inertia(turned), _axial(change))
    return R, jnp.cross(w, R, axisb=0, axisc=0)


def _axial(S: Array) -> Array:
    """sum_i a_i × b_i from S = sum_i a_i b_iᵀ."""
    x = S[1, 2] - S[2, 1]
    y = S[2, 0] - S[0, 2]
    z = S[0, 1] - S[1, 0]
    return jnp.stack([x, y, z])


def _inertia(S: Array) -> Array:
    """M = sum_i ((x0_i . y_i) 1 - y_i x0_iᵀ) from S = sum_i x0_i y_iᵀ."""
    return jnp.trace(S) * jnp.eye(3, dtype=S.dtype) - S.T


def _det(M: Array) -> Array:
    return jnp.dot(M[0], jnp.cross(M[1], M[2]))


def _solve(M: Array, v: Array) -> Array:
    """M^-1 v by Cramer's rule, which vectorises and differentiates better than a factorisation of 3 x 3."""
    columns = M.T
    a, b, c = columns
    cofactors = jnp.stack([jnp.cross(b, c), jnp.cross(c, a), jnp.cross(a, b)])
    return product(cofactors, v) / _det(columns)


def _rotation(quaternion: Array) -> Array:
    """Rotation matrix of a quaternion (scalar first) of any length."""
    w, v = quaternion[0], quaternion[1:]
    cross = jnp.cross(jnp.eye(3, dtype=v.dtype), v)  # cross @ u = v × u
    square = jnp.sum(v * v)
    along = (w * w - square) * jnp.eye(3, dtype=v.dtype)
    turned = along + 2 * jnp.outer(v, v) + 2 * w * cross
    return turned / (w * w + square)


def _mean_shape(frames: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean of the frames laid upon that mean, and the frames as they then lie."""
    reference = frames[0] - frames[0].mean(0)
    for _ in range(100):
        singular = np.linalg.svd(reference, compute_uv=False)
        if singular[1] < 1e-2 * singular[0]:
            raise InputError(
                f"the atoms of the block lie in a line: its second extent is {singular[1] / singular[0]:.1e} "
                "of the first. Add a bonded atom that is off the line."
            )
        aligned = _aligned(frames, reference)
        last, reference = reference, aligned.mean(0)
        if np.abs(reference - last).max() < 1e-12:
            break
    return reference, _aligned(frames, reference)


def _aligned(frames: np.ndarray, reference: np.ndarray) -> np.ndarray:
    centred = frames - frames.mean(1, keepdims=True)
    # R with R C^T of largest trace, C^T = sum_i x_i x0_iᵀ = A s B: R = Bᵀ D Aᵀ with D = diag(1, 1, det(A B)),
    # no mirror
    A, _, B = np.linalg.svd(np.einsum("fia,ib->fab", centred, reference))
    A[..., 2] *= np.linalg.det(A @ B)[:, None]
    return centred @ (A @ B)


def _mixed_inertia(x0: np.ndarray, y: np.ndarray) -> np.ndarray:
    S = np.einsum("ia,...ib->...ab", x0, y)
    trace = np.trace(S, axis1=-2, axis2=-1)
    diagonal = trace[..., None, None] * np.eye(3)
    return diagonal - np.swapaxes(S, -1, -2)


def _complement(reference: np.ndarray) -> np.ndarray:
    """Orthonormal displacements (3 n - 6, 3 n) orthogonal to shifts and turns of the reference."""
    shifts = np.broadcast_to(np.eye(3)[:, None, :], (3, *reference.shape))
    turns = np.cross(np.eye(3)[:, None, :], reference[None])
    rigid = np.concatenate([shifts, turns]).reshape(6, -1)
    return np.linalg.svd(rigid)[2][6:]


def _nested(matrix: np.ndarray) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(row) for row in matrix.tolist())
