"""Reduced energies u = E / kT of positions in nm: what flows are trained on and reweighted to.

Three sources: a potential of mdsens, which JAX differentiates to any order and by its parameters as well; and
two programs outside of JAX, ASE and OpenMM, which give energies and forces on the host. All are functions of
the positions (atoms, 3) of one molecule, and work under `jax.jit`, `jax.vmap` and `jax.grad`.
"""

import threading
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float

from mdsens.errors import InputError, NonFiniteError
from mdsens.neighbors import ALL_PAIRS_LIMIT, Neighbors
from mdsens.potentials.base import Potential, check_elements
from mdsens.potentials.parameters import check_parameters
from mdsens.structure import Structure
from mdsens.units import BOLTZMANN, KJ_PER_MOL, NM

if TYPE_CHECKING:
    from ase import Atoms

# energies (frames,) in kT and forces (frames, atoms, 3) in kT/nm of positions (frames, atoms, 3) in nm, on
# the host
HostEvaluation = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]


class ReducedPotential(eqx.Module):
    """u(x) or u(x, potential): a potential's energy in kT, of positions in nm. Built by `reduced_potential`.

    Attributes:
        potential: used where the call names no other.
        structure: says which atoms they are; its positions are not used.
        neighbors: all pairs of atoms, so that none is missed wherever the atoms go.
        temperature: K.
    """

    potential: Potential
    structure: Structure
    neighbors: Neighbors
    temperature: float = eqx.field(static=True)

    def __call__(self, x: Float[Array, "atoms 3"], potential: Potential | None = None) -> Float[Array, ""]:
        """E / kT of positions x (nm), of another potential of the same form if one is given (for derivatives by it)."""
        _check_positions(x, self.structure.n_atoms)
        potential = self.potential if potential is None else potential
        moved = self.structure.at(NM * x.astype(self.structure.positions.dtype))
        return (potential.energy(moved, self.neighbors) / (BOLTZMANN * self.temperature)).astype(x.dtype)

    def __hash__(self) -> int:
        """By identity, as of any function: `jax.jit` takes functions that have a hash."""
        return id(self)


def reduced_potential(potential: Potential, structure: Structure, temperature: float) -> ReducedPotential:
    """The reduced energy of a free molecule or cluster under a potential of mdsens.

    Differentiable in the positions and, as u(x, potential), in the parameters: to any order, in both modes.

    Every pair of atoms is looked at, for a list with a cutoff could miss one when a flow moves the atoms.
    Costs grow with the square of the number of atoms, for three-body forms with the third power: hundreds of
    atoms, not thousands.

    Args:
        potential: any, with a cutoff or without.
        structure: elements and order of the atoms; not periodic.
        temperature: K.
    Raises:
        InputError: a temperature that is not positive, a periodic structure, more than ALL_PAIRS_LIMIT atoms,
            elements without parameters, parameters out of bounds.
    """
    temperature = _checked_temperature(temperature)
    check_parameters(potential)
    check_elements(potential, structure)
    if any(structure.pbc):
        raise InputError(
            f"a structure periodic along {structure.pbc} has a reduced energy for each set of images, and "
            "flows move atoms across its "
            "boundaries: reduced_potential is for free molecules. Give the structure pbc=False."
        )
    if structure.n_atoms > ALL_PAIRS_LIMIT:
        raise InputError(f"all pairs of {structure.n_atoms} atoms do not fit (limit {ALL_PAIRS_LIMIT}).")
    return ReducedPotential(potential, structure, _all_pairs(structure), temperature)


def _all_pairs(structure: Structure) -> Neighbors:
    # No padded slots, unlike `find_neighbors` at an infinite cutoff: forms with a cutoff expect those beyond
    # it.
    n = structure.n_atoms
    i, j = (jnp.asarray(a, jnp.int32) for a in np.triu_indices(n, 1))
    return Neighbors(
        i=i,
        j=j,
        shift=jnp.zeros((i.size, 3)),
        valid=jnp.ones(i.size, bool),
        reach=jnp.asarray(np.inf),
        positions=structure.positions,
        cell=structure.cell,
        width=max(n - 1, 1),
    )


class ReducedHostEnergy(eqx.Module):
    """u(x): energy in kT, from a program on the host. Built by `reduced_ase` and `reduced_openmm`.

    Its derivative are the program's forces, in both modes. Second derivatives it has none, and asking for
    them raises. Frames under `jax.vmap` reach the host in one call, and are computed there one after another.

    Attributes:
        evaluate: energies and forces of many frames.
        n_atoms: number of atoms.
    """

    evaluate: HostEvaluation = eqx.field(static=True)
    n_atoms: int = eqx.field(static=True)

    def __call__(self, x: Float[Array, "atoms 3"]) -> Float[Array, ""]:
        """E / kT of positions x (nm)."""
        _check_positions(x, self.n_atoms)
        return _energy(self.evaluate, jnp.asarray(x))


