"""Tests for anybody's potential: derivatives against differences, and what physics asks of any energy.

`central_difference` is a twin of `jax.jacfwd` that knows no calculus. `check_potential` puts a potential
through all that the rest of mdsens relies on, and says with numbers what fails.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from mdsens.errors import ConformanceError, InputError
from mdsens.neighbors import Capacity, Neighbors, find_neighbors
from mdsens.potentials.base import Potential, check_elements
from mdsens.potentials.parameters import check_parameters, follow_path, parameter_entries
from mdsens.precision import require_x64
from mdsens.quantities import EnergyForcesStress, evaluate
from mdsens.strain import UNIT_STRAINS, VOIGT, VOIGT_NAMES
from mdsens.structure import Structure, volume

# f'(0) = sum_n w_n [f(n h) - f(-n h)] / h, with an error of h² or h⁴
WEIGHTS = {2: {1: 1 / 2}, 4: {1: 2 / 3, 2: -1 / 12}}


def central_difference(f: Callable[[Any], Any], x: Any, step: float = 1e-4, *, order: int = 2) -> Any:
    """Derivative of f at x by central differences, in the form that `jax.jacfwd(f)(x)` has.

    Args:
        f: from a tree of floats (number, array, dict, potential, ...) to a tree of floats. It is called, not
            traced, so it may relax structures or run other programs.
        x: where; leaves that are no floats are held, and None in the result.
        step: added to and taken from one number at a time, in its own unit.
        order: 2 (error step²; two calls a number) or 4 (error step⁴; four calls).
    """
    leaves, tree = jax.tree.flatten(x)
    inputs = [
        (k, index) for k, leaf in enumerate(leaves) if _is_float(leaf) for index in np.ndindex(np.shape(leaf))
    ]

    def moved(k: int, index: tuple[int, ...], s: float) -> Any:
        array = np.array(leaves[k], float)
        array[index] += s
        return tree.unflatten(
            [
                *leaves[:k],
                array.item() if isinstance(leaves[k], float) else jnp.asarray(array),
                *leaves[k + 1 :],
            ]
        )

    slopes = [_slope(lambda s, k=k, index=index: f(moved(k, index, s)), step, order) for k, index in inputs]
    form = jax.tree.structure(slopes[0])
    by_output = []
    for values in zip(*(jax.tree.leaves(slope) for slope in slopes), strict=True):
        blocks = [[v for v, (j, _) in zip(values, inputs, strict=True) if j == k] for k in range(len(leaves))]
        shaped = [
            np.stack(b, -1).reshape((*b[0].shape, *np.shape(leaf))) if b else None
            for b, leaf in zip(blocks, leaves, strict=True)
        ]
        by_output.append(tree.unflatten(shaped))
    return form.unflatten(by_output)


def _is_float(leaf: Any) -> bool:
    return isinstance(leaf, float) or eqx.is_inexact_array_like(leaf)


def _slope(f: Callable[[float], Any], step: float, order: int = 4) -> Any:
    """Derivative of f(s) at s = 0, for trees of numbers."""
    ends = [(w, f(n * step), f(-n * step)) for n, w in WEIGHTS[order].items()]
    parts = [
        jax.tree.map(lambda a, b, w=w: w * (np.asarray(a) - np.asarray(b)) / step, up, down)
        for w, up, down in ends
    ]
    return jax.tree.map(lambda *terms: sum(terms), *parts)


# --- the conformance test
# ----------------------------------------------------------------------------------------


class Check(NamedTuple):
    """One claim about a potential: it holds if the largest deviation is what rounding and step allow."""

    claim: str
    error: float
    allowed: float
    unit: str
    where: str

    @property
    def holds(self) -> bool:
        """False also where the deviation is NaN."""
        return self.error <= self.allowed

    def __str__(self) -> str:
        verdict = "holds" if self.holds else "FAILS"
        return f"{verdict}  {self.claim}: off by {self.error:.1e} {self.unit}, allowed {self.allowed:.1e}" + (
            f" ({self.where})" if self.where else ""
        )


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


def _skin(cutoff: float, part: float) -> float:
    return part * cutoff if np.isfinite(cutoff) else 0.0


def _largest(found: list[tuple[float, str]]) -> tuple[float, str]:
    return max(found, key=lambda f: np.inf if np.isnan(f[0]) else f[0])


class _Bench:
    """The structure under test, its list, and how finely numbers can be told apart here."""

    def __init__(self, potential: Potential, structure: Structure, rtol: float, seed: int):
        self.potential, self.structure, self.rtol = potential, structure, rtol
        self.random = np.random.default_rng(seed)
        self.cutoff = float(potential.cutoff)
        # room for the steps of all differences, also for those the cutoff takes when it moves with a
        # parameter
        self.skin, self.large_skin = _skin(self.cutoff, 0.05), _skin(self.cutoff, 0.25)
        pairs, width = find_neighbors(structure, self.cutoff, self.large_skin).capacity
        self.capacity = Capacity(pairs + 16, width + 2)  # one shape of list for all
        self.neighbors = self.list_of(structure)
        self.here = jax.tree.map(np.asarray, evaluate(potential, structure, self.neighbors))
        r = np.linalg.norm(
            np.asarray(self.neighbors.vectors(structure))[np.asarray(self.neighbors.valid)], axis=-1
        )
        if not len(r) and not potential.local:  # the interaction is not that of the list
            x = np.asarray(structure.positions)
            r = np.linalg.norm(x[:, None] - x, axis=-1)[np.triu_indices(len(x), 1)]
        if not len(r):
            raise InputError(
                "no two atoms of this structure interact: take one whose atoms are within the cutoff of each "
                "other."
            )
        self.shortest = float(r.min())
        energy = abs(float(self.here.energy)) + 1e-300
        self.rounding = 1e-14 * max(energy, float(np.sum(np.abs(self.here.forces))) * self.shortest)  # eV
        self.force = max(
            float(np.abs(self.here.forces).max()), energy / structure.n_atoms / self.shortest
        )  # eV/Å, typical
        self.energy = max(
            energy, float(np.abs(self.here.stress).max()) * float(volume(structure))
        )  # eV, typical
        self.left_out: list[str] = []

    def list_of(self, structure: Structure, skin: float | None = None) -> Neighbors:
        return find_neighbors(structure, self.cutoff, self.skin if skin is None else skin, self.capacity)

    def slope(
        self, at: Callable[[float], tuple[Potential, Structure]], step: float
    ) -> tuple[EnergyForcesStress, float]:
        """Energy, forces and stress differentiated along a path, and the step used.

        A form whose derivatives jump at its cutoff has no difference quotient across it: the step is halved
        until no pair crosses.
        """
        inside = lambda s: np.asarray(_within_range(*at(s), self.neighbors))
        here = inside(0.0)
        while step > 1e-7 and any(np.any(inside(s) != here) for s in (-2 * step, 2 * step)):
            step /= 2
        return _slope(lambda s: evaluate(*at(s), self.neighbors), step), step


@eqx.filter_jit
def _within_range(potential: Potential, structure: Structure, neighbors: Neighbors) -> Array:
    return jnp.sum(neighbors.vectors(structure) ** 2, axis=-1) < potential.ranges(structure, neighbors) ** 2


class _Probe(NamedTuple):
    """Second derivatives of every kind. v is a displacement, d a change of parameters."""

    energy: Array
    forces: Array  # F
    stress: Array
    product: Array  # H v
    reverse: Potential  # dE/dtheta
    forward: Array  # dE/dtheta . d
    forces_forward: Array  # dF/dtheta . d
    forces_reverse: Potential  # d(v . F)/dtheta


@eqx.filter_jit
def _probe(
    potential: Potential, structure: Structure, neighbors: Neighbors, v: Float[Array, "atoms 3"], d: Potential
) -> _Probe:
    theta, form = eqx.partition(potential, eqx.is_inexact_array)
    x = structure.positions
    energy = lambda theta, x: eqx.combine(theta, form).energy(structure.at(x), neighbors)
    force = lambda theta, x: -jax.grad(energy, 1)(theta, x)
    forward, forces_forward = jax.jvp(lambda t: (energy(t, x), force(t, x)), (theta,), (d,))[1]
    return _Probe(
        *evaluate(potential, structure, neighbors),
        product=-jax.jvp(lambda x: force(theta, x), (x,), (v,))[1],
        reverse=jax.grad(energy)(theta, x),
        forward=forward,
        forces_forward=forces_forward,
        forces_reverse=jax.grad(lambda t: jnp.sum(v * force(t, x)))(theta),
    )


def _filled(potential: Potential, number: float) -> Potential:
    """A change of parameters, all by one number."""
    return jax.tree.map(
        lambda t: jnp.asarray(np.full(t.shape, number)), eqx.filter(potential, eqx.is_inexact_array)
    )


def _dot(a: Any, b: Any) -> tuple[float, float]:
    """Scalar product of two trees, and the sum of the sizes of its terms."""
    terms = [
        np.asarray(x) * np.asarray(y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    ]
    return float(sum(t.sum() for t in terms)), float(sum(np.abs(t).sum() for t in terms))


def _derivatives(bench: _Bench) -> Iterator[Check]:
    potential, structure, n = bench.potential, bench.structure, bench.structure.n_atoms
    step = 3e-4 * bench.shortest
    x = np.asarray(structure.positions)
    units = np.eye(3 * n).reshape(3 * n, n, 3)
    along = lambda direction: lambda s: (potential, structure.at(jnp.asarray(x + s * direction)))
    # all coordinates of a small structure; else some, the first and last atom among them, where lists go
    # wrong first
    some = (
        np.arange(3 * n)
        if n <= 24
        else np.unique(np.r_[0:3, 3 * n - 3 : 3 * n, bench.random.integers(0, 3 * n, 42)])
    )
    found, allowed = [], bench.rtol * bench.force
    for k in some:
        slope, used = bench.slope(along(units[k]), step)
        allowed = max(allowed, bench.rtol * bench.force + bench.rounding / used)
        found.append(
            (
                abs(float(slope.energy) + float(bench.here.forces.reshape(-1)[k])),
                f"atom {k // 3}, {'xyz'[k % 3]}",
            )
        )
    error, where = _largest(found)
    yield Check("forces are minus the gradient of the energy", error, allowed, "eV/Å", where)

    v, w = bench.random.normal(size=(2, n, 3))
    still = _filled(potential, 0.0)
    one, other = (
        _probe(potential, structure, bench.neighbors, jnp.asarray(direction), still) for direction in (v, w)
    )
    (vhw, size), (whv, _) = _dot(v, other.product), _dot(w, one.product)
    yield Check(
        "the Hessian is symmetric", abs(vhw - whv), 1e-10 * size, "eV/Å²", "along two random displacements"
    )
    slope, used = bench.slope(along(v), step / 4)
    error = np.abs(slope.forces + np.asarray(one.product))
    allowed = bench.rtol * float(np.abs(one.product).max()) + bench.rounding / bench.shortest / used
    yield Check(
        "the Hessian is the derivative of the forces",
        float(error.max()),
        allowed,
        "eV/Å²",
        f"atom {error.max(1).argmax()}",
    )

    if float(volume(structure)) == 0:
        bench.left_out.append("stress: the structure has no volume")
        return
    virial = float(volume(structure)) * np.array([bench.here.stress[a, b] for a, b in VOIGT])
    found, allowed = [], bench.rtol * bench.energy
    for k, strain in enumerate(UNIT_STRAINS):
        slope, used = bench.slope(
            lambda s, strain=strain: (potential, structure.deformed(jnp.asarray(np.eye(3) + s * strain))),
            3e-4,
        )
        allowed = max(allowed, bench.rtol * bench.energy + bench.rounding / used)
        found.append((abs(float(slope.energy) - virial[k]), f"component {VOIGT_NAMES[k]}"))
    error, where = _largest(found)
    yield Check("stress times volume is the derivative of the energy by strain", error, allowed, "eV", where)


def _parameters(bench: _Bench) -> Iterator[Check]:
    potential, structure = bench.potential, bench.structure
    entries = parameter_entries(potential)
    theta, form = eqx.partition(potential, eqx.is_inexact_array)
    if not jax.tree.leaves(theta):
        bench.left_out.append("parameters: the potential has none")
        return
    at = lambda d: (
        lambda s: (
            eqx.combine(
                jax.tree.map(lambda t, d: jnp.asarray(np.asarray(t) + s * np.asarray(d)), theta, d), form
            ),
            structure,
        )
    )
    size = lambda t: np.where(np.abs(t) > 1e-12, np.abs(t), 1.0)  # of a change that counts
    v = jnp.asarray(bench.random.normal(size=(structure.n_atoms, 3)))
    d = jax.tree.map(lambda t: jnp.asarray(size(t) * bench.random.normal(size=t.shape)), theta)
    probe = _probe(potential, structure, bench.neighbors, v, d)

    value, terms = _dot(probe.reverse, d)
    yield Check(
        "dE/dtheta is the same forward and in reverse",
        abs(value - float(probe.forward)),
        1e-11 * terms,
        "eV",
        "a random change of all",
    )
    (value, terms), (forward, scale) = _dot(probe.forces_reverse, d), _dot(v, probe.forces_forward)
    allowed = 1e-10 * max(terms, scale)
    yield Check(
        "dF/dtheta is the same forward and in reverse",
        abs(value - forward),
        allowed,
        "eV/Å",
        "a random change of all",
    )
    slope, used = bench.slope(at(d), 1e-4)
    error = np.abs(slope.forces - np.asarray(probe.forces_forward))
    allowed = (
        bench.rtol * max(float(np.abs(probe.forces_forward).max()), bench.force)
        + bench.rounding / bench.shortest / used
    )
    yield Check(
        "dF/dtheta is what a change of parameters does",
        float(error.max()),
        allowed,
        "eV/Å",
        f"atom {error.max(1).argmax()}",
    )

    chosen = (
        range(len(entries))
        if len(entries) <= 40
        else sorted(bench.random.choice(len(entries), 40, replace=False))
    )
    found, allowed = [], bench.rtol * bench.energy
    for k in chosen:
        entry, number = (
            entries[k],
            float(size(np.asarray(follow_path(potential, entries[k].path))[entries[k].index])),
        )
        array = np.zeros(follow_path(potential, entry.path).shape)
        array[entry.index] = number
        unit = eqx.tree_at(
            lambda t, path=entry.path: follow_path(t, path), _filled(potential, 0.0), jnp.asarray(array)
        )
        slope, used = bench.slope(at(unit), 3e-4)
        exact = number * float(np.asarray(follow_path(probe.reverse, entry.path))[entry.index])
        allowed = max(allowed, bench.rtol * max(bench.energy, abs(exact)) + bench.rounding / used)
        found.append((abs(float(slope.energy) - exact), entry.name))
    error, where = _largest(found)
    yield Check("theta dE/dtheta is what a change of theta does", error, allowed, "eV", where)


def _invariance(bench: _Bench) -> Iterator[Check]:
    potential, structure, random, n = bench.potential, bench.structure, bench.random, bench.structure.n_atoms
    x, cell = np.asarray(structure.positions), np.asarray(structure.cell)
    energy, forces, stress = bench.here

    def compare(claim: str, other: Structure, neighbors: Neighbors, wanted: EnergyForcesStress) -> Check:
        found = jax.tree.map(np.asarray, evaluate(potential, other, neighbors))
        # all three as energies, to be told apart on one scale
        error, what = _largest(
            [
                (abs(float(found.energy - wanted.energy)), "energy"),
                (float(np.abs(found.forces - wanted.forces).max()) * bench.shortest, "forces"),
                (float(np.abs(found.stress - wanted.stress).max()) * float(volume(other)), "stress"),
            ]
        )
        return Check(claim, error, 100 * bench.rounding, "eV", what)

    moved = structure.at(jnp.asarray(x + random.normal(size=3)))
    yield compare("a shift of everything changes nothing", moved, bench.list_of(moved), bench.here)

    turn = np.linalg.qr(random.normal(size=(3, 3)))[0]
    turn = turn * np.sign(np.linalg.det(turn))
    moved = structure.deformed(jnp.asarray(turn))
    wanted = EnergyForcesStress(energy, forces @ turn, turn.T @ stress @ turn)
    yield compare("a turn of everything turns forces and stress", moved, bench.list_of(moved), wanted)

    order = random.permutation(n)
    per_atom = lambda s: (s.positions, s.species, s.masses, s.fixed)
    moved = eqx.tree_at(
        per_atom, structure, tuple(jnp.asarray(np.asarray(leaf)[order]) for leaf in per_atom(structure))
    )
    yield compare(
        "the order of atoms does not matter",
        moved,
        bench.list_of(moved),
        EnergyForcesStress(energy, forces[order], stress),
    )

    yield compare(
        "spare slots and pairs beyond the cutoff change nothing",
        structure,
        bench.list_of(structure, bench.large_skin),
        bench.here,
    )

    if not any(structure.pbc):
        bench.left_out.append("periodic images and a doubled cell: the structure is not periodic")
        return
    images = random.integers(-2, 3, (n, 3)) * np.array(structure.pbc)
    moved = structure.at(jnp.asarray(x + images @ cell))
    yield compare(
        "it does not matter which image of an atom is given", moved, bench.list_of(moved), bench.here
    )

    axis = structure.pbc.index(True)
    twice = tuple(jnp.asarray(np.concatenate([leaf, leaf])) for leaf in per_atom(structure))
    longer = cell * np.where(np.arange(3) == axis, 2.0, 1.0)[:, None]
    doubled = eqx.tree_at(per_atom, structure, twice).at(
        jnp.asarray(np.concatenate([x, x + cell[axis]])), jnp.asarray(longer)
    )
    wanted = EnergyForcesStress(2 * energy, jnp.concatenate([forces, forces]), stress)
    yield compare(
        "a cell twice as long has twice the energy", doubled, find_neighbors(doubled, bench.cutoff), wanted
    )


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
    product = _probe(potential, swollen, neighbors, moved, _filled(potential, 0.0)).product
    felt = np.delete(np.abs(np.asarray(product)), atom, axis=0)
    scale = bench.force / bench.shortest
    yield Check(claim, float(felt.max(initial=0.0)), 1e-10 * scale, "eV/Å²", f"when atom {atom} moves")


# --- a few atoms in awkward places
# -------------------------------------------------------------------------------


def _three(potential: Potential, kinds: tuple[int, int, int], positions: Any) -> tuple[Structure, Neighbors]:
    structure = Structure.create(positions, kinds)
    cutoff = float(potential.cutoff)
    return structure, find_neighbors(
        structure, cutoff, _skin(cutoff, 0.2), Capacity(8, 4)
    )  # pairs at the cutoff are in the list


def _kinds(potential: Potential, structure: Structure) -> list[tuple[int, int, int]]:
    from ase.data import atomic_numbers

    numbers = [atomic_numbers[e] for e in potential.elements] or [int(structure.species[0])]
    return [(a, b, a) for k, a in enumerate(numbers) for b in numbers[k:]]


def _range(potential: Potential, kinds: tuple[int, int, int]) -> float:
    """Distance at which the first two of these kinds of atoms stop to interact, Å."""
    cutoff = float(potential.cutoff)
    if np.isinf(cutoff):
        return cutoff
    trio = _three(potential, kinds, [[0, 0, 0], [0.5 * cutoff, 0, 0], [9 * cutoff, 0, 0]])
    return float(np.ravel(potential.ranges(*trio))[0])


def check_awkward_points(potential: Potential, structure: Structure) -> list[Check]:
    """Value and derivatives, first and second, forward and reverse, are finite for three awkward atoms.

    Args:
        structure: gives the distance and, for a potential that does not look at species, the kind of the
            atoms.
    """
    cutoff = float(potential.cutoff)
    d = np.asarray(find_neighbors(structure, min(cutoff, 20.0)).vectors(structure))
    r = min(np.linalg.norm(d, axis=-1).min(), 0.9 * cutoff)
    random = np.random.default_rng(3)
    v = jnp.asarray(random.normal(size=(3, 3)))
    change = _filled(potential, 1.0)
    far = 3 * cutoff if np.isfinite(cutoff) else 20 * r
    checks = []
    for kinds in _kinds(potential, structure):
        end = _range(potential, kinds)
        places = {
            "atoms alone": [[0, 0, 0], [far, 0, 0], [0, far, 0]],
            "a pair": [[0, 0, 0], [r, 0, 0], [0, far, 0]],
            "three in a line": [[0, 0, 0], [r, 0, 0], [2 * r, 0, 0]],
            "a right angle": [[0, 0, 0], [r, 0, 0], [0, r, 0]],
            "a triangle": [[0, 0, 0], [r, 0, 0], [r / 2, np.sqrt(3) / 2 * r, 0]],
        }
        if np.isfinite(end):
            places |= {
                "a pair exactly at the cutoff": [[0, 0, 0], [end, 0, 0], [0, far, 0]],
                "a pair one rounding inside the cutoff": [
                    [0, 0, 0],
                    [np.nextafter(end, 0), 0, 0],
                    [0, far, 0],
                ],
            }
        for place, positions in places.items():
            probe = _probe(potential, *_three(potential, kinds, positions), v, change)
            bad = [
                name
                for name, value in probe._asdict().items()
                if not all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(value))
            ]
            checks.append(Check(f"finite for {place}", float(len(bad)), 0.0, "quantities", ", ".join(bad)))
    # one line for each place, whatever the kinds of atoms
    worst = {check.claim: check for check in sorted(checks, key=lambda check: check.error)}
    return [worst[claim] for claim in dict.fromkeys(check.claim for check in checks)]


KINDS = ("energy", "force", "second derivative")


def cutoff_smoothness(potential: Potential, structure: Structure) -> str:
    """What jumps where the interaction of two atoms ends: energy, force, second derivative, or none of these.

    Relaxed states need a continuous force, their derivatives a continuous second derivative.
    """
    if np.isinf(float(potential.cutoff)):
        return "there is none"
    if not potential.local:
        return "not looked at, as the interaction does not end there"
    still, along = _filled(potential, 0.0), jnp.asarray(np.eye(1, 9, 3).reshape(3, 3))
    jumps = set()
    for kinds in _kinds(potential, structure):
        end = _range(potential, kinds)

        def dimer(r: float, kinds: tuple[int, int, int] = kinds) -> np.ndarray:
            trio = _three(potential, kinds, [[0, 0, 0], [r, 0, 0], [0, 9 * float(potential.cutoff), 0]])
            probe = _probe(potential, *trio, along, still)
            return np.array([float(probe.energy), -float(probe.forces[1, 0]), float(probe.product[1, 0])])

        alone = dimer(1.5 * end)
        sizes = np.max([np.abs(dimer(part * end) - alone) for part in (0.5, 0.65, 0.8, 0.95)], axis=0)
        # what does not jump goes to zero, if only as a root of the distance from the cutoff
        near, nearest = (np.abs(dimer((1 - gap) * end) - alone) for gap in (1e-6, 1e-10))
        jumps |= {
            what
            for what, *n, size in zip(KINDS, near, nearest, sizes, strict=True)
            if n[1] > 1e-9 * size and n[1] > 0.3 * n[0]
        }
    for what in KINDS:
        if what in jumps:
            return f"the {what} jumps"
    return "energy, force and second derivative are continuous"
