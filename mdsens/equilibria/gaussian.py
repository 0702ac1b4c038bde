"""The Gaussian that describes a crystal at a temperature best: self-consistent phonons.

Of all Gaussian distributions of the displacements (density matrices of harmonic oscillators, if quantum), it
has the lowest free energy, and by the inequality of Gibbs and Bogoliubov that is a bound of the exact one,

    F = <U> - tr(Phi S) / 2 + F_harmonic(Phi),

S being the covariance of oscillators with the force constants Phi. At the minimum

    <dU/dx> = 0,        Phi = <d²U/dx dx>,        <dU/dstrain> = - p dV/dstrain,

the averages being those over the Gaussian itself: positions, cell and force constants feel each other. So
crystals expand, phonons soften or harden, and modes that are unstable at T = 0 can be stable at a
temperature. At T -> 0 (classical) it is the harmonic crystal.

Averages are means over fixed members, x_k = m + R xi_k, S = R R^T (`mdsens.equilibria.members`). The
curvature needs no second derivatives: integrated by parts, <d²U> = S^-1 <u dU^T> = R^-T <xi dU^T>. The state
is the fixed point of

    m <- m - Phi^-1 <dU>,      strain <- strain - C^-1 (...),      Phi <- R^-T <xi dU^T>,

found by Anderson mixing. It is an exact root of these equations, whose derivatives by parameters, temperature
and pressure follow by the implicit rule, one linear solve each way.

Where the force constants at the start are not positive, or a step makes them so, forward-backward steps in
the space of covariances lead there first, in which S stays positive:

    S_half = (1 - eta <H>) S (1 - eta <H>),      S = [S_half + 2 eta + (S_half (S_half + 4 eta))^1/2] / 2.

The symmetry of the crystal (spglib) is used: what a member breaks is averaged over the space group.

Source: Hooton, Phil. Mag. 46, 422 (1955); Errea, Calandra, Mauri, Phys. Rev. B 89, 064302 (2014),
    doi:10.1103/PhysRevB.89.064302; Diao, Balasubramanian, Chewi, Salim, ICML 2023, arXiv:2304.05398.
"""

import dataclasses
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float

from mdsens.checks import number, whole
from mdsens.equilibria.members import gaussian_members
from mdsens.equilibria.symmetry import SpaceGroup
from mdsens.errors import InputError, MeltedError, NotConvergedError
from mdsens.gauge import find_gauge
from mdsens.implicit.iterations import Anderson, FixedPoint, Iterated, find_fixed_point
from mdsens.implicit.matrix_functions import matrix_function
from mdsens.implicit.rule import fixed_point
from mdsens.neighbors import Neighbors
from mdsens.potentials.base import Potential, check_elements, require_potential
from mdsens.potentials.parameters import check_parameters
from mdsens.precision import require_x64
from mdsens.quantities import concrete, neighbors_of
from mdsens.relaxation.coordinates import CellOption, strain_basis
from mdsens.strain import volume_of
from mdsens.structure import Structure, require_structure
from mdsens.threads import in_one_thread
from mdsens.units import ACCELERATION, BOLTZMANN, HBAR, THZ

AT_ONCE = 8  # members whose forces are computed together on an accelerator
LOWEST = 1e-4  # of the largest eigenvalue of the force constants: below, a mode counts as unstable
MELTED = 0.25  # of the distance of nearest neighbors: root mean square displacements of crystals stay below
ROUGH = 0.3  # relative change of the curvature at which the forward-backward steps have done their part


