"""What a potential is: a pytree whose floating array leaves are its parameters.

A form declares each parameter as a field, `epsilon: Array = parameter("eV", lower=0.0)`, with the unit and
the bounds within which the form makes sense. Units, bounds, element names and the source are static: they
never meet JAX.
Parameters get flat names for tables and files: "epsilon" for one species, "epsilon[Ni-Cu]" for a pair of
several.

Functional forms are classes here in mdsens/potentials; parameter sets, which are data, are the files of
potentials/.
"""

import dataclasses
import itertools
from abc import abstractmethod
from typing import Any, ClassVar

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from mdsens.errors import InputError
from mdsens.neighbors import Neighbors
from mdsens.structure import Structure


def parameter(
    unit: str, *, lower: float = -np.inf, upper: float = np.inf, per: str = "pair", text: str = ""
) -> Any:
    """Declare a parameter of a potential.

    Args:
        unit: "eV", "Å", ... or "1".
        lower, upper: open interval outside which the form has no meaning.
        per: what an entry belongs to when there are several species: "species", "pair" (unordered),
            "ordered pair" (center first) or "triple" (center, then an unordered pair).
        text: one line for tables.
    """
    return eqx.field(
        converter=_as_floats,
        metadata={"unit": unit, "lower": lower, "upper": upper, "per": per, "text": text},
    )


def _as_floats(value: Any) -> Array:
    # A parameter given as an integer (q = 0) is a number like any other: kept as one, JAX would not
    # differentiate it.
    return jnp.asarray(value, float)


class Potential(eqx.Module):
    """Base of all potentials.

    A form gives `cutoff` and `energy`, and says two things about itself where they are not as usual:

        local: atoms farther apart than `ranges` feel nothing of each other. A form with interactions that no
            list holds (Coulomb sums, all pairs of a cluster) sets `local = False`.
        twice_differentiable: JAX can differentiate the energy twice.

    Attributes:
        elements: chemical symbols the parameters are for, in their order; () if the form does not look at
            species.
        source: where the parameter values come from.
    """

    local: ClassVar[bool] = True
    twice_differentiable: ClassVar[bool] = True
    elements: eqx.AbstractVar[tuple[str, ...]]
    source: eqx.AbstractVar[str]

    @property
    @abstractmethod
    def cutoff(self) -> Float[Array, ""]:
        """Radius of the neighbor list that `energy` needs, Å; may depend on the parameters. Inf: all pairs.

        It says nothing about what happens beyond: that is `local`.
        """

    @abstractmethod
    def energy(self, structure: Structure, neighbors: Neighbors) -> Float[Array, ""]:
        """Potential energy, eV."""

    def ranges(self, structure: Structure, neighbors: Neighbors) -> Float[Array, "pairs"] | Float[Array, ""]:
        """Distance below which two listed atoms interact, Å: the cutoff, or one a pair where species differ in size."""
        return self.cutoff

    def contacts(self, structure: Structure, neighbors: Neighbors) -> Bool[Array, "atoms"]:
        """True for each atom that interacts with something; the others are rattlers, which have no derivative.

        By default an atom interacts if the form is not local, or if a listed pair of it lies within `ranges`.
        """
        if not self.local:
            return jnp.ones(structure.n_atoms, bool)
        distance = jnp.sqrt(jnp.sum(neighbors.vectors(structure) ** 2, axis=-1))
        return neighbors.atoms_of(distance < self.ranges(structure, neighbors))

    def site_energies(self, structure: Structure, neighbors: Neighbors) -> Float[Array, "atoms"]:
        """Energy of each atom, eV; they sum to `energy`. Forms without a natural share do not have it."""
        raise InputError(
            f"{type(self).__name__} has no per-atom energies: the form does not share its energy among atoms."
        )

    def check_structure(self, structure: Structure) -> None:
        """Raise if this form cannot describe this structure: for forms with limits of their own.

        Raises:
            InputError: says what the structure has that the form cannot deal with.
        """

    def check_shapes(self) -> None:
        """Raise unless every parameter has one entry for each of its labels: for `__check_init__`.

        Raises:
            InputError: names the parameter and the order in which its values are expected.
        """
        for name in self.parameter_fields():
            labels = self.labels(name)
            shape = jnp.shape(getattr(self, name))
            if shape != ((len(labels),) if labels else ()):
                raise InputError(
                    f"{name} has shape {shape}; species {', '.join(self.elements)} need "
                    + (
                        f"{len(labels)} values, in the order {', '.join(labels)}."
                        if labels
                        else "a single number."
                    )
                )

    def types(self, structure: Structure) -> Int[Array, "atoms"]:
        """Index into `elements` for each atom."""
        return jnp.asarray(_type_table(self.elements))[structure.species]

    @classmethod
    def parameter_fields(cls) -> tuple[str, ...]:
        """Names of the fields that are parameters, as declared."""
        return tuple(f.name for f in dataclasses.fields(cls) if "unit" in f.metadata)

    def labels(self, field: str) -> tuple[str, ...]:
        """Names of the entries of one parameter array, e.g. ("Ni-Ni", "Ni-Cu", "Cu-Cu"); () for a single number."""
        per = {f.name: f for f in dataclasses.fields(self)}[field].metadata["per"]
        return () if len(self.elements) == 1 else entry_labels(self.elements, per)


def entry_labels(elements: tuple[str, ...], per: str) -> tuple[str, ...]:
    """Order in which a parameter array lists its entries."""
    pairs = list(itertools.combinations_with_replacement(elements, 2))
    match per:
        case "species":
            return elements
        case "pair":
            return tuple(f"{a}-{b}" for a, b in pairs)
        case "ordered pair":
            return tuple(f"{a}-{b}" for a in elements for b in elements)
        case "triple":
            return tuple(f"{c}-{a}-{b}" for c in elements for a, b in pairs)
    raise ValueError(per)


def pair_table(n_species: int) -> np.ndarray:
    """(species, species) index of each unordered pair, in the order of `entry_labels`."""
    table = np.zeros((n_species, n_species), np.int32)
    for k, (a, b) in enumerate(itertools.combinations_with_replacement(range(n_species), 2)):
        table[a, b] = table[b, a] = k
    return table


def _type_table(elements: tuple[str, ...]) -> np.ndarray:
    from ase.data import atomic_numbers

    table = np.zeros(119, np.int32)
    for k, symbol in enumerate(elements):
        table[atomic_numbers[symbol]] = k
    return table


def check_elements(potential: Potential, structure: Structure) -> None:
    """Raise unless the potential has parameters for every atom, and can describe the structure otherwise.

    Raises:
        InputError: names the elements that have none and those that have.
    """
    potential.check_structure(structure)
    if not potential.elements:
        return  # the form does not look at species
    if unknown := sorted(set(structure.symbols) - set(potential.elements)):
        raise InputError(
            f"{type(potential).__name__} has no parameters for {', '.join(unknown)}; it knows "
            f"{', '.join(potential.elements)}. "
            "Use another parameter set (`mdsens potentials` lists them) or change the species of the "
            "structure."
        )
