"""The conformance test: what mdsens, and physics, ask of any potential, with numbers for what fails."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from mdsens.errors import ConformanceError, InputError
from mdsens.neighbors import Capacity, Neighbors, find_neighbors
from mdsens.potentials.base import Potential, check_elements
from mdsens.potentials.parameters import Entry, check_parameters, follow_path, parameter_entries
from mdsens.precision import require_x64
from mdsens.quantities import EnergyForcesStress, evaluate, neighbors_of
from mdsens.strain import UNIT_STRAINS, VOIGT, VOIGT_NAMES
from mdsens.structure import Structure, volume
from mdsens.testing.awkward import check_awkward_points, cutoff_smoothness
from mdsens.testing.differences import slope_at_zero
from mdsens.testing.probe import Check, Probe, dot, filled, largest, probe, skin_for

Path = Callable[[float], tuple[Potential, Structure]]  # potential and structure at each s


class ConformanceReport(NamedTuple):
    """What `check_potential` found.

    Attributes:
        potential: its form. checks: every claim with its numbers. left_out: claims that could not be tested,
            and why.
        at_cutoff: what jumps where the interaction ends.
    """

    potential: str
    checks: tuple[Check, ...]
    left_out: tuple[str, ...]
    at_cutoff: str

    @property
    def holds(self) -> bool:
        """True if every claim holds."""
        return all(check.holds for check in self.checks)

    def __str__(self) -> str:
        lines = [
            f"{self.potential}: {'conforms' if self.holds else 'does not conform'}",
            *map(str, self.checks),
        ]
        return "\n".join(
            [*lines, *(f"-      {text}" for text in self.left_out), f"-      at the cutoff: {self.at_cutoff}"]
        )


def check_potential(
    potential: Potential,
    structure: Structure,
    *,
    rtol: float = 1e-7,
    clusters: bool = True,
    seed: int = 0,
    throw: bool = True,
) -> ConformanceReport:
    """Test that a potential is what mdsens takes it for.

    Forces and stress are derivatives of the energy; the energy does not change with shifts, turns, the order
    of atoms, their periodic images, spare slots of the neighbor list, and doubles with the cell; the Hessian
    is symmetric; atoms out of range of each other feel nothing of each other if the form is local;
    derivatives by parameters are right, the same forward and in reverse; all are finite also at
    awkward points (an atom alone, a pair exactly at the cutoff, atoms in a line).

    Args:
        structure: some 10 to 100 atoms without symmetry: rattle a crystal. Periodic along at least one vector
            tests most.
        rtol: deviation allowed in derivatives, relative to the largest.
        clusters: also compute clusters of three atoms. False for a potential made for one number of atoms.
        seed: of the random directions.
        throw: raise if a claim fails; otherwise read the report.

    Raises:
        ConformanceError: a claim fails; `.partial` is the report.
        InputError: the potential has no parameters for an element of the structure, or a parameter out of its
        bounds.
    """
    require_x64()
    check_parameters(potential)
    check_elements(potential, structure)
    bench = _Bench(potential, structure, rtol, seed)
    checks = [*_derivatives(bench), *_parameters(bench), *_invariance(bench), *_locality(bench)]
    at_cutoff = "not looked at"
    if clusters:
        checks += check_awkward_points(potential, structure)
        at_cutoff = cutoff_smoothness(potential, structure)
    report = ConformanceReport(type(potential).__name__, tuple(checks), tuple(bench.left_out), at_cutoff)
    if throw and not report.holds:
        failing = "; ".join(str(check).removeprefix("FAILS  ") for check in checks if not check.holds)
        raise ConformanceError(f"{report.potential} does not conform. {failing}.", report)
    return report


class _Bench:
    """The structure under test, its list, and how finely numbers can be told apart here."""

    def __init__(self, potential: Potential, structure: Structure, rtol: float, seed: int):
        self.potential, self.structure, self.rtol = potential, structure, rtol
        self.random = np.random.default_rng(seed)
        self.cutoff = float(potential.cutoff)
        # room for the steps of all differences, also for those the cutoff takes when it moves with a
        # parameter
        self.skin, self.large_skin = skin_for(self.cutoff, 0.05), skin_for(self.cutoff, 0.25)
        needed = neighbors_of(potential, structure, self.large_skin).capacity
        # one shape of list for all
        self.capacity = Capacity(needed.pairs + 16, needed.width + 2, needed.images + 16, needed.waves)
        self.neighbors = self.list_of(structure)
        self.here = jax.tree.map(np.asarray, evaluate(potential, structure, self.neighbors))
        vectors = np.asarray(self.neighbors.vectors(structure))
        r = np.linalg.norm(vectors[np.asarray(self.neighbors.valid)], axis=-1)
        if not len(r) and not potential.local:  # the interaction is not that of the list
            x = np.asarray(structure.positions)
            distances = np.linalg.norm(x[:, None] - x, axis=-1)
            r = distances[np.triu_indices(len(x), 1)]
        if not len(r):
            raise InputError(
                "no two atoms of this structure interact: take one whose atoms are within the cutoff of each "
                "other."
            )
        self.shortest = float(r.min())
        energy = abs(float(self.here.energy)) + 1e-300
        work = float(np.sum(np.abs(self.here.forces))) * self.shortest
        self.rounding = 1e-14 * max(energy, work)  # eV
        largest_force = float(np.abs(self.here.forces).max())
        self.force = max(largest_force, energy / structure.n_atoms / self.shortest)  # eV/Å, typical
        virial = float(np.abs(self.here.stress).max()) * float(volume(structure))
        self.energy = max(energy, virial)  # eV, typical
        self.left_out: list[str] = []

    def list_of(self, structure: Structure, skin: float | None = None) -> Neighbors:
        skin = self.skin if skin is None else skin
        return neighbors_of(self.potential, structure, skin, self.capacity)

    def slope(self, at: Path, step: float) -> tuple[EnergyForcesStress, float]:
        """Energy, forces and stress differentiated along a path, and the step used.

        A form whose derivatives jump at its cutoff has no difference quotient across it: the step is halved
        until no pair crosses.
        """

        def inside(s: float) -> np.ndarray:
            return np.asarray(_within_range(*at(s), self.neighbors))

        here = inside(0.0)
        while step > 1e-7 and any(np.any(inside(s) != here) for s in (-2 * step, 2 * step)):
            step /= 2
        return slope_at_zero(lambda s: evaluate(*at(s), self.neighbors), step), step


@eqx.filter_jit
def _within_range(potential: Potential, structure: Structure, neighbors: Neighbors) -> Array:
    squares = jnp.sum(neighbors.vectors(structure) ** 2, axis=-1)
    return squares < potential.ranges(structure, neighbors) ** 2


def _derivatives(bench: _Bench) -> Iterator[Check]:
    yield _forces(bench)
    yield from _hessian(bench)
    if float(volume(bench.structure)) == 0:
        bench.left_out.append("stress: the structure has no volume")
    else:
        yield _stress(bench)


def _along(bench: _Bench, direction: np.ndarray) -> Path:
    """The atoms move along a direction."""
    x = np.asarray(bench.structure.positions)

    def at(s: float) -> tuple[Potential, Structure]:
        return bench.potential, bench.structure.at(jnp.asarray(x + s * direction))

    return at


def _strained(bench: _Bench, strain: np.ndarray) -> Path:
    """The structure deforms by a strain."""

    def at(s: float) -> tuple[Potential, Structure]:
        deformation = jnp.asarray(np.eye(3) + s * strain)
        return bench.potential, bench.structure.deformed(deformation)

    return at


def _forces(bench: _Bench) -> Check:
    n = bench.structure.n_atoms
    units = np.eye(3 * n).reshape(3 * n, n, 3)
    forces = bench.here.forces.reshape(-1)
    found, allowed = [], bench.rtol * bench.force
    for k in _some_coordinates(bench):
        slope, used = bench.slope(_along(bench, units[k]), 3e-4 * bench.shortest)
        allowed = max(allowed, bench.rtol * bench.force + bench.rounding / used)
        found.append((abs(float(slope.energy) + float(forces[k])), f"atom {k // 3}, {'xyz'[k % 3]}"))
    error, where = largest(found)
    return Check("forces are minus the gradient of the energy", error, allowed, "eV/Å", where)


def _some_coordinates(bench: _Bench) -> np.ndarray:
    # all coordinates of a small structure; else some, the first and last atom among them, where lists go
    # wrong first
    n = bench.structure.n_atoms
    if n <= 24:
        return np.arange(3 * n)
    first, last = np.arange(3), np.arange(3 * n - 3, 3 * n)
    between = bench.random.integers(0, 3 * n, 42)
    return np.unique(np.concatenate([first, last, between]))


def _hessian(bench: _Bench) -> Iterator[Check]:
    potential, structure = bench.potential, bench.structure
    v, w = bench.random.normal(size=(2, structure.n_atoms, 3))
    still = filled(potential, 0.0)
    one = probe(potential, structure, bench.neighbors, jnp.asarray(v), still)
    other = probe(potential, structure, bench.neighbors, jnp.asarray(w), still)
    vhw, size = dot(v, other.product)
    whv, _ = dot(w, one.product)
    where = "along two random displacements"
    yield Check("the Hessian is symmetric", abs(vhw - whv), 1e-10 * size, "eV/Å²", where)

    slope, used = bench.slope(_along(bench, v), 3e-4 * bench.shortest / 4)
    error = np.abs(slope.forces + np.asarray(one.product))
    scale = float(np.abs(one.product).max())
    allowed = bench.rtol * scale + bench.rounding / bench.shortest / used
    yield _of_atoms("the Hessian is the derivative of the forces", error, allowed, "eV/Å²")


def _of_atoms(claim: str, error: np.ndarray, allowed: float, unit: str) -> Check:
    return Check(claim, float(error.max()), allowed, unit, f"atom {error.max(1).argmax()}")


def _stress(bench: _Bench) -> Check:
    stress = np.array([bench.here.stress[a, b] for a, b in VOIGT])
    virial = float(volume(bench.structure)) * stress
    found, allowed = [], bench.rtol * bench.energy
    for k, strain in enumerate(UNIT_STRAINS):
        slope, used = bench.slope(_strained(bench, strain), 3e-4)
        allowed = max(allowed, bench.rtol * bench.energy + bench.rounding / used)
        found.append((abs(float(slope.energy) - virial[k]), f"component {VOIGT_NAMES[k]}"))
    error, where = largest(found)
    return Check("stress times volume is the derivative of the energy by strain", error, allowed, "eV", where)


def _parameters(bench: _Bench) -> Iterator[Check]:
    theta = eqx.filter(bench.potential, eqx.is_inexact_array)
    if not jax.tree.leaves(theta):
        bench.left_out.append("parameters: the potential has none")
        return
    v = jnp.asarray(bench.random.normal(size=(bench.structure.n_atoms, 3)))
    change = jax.tree.map(lambda t: jnp.asarray(_size(t) * bench.random.normal(size=t.shape)), theta)
    found = probe(bench.potential, bench.structure, bench.neighbors, v, change)
    yield from _forward_and_reverse(found, v, change)
    yield _change_of_forces(bench, found, change)
    yield _change_of_energy(bench, found)


def _size(t: np.ndarray | Array) -> np.ndarray:
    """Of a change of a parameter that counts."""
    return np.where(np.abs(t) > 1e-12, np.abs(t), 1.0)


def _changed(bench: _Bench, change: Potential) -> Path:
    """The parameters change."""
    theta, form = eqx.partition(bench.potential, eqx.is_inexact_array)

    def at(s: float) -> tuple[Potential, Structure]:
        moved = jax.tree.map(lambda t, d: jnp.asarray(np.asarray(t) + s * np.asarray(d)), theta, change)
        return eqx.combine(moved, form), bench.structure

    return at


def _forward_and_reverse(found: Probe, v: Array, change: Potential) -> Iterator[Check]:
    where = "a random change of all"
    value, terms = dot(found.reverse, change)
    error = abs(value - float(found.forward))
    yield Check("dE/dtheta is the same forward and in reverse", error, 1e-11 * terms, "eV", where)
    value, terms = dot(found.forces_reverse, change)
    forward, scale = dot(v, found.forces_forward)
    error, allowed = abs(value - forward), 1e-10 * max(terms, scale)
    yield Check("dF/dtheta is the same forward and in reverse", error, allowed, "eV/Å", where)


def _change_of_forces(bench: _Bench, found: Probe, change: Potential) -> Check:
    slope, used = bench.slope(_changed(bench, change), 1e-4)
    error = np.abs(slope.forces - np.asarray(found.forces_forward))
    scale = max(float(np.abs(found.forces_forward).max()), bench.force)
    allowed = bench.rtol * scale + bench.rounding / bench.shortest / used
    return _of_atoms("dF/dtheta is what a change of parameters does", error, allowed, "eV/Å")


def _change_of_energy(bench: _Bench, exact: Probe) -> Check:
    entries = parameter_entries(bench.potential)
    some = range(len(entries))
    if len(entries) > 40:
        some = sorted(bench.random.choice(len(entries), 40, replace=False))
    found, allowed = [], bench.rtol * bench.energy
    for entry in (entries[k] for k in some):
        size = float(_size(np.asarray(follow_path(bench.potential, entry.path))[entry.index]))
        slope, used = bench.slope(_changed(bench, _unit_change(bench.potential, entry, size)), 3e-4)
        slope_by = np.asarray(follow_path(exact.reverse, entry.path))
        wanted = size * float(slope_by[entry.index])
        scale = max(bench.energy, abs(wanted))
        allowed = max(allowed, bench.rtol * scale + bench.rounding / used)
        found.append((abs(float(slope.energy) - wanted), entry.name))
    error, where = largest(found)
    return Check("theta dE/dtheta is what a change of theta does", error, allowed, "eV", where)


def _unit_change(potential: Potential, entry: Entry, size: float) -> Potential:
    """A change of one entry of the parameters, and of nothing else."""
    array = np.zeros(follow_path(potential, entry.path).shape)
    array[entry.index] = size
    still = filled(potential, 0.0)
    return eqx.tree_at(lambda t: follow_path(t, entry.path), still, jnp.asarray(array))


def _per_atom(s: Structure) -> tuple[Array, ...]:
    arrays = (s.positions, s.species, s.masses, s.fixed)
    return arrays if s.charges is None else (*arrays, s.charges)


def _invariance(bench: _Bench) -> Iterator[Check]:
    yield _shift(bench)
    yield _turn(bench)
    if bench.potential.knows_atoms:
        bench.left_out.append("order of atoms, a doubled cell: the potential was made for these atoms")
    else:
        yield _order(bench)
    claim = "spare slots and pairs beyond the cutoff change nothing"
    spare = bench.list_of(bench.structure, bench.large_skin)
    yield _compare(bench, claim, bench.structure, spare, bench.here)
    if not any(bench.structure.pbc):
        bench.left_out.append("periodic images and a doubled cell: the structure is not periodic")
        return
    yield _images(bench)
    if not bench.potential.knows_atoms:
        yield _doubled(bench)


def _compare(
    bench: _Bench, claim: str, other: Structure, neighbors: Neighbors, wanted: EnergyForcesStress
) -> Check:
    """Energy, forces and stress of another structure against what they should be."""
    found = jax.tree.map(np.asarray, evaluate(bench.potential, other, neighbors))
    # all three as energies, to be told apart on one scale
    energy = abs(float(found.energy - wanted.energy))
    forces = float(np.abs(found.forces - wanted.forces).max()) * bench.shortest
    off = float(np.abs(found.stress - wanted.stress).max())
    stress = off * float(volume(other))
    error, what = largest([(energy, "energy"), (forces, "forces"), (stress, "stress")])
    return Check(claim, error, 100 * bench.rounding, "eV", what)


def _shift(bench: _Bench) -> Check:
    x = np.asarray(bench.structure.positions)
    moved = bench.structure.at(jnp.asarray(x + bench.random.normal(size=3)))
    return _compare(bench, "a shift of everything changes nothing", moved, bench.list_of(moved), bench.here)


def _turn(bench: _Bench) -> Check:
    energy, forces, stress = bench.here
    turn = np.linalg.qr(bench.random.normal(size=(3, 3)))[0]
    turn = turn * np.sign(np.linalg.det(turn))
    moved = bench.structure.deformed(jnp.asarray(turn))
    # rows x -> x R: forces turn along, and the stress as a matrix does
    wanted = EnergyForcesStress(energy, forces @ turn, turn.T @ stress @ turn)
    claim = "a turn of everything turns forces and stress"
    return _compare(bench, claim, moved, bench.list_of(moved), wanted)


def _order(bench: _Bench) -> Check:
    energy, forces, stress = bench.here
    order = bench.random.permutation(bench.structure.n_atoms)
    leaves = _per_atom(bench.structure)
    sorted_anew = tuple(jnp.asarray(np.asarray(leaf)[order]) for leaf in leaves)
    moved = eqx.tree_at(_per_atom, bench.structure, sorted_anew)
    wanted = EnergyForcesStress(energy, forces[order], stress)
    return _compare(bench, "the order of atoms does not matter", moved, bench.list_of(moved), wanted)


def _images(bench: _Bench) -> Check:
    structure = bench.structure
    x, cell = np.asarray(structure.positions), np.asarray(structure.cell)
    shifts = bench.random.integers(-2, 3, (structure.n_atoms, 3))
    images = shifts * np.array(structure.pbc)
    moved = structure.at(jnp.asarray(x + images @ cell))
    claim = "it does not matter which image of an atom is given"
    return _compare(bench, claim, moved, bench.list_of(moved), bench.here)


def _doubled(bench: _Bench) -> Check:
    structure, (energy, forces, stress) = bench.structure, bench.here
    x, cell = np.asarray(structure.positions), np.asarray(structure.cell)
    axis = structure.pbc.index(True)
    twice = tuple(jnp.asarray(np.concatenate([leaf, leaf])) for leaf in _per_atom(structure))
    longer = cell.copy()
    longer[axis] *= 2
    places = np.concatenate([x, x + cell[axis]])
    doubled = eqx.tree_at(_per_atom, structure, twice).at(jnp.asarray(places), jnp.asarray(longer))
    wanted = EnergyForcesStress(2 * energy, jnp.concatenate([forces, forces]), stress)
    neighbors = neighbors_of(bench.potential, doubled)
    return _compare(bench, "a cell twice as long has twice the energy", doubled, neighbors, wanted)


def _locality(bench: _Bench) -> Iterator[Check]:
    potential, structure = bench.potential, bench.structure
    if not potential.local or not np.isfinite(bench.cutoff):
        bench.left_out.append("locality: the form does not say that interactions end")
        return
    claim = "atoms out of range of each other feel nothing of each other, as a local form says"
    d = np.linalg.norm(np.asarray(bench.neighbors.vectors(structure)), axis=-1)
    ratio = np.where(bench.neighbors.valid, potential.ranges(structure, bench.neighbors) / d, 0.0)
    if not ratio.max() * bench.shortest <= 1.001 * bench.cutoff:
        yield Check(claim, np.inf, 0.0, "eV/Å²", "`ranges` reach beyond the cutoff: set local = False")
        return
    # Swollen until its closest atoms are just out of range. If one of them, i, moves, the force on another,
    # j, changes by H_ji: nothing of an interaction, whatever field each atom is in.
    swollen = structure.deformed(jnp.asarray(1.02 * ratio.max() * np.eye(3)))
    neighbors = find_neighbors(swollen, bench.cutoff, capacity=bench.capacity)
    atom = int(bench.neighbors.i[int(ratio.argmax())])
    moved = jnp.zeros((structure.n_atoms, 3)).at[atom].set(1.0)
    product = probe(potential, swollen, neighbors, moved, filled(potential, 0.0)).product
    felt = np.delete(np.abs(np.asarray(product)), atom, axis=0)
    scale = bench.force / bench.shortest
    yield Check(claim, float(felt.max(initial=0.0)), 1e-10 * scale, "eV/Å²", f"when atom {atom} moves")