class GaussianState(eqx.Module):
    """A crystal at a temperature, as a Gaussian.

    Everything is differentiable once w.r.t. potential, temperature and pressure.

    Attributes:
        structure: mean positions and cell.
        force_constants: Phi, (3 atoms, 3 atoms), eV/Å². covariance: S, Å².
        free_energy, energy: F and <U>, eV. stress: <dU/dstrain> / V, eV/Å³: without the momenta.
        temperature: K. frequencies: THz, of the modes that move, ascending; no derivative.
        residual: |T(x) - x| of the equations, in their own units. steps: evaluations of all members.
        operations: of the space group that averages were made over.
    """

    structure: Structure
    force_constants: Float[Array, "coordinates coordinates"]
    covariance: Float[Array, "coordinates coordinates"]
    free_energy: Float[Array, ""]
    energy: Float[Array, ""]
    stress: Float[Array, "3 3"]
    temperature: Float[Array, ""]
    frequencies: Float[Array, "modes"]
    residual: Float[Array, ""]
    steps: int = eqx.field(static=True)
    operations: int = eqx.field(static=True)

    @property
    def displacements(self) -> Float[Array, "atoms"]:
        """Root mean square displacement of each atom, Å."""
        squares = jnp.diagonal(self.covariance).reshape(-1, 3)
        return jnp.sqrt(jnp.sum(squares, axis=1))


class Unknowns(NamedTuple):
    """What is solved for, each in a unit in which it is of the order of one."""

    m: Float[Array, "modes"]
    strains: Float[Array, "strains"]
    phi: Float[Array, "modes modes"]


class Averages(NamedTuple):
    """Over the members."""

    energy: Float[Array, ""]
    gradient: Float[Array, "modes"]
    curvature: Float[Array, "modes modes"]
    virial: Float[Array, "3 3"]


class Setting(eqx.Module):
    """What is held while a state is looked for.

    Attributes:
        basis: orthonormal directions that cost energy. inverse_mass: its square root among them, and that
            one's inverse.
        members: xi. strains: those that are free. compliance: how the cell is moved.
        amplitude, stiffness: units of m and of Phi, Å and eV/Å².
    """

    structure: Structure
    neighbors: Neighbors
    basis: Float[Array, "coordinates modes"]
    root_mass: Float[Array, "modes modes"]
    inverse_root_mass: Float[Array, "modes modes"]
    members: Float[Array, "members modes"]
    strains: Float[Array, "strains 3 3"]
    compliance: Float[Array, "strains strains"]
    group: SpaceGroup
    amplitude: float
    stiffness: float
    quantum: bool = eqx.field(static=True)

    def deformed(self, m: Array, strain: Array, u: Array | None = None) -> Structure:
        """The structure at mean displacements, strained, and then displaced by u (coordinates)."""
        s = self.structure
        shift = (self.basis @ m).reshape(-1, 3)
        moved = s.at(s.positions + shift).deformed(jnp.eye(3) + strain)
        return moved if u is None else moved.at(moved.positions + (self.basis @ u).reshape(-1, 3))

    def strain_of(self, strains: Array) -> Float[Array, "3 3"]:
        """As a matrix; a unit is a percent."""
        return 0.01 * jnp.einsum("k,kab->ab", strains, self.strains)

    def roots(self, phi: Array, kT: Array) -> tuple[Array, Array]:
        """R and R^-T with S = R R^T."""
        D = self.root_mass @ phi @ self.root_mass
        inner = matrix_function(D, kT, _root_of_covariance(self.quantum, D))
        outer = matrix_function(D, kT, _inverse_root(self.quantum, D))
        return self.root_mass @ inner, self.inverse_root_mass @ outer

    def averages(self, potential: Potential, m: Array, strain: Array, R: Array, back: Array) -> Averages:
        """Of energy, gradient, curvature and virial."""

        def energy(u: Array, strain: Array) -> Array:
            return potential.energy(self.deformed(m, strain, u), self.neighbors)

        def of_member(xi: Array) -> tuple[Array, tuple[Array, Array]]:
            return jax.value_and_grad(energy, argnums=(0, 1))(R @ xi, strain)

        # transposed, each member is computed again: to keep what lies between costs more than its forces
        again = jax.checkpoint(of_member, prevent_cse=False)
        values, (slopes, virials) = jax.lax.map(again, self.members, batch_size=_at_once())
        curvature = back @ (self.members.T @ slopes) / len(self.members)
        virial = jnp.mean(virials, axis=0)
        return self.symmetric(
            Averages(jnp.mean(values), jnp.mean(slopes, axis=0), (curvature + curvature.T) / 2, virial)
        )

    def symmetric(self, found: Averages) -> Averages:
        """What of it has the symmetry of the crystal."""
        if self.group.size == 1:
            return found
        B = self.basis
        gradient = self.symmetric_shift(found.gradient)
        curvature = self.group.matrix(B @ found.curvature @ B.T)
        virial = self.group.tensor((found.virial + found.virial.T) / 2)
        return Averages(found.energy, gradient, B.T @ curvature @ B, virial)

    def symmetric_shift(self, v: Float[Array, "modes"]) -> Float[Array, "modes"]:
        """What of a displacement or gradient has the symmetry of the crystal."""
        if self.group.size == 1:
            return v
        of_atoms = (self.basis @ v).reshape(-1, 3)
        return self.basis.T @ self.group.vector(of_atoms).ravel()


