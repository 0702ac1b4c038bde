"""A cell that moves under a pressure: constant temperature and pressure, isotropic or with its shape.

Atoms, and the cell with vectors h (rows), flow with a symmetric velocity gradient g:

    dx/dt = p/m + x g        dh/dt = h g
    dp/dt = F - p (g + tr(g)/n) + bath
    W dg/dt = P[ sum_a p_a p_a / m_a + virial + (sum_a p_a²/m_a / n - pressure V) 1 ] + bath

with n the number of momenta that move and P[] the part along the strains that are free. Noise and friction
act on p as in Langevin's equation, and on g with a friction of its own. In the long run cells come as

    exp(-(E + pressure V) / kT) dx dV,

shapes of one volume as their invariant measure has it. Isotropic cells: the equations (and the term in 1/n,
without which volumes are wrong by one atom in N) are those of Martyna, Tobias and Klein; with baths that are
Langevin's instead of chains, those of Bussi, Zykova-Timan and Parrinello, and of Quigley and Probert.

A step is a symmetric product of parts that are solved exactly, so that H (see `mdsens.dynamics.steps`) is
conserved to the second order, and sums over steps preserve the measure exactly:

    cell's kick, atoms' kick, drift | bath | drift, force, atoms' kick, cell's kick

Sources: Martyna, Tobias, Klein, J. Chem. Phys. 101, 4177 (1994); Bussi, Zykova-Timan, Parrinello,
J. Chem. Phys. 130, 074101 (2009); Quigley, Probert, J. Chem. Phys. 120, 11432 (2004); symmetric g against
rotations of the cell: Martyna, Tuckerman, Tobias, Klein, Mol. Phys. 87, 1117 (1996).
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple, Self

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from mdsens.errors import InputError
from mdsens.relaxation.coordinates import CellOption, strain_basis
from mdsens.strain import volume_of
from mdsens.structure import Structure


class Barostat(NamedTuple):
    """What acts on the cell, in units of the run (Å, u, timestep)."""

    pressure: Float[Array, ""]  # u / (Å timestep²)
    mass: Float[Array, ""]  # W, u Å²
    friction: Float[Array, ""]  # of the cell's motion, 1 / timestep
    strains: Float[Array, "strains 3 3"]  # free ones, orthogonal and of norm 1


class CellState(eqx.Module):
    """Atoms and cell in motion, with what was measured where they are."""

    position: Float[Array, "*replicas atoms 3"]  # Å
    momentum: Float[Array, "*replicas atoms 3"]  # u Å / timestep
    force: Float[Array, "*replicas atoms 3"]  # u Å / timestep²
    mass: Float[Array, "*replicas atoms 1"]  # u
    rng: Any
    cell: Float[Array, "*replicas 3 3"]  # Å
    cell_velocity: Float[Array, "*replicas 3 3"]  # g, 1 / timestep
    virial: Float[Array, "*replicas 3 3"]  # -dE/dstrain, u Å² / timestep²
    energy: Float[Array, "*replicas"]  # u Å² / timestep²

    def set(self, **changes: Any) -> Self:
        """With other values, as jax-md's states have it."""
        return dataclasses.replace(self, **changes)


def orthonormal_strains(cell: CellOption, structure: Structure) -> Float[np.ndarray, "strains 3 3"]:
    """The strains that a cell may take, orthogonal and of norm 1.

    Raises:
        InputError: none, an unknown option, a direction that is not periodic, or in which atoms are held.
    """
    periodic = dataclasses.replace(structure, pbc=(True, True, True))
    basis = strain_basis(cell, periodic)  # the option alone
    if not len(basis):
        raise InputError(
            f"cell = {cell!r}: a pressure needs a cell that moves. Give 'isotropic', 'full', or six bools in "
            "the order xx yy zz yz xz xy; without a pressure use langevin or nvt_nose_hoover."
        )
    _check_periodic(cell, structure)
    _check_held(basis, structure)
    return basis / np.sqrt(np.sum(basis**2, axis=(1, 2), keepdims=True))


def _check_periodic(cell: CellOption, structure: Structure) -> None:
    if not any(structure.pbc):
        raise InputError(
            "the structure has no cell that a pressure could act on. Give it one (cell= and pbc= of "
            "Structure.create), or move it with nve, langevin or nvt_nose_hoover."
        )
    try:
        strain_basis(cell, structure)
    except InputError as error:
        names = ", ".join("abc"[k] for k in range(3) if not structure.pbc[k])
        raise InputError(
            f"cell = {cell!r} moves the cell along a direction that is not periodic (cell vector {names}, "
            f"pbc = {structure.pbc}): the empty space there would close or grow. Free the strains of the "
            "periodic directions alone, as six bools in the order xx yy zz yz xz xy: for a slab that is open "
            "along z (True, True, False, False, False, True)."
        ) from error


