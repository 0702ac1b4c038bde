"""The free energy of a crystal: from atoms on springs, whose free energy is known, to atoms of the potential.

Atoms at their sites R_i are tied by springs to where the crystal as a whole stands, u_i = x_i - R_i less a
common shift, with the energy of an Einstein crystal that may drift,

    E(u) = 1/2 sum_i k_i |u_i - u_0|²,      u_0 = sum_i k_i u_i / sum_i k_i.

Its 3N - 3 frequencies w are those of M^(-1/2) (K - k k^T / sum k) M^(-1/2), three of each, and its classical
free energy is kT sum ln(hbar w / kT). On the way from it to the potential U,

    U_s = U_0 + (1 - s) (U - U_0) + s E,     s = 1 ... 0,

neighboring states overlap, and Bennett's method gives the free energy between each two. So

    F = U_0 + kT sum ln(hbar w / kT) - sum of the steps,

the center of mass left out, as in sums over the modes of a lattice. Its derivatives need one state alone:

    dF/dtheta = <dU/dtheta>,        dF/dT = [F - <U> - (3N - 3) kT / 2] / T.

The springs are those that make the atoms of either end move equally far, k = 3 kT / <u²> for each element.

Source: Frenkel, Ladd, J. Chem. Phys. 81, 3188 (1984); Polson, Trizac, Pronk, Frenkel, J. Chem. Phys. 112,
    5339 (2000); Bennett, J. Comput. Phys. 22, 245 (1976).
"""

import itertools
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from mdsens.checks import number, whole
from mdsens.ensembles.correlation import inefficiencies, standard_errors
from mdsens.ensembles.free_energies import bennett
from mdsens.ensembles.weights import MIN_EFFECTIVE
from mdsens.errors import InputError, MeltedError
from mdsens.neighbors import Neighbors
from mdsens.potentials.base import Potential
from mdsens.potentials.parameters import find_entries, parameter_values
from mdsens.quantities import energy as energy_of
from mdsens.structure import Structure
from mdsens.thermal.averages import TEMPERATURE
from mdsens.thermal.ensemble import Ensemble
from mdsens.thermal.frames import energy, measure_frames
from mdsens.thermal.sampling import sample
from mdsens.units import ACCELERATION, BOLTZMANN, HBAR

LEFT_SITE = 0.5  # of the distance of nearest neighbors: an atom that far from its site has left it

Progress = Callable[[str], None]


class CrystalFreeEnergy(NamedTuple):
    """The classical free energy of a crystal, center of mass left out, and its derivatives.

    Attributes:
        value, error: eV, of all atoms.
        at_rest: U_0, energy of the atoms on their sites, eV.
        springs: free energy of the atoms on springs, eV.
        steps, step_errors: free energy of each step from the potential (first) to the springs, eV.
        stiffness: of the springs, eV/Å², of each atom.
        variables, variable_units: parameters of the potential, and the temperature.
        derivatives, derivative_errors: by each variable, eV over its unit.
    """

    value: float
    error: float
    at_rest: float
    springs: float
    steps: Float[np.ndarray, " steps"]
    step_errors: Float[np.ndarray, " steps"]
    stiffness: Float[np.ndarray, " atoms"]
    variables: tuple[str, ...]
    variable_units: tuple[str, ...]
    derivatives: Float[np.ndarray, " variables"]
    derivative_errors: Float[np.ndarray, " variables"]


class Tethered(Potential):
    """U_s: a share of the potential, and the rest from springs.

    Attributes:
        potential: U. share: s.
        sites: R, Å. stiffness: k, eV/Å². at_rest: U_0, eV.
    """

    local: ClassVar[bool] = False
    potential: Potential
    share: Array
    sites: Float[Array, "atoms 3"]
    stiffness: Float[Array, " atoms"]
    at_rest: Array
    elements: tuple[str, ...] = eqx.field(static=True)
    source: str = eqx.field(static=True, default="Frenkel, Ladd, J. Chem. Phys. 81, 3188 (1984)")

    @property
    def cutoff(self) -> Float[Array, ""]:
        return self.potential.cutoff

    @property
    def shortest_wave(self) -> float:
        return self.potential.shortest_wave

    def check_structure(self, structure: Structure) -> None:
        self.potential.check_structure(structure)

    def energy(self, structure: Structure, neighbors: Neighbors) -> Float[Array, ""]:
        U = self.potential.energy(structure, neighbors) - self.at_rest
        E = spring_energy(structure.positions - self.sites, self.stiffness)
        return self.at_rest + (1 - self.share) * U + self.share * E