def _at_once() -> int | None:
    """One after the other stay in the cache of a processor."""
    return None if jax.default_backend() == "cpu" else AT_ONCE


def _energy_of_mode(quantum: bool) -> Any:
    """<p²/m> of an oscillator, eV: kT, or (hbar w / 2) coth(hbar w / 2 kT)."""
    if not quantum:
        return lambda value, kT: kT + 0.0 * value

    def of_mode(value: Array, kT: Array) -> Array:
        half = HBAR * jnp.sqrt(value * ACCELERATION) / 2
        return half / jnp.tanh(half / kT)

    return of_mode


def _root_of_covariance(quantum: bool, D: Array) -> Any:
    floor, of_mode = _floor(D), _energy_of_mode(quantum)

    def root(value: Array, kT: Array) -> Array:
        value = jnp.maximum(value, floor)
        return jnp.sqrt(of_mode(value, kT) / value)

    return root


def _inverse_root(quantum: bool, D: Array) -> Any:
    root = _root_of_covariance(quantum, D)
    return lambda value, kT: 1 / root(value, kT)


def _floor(D: Array) -> Array:
    return LOWEST * jax.lax.stop_gradient(jnp.linalg.norm(D, 2))


def _step(x: Unknowns, potential: Potential, kT: Array, pressure: Array, setting: Setting) -> Unknowns:
    phi = setting.stiffness * (x.phi + x.phi.T) / 2
    # What breaks the symmetry is no unknown. Left in, it would be a map that keeps m, 1 - dT/dx would be
    # singular, and its transpose has right-hand sides there: one member does not have the symmetry.
    m = setting.symmetric_shift(x.m)
    strain = setting.strain_of(x.strains)
    R, back = setting.roots(phi, kT)
    found = setting.averages(potential, setting.amplitude * m, strain, R, back)
    step = jnp.linalg.solve(_positive(phi), found.gradient) / setting.amplitude
    of_pressure = jax.grad(lambda e: volume_of(setting.deformed(m, e).cell))(strain)
    forces = found.virial + pressure * of_pressure
    along = jnp.einsum("kab,ab->k", setting.strains, forces)
    strains = x.strains - 100 * setting.compliance @ along
    return Unknowns(m - step, strains, found.curvature / setting.stiffness)


def _positive(phi: Array) -> Array:
    def lifted(value: Array, floor: Array) -> Array:
        return jnp.maximum(value, floor)

    return matrix_function(phi, _floor(phi), lifted)


