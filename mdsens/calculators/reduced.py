"""Reduced energies u = E / kT of positions in nm: what flows are trained on and reweighted to.

Three sources: a potential of mdsens, which JAX differentiates to any order and by its parameters as well; and
two programs outside of JAX, ASE and OpenMM, which give energies and forces on the host. All are functions of
the positions (atoms, 3) of one molecule, and work under `jax.jit`, `jax.vmap` and `jax.grad`.
"""

from typing import TYPE_CHECKING, Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from mdsens.checks import number
from mdsens.errors import InputError
from mdsens.neighbors import ALL_PAIRS_LIMIT, Capacity, Neighbors, list_of_pairs
from mdsens.potentials.base import Potential, check_elements
from mdsens.potentials.host import HostEnergy, frame_by_frame
from mdsens.potentials.parameters import check_parameters
from mdsens.structure import Structure
from mdsens.units import KJ_PER_MOL, NM, from_nm, to_kT, to_kT_per_nm, to_nm

if TYPE_CHECKING:
    from ase import Atoms


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
        """E / kT of positions x (nm); of another potential of the same form if one is given.

        The second argument is there for derivatives by the parameters.
        """
        _check_positions(x, self.structure.n_atoms)
        potential = self.potential if potential is None else potential
        moved = self.structure.at(from_nm(x.astype(self.structure.positions.dtype)))
        return to_kT(potential.energy(moved, self.neighbors), self.temperature).astype(x.dtype)

    def energy(self, positions: Float[Array, "atoms 3"]) -> Float[Array, ""]:
        """The same by the name that `mdsens.dynamics` asks for."""
        return self(positions)

    @property
    def species(self) -> tuple[int, ...]:
        """Atomic number of each atom."""
        return tuple(int(z) for z in np.asarray(self.structure.species))

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
    temperature = number("temperature", temperature, "K", above=0.0)
    check_parameters(potential)
    check_elements(potential, structure)
    if any(structure.pbc):
        raise InputError(
            f"a structure periodic along {structure.pbc} has a reduced energy for each set of images, and "
            "flows move atoms across its boundaries: reduced_potential is for free molecules. Give the "
            "structure pbc=False."
        )
    if structure.n_atoms > ALL_PAIRS_LIMIT:
        raise InputError(f"all pairs of {structure.n_atoms} atoms do not fit (limit {ALL_PAIRS_LIMIT}).")
    return ReducedPotential(potential, structure, _all_pairs(structure), temperature)


def _all_pairs(structure: Structure) -> Neighbors:
    # No padded slots, unlike `find_neighbors` at an infinite cutoff: forms with a cutoff expect those beyond
    # it.
    n = structure.n_atoms
    i, j = (a.astype(np.int32) for a in np.triu_indices(n, 1))
    room = Capacity(len(i), max(n - 1, 1))
    return list_of_pairs(i, j, np.zeros((len(i), 3)), structure.positions, structure.cell, np.inf, room)


class ReducedHostEnergy(eqx.Module):
    """u(x): energy in kT, from a program on the host. Built by `reduced_ase` and `reduced_openmm`.

    Its derivatives are the program's forces, in both modes. Second derivatives it has none, and asking for
    them raises. Frames under `jax.vmap` reach the host in one call, and are computed there one after another.

    Attributes:
        host: energy in eV of positions in Å.
        temperature: K.
    """

    host: HostEnergy
    temperature: float = eqx.field(static=True)

    def __call__(self, x: Float[Array, "atoms 3"]) -> Float[Array, ""]:
        """E / kT of positions x (nm)."""
        x = jnp.asarray(x)
        _check_positions(x, self.host.n_atoms)
        energy = self.host(from_nm(x.astype(jnp.result_type(float))))  # float64, where JAX has it
        return to_kT(energy, self.temperature).astype(x.dtype)

    def evaluate(
        self, frames: Float[np.ndarray, "frames atoms 3"]
    ) -> tuple[Float[np.ndarray, " frames"], Float[np.ndarray, "frames atoms 3"]]:
        """Energies (kT) and forces (kT/nm) of many frames (nm), without JAX."""
        energies, slopes = self.host.evaluate(from_nm(np.asarray(frames, float)))
        return to_kT(energies, self.temperature), to_kT_per_nm(-slopes, self.temperature)


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
    temperature = number("temperature", temperature, "K", above=0.0)
    calculator = atoms.calc
    if calculator is None:
        raise InputError("these atoms have no calculator: set atoms.calc first.")
    if type(calculator).__module__.split(".")[0] == "mdsens":
        raise InputError(
            f"{type(calculator).__name__} runs on JAX and cannot be called from within JAX: use "
            "reduced_potential(potential, structure, temperature), or the energy method of the flow."
        )
    if "forces" not in getattr(calculator, "implemented_properties", ["forces"]):
        raise InputError(
            f"{type(calculator).__name__} has no forces, and they are the derivative of the energy."
        )
    moved = atoms.copy()
    moved.set_constraint()
    moved.calc = calculator

    def evaluate(frame: np.ndarray) -> tuple[float, np.ndarray]:
        moved.set_positions(frame)
        return moved.get_potential_energy(), -moved.get_forces()

    host = HostEnergy(frame_by_frame(evaluate, atoms.get_chemical_symbols()), len(atoms))
    return ReducedHostEnergy(host, temperature)


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
    temperature = number("temperature", temperature, "K", above=0.0)
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
            "a topology make a system with openmm.app.ForceField(...).createSystem(topology, "
            "constraints=None)."
        )
    particles = context.getSystem()
    n_atoms = particles.getNumParticles()
    _check_free(particles)

    # OpenMM's unit system is made of nm, ps and u: energies are kJ/mol
    def evaluate(frame: np.ndarray) -> tuple[float, np.ndarray]:
        context.setPositions(to_nm(frame))
        state = context.getState(energy=True, forces=True)
        energy = state.getPotentialEnergy().value_in_unit_system(openmm.unit.md_unit_system)
        forces = state.getForces(asNumpy=True).value_in_unit_system(openmm.unit.md_unit_system)
        return energy * KJ_PER_MOL, -np.asarray(forces) * (KJ_PER_MOL / NM)

    host = HostEnergy(frame_by_frame(evaluate, [""] * n_atoms), n_atoms)
    return ReducedHostEnergy(host, temperature)


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
            "to compare with a flow's. Build it with constraints=None and rigidWater=False."
        )
    if virtual := [k for k in range(system.getNumParticles()) if system.isVirtualSite(k)]:
        raise InputError(
            f"particle {virtual[0]} of the OpenMM system is a virtual site, whose position is no variable: "
            "use a model without."
        )


def _check_positions(x: Any, n_atoms: int) -> None:
    if np.shape(x) != (n_atoms, 3):
        raise InputError(
            f"positions of shape {np.shape(x)} for {n_atoms} atoms: a reduced energy takes one frame "
            f"({n_atoms}, 3) in nm. Many frames by jax.vmap."
        )