def spring_energy(u: Float[Array, "*frames atoms 3"], k: Float[Array, " atoms"]) -> Float[Array, "*frames"]:
    """E(u), eV."""
    shift = jnp.einsum("...ac,a->...c", u, k) / jnp.sum(k)
    apart = u - shift[..., None, :]
    return 0.5 * jnp.einsum("...ac,...ac,a->...", apart, apart, k)


def einstein_free_energy(
    k: Float[np.ndarray, " atoms"], masses: Float[np.ndarray, " atoms"], temperature: float
) -> float:
    """kT sum ln(hbar w / kT) over the 3N - 3 modes of atoms on springs, eV.

    Args:
        k: eV/Å². masses: u. temperature: K.
    """
    stiffness = np.diag(k) - np.outer(k, k) / k.sum()
    scaled = stiffness / np.sqrt(np.outer(masses, masses))
    squares = np.linalg.eigvalsh(scaled)[1:] * ACCELERATION  # 1/fs²
    kT = BOLTZMANN * temperature
    modes = np.log(HBAR * np.sqrt(squares) / kT)
    return float(3 * kT * modes.sum())


def crystal_free_energy(
    potential: Potential,
    structure: Structure,
    temperature: float,
    *,
    windows: int = 5,
    parameters: Sequence[str] | None = None,
    min_effective: float = MIN_EFFECTIVE,
    progress: Progress | None = None,
    seed: int = 0,
    **sampling: Any,
) -> CrystalFreeEnergy:
    """Free energy of a crystal and its derivatives by parameters and temperature, by Frenkel and Ladd.

    Args:
        structure: atoms on their sites in the cell meant, best relaxed; nothing held.
        temperature: K.
        windows: states from the potential to the springs, both included.
        parameters: flat names to differentiate by; by default all.
        min_effective: independent samples asked for in each state.
        progress: called with a text before each state is sampled.
        seed: of the random numbers.
        sampling: further options of `mdsens.sample`: steps, timestep, replicas, ...
    Raises:
        MeltedError: an atom left its site; `partial` is the ensemble.
        NotConvergedError: neighboring states hardly overlap, or too few effective samples.
        InputError: not periodic, atoms that are held, and what `mdsens.sample` raises.
    """
    T = number("temperature", temperature, "K", above=0.0)
    count = whole("windows", windows, at_least=2)
    _check_crystal(structure)
    names = tuple(parameter_values(potential)) if parameters is None else tuple(parameters)
    entries = find_entries(potential, names)
    tell = progress or (lambda text: None)
    tell(f"state 1 of {count}: the potential")
    real = sample(potential, structure, T, seed=seed, **sampling)
    real.require_effective(min_effective)
    require_solid(real, structure)
    k = _stiffness(real, structure)
    rest = float(energy_of(potential, structure))
    tied = _tethered(potential, structure, k, rest)
    ensembles = [real]
    for j in range(1, count):
        tell(f"state {j + 1} of {count}: {j / (count - 1):.0%} springs")
        between = eqx.tree_at(lambda p: p.share, tied, jnp.asarray(j / (count - 1)))
        one = sample(between, structure, T, seed=seed + j, **sampling)
        require_solid(one, structure)
        ensembles.append(one)
    steps, errors = _steps(ensembles, potential, structure, k, rest, min_effective)
    springs = einstein_free_energy(k, np.asarray(structure.masses), T)
    F = rest + springs - steps.sum()
    error = float(np.sqrt((errors**2).sum()))
    slopes, slope_errors = _derivatives(real, names, F, error)
    return CrystalFreeEnergy(
        value=float(F),
        error=error,
        at_rest=rest,
        springs=springs,
        steps=steps,
        step_errors=errors,
        stiffness=k,
        variables=(*names, TEMPERATURE),
        variable_units=(*(entry.unit for entry in entries), "K"),
        derivatives=slopes,
        derivative_errors=slope_errors,
    )


def displacements(ensemble: Ensemble, structure: Structure) -> Float[np.ndarray, "frames atoms 3"]:
    """From the sites, less a common shift, Å."""
    u = ensemble.frames.positions - np.asarray(structure.positions)
    return u - u.mean(1, keepdims=True)


def require_solid(ensemble: Ensemble, structure: Structure) -> None:
    """Raise where an atom left its site.

    Raises:
        MeltedError: names the atom, the frame and the distance.
    """
    far = np.linalg.norm(displacements(ensemble, structure), axis=-1)
    allowed = LEFT_SITE * _nearest_distance(structure)
    if far.max() <= allowed:
        return
    frame, atom = np.unravel_index(int(far.argmax()), far.shape)
    share = float((far > allowed).any(0).mean())
    raise MeltedError(
        f"atom {atom} ({structure.symbols[atom]}) is {far.max():.2f} Å from its site in frame {frame} of "
        f"{len(far)}, more than half of the distance to its neighbors ({allowed:.2f} Å), and so are "
        f"{100 * share:.0f} % of the atoms at some time: the crystal melts, or atoms hop, and its free "
        f"energy has no meaning. Lower the temperature ({ensemble.temperature:g} K), or start from the "
        "stable crystal at its density.",
        ensemble,
    )