def _check_held(basis: np.ndarray, structure: Structure) -> None:
    # A held coordinate x_k would follow the cell where a strain has entries in row or column k.
    held = np.asarray(structure.fixed)
    moved = np.any(basis != 0, axis=(0, 1))
    wrong = held & moved
    if wrong.any():
        atom, axis = np.argwhere(wrong)[0]
        raise InputError(
            f"atom {atom} is held along {'xyz'[axis]}, and the cell moves in that direction, which would "
            "move it too. Let it go (fixed=False), hold the cell (langevin, nvt_nose_hoover), or free only "
            "strains of other directions."
        )


def cell_step(
    state: CellState,
    measure: Callable[[Array, Array], Any],
    barostat: Barostat,
    kT: Float[Array, ""],
    friction: Float[Array, ""],
    free: Bool[Array, "atoms 3"],
) -> tuple[CellState, Float[Array, ""]]:
    """A step of one replica, and the heat taken from the bath.

    Args:
        measure: energy, force and virial of positions and cell.
    """
    n = jnp.sum(free)
    state = _kick_cell(state, barostat, n)
    state = _kick_atoms(state, n, free)
    state = _drift(state)
    state, heat = _meet_bath(state, barostat, kT, friction, free)
    state = _drift(state)
    energy, force, virial = measure(state.position, state.cell)
    state = state.set(energy=energy, force=force, virial=virial)
    state = _kick_atoms(state, n, free)
    return _kick_cell(state, barostat, n), heat


def _kick_cell(state: CellState, barostat: Barostat, n: Array) -> CellState:
    """Half a step of g, p and x at rest."""
    p = state.momentum
    flow = jnp.einsum("ai,aj->ij", p, p / state.mass)
    isotropic = jnp.trace(flow) / n - barostat.pressure * volume_of(state.cell)
    drive = flow + state.virial + isotropic * jnp.eye(3)
    along = jnp.einsum("kij,ij->k", barostat.strains, drive)
    pushed = jnp.einsum("k,kij->ij", along, barostat.strains)
    return state.set(cell_velocity=state.cell_velocity + 0.5 * pushed / barostat.mass)


def _kick_atoms(state: CellState, n: Array, free: Array) -> CellState:
    """Half a step of p: friction of the flow for a quarter, force for a half, friction for a quarter."""
    g = state.cell_velocity
    drag = exponential(-0.25 * (g + jnp.trace(g) / n * jnp.eye(3)))
    push = jnp.where(free, 0.5 * state.force, 0.0)
    return state.set(momentum=(state.momentum @ drag + push) @ drag)


def _drift(state: CellState) -> CellState:
    """Half a step of x and h: flow for a quarter, p/m for a half, flow for a quarter."""
    flow = exponential(0.25 * state.cell_velocity)
    moved = state.position @ flow + 0.5 * state.momentum / state.mass
    return state.set(position=moved @ flow, cell=state.cell @ (flow @ flow))


def _meet_bath(
    state: CellState, barostat: Barostat, kT: Array, friction: Array, free: Array
) -> tuple[CellState, Array]:
    """Friction and noise for a whole step, solved exactly; and the energy that came in."""
    key, for_atoms, for_cell = jax.random.split(state.rng, 3)
    noise = jax.random.normal(for_atoms, state.momentum.shape, state.momentum.dtype)
    kept = jnp.exp(-friction)
    p = kept * state.momentum + jnp.sqrt(kT * state.mass * (1 - kept**2)) * noise
    p = jnp.where(free, p, 0.0)
    amplitudes = jax.random.normal(for_cell, barostat.strains.shape[:1], state.momentum.dtype)
    kept = jnp.exp(-barostat.friction)
    random = jnp.einsum("k,kij->ij", amplitudes, barostat.strains)
    g = kept * state.cell_velocity + jnp.sqrt(kT / barostat.mass * (1 - kept**2)) * random
    heat = 0.5 * jnp.sum((p**2 - state.momentum**2) / state.mass)
    heat += 0.5 * barostat.mass * jnp.sum(g**2 - state.cell_velocity**2)
    return state.set(momentum=p, cell_velocity=g, rng=key), heat


def exponential(matrix: Float[Array, "3 3"]) -> Float[Array, "3 3"]:
    """exp of a small matrix: that of a sixteenth by its series, squared four times."""
    # norms are far below one; with a norm of 4 the tenth term left out is (1/4)^11 / 11! < 1e-14
    small = matrix / 16
    total = jnp.eye(3, dtype=matrix.dtype)
    for k in range(10, 0, -1):
        total = jnp.eye(3, dtype=matrix.dtype) + small @ total / k
    for _ in range(4):
        total = total @ total
    return total


def cell_energy(state: CellState, barostat: Barostat) -> Float[Array, ""]:
    """P V + W |g|² / 2, u Å² / timestep²."""
    return barostat.pressure * volume_of(state.cell) + 0.5 * barostat.mass * jnp.sum(state.cell_velocity**2)