@in_one_thread
def gaussian_state(
    potential: Potential,
    structure: Structure,
    temperature: float | Float[Array, ""],
    *,
    cell: CellOption = None,
    pressure: float | Float[Array, ""] = 0.0,
    quantum: bool = False,
    members: int = 512,
    seed: int = 0,
    symmetry: bool = True,
    rtol: float = 1e-9,
    max_steps: int = 200,
    throw: bool = True,
) -> GaussianState:
    """The Gaussian of lowest free energy near a structure: mean positions, cell, force constants.

    Start from a relaxed structure, or from a symmetric one that is unstable at T = 0. Differentiable once,
    forward and in reverse, in the array leaves of `potential`, in `temperature` and in `pressure`:
    derivatives of the cell by them are thermal expansion and compressibility, those of the force constants
    shifts of phonons. Not inside `jax.jit`.

    Args:
        structure: a crystal (a supercell: modes of its own waves only), or atoms around fixed ones.
        temperature: K, above zero.
        cell: what of the cell is free, as in `relax`; None holds it.
        pressure: eV/Å³, without the part of the momenta, n kT / V.
        quantum: zero-point motion and quantised energies; masses are then used.
        members: over which averages are made, at least twice the number of modes.
        seed: of the members.
        symmetry: average over the space group; False keeps what the members break.
        rtol: of the equations.
        max_steps: evaluations of all members.
    Raises:
        MeltedError: atoms move farther than crystals hold.
        NotConvergedError: the equations are not solved, or a mode is unstable at this temperature.
        InputError: no temperature, too few members, a second derivative.
    Source: Errea, Calandra, Mauri, Phys. Rev. B 89, 064302 (2014), doi:10.1103/PhysRevB.89.064302.
    """
    require_x64()
    require_potential(potential)
    require_structure(structure)
    check_elements(potential, structure)
    check_parameters(potential)
    _check_order((potential, temperature, pressure))
    plain, here, hot, p = concrete((potential, structure, jnp.asarray(temperature, float), pressure))
    number("temperature", float(hot), "K", above=0)
    number("pressure", p, "eV/Å³")
    number("rtol", rtol, above=0)
    whole("max_steps", max_steps, at_least=1)
    kT = BOLTZMANN * jnp.asarray(temperature, float)
    press = jnp.asarray(pressure, float)
    setting, x = _begin(plain, here, float(hot), cell, quantum, members, seed, symmetry)
    for _ in range(5):
        x = _safe_start(plain, x, BOLTZMANN * float(hot), setting)
        solver = Anderson(history=8, rtol=rtol, max_steps=max_steps)
        held = (plain, BOLTZMANN * hot, jnp.asarray(p, float), setting)
        found = _solve(x, held, solver)
        wider = _list_for(plain, found.x, BOLTZMANN * hot, setting)
        if wider is None:
            break
        # a member has left the list: the same again, with one that reaches farther
        setting, x = dataclasses.replace(setting, neighbors=wider), found.x
    if throw:
        _check(found, setting, BOLTZMANN * float(hot))
    # the point is there: the rule of implicit derivatives ties it to potential, temperature and pressure
    return _state(_TIED(found.x, potential, kT, press, setting), found, potential, kT, setting)


def _check_order(inputs: Any) -> None:
    # the tracer of a derivative holds its point, and that of a derivative of a derivative another tracer
    points = [getattr(leaf, "primal", None) for leaf in jax.tree.leaves(inputs)]
    if any(isinstance(point, Tracer) for point in points):
        raise InputError(
            "a Gaussian state is differentiable once, and its second derivative was asked for: take "
            "differences of the first."
        )


# made once, so that its derivative is compiled once
_BACK = Iterated(Anderson(history=12, rtol=1e-10, max_steps=100))
_TIED = fixed_point(_step, lambda x, *theta: x, linear_solver=_BACK, check=None)


@eqx.filter_jit
def _solve(x: Unknowns, theta: Any, solver: Anderson) -> FixedPoint:
    return find_fixed_point(_step, x, *theta, solver=solver, throw=False)