def reduced_ase(atoms: "Atoms", temperature: float) -> ReducedHostEnergy:
    """The reduced energy of atoms under any ASE calculator that has forces.

    Constraints do not count: energy and forces are the calculator's. A periodic cell stays as it is.

    Args:
        atoms: with their calculator, which is used and keeps the last positions. They themselves are not
            moved.
        temperature: K.
    Raises:
        InputError: a temperature that is not positive, no calculator, one without forces, or one of mdsens
            itself (JAX cannot be entered from within JAX; there are faster ways for those). Later, positions
            of another shape.
        NonFiniteError: later, at an energy of NaN, and at forces or positions that are not finite (under jit
            or vmap JAX wraps it in its own error). An energy of inf is let through: such a frame has no
            weight.
    """
    temperature = _checked_temperature(temperature)
    calculator = atoms.calc
    if calculator is None:
        raise InputError("these atoms have no calculator: set atoms.calc first.")
    if type(calculator).__module__.split(".")[0] == "mdsens":
        raise InputError(
            f"{type(calculator).__name__} runs on JAX and cannot be called from within JAX: use "
            "reduced_potential(potential, structure, "
            "temperature), or the energy method of the flow."
        )
    if "forces" not in getattr(calculator, "implemented_properties", ["forces"]):
        raise InputError(
            f"{type(calculator).__name__} has no forces, and they are the derivative of the energy."
        )
    moved = atoms.copy()
    moved.set_constraint()
    moved.calc = calculator
    kT = BOLTZMANN * temperature  # eV

    def evaluate(frame: np.ndarray) -> tuple[float, np.ndarray]:
        moved.set_positions(NM * frame)
        return moved.get_potential_energy() / kT, moved.get_forces() * (NM / kT)

    return ReducedHostEnergy(_frame_by_frame(evaluate, atoms.get_chemical_symbols()), len(atoms))


def reduced_openmm(system: Any, temperature: float, platform: str = "Reference") -> ReducedHostEnergy:
    """The reduced energy of an OpenMM system: all its forces, those of implicit solvent included.

    Args:
        system: an OpenMM `System` (`forcefield.createSystem(topology, nonbondedMethod=NoCutoff,
            constraints=None)`), or a `Context` or `Simulation`, whose positions are then overwritten.
        temperature: K.
        platform: "Reference" (double precision), "CPU", "CUDA", ...; only for a `System`, as the others have
            theirs. In single precision an energy is good to some 0.01 kT, forces to five digits.
    Raises:
        InputError: a temperature that is not positive, OpenMM not installed, an unknown platform, another
            type, or a system with constraints or virtual sites. Later, positions of another shape.
        NonFiniteError: later, at an energy of NaN, and at forces or positions that are not finite (under jit
            or vmap JAX wraps it in its own error). An energy of inf is let through: such a frame has no
            weight.
    """
    temperature = _checked_temperature(temperature)
    try:
        import openmm
    except ImportError as error:
        raise InputError(
            "reduced_openmm needs OpenMM, which is not installed: pip install openmm."
        ) from error
    context = getattr(system, "context", system)
    if isinstance(context, openmm.System):
        context = _context_of(openmm, context, platform)
    if not isinstance(context, openmm.Context):
        raise InputError(
            f"reduced_openmm takes an OpenMM System, Context or Simulation, not {type(system).__name__}. Of "
            "a topology make a system with "
            "openmm.app.ForceField(...).createSystem(topology, constraints=None)."
        )
    particles = context.getSystem()
    n_atoms = particles.getNumParticles()
    _check_free(particles)
    # kJ/mol, of which OpenMM's unit system (nm, ps, u) is made, in kT
    per_kT = KJ_PER_MOL / (BOLTZMANN * temperature)

    def evaluate(frame: np.ndarray) -> tuple[float, np.ndarray]:
        context.setPositions(frame)
        state = context.getState(energy=True, forces=True)
        energy = state.getPotentialEnergy().value_in_unit_system(openmm.unit.md_unit_system)
        forces = state.getForces(asNumpy=True).value_in_unit_system(openmm.unit.md_unit_system)
        return energy * per_kT, np.asarray(forces) * per_kT

    return ReducedHostEnergy(_frame_by_frame(evaluate, [""] * n_atoms), n_atoms)


def _context_of(openmm: Any, system: Any, platform: str) -> Any:
    names = [openmm.Platform.getPlatform(k).getName() for k in range(openmm.Platform.getNumPlatforms())]
    if platform not in names:
        raise InputError(f"OpenMM has no platform {platform!r} here: there are {', '.join(names)}.")
    # the integrator is not run; a context cannot be without
    return openmm.Context(system, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatformByName(platform))