def _nearest_distance(structure: Structure) -> float:
    from ase.neighborlist import neighbor_list

    atoms = structure.to_ase()
    # a sphere of four times the volume of an atom holds a neighbor
    reach = 2 * (abs(np.linalg.det(atoms.cell.array)) / len(atoms)) ** (1 / 3)
    return float(neighbor_list("d", atoms, reach).min())


def _check_crystal(structure: Structure) -> None:
    held = int(np.asarray(structure.fixed).sum())
    if not all(structure.pbc) or held or structure.n_atoms < 2:
        raise InputError(
            "the free energy of a crystal is that of two atoms or more, periodic in three directions, of "
            f"which none is held (pbc = {structure.pbc}, {held} coordinates held, {structure.n_atoms} "
            "atoms): let them go, and repeat the cell (structure.repeat)."
        )


def _stiffness(ensemble: Ensemble, structure: Structure) -> Float[np.ndarray, " atoms"]:
    """k = 3 kT / <u²> (1 - 1/N), one for each element."""
    squares = (displacements(ensemble, structure) ** 2).sum(-1).mean(0)
    species = np.asarray(structure.species)
    n = len(species)
    k = np.zeros(n)
    kT = BOLTZMANN * ensemble.temperature
    for z in np.unique(species):
        same = species == z
        k[same] = 3 * kT / squares[same].mean()
    # a shift takes one atom's share of the motion
    return k * (1 - 1 / n)


def _tethered(potential: Potential, structure: Structure, k: np.ndarray, rest: float) -> Tethered:
    return Tethered(
        potential=potential,
        share=jnp.asarray(0.0),
        sites=structure.positions,
        stiffness=jnp.asarray(k),
        at_rest=jnp.asarray(rest),
        elements=potential.elements,
    )


def _steps(
    ensembles: Sequence[Ensemble],
    potential: Potential,
    structure: Structure,
    k: np.ndarray,
    rest: float,
    min_effective: float,
) -> tuple[Float[np.ndarray, " steps"], Float[np.ndarray, " steps"]]:
    """Free energy of each state from that of the one before, eV."""
    kT = BOLTZMANN * ensembles[0].temperature
    # dU_s/ds = E - (U - U_0) in every frame, kT
    slopes = [_slope(ensemble, potential, structure, k, rest) / kT for ensemble in ensembles]
    width = 1 / (len(ensembles) - 1)
    steps, errors = [], []
    log_w = [-width * _thinned(slope, ensembles[0].replicas) for slope in slopes]
    for here, there in itertools.pairwise(log_w):
        found = bennett(here, there, min_effective=min_effective)
        steps.append(kT * float(found.value))
        errors.append(kT * float(found.error))
    return np.array(steps), np.array(errors)


def _slope(
    ensemble: Ensemble, potential: Potential, structure: Structure, k: np.ndarray, rest: float
) -> Float[np.ndarray, " frames"]:
    u = ensemble.frames.positions - np.asarray(structure.positions)
    E = np.asarray(spring_energy(jnp.asarray(u), jnp.asarray(k)))
    U = np.asarray(measure_frames(potential, ensemble.frames, (energy,))[energy].value)
    return E - (U - rest)


def _thinned(series: np.ndarray, replicas: int) -> Float[np.ndarray, " frames"]:
    """Values that do not remember each other."""
    by_time = series.reshape(-1, replicas)
    g = float(inefficiencies(by_time[..., None])[0])
    return by_time[:: int(np.ceil(g))].ravel()


def _derivatives(
    ensemble: Ensemble, names: tuple[str, ...], F: float, error: float
) -> tuple[Float[np.ndarray, " variables"], Float[np.ndarray, " variables"]]:
    """<dU/dtheta>, and minus the entropy."""
    T, n = ensemble.temperature, ensemble.frames.structure.n_atoms
    energies = ensemble.energies
    series = energies[:, None]
    if names:
        found = measure_frames(ensemble.potential, ensemble.frames, (energy,), names, order=1)[energy]
        series = np.concatenate([np.asarray(found.first), series], axis=1)
    errors = standard_errors(series, ensemble.replicas)
    means = series.mean(0)
    motion = (3 * n - 3) * BOLTZMANN * T / 2
    slope = (F - means[-1] - motion) / T
    slope_error = np.hypot(error, errors[-1]) / T
    return np.append(means[:-1], slope), np.append(errors[:-1], slope_error)