def _begin(
    potential: Potential,
    structure: Structure,
    temperature: float,
    cell: CellOption,
    quantum: bool,
    members: int,
    seed: int,
    symmetry: bool,
) -> tuple[Setting, Unknowns]:
    near = neighbors_of(potential, structure)
    gauge = find_gauge(potential, structure, near, 0)
    values, vectors = np.linalg.eigh(gauge.matrix)
    B = vectors[:, values > 0.5]
    modes = B.shape[1]
    if not modes:
        raise InputError("no atom of this structure can move: there is nothing to find a Gaussian of.")
    H = np.asarray(_hessian(potential, structure, near))
    phi = B.T @ (H + H.T) @ B / 2
    stiffness = float(np.max(np.abs(np.linalg.eigvalsh(phi))))
    if not stiffness > 0:
        raise InputError("the energy has no curvature along any motion of the atoms: there is no Gaussian.")
    inverse_mass = B.T @ (B / np.repeat(np.asarray(structure.masses), 3)[:, None])
    w, V = np.linalg.eigh(inverse_mass)
    basis = jnp.asarray(strain_basis(cell, structure))
    setting = Setting(
        structure=structure,
        neighbors=near,
        basis=jnp.asarray(B),
        root_mass=jnp.asarray((V * np.sqrt(w)) @ V.T),
        inverse_root_mass=jnp.asarray((V / np.sqrt(w)) @ V.T),
        members=jnp.asarray(gaussian_members(members, modes, seed)),
        strains=basis,
        compliance=_compliance(potential, structure, near, basis, stiffness),
        group=SpaceGroup.of(structure) if symmetry else SpaceGroup.of_identity(structure.n_atoms),
        amplitude=float(np.sqrt(BOLTZMANN * temperature / stiffness)),
        stiffness=stiffness,
        quantum=quantum,
    )
    x = Unknowns(jnp.zeros(modes), jnp.zeros(len(basis)), jnp.asarray(phi / stiffness))
    kT = jnp.asarray(BOLTZMANN * temperature)
    held = x._replace(phi=jnp.asarray(_lifted(phi / stiffness)))
    return dataclasses.replace(setting, neighbors=_wide_list(potential, held, kT, setting, 1.5)), x


def _lifted(phi: np.ndarray) -> np.ndarray:
    """|phi|, and no mode softer than a fiftieth of the stiffest."""
    values, V = np.linalg.eigh(phi)
    size = np.abs(values)
    return (V * np.maximum(size, 0.02 * size.max())) @ V.T


@eqx.filter_jit
def _hessian(potential: Potential, structure: Structure, near: Neighbors) -> Array:
    gradient = jax.grad(lambda v: potential.energy(structure.at(v.reshape(-1, 3)), near))
    v = structure.positions.ravel()
    product = lambda e: jax.jvp(gradient, (v,), (e,))[1]
    return jax.lax.map(product, jnp.eye(len(v)), batch_size=AT_ONCE)


@eqx.filter_jit
def _strain_hessian(potential: Potential, structure: Structure, near: Neighbors, basis: Array) -> Array:
    def energy(e: Array) -> Array:
        strain = jnp.einsum("k,kab->ab", e, basis)
        return potential.energy(structure.deformed(jnp.eye(3) + strain), near)

    return jax.hessian(energy)(jnp.zeros(len(basis)))


def _compliance(
    potential: Any, structure: Structure, near: Neighbors, basis: Array, stiffness: float
) -> Array:
    # second derivatives by strain, atoms held: what is soft is moved by half of this and mixing does the rest
    if not len(basis):
        return jnp.zeros((0, 0))

    C = np.asarray(_strain_hessian(potential, structure, near, basis))
    values, V = np.linalg.eigh((C + C.T) / 2)
    values = np.maximum(np.abs(values), 1e-3 * stiffness)
    return jnp.asarray((V / values) @ V.T)


def _wide_list(potential: Any, x: Unknowns, kT: Array, setting: Setting, factor: float) -> Neighbors:
    farthest, nearest = float(_farthest(x, kT, setting)), _nearest(setting)
    if not farthest < nearest:
        raise MeltedError(
            f"an atom moves by up to {farthest:.2g} Å where its neighbor is {nearest:.2f} Å away: the "
            "crystal melts. Lower the temperature, hold the cell, or start from a relaxed structure.",
            x,
        )
    return neighbors_of(potential, setting.structure, skin=2 * factor * farthest)