def _check_free(system: Any) -> None:
    if count := system.getNumConstraints():
        raise InputError(
            f"the OpenMM system has {count} constraints: its positions fill no volume, and have no density "
            "to compare with a flow's. "
            "Build it with constraints=None and rigidWater=False."
        )
    if virtual := [k for k in range(system.getNumParticles()) if system.isVirtualSite(k)]:
        raise InputError(
            f"particle {virtual[0]} of the OpenMM system is a virtual site, whose position is no variable: "
            "use a model without."
        )


# --- programs on the host, as JAX functions
# ------------------------------------------------------------------------


def _frame_by_frame(
    evaluate: Callable[[np.ndarray], tuple[float, np.ndarray]], symbols: list[str]
) -> HostEvaluation:
    lock = threading.Lock()  # JAX may run two callbacks at once, and these programs keep one set of positions

    def evaluate_all(frames: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        energies, forces = np.empty(len(frames)), np.empty(frames.shape)
        with lock:
            for k, frame in enumerate(frames):
                if not np.isfinite(frame).all():  # some programs leave such an atom out, and go on
                    raise NonFiniteError(
                        f"frame {k} of {len(frames)} has positions that are not finite: look at where they "
                        "come from."
                    )
                energies[k], forces[k] = evaluate(frame)
                # an infinite energy is one: such a frame has no probability. Its forces may then be anything.
                if not (energies[k] == np.inf or (np.isfinite(energies[k]) and np.isfinite(forces[k]).all())):
                    raise NonFiniteError(_not_finite(k, len(frames), frame, energies[k], symbols))
        return energies, forces

    return evaluate_all


def _not_finite(k: int, n: int, frame: np.ndarray, energy: float, symbols: list[str]) -> str:
    closest = ""
    if len(frame) > 1:
        i, j = np.triu_indices(len(frame), 1)
        r = np.linalg.norm(frame[i] - frame[j], axis=1)
        p = int(np.argmin(r))
        closest = f", its closest atoms {i[p]} {symbols[i[p]]} and {j[p]} {symbols[j[p]]} {r[p]:.2e} nm apart".replace(
            "  ", " "
        )
    return (
        f"the energy {energy:g} kT or a force is not finite in frame {k} of {n}{closest}. Leave out frames "
        "with overlapping atoms, or "
        "check that positions are in nm and atoms in the order of the program's."
    )


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _energy(evaluate: HostEvaluation, x: Array) -> Array:
    return _energy_and_forces(evaluate, x)[0]


@_energy.defjvp
def _energy_jvp(
    evaluate: HostEvaluation, primals: tuple[Array], tangents: tuple[Array]
) -> tuple[Array, Array]:
    # du = -f dx, the forces from the same call as the energy
    energy, forces = _energy_and_forces(evaluate, *primals)
    return energy, -jnp.vdot(forces, tangents[0])


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _energy_and_forces(evaluate: HostEvaluation, x: Array) -> tuple[Array, Array]:
    def on_host(x: Any) -> tuple[np.ndarray, np.ndarray]:
        x = np.asarray(x)
        energies, forces = evaluate(x.reshape(-1, *x.shape[-2:]).astype(float))
        return energies.reshape(x.shape[:-2]).astype(x.dtype), forces.reshape(x.shape).astype(x.dtype)

    if not isinstance(x, Tracer):  # without JAX in between, errors keep their class
        energy, forces = on_host(x)
        return jnp.asarray(energy), jnp.asarray(forces)
    shapes = jax.ShapeDtypeStruct(x.shape[:-2], x.dtype), jax.ShapeDtypeStruct(x.shape, x.dtype)
    return jax.pure_callback(on_host, shapes, x, vmap_method="broadcast_all")


@_energy_and_forces.defjvp
def _no_second_derivative(
    evaluate: HostEvaluation, primals: tuple[Array], tangents: tuple[Array]
) -> tuple[Any, Any]:
    raise InputError(
        "second derivatives of a reduced energy from ASE or OpenMM are asked for, and these programs give "
        "energies and forces only. Use a "
        "potential of mdsens (reduced_potential), or train on energies instead of forces."
    )


def _checked_temperature(temperature: float) -> float:
    if not (isinstance(temperature, (int, float, np.floating, np.integer)) and 0 < temperature < np.inf):
        raise InputError(
            f"temperature = {temperature!r}: give a positive number, in K; it sets the unit of the energy."
        )
    return float(temperature)


def _check_positions(x: Any, n_atoms: int) -> None:
    if np.shape(x) != (n_atoms, 3):
        raise InputError(
            f"positions of shape {np.shape(x)} for {n_atoms} atoms: a reduced energy takes one frame "
            f"({n_atoms}, 3) in nm. Many frames by "
            "jax.vmap."
        )
