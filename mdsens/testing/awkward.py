"""A few atoms in awkward places, and what jumps where the interaction ends."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mdsens.neighbors import Capacity, Neighbors, find_neighbors
from mdsens.potentials.base import Potential
from mdsens.quantities import neighbors_of
from mdsens.structure import Structure
from mdsens.testing.probe import Check, Probe, filled, probe, skin_for

KINDS = ("energy", "force", "second derivative")


def _three(potential: Potential, kinds: tuple[int, int, int], positions: Any) -> tuple[Structure, Neighbors]:
    structure = Structure.create(positions, kinds)
    cutoff = float(potential.cutoff)
    # with a skin, so that pairs at the cutoff are in the list
    return structure, neighbors_of(potential, structure, skin_for(cutoff, 0.2), Capacity(8, 4))


def _kinds(potential: Potential, structure: Structure) -> list[tuple[int, int, int]]:
    from ase.data import atomic_numbers

    numbers = [atomic_numbers[e] for e in potential.elements] or [int(structure.species[0])]
    return [(a, b, a) for k, a in enumerate(numbers) for b in numbers[k:]]


def _range(potential: Potential, kinds: tuple[int, int, int]) -> float:
    """Distance at which the first two of these kinds of atoms stop to interact, Å."""
    cutoff = float(potential.cutoff)
    if np.isinf(cutoff):
        return cutoff
    places = [[0, 0, 0], [0.5 * cutoff, 0, 0], [9 * cutoff, 0, 0]]
    trio = _three(potential, kinds, places)
    return float(np.ravel(potential.ranges(*trio))[0])


def _places(r: float, far: float, end: float) -> dict[str, list[list[float]]]:
    """Positions of three atoms: r apart, far from each other, or where the interaction ends."""
    places = {
        "atoms alone": [[0, 0, 0], [far, 0, 0], [0, far, 0]],
        "a pair": [[0, 0, 0], [r, 0, 0], [0, far, 0]],
        "three in a line": [[0, 0, 0], [r, 0, 0], [2 * r, 0, 0]],
        "a right angle": [[0, 0, 0], [r, 0, 0], [0, r, 0]],
        "a triangle": [[0, 0, 0], [r, 0, 0], [r / 2, np.sqrt(3) / 2 * r, 0]],
    }
    if np.isfinite(end):
        inside = np.nextafter(end, 0)
        places["a pair exactly at the cutoff"] = [[0, 0, 0], [end, 0, 0], [0, far, 0]]
        places["a pair one rounding inside the cutoff"] = [[0, 0, 0], [inside, 0, 0], [0, far, 0]]
    return places


def _not_finite(found: Probe) -> list[str]:
    """Names of the quantities that are not."""
    values = found._asdict().items()
    return [name for name, tree in values if not _finite(tree)]


def _finite(tree: Any) -> bool:
    return all(np.isfinite(x).all() for x in jax.tree.leaves(tree))


def check_awkward_points(potential: Potential, structure: Structure) -> list[Check]:
    """Value and derivatives, first and second, forward and reverse, are finite for three awkward atoms.

    Args:
        structure: gives the distance and, for a potential that does not look at species, the kind of the
            atoms.
    """
    cutoff = float(potential.cutoff)
    d = np.asarray(find_neighbors(structure, min(cutoff, 20.0)).vectors(structure))
    r = min(np.linalg.norm(d, axis=-1).min(), 0.9 * cutoff)
    far = 3 * cutoff if np.isfinite(cutoff) else 20 * r
    v = jnp.asarray(np.random.default_rng(3).normal(size=(3, 3)))
    change = filled(potential, 1.0)
    checks = []
    for kinds in _kinds(potential, structure):
        for place, positions in _places(r, far, _range(potential, kinds)).items():
            bad = _not_finite(probe(potential, *_three(potential, kinds, positions), v, change))
            checks.append(Check(f"finite for {place}", float(len(bad)), 0.0, "quantities", ", ".join(bad)))
    # one line for each place, whatever the kinds of atoms
    worst = {check.claim: check for check in sorted(checks, key=lambda check: check.error)}
    return [worst[claim] for claim in dict.fromkeys(check.claim for check in checks)]


def cutoff_smoothness(potential: Potential, structure: Structure) -> str:
    """What jumps where the interaction of two atoms ends: energy, force, second derivative, or none of these.

    Relaxed states need a continuous force, their derivatives a continuous second derivative.
    """
    if np.isinf(float(potential.cutoff)):
        return "there is none"
    if not potential.local:
        return "not looked at, as the interaction does not end there"
    still = filled(potential, 0.0)
    along = jnp.asarray(np.eye(1, 9, 3).reshape(3, 3))
    jumps = set()
    for kinds in _kinds(potential, structure):
        end = _range(potential, kinds)

        def dimer(r: float, kinds: tuple[int, int, int] = kinds) -> np.ndarray:
            far = 9 * float(potential.cutoff)
            trio = _three(potential, kinds, [[0, 0, 0], [r, 0, 0], [0, far, 0]])
            found = probe(potential, *trio, along, still)
            energy, force = float(found.energy), float(found.forces[1, 0])
            return np.array([energy, -force, float(found.product[1, 0])])

        alone = dimer(1.5 * end)
        inner = [np.abs(dimer(part * end) - alone) for part in (0.5, 0.65, 0.8, 0.95)]
        sizes = np.max(inner, axis=0)
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
