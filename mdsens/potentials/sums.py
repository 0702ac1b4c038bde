"""Sums of potentials: E = sum_k w_k E_k, such as a short-range form and a correction to it.

Every part sees every atom and the one neighbor list, whose radius is the largest that a part needs. A part
masks by itself what lies beyond its own reach, as every potential does within the skin of a list.
"""

import functools
from collections import Counter
from typing import Any, Self

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from mdsens.checks import instance, number
from mdsens.errors import InputError
from mdsens.neighbors import Neighbors
from mdsens.potentials.base import HessianBlocks, Potential, check_elements
from mdsens.potentials.mapped import MappedPotential
from mdsens.structure import Structure


class SumPotential(Potential):
    """The weighted sum of potentials: `a + b`, `a + 0.5 * b`.

    Parameters are named by their part, "Morse.D0"; parts of one form are numbered, "Morse.2.D0".
    Every part must know every element: no part is taken for zero where it has no parameters, unless `mapped`
    says so. Parts that are
    sums themselves are taken apart, so that a sum of sums is one sum.

    Attributes:
        parts: the potentials.
        weights: factor of each, held fixed; all 1 by default.
    Raises:
        InputError: parts that have no element in common, a weight that is no number.
    """

    parts: tuple[Potential, ...] = eqx.field(metadata={"parts": True})
    weights: tuple[float, ...] = eqx.field(static=True)

    def __init__(self, parts: tuple[Potential, ...], weights: tuple[float, ...] | None = None):
        hint = "Write a + b, or SumPotential((a, b), (1.0, 0.5))."
        if not parts:
            raise InputError(f"a sum needs at least one potential. {hint}")
        weights = (1.0,) * len(parts) if weights is None else tuple(weights)
        if len(weights) != len(parts):
            raise InputError(f"{len(weights)} weights for {len(parts)} potentials: give one each. {hint}")
        flat: list[tuple[Potential, float]] = []
        for part, weight in zip(parts, weights, strict=True):
            instance("a part of a sum", part, Potential, hint)
            factor = number("the weight of a potential", weight)
            inner = [(part, 1.0)]
            if isinstance(part, SumPotential):
                inner = list(zip(part.parts, part.weights, strict=True))
            flat += [(p, factor * w) for p, w in inner]
        self.parts = tuple(part for part, _ in flat)
        self.weights = tuple(weight for _, weight in flat)

    def __check_init__(self) -> None:
        particular = [set(part.elements) for part in self.parts if part.elements]
        if particular and not set.intersection(*particular):
            in_words = lambda part: f"{type(part).__name__}: {', '.join(part.elements)}"
            lists = "; ".join(in_words(part) for part in self.parts if part.elements)
            raise InputError(
                f"the potentials have no element in common ({lists}). Every part of a sum must know "
                "every atom."
            )

    @classmethod
    def of(cls, *parts: Potential) -> Self:
        """The plain sum."""
        return cls(parts)

    @property
    def part_names(self) -> tuple[str, ...]:
        """Name of each part in the names of parameters: its form, with a number where a form occurs twice."""
        forms = [_form_of(part) for part in self.parts]
        count, seen, names = Counter(forms), Counter(), []
        for form in forms:
            seen[form] += 1
            number = f".{seen[form]}" if count[form] > 1 else ""
            names.append(form + number)
        return tuple(names)

    @property
    def elements(self) -> tuple[str, ...]:  # type: ignore[override]
        """Elements that every part knows; () if no part looks at species."""
        particular = [part.elements for part in self.parts if part.elements]
        common = set.intersection(*map(set, particular)) if particular else set()
        return tuple(e for e in particular[0] if e in common) if particular else ()

    @property
    def source(self) -> str:  # type: ignore[override]
        """The sources of all parts."""
        return "; ".join(dict.fromkeys(part.source for part in self.parts if part.source))

    @property
    def columns(self) -> tuple[str, ...]:  # type: ignore[override]
        """What the parts take from the structure."""
        return tuple(dict.fromkeys(name for part in self.parts for name in part.columns))

    @property
    def local(self) -> bool:  # type: ignore[override]
        """Whether all parts are."""
        return all(part.local for part in self.parts)

    @property
    def twice_differentiable(self) -> bool:  # type: ignore[override]
        """Whether all parts are."""
        return all(part.twice_differentiable for part in self.parts)

    @property
    def knows_atoms(self) -> bool:  # type: ignore[override]
        """Whether a part was made for particular atoms."""
        return any(part.knows_atoms for part in self.parts)

    @property
    def knows_cell(self) -> bool:  # type: ignore[override]
        """Whether a part was made for a particular cell."""
        return any(part.knows_cell for part in self.parts)

    @property
    def by_differences(self) -> bool:  # type: ignore[override]
        """Whether a part has its second derivatives so."""
        return any(part.by_differences for part in self.parts)

    @property
    def heavy(self) -> bool:  # type: ignore[override]
        """Whether a part is."""
        return any(part.heavy for part in self.parts)

    @property
    def ghosts(self) -> bool:  # type: ignore[override]
        """Whether all parts may meet ghosts."""
        return all(part.ghosts for part in self.parts)

    @property
    def cutoff(self) -> Float[Array, ""]:
        """The largest of all parts, Å."""
        return jnp.max(jnp.stack([part.cutoff for part in self.parts]))

    def bytes_per_pair(self) -> float:
        """Of the part that takes most."""
        return max(part.bytes_per_pair() for part in self.parts)

    @property
    def shortest_wave(self) -> float:
        """The shortest of all parts, Å."""
        return min(part.shortest_wave for part in self.parts)

    def energy(self, structure: Structure, neighbors: Neighbors) -> Float[Array, ""]:
        return self._total([part.energy(structure, neighbors) for part in self.parts])

    def site_energies(self, structure: Structure, neighbors: Neighbors) -> Float[Array, "atoms"]:
        """Energy of each atom, eV, if every part shares its energy among atoms."""
        return self._total([part.site_energies(structure, neighbors) for part in self.parts])

    def hessian_blocks(self, structure: Structure, neighbors: Neighbors) -> HessianBlocks | None:
        """Those of all parts, if all can write them down."""
        parts = []
        for weight, part in zip(self.weights, self.parts, strict=True):
            blocks = part.hessian_blocks(structure, neighbors)
            if blocks is None:
                return None
            parts.append(blocks._replace(blocks=weight * blocks.blocks))
        return HessianBlocks(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))

    def _total(self, terms: list[Any]) -> Any:
        return sum(weight * term for weight, term in zip(self.weights, terms, strict=True))

    def ranges(self, structure: Structure, neighbors: Neighbors) -> Float[Array, "pairs"] | Float[Array, ""]:
        """The largest of all parts for each pair, Å."""
        return functools.reduce(jnp.maximum, [part.ranges(structure, neighbors) for part in self.parts])

    def contacts(self, structure: Structure, neighbors: Neighbors) -> Bool[Array, "atoms"]:
        """True for each atom that interacts through any part."""
        return functools.reduce(jnp.logical_or, [p.contacts(structure, neighbors) for p in self.parts])

    def curvature_error(self, structure: Structure, dx: Any, dcell: Any) -> float:
        """The errors of all parts together, eV/Å²."""
        errors = [part.curvature_error(structure, dx, dcell) for part in self.parts]
        weighted = zip(self.weights, errors, strict=True)
        return sum(abs(weight) * error for weight, error in weighted)

    def check_structure(self, structure: Structure) -> None:
        """Raise if a part cannot describe this structure.

        Raises:
            InputError: the first part that cannot, and why.
        """
        for part in self.parts:
            part.check_structure(structure)
            try:
                check_elements(part, structure)
            except InputError as error:
                raise InputError(f"{error} (Every part of a sum must know every atom.)") from error


Potential.weighted_sum = SumPotential  # what `a + b` makes


def _form_of(part: Potential) -> str:
    """Name of the form, of that which is mapped where species are."""
    return type(part.part if isinstance(part, MappedPotential) else part).__name__