@eqx.filter_jit
def _farthest(x: Unknowns, kT: Array, setting: Setting) -> Array:
    R, _ = setting.roots(_positive(setting.stiffness * x.phi), kT)
    u = (setting.members @ (setting.basis @ R).T).reshape(len(setting.members), -1, 3)
    return jnp.sqrt(jnp.max(jnp.sum(u * u, axis=-1)))


def _finite(x: Unknowns) -> bool:
    return all(bool(jnp.all(jnp.isfinite(part))) for part in x)


def _list_for(potential: Any, x: Unknowns, kT: float, setting: Setting) -> Neighbors | None:
    """A list that is complete for all members, if the one of the setting is not."""
    if not _finite(x) or float(_least_slack(potential, x, jnp.asarray(kT), setting)) >= 0:
        return None
    return _wide_list(potential, x, jnp.asarray(kT), setting, 3.0)


@eqx.filter_jit
def _least_slack(potential: Potential, x: Unknowns, kT: Array, setting: Setting) -> Array:
    m, strain = setting.amplitude * x.m, setting.strain_of(x.strains)
    R, _ = setting.roots(_positive(setting.stiffness * x.phi), kT)

    def slack(xi: Array) -> Array:
        return setting.neighbors.slack(setting.deformed(m, strain, R @ xi), potential.cutoff)

    return jnp.min(jax.lax.map(slack, setting.members))


# --- the way to a start from which the equations can be solved


def _safe_start(potential: Any, x: Unknowns, kT: float, setting: Setting, most: int = 60) -> Unknowns:
    """Forward-backward steps until the curvature is positive and nearly that of the Gaussian."""
    phi = setting.stiffness * np.asarray((x.phi + x.phi.T) / 2)
    if not np.isfinite(phi).all():
        return x
    values = np.linalg.eigvalsh(phi)
    if values[0] > ROUGH * 0.1 * values[-1]:
        return x
    lifted = _lifted(phi)
    S = kT * np.linalg.inv(lifted)
    m = setting.amplitude * np.asarray(x.m)
    strain = setting.strain_of(x.strains)
    largest = float(np.linalg.norm(lifted, 2))
    for _ in range(most):
        root, back = _roots_of(S)
        found = _averages(potential, jnp.asarray(m), strain, jnp.asarray(root), jnp.asarray(back), setting)
        H = np.asarray(found.curvature)
        if not np.isfinite(H).all() or _settled(S, H, kT):
            break
        largest = max(largest, float(np.linalg.norm(H, 2)))
        eta = kT / (2 * largest)
        m = m - eta / kT * np.asarray(found.gradient)
        S = forward_backward(S, H / kT, eta)
    phi = jnp.asarray(H) / setting.stiffness
    return Unknowns(jnp.asarray(m) / setting.amplitude, x.strains, phi)


@eqx.filter_jit
def _averages(potential: Any, m: Array, strain: Array, R: Array, back: Array, setting: Setting) -> Averages:
    return setting.averages(potential, m, strain, R, back)


