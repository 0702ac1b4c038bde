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
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from mdsens.batching import AT_ONCE
from mdsens.checks import instance, nearest
from mdsens.errors import InputError
from mdsens.neighbors import Neighbors
from mdsens.structure import Structure


def parameter(
    unit: str,
    *,
    lower: float = -np.inf,
    upper: float = np.inf,
    per: str | None = "pair",
    axes: Sequence[str] = (),
    text: str = "",
    default: Any = dataclasses.MISSING,
) -> Any:
    """Declare a parameter of a potential.

    A parameter has one entry for each of its labels (species, pairs, ...), and an entry is a number, or an
    array with the axes named here: `rho = parameter("1", per="species", axes=("knot",))` has the shape
    (species, knot) and numbers called "rho[Cu][17]"; for one species, without labels, (knot,) and "rho[17]".

    Args:
        unit: "eV", "Å", ... or "1".
        lower, upper: open interval outside which the form has no meaning.
        per: what an entry belongs to when there are several species: "species", "pair" (unordered),
            "ordered pair" (center first), "triple" (center, then an unordered pair), "ordered triple", or
            None (one entry for all species).
        axes: names of the axes that each entry has. Axes of the same name have the same length; an axis
            named like a static field of the form has the length that the field says.
        text: one line for tables.
        default: its value where none is given, or None for a form that then does without.
    """
    metadata = {"unit": unit, "lower": lower, "upper": upper, "per": per, "axes": tuple(axes), "text": text}

    def converter(value: Any) -> Array | None:
        return None if value is None is default else _as_floats(value, text or "a parameter", unit)

    given = {} if default is dataclasses.MISSING else {"default": default}
    return eqx.field(converter=converter, metadata=metadata, **given)


def _as_floats(value: Any, what: str, unit: str) -> Array:
    # A parameter given as an integer (q = 0) is a number like any other: kept as one, JAX would not
    # differentiate it.
    try:
        array = jnp.asarray(value)
        kind = np.dtype(array.dtype).kind
    except (TypeError, ValueError):  # None, a text, a ragged list
        kind = ""
    if not kind or kind not in "iuf":
        raise InputError(f"{what} = {value!r}: give a real number, or an array of them, in the unit {unit}.")
    return jnp.asarray(value, float)


# Forms defined outside mdsens, by the name of the class: a file of parameters may name them too.
USER_FORMS: "dict[str, type[Potential]]" = {}


class HessianBlocks(NamedTuple):
    """d²E/dx_i dx_j, eV/Å²: 3 x 3 blocks at pairs (i, j) in both orders. Blocks at one place add up."""

    i: Int[np.ndarray, "entries"]
    j: Int[np.ndarray, "entries"]
    blocks: Float[np.ndarray, "entries 3 3"]


class Potential(eqx.Module):
    """Base of all potentials.

    A form gives `cutoff` and `energy`, and says what is not as usual about itself:

        local: atoms farther apart than `ranges` feel nothing of each other. A form with interactions that no
            list holds (Coulomb sums, all pairs of a cluster) sets `local = False`.
        twice_differentiable: JAX can differentiate the energy twice. A form that knows its forces only
            (another program behind `jax.pure_callback`) sets it False: it relaxes by its forces alone.

        knows_atoms: it was made for particular atoms in one order, such as those of a molecule.
        knows_cell: it was made for a particular cell and its strains, and supercells need another.

        by_differences: second derivatives are differences of forces; `curvature_error` says how good.
        heavy: a derivative takes so much memory that directions are worked off one after another.
        columns: names of the numbers of each atom that it takes from `Structure.columns`.
        ghosts: the form may be given a structure with ghosts (see `mdsens.ghosts`): they have no neighbors,
            and `Structure.real` is False for them. The form must give them no energy. Then structures of
            different sizes share what is compiled; else (False) each number of atoms is compiled for. A class
            that defines `energy` says it anew.

    A form that brings its own product with the Hessian is twice differentiable: its gradient is a
    `jax.custom_jvp` whose rule is that product. All of mdsens then works, and calls the product.

        @jax.custom_jvp
        def energy(x): ...                      # eV; another program

        @energy.defjvp
        def _(x, dx): return energy(*x), jnp.sum(gradient(*x) * dx[0])

        @jax.custom_jvp
        def gradient(x): ...                    # eV/Å; another program

        @gradient.defjvp
        def _(x, dx): return gradient(*x), hessian_product(*x, dx[0])   # eV/Å

    Attributes:
        elements: chemical symbols the parameters are for, in their order; () if the form does not look at
            species.
        source: where the parameter values come from.
    """

    local: ClassVar[bool] = True
    twice_differentiable: ClassVar[bool] = True
    knows_atoms: ClassVar[bool] = False
    knows_cell: ClassVar[bool] = False
    by_differences: ClassVar[bool] = False
    heavy: ClassVar[bool] = False
    ghosts: ClassVar[bool] = False
    columns: ClassVar[tuple[str, ...]] = ()
    weighted_sum: ClassVar[Any]  # SumPotential, a Potential itself: set where it is defined
    elements: eqx.AbstractVar[tuple[str, ...]]
    source: eqx.AbstractVar[str]

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        own = vars(cls)
        if "energy" in own and "ghosts" not in own:
            # what holds for an energy says nothing about another one put in its place
            cls.ghosts = False
        if not cls.__module__.startswith("mdsens."):
            USER_FORMS[cls.__name__] = cls

    def __check_init__(self) -> None:
        self.check_species()

    @property
    def rows_at_once(self) -> int:
        """Numbers in rows that `map_rows` may differentiate at once: of a heavy form, one row at a time."""
        return 0 if self.heavy else AT_ONCE

    @property
    @abstractmethod
    def cutoff(self) -> Float[Array, ""]:
        """Radius of the neighbor list that `energy` needs, Å; may depend on the parameters. Inf: all pairs.

        It says nothing about what happens beyond: that is `local`.
        """

    def bytes_per_pair(self) -> float:
        """Memory that energy and forces take of each pair of atoms, beside that of the list, bytes.

        Asked for of heavy forms: no list is made of more pairs than the memory holds.
        """
        return 0.0

    @property
    def shortest_wave(self) -> float:
        """Length of the shortest wave of a periodic cell that `energy` sums over, Å; inf: it uses none.

        `neighbors_of` puts all longer ones into `Neighbors.waves`.
        """
        return np.inf

    @abstractmethod
    def energy(self, structure: Structure, neighbors: Neighbors) -> Float[Array, ""]:
        """Potential energy, eV."""

    def ranges(self, structure: Structure, neighbors: Neighbors) -> Float[Array, "pairs"] | Float[Array, ""]:
        """Distance below which two listed atoms interact, Å: one for all, or one a pair if species differ."""
        return self.cutoff

    def contacts(self, structure: Structure, neighbors: Neighbors) -> Bool[Array, "atoms"]:
        """True for each atom that interacts with something; the others are rattlers without derivative.

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

    def hessian_blocks(self, structure: Structure, neighbors: Neighbors) -> HessianBlocks | None:
        """The Hessian w.r.t. the positions, written down block by block, on the host; cell held.

        None where that does not pay, or the form does not know how: then its products serve.

        Args:
            neighbors: a list for this structure without skin.
        """
        return None

    def curvature_error(self, structure: Structure, dx: Any, dcell: Any) -> float:
        """How far the curvature of the energy along a direction may be off, eV/Å²; 0 unless by differences.

        Args:
            dx, dcell: (atoms, 3) and (3, 3), the direction.
        """
        return 0.0

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
        self.check_species()
        lengths: dict[str, int] = {}
        for name in self.parameter_fields():
            self._check_shape(name, lengths)

    def _check_shape(self, name: str, lengths: dict[str, int]) -> None:
        labels, axes, shape = self.labels(name), self.axes(name), jnp.shape(getattr(self, name))
        own = shape[1:] if labels else shape  # of one entry
        if len(own) != len(axes) or (labels and shape[:1] != (len(labels),)):
            raise InputError(f"{name} has shape {shape}; {_shape_wanted(self.elements, labels, axes)}")
        for axis, length in zip(axes, own, strict=True):
            stated = getattr(self, axis, None)
            fixed = isinstance(stated, int)
            wanted = stated if fixed else lengths.setdefault(axis, length)
            if length != wanted:
                raise InputError(
                    f"{name} has shape {shape}: its axis '{axis}' has the length {length} and must have "
                    f"{wanted}, as {f'the field {axis} says' if fixed else 'another parameter has'}."
                )

    def check_species(self) -> None:
        """Raise unless `elements` is a tuple of chemical symbols, each once.

        Raises:
            InputError: says what stands there.
        """
        from ase.data import atomic_numbers

        elements: Any = self.elements
        if not isinstance(elements, tuple) or not all(isinstance(e, str) for e in elements):
            raise InputError(
                f"elements = {elements!r}: give a tuple of chemical symbols, such as ('Ni', 'Cu')."
            )
        for symbol in elements:
            if symbol not in atomic_numbers:
                raise InputError(
                    f"elements = {elements}: '{symbol}' is no chemical symbol."
                    f"{nearest(symbol, atomic_numbers)} Model particles borrow the symbol of any element."
                )
        if len(set(elements)) < len(elements):
            raise InputError(f"elements = {elements} names one twice: name each once.")

    def __add__(self, other: "Potential") -> "Potential":
        """The sum of two potentials, a `SumPotential`."""
        if not isinstance(other, Potential):
            return NotImplemented
        return self.weighted_sum((self, other), (1.0, 1.0))

    def __rmul__(self, weight: float) -> "Potential":
        """A multiple of a potential, a `SumPotential` with one part."""
        return self.weighted_sum((self,), (weight,))

    def types(self, structure: Structure) -> Int[Array, "atoms"]:
        """Index into `elements` for each atom."""
        return jnp.asarray(_type_table(self.elements))[structure.species]

    def pair_index(self, structure: Structure, neighbors: Neighbors) -> Int[Array, "pairs"] | None:
        """Place of each listed pair among the unordered pairs of species; None if there is one species."""
        if len(self.elements) <= 1:
            return None
        types = self.types(structure)
        return jnp.asarray(pair_table(len(self.elements)))[types[neighbors.i], types[neighbors.j]]

    # --- parameters: what is declared

    @classmethod
    def parameter_fields(cls) -> tuple[str, ...]:
        """Names of the fields that are parameters, as declared."""
        return tuple(f.name for f in dataclasses.fields(cls) if "unit" in f.metadata)

    @classmethod
    def axes(cls, field: str) -> tuple[str, ...]:
        """Names of the axes that each entry of a parameter has; () if an entry is a number."""
        return _metadata(cls, field)["axes"]

    @classmethod
    def belongs_to(cls, field: str, settings: Mapping[str, Any]) -> str | None:
        """What an entry of a parameter belongs to (see `parameter`), as declared or as the settings say.

        Args:
            settings: the static fields by name; those left at their defaults may be missing.
        """
        return _metadata(cls, field)["per"]

    @classmethod
    def labels_for(
        cls, field: str, elements: tuple[str, ...], settings: Mapping[str, Any]
    ) -> tuple[str, ...]:
        """Names of the entries of a parameter for these elements, e.g. ("Ni-Ni", "Ni-Cu", "Cu-Cu").

        () where there is one entry: for one species, or for a parameter that all species share.
        """
        per = cls.belongs_to(field, settings)
        return () if per is None or len(elements) == 1 else entry_labels(elements, per)

    def labels(self, field: str) -> tuple[str, ...]:
        """Names of the entries of one parameter of this potential: `labels_for` its elements and settings."""
        fields = (f.name for f in dataclasses.fields(self) if "unit" not in f.metadata)
        return self.labels_for(field, self.elements, {name: getattr(self, name) for name in fields})


def _metadata(form: type[Potential], field: str) -> Mapping[str, Any]:
    declared = {f.name: f.metadata for f in dataclasses.fields(form)}[field]
    return {"per": None, "axes": (), **declared}


def _shape_wanted(elements: tuple[str, ...], labels: tuple[str, ...], axes: tuple[str, ...]) -> str:
    who = f"species {', '.join(elements)} need" if elements else "it must have"
    order = f", in the order {', '.join(labels)}" if labels else ""
    if axes:
        shape = ", ".join([*([str(len(labels))] if labels else []), *axes])
        return f"{who} an array ({shape}){order}."
    return f"{who} {len(labels)} values{order}." if labels else f"{who} a single number."


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
        case "ordered triple":
            return tuple("-".join(triple) for triple in itertools.product(elements, repeat=3))
    raise InputError(
        f"per = {per!r} is unknown: a parameter belongs to a 'species', 'pair', 'ordered pair', 'triple' or "
        "'ordered triple', or to None of them."
    )


def pair_table(n_species: int) -> np.ndarray:
    """(species, species) index of each unordered pair, in the order of `entry_labels`."""
    table = np.zeros((n_species, n_species), np.int32)
    for k, (a, b) in enumerate(itertools.combinations_with_replacement(range(n_species), 2)):
        table[a, b] = table[b, a] = k
    return table


def entry(values: Float[Array, "..."], pair: Int[Array, "..."] | None) -> Float[Array, "..."]:
    """The entries of a parameter for some pairs (see `Potential.pair_index`)."""
    return values if pair is None else values[pair]


def _type_table(elements: tuple[str, ...]) -> np.ndarray:
    from ase.data import atomic_numbers

    table = np.zeros(119, np.int32)
    for k, symbol in enumerate(elements):
        table[atomic_numbers[symbol]] = k
    return table


def check_elements(potential: Potential, structure: Structure) -> None:
    """Raise unless the potential has parameters for every atom, and can describe the structure otherwise.

    Raises:
        InputError: names the elements that have none and those that have, or a column that is missing.
    """
    potential.check_structure(structure)
    _check_columns(potential, structure)
    if not potential.elements:
        return  # the form does not look at species
    if unknown := sorted(set(structure.symbols) - set(potential.elements)):
        raise InputError(
            f"{type(potential).__name__} has no parameters for {', '.join(unknown)}; it knows "
            f"{', '.join(potential.elements)}. Use another parameter set (`mdsens potentials` lists them) or "
            "change the species of the structure."
        )


def _check_columns(potential: Potential, structure: Structure) -> None:
    for name in potential.columns:
        if name not in structure.columns:
            there = ", ".join(structure.columns) or "none"
            raise InputError(
                f"{type(potential).__name__} takes '{name}' of each atom from the structure, whose columns "
                f"are: {there}. Give Structure.create(..., columns={{'{name}': [...]}}), or take it over "
                f"with Structure.from_ase(atoms, columns=['{name}'])."
            )


def require_potential(value: Any, name: str = "potential") -> Potential:
    """The value, if it is a `Potential`.

    Raises:
        InputError: it is a name, a path or something else; says the call to write.
    """
    hint = "Write ms.load_potential(name_or_path), or build one, such as ms.LennardJones(...)."
    return instance(name, value, Potential, hint)