def _roots_of(S: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    values, V = np.linalg.eigh(S)
    root = np.sqrt(np.maximum(values, 1e-300))
    return (V * root) @ V.T, (V / root) @ V.T


def _settled(S: np.ndarray, H: np.ndarray, kT: float) -> bool:
    values = np.linalg.eigvalsh(H)
    change = np.linalg.norm(S @ H / kT - np.eye(len(S)), 2)
    return bool(values[0] > 0 and change < ROUGH)


def forward_backward(S: np.ndarray, H: np.ndarray, eta: float) -> np.ndarray:
    """One step towards the Gaussian of lowest free energy, kT = 1; S stays positive whatever H is.

    Args:
        S: covariance. H: mean curvature over kT. eta: step, below one over the largest curvature.
    """
    one = np.eye(len(S))
    forward = one - eta * H
    half = forward @ S @ forward
    values, V = np.linalg.eigh((half + half.T) / 2)
    values = np.maximum(values, 0.0)
    new = (values + 2 * eta + np.sqrt(values * (values + 4 * eta))) / 2
    return (V * new) @ V.T


# --- what was found


def _check(found: FixedPoint, setting: Setting, kT: float) -> None:
    if not _finite(found.x):
        raise MeltedError(
            "the averages became infinite while a Gaussian state was looked for: atoms came too close to "
            "each other, as in a crystal that melts. Lower the temperature."
        )
    phi = setting.stiffness * np.asarray(found.x.phi)
    values = np.linalg.eigvalsh((phi + phi.T) / 2)
    R, _ = setting.roots(_positive(jnp.asarray(phi)), jnp.asarray(kT))
    u = np.asarray(setting.basis @ R)
    squares = np.sum((u**2).sum(axis=1).reshape(-1, 3), axis=1)
    widest, nearest = float(np.sqrt(squares.max())), _nearest(setting)
    if widest > MELTED * nearest:
        raise MeltedError(
            f"an atom moves by {widest:.2f} Å (root mean square) where its neighbor is {nearest:.2f} Å away: "
            f"crystals melt before that comes to {MELTED:g} of the distance. Lower the temperature, or hold "
            "the cell.",
            found,
        )
    if values[0] <= LOWEST * values[-1]:
        raise NotConvergedError(
            f"a mode has the curvature {values[0]:.2g} eV/Å²: this structure is unstable at this "
            "temperature. Relax it (ms.relax), raise the temperature, or start from another structure.",
            found,
        )
    if not bool(found.converged):
        raise NotConvergedError(
            f"the Gaussian state was not found: {found.status}. Raise max_steps, take more members, or start "
            "from a relaxed structure.",
            found,
        )


def _nearest(setting: Setting) -> float:
    near = setting.neighbors
    r = np.linalg.norm(np.asarray(near.vectors(setting.structure)), axis=1)
    return float(np.min(r[np.asarray(near.valid)], initial=np.inf))


def _state(
    x: Unknowns, found: FixedPoint, potential: Potential, kT: Array, setting: Setting
) -> GaussianState:
    phi = setting.stiffness * (x.phi + x.phi.T) / 2
    m, strain = setting.amplitude * x.m, setting.strain_of(x.strains)
    R, back = setting.roots(phi, kT)
    averages = _averages(potential, m, strain, R, back, setting)
    B, structure = setting.basis, setting.deformed(m, strain)
    D = setting.root_mass @ phi @ setting.root_mass
    S = R @ R.T
    harmonic = jnp.trace(matrix_function(D, kT, _free_energy_of_mode(setting.quantum)))
    volume = volume_of(structure.cell)
    stress = averages.virial / jnp.where(volume > 0, volume, 1.0)
    squares = np.linalg.eigvalsh(np.asarray(concrete(jax.lax.stop_gradient(D))))
    return GaussianState(
        structure=structure,
        force_constants=B @ phi @ B.T,
        covariance=B @ S @ B.T,
        free_energy=averages.energy - jnp.sum(phi * S) / 2 + harmonic,
        energy=averages.energy,
        stress=jnp.where(volume > 0, stress @ jnp.linalg.inv(jnp.eye(3) + strain).T, 0.0),
        temperature=kT / BOLTZMANN,
        frequencies=jnp.asarray(np.sign(squares) * np.sqrt(np.abs(squares)) * THZ),
        residual=found.residual,
        steps=int(found.steps),
        operations=setting.group.size,
    )


def _free_energy_of_mode(quantum: bool) -> Any:
    def of_mode(value: Array, kT: Array) -> Array:
        energy = HBAR * jnp.sqrt(jnp.maximum(value, 1e-300) * ACCELERATION)
        ratio = energy / kT
        if not quantum:
            return kT * jnp.log(ratio)
        return energy / 2 + kT * jnp.log(-jnp.expm1(-ratio))

    return of_mode
