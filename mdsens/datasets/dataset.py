"""Structures with labels: energies, forces and stresses that something else computed, to be fitted or tested.

A label that is missing is None, and never a number: every sum over a data set knows what it sums over.
Energies are in eV, forces in eV/Å, stresses in eV/Å³ and positive in tension.
"""

import dataclasses
import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Self, overload

import numpy as np
from jaxtyping import Bool, Float

from mdsens.checks import instance, nearest, number
from mdsens.errors import InputError
from mdsens.strain import VOIGT
from mdsens.structure import Structure, require_structure


class LabelWeights(NamedTuple):
    """How much the labels of one structure count in a fit, relative to those of the others."""

    energy: float = 1.0
    forces: float = 1.0
    stress: float = 1.0


class LabelledStructure(NamedTuple):
    """A structure with what is known of it.

    Attributes:
        structure: atoms and cell.
        energy: eV; None if it is not known.
        forces: eV/Å; None if they are not known.
        stress: eV/Å³, positive in tension; None if it is not known.
        known: atoms whose forces are known; None if all are, or none is.
        weights: of the labels in a fit.
        group: to which part of the data it belongs ("bulk", "surface", ...); may be empty.
        origin: file and frame; may be empty.
    """

    structure: Structure
    energy: float | None = None
    forces: Float[np.ndarray, "atoms 3"] | None = None
    stress: Float[np.ndarray, "3 3"] | None = None
    known: Bool[np.ndarray, " atoms"] | None = None
    weights: LabelWeights = LabelWeights()
    group: str = ""
    origin: str = ""

    @property
    def name(self) -> str:
        """What to call it in a message."""
        return self.origin or f"a structure of {self.structure.n_atoms} atoms"

    def place(self) -> bytes:
        """Atoms and cell as bytes, positions to 1e-5 Å: also equal after a file has rounded them."""
        s = self.structure
        rounded = lambda array: np.round(np.asarray(array), 5) + 0.0  # no -0
        parts = (rounded(s.positions), rounded(s.cell), s.species, s.pbc)
        return b"|".join(np.asarray(part).tobytes() for part in parts)

    def content(self) -> bytes:
        """Atoms, cell and labels as bytes: equal for equal entries, whatever their group and origin."""
        s = self.structure
        parts = [s.positions, s.cell, s.species, s.pbc]
        parts += [self.energy, self.forces, self.stress, self.known]
        parts += [] if s.charges is None else [s.charges]
        parts += s.columns.values()
        arrays = (np.asarray(np.nan if part is None else part) for part in parts)
        return b"|".join(np.ascontiguousarray(array).tobytes() for array in arrays)


class LabelCounts(NamedTuple):
    """How many labels of each kind there are.

    Attributes:
        structures, atoms: in all.
        energies, stresses: structures that have one.
        forces: structures in which at least one force is known.
        atoms_with_forces: atoms whose force is known.
    """

    structures: int
    atoms: int
    energies: int
    forces: int
    atoms_with_forces: int
    stresses: int


@dataclasses.dataclass(frozen=True)
class Dataset:
    """Labelled structures of any sizes, cells and compositions.

    `Dataset.create` makes one out of arrays, `read_dataset` out of a file. Entries are taken by index,
    slice or list (`data[:10]`, `data[[0, 7]]`), data sets are joined by +.
    """

    entries: tuple[LabelledStructure, ...]

    def __post_init__(self) -> None:
        for k, entry in enumerate(self.entries):
            instance(f"entries[{k}]", entry, LabelledStructure, "Dataset.create makes them out of arrays.")

    @classmethod
    def create(
        cls,
        structures: Sequence[Structure],
        energies: Any = None,
        forces: Any = None,
        stresses: Any = None,
        *,
        group: str = "",
    ) -> Self:
        """Out of structures and their labels; each may be left out, and be None for single structures.

        Args:
            energies: one for each structure, eV.
            forces: (atoms, 3) for each, eV/Å.
            stresses: (3, 3), or (6,) as xx yy zz yz xz xy, for each, eV/Å³, positive in tension.
            group: of all of them.
        Raises:
            InputError: another number of labels than structures, wrong shapes, labels that are not finite, a
                stress without a volume.
        """
        n = len(structures)
        labels = {"energies": energies, "forces": forces, "stresses": stresses}
        columns = [_column(name, values, n) for name, values in labels.items()]
        entries = []
        for k, row in enumerate(zip(structures, *columns, strict=True)):
            entries.append(labelled(*row, group=group, origin=f"structure {k}"))
        return cls(tuple(entries))

    def __len__(self) -> int:
        return len(self.entries)

    def __iter__(self) -> Iterator[LabelledStructure]:
        return iter(self.entries)

    @overload
    def __getitem__(self, which: int | np.integer) -> LabelledStructure: ...
    @overload
    def __getitem__(self, which: slice | Sequence[int] | np.ndarray) -> "Dataset": ...
    def __getitem__(self, which: Any) -> Any:
        if isinstance(which, int | np.integer):
            return self.entries[int(which)]
        if isinstance(which, slice):
            return Dataset(self.entries[which])
        rows = np.asarray(which)
        rows = np.flatnonzero(rows) if rows.dtype == bool else rows
        return Dataset(tuple(self.entries[int(k)] for k in rows))

    def __add__(self, other: "Dataset") -> "Dataset":
        return Dataset(self.entries + instance("other", other, Dataset, "Join data sets with +.").entries)

    def without(self, which: Iterable[int]) -> "Dataset":
        """All but some entries: outliers, say."""
        left_out = {int(k) for k in which}
        kept = [entry for k, entry in enumerate(self.entries) if k not in left_out]
        return Dataset(tuple(kept))

    @property
    def structures(self) -> list[Structure]:
        """The structures alone."""
        return [entry.structure for entry in self.entries]

    @property
    def elements(self) -> tuple[str, ...]:
        """Chemical symbols that occur, by atomic number."""
        from ase.data import chemical_symbols

        numbers: set[int] = set()
        for structure in self.structures:
            numbers.update(np.unique(structure.species).tolist())
        return tuple(chemical_symbols[z] for z in sorted(numbers))

    @property
    def groups(self) -> tuple[str, ...]:
        """Names of the groups, in the order in which they come."""
        return tuple(dict.fromkeys(entry.group for entry in self.entries))

    def counts(self) -> LabelCounts:
        """How many labels there are."""
        per_atom = [_known_forces(entry) for entry in self.entries]
        return LabelCounts(
            structures=len(self.entries),
            atoms=sum(entry.structure.n_atoms for entry in self.entries),
            energies=sum(entry.energy is not None for entry in self.entries),
            forces=sum(n > 0 for n in per_atom),
            atoms_with_forces=sum(per_atom),
            stresses=sum(entry.stress is not None for entry in self.entries),
        )

    def compositions(self) -> np.ndarray:
        """(structures, elements) how many atoms of each of `elements` there are."""
        from ase.data import atomic_numbers

        numbers = [atomic_numbers[symbol] for symbol in self.elements]
        count = lambda structure, z: int(np.sum(np.asarray(structure.species) == z))
        rows = [[count(structure, z) for z in numbers] for structure in self.structures]
        return np.array(rows, float).reshape(len(self), len(numbers))

    def weighted(self, weights: Mapping[str, Any]) -> "Dataset":
        """With other weights of whole groups: {"surface": 2.0}, or {"bulk": LabelWeights(forces=0.1)}.

        Raises:
            InputError: a group that is not there, or a weight that is negative.
        """
        for name in weights:
            if name not in self.groups:
                there = ", ".join(map(repr, self.groups))
                hint = nearest(name, self.groups)
                raise InputError(f"no group is called '{name}'.{hint} There are {there}.")
        chosen = {name: as_weights(value, f"group '{name}'") for name, value in weights.items()}
        weighted = lambda entry: entry._replace(weights=chosen.get(entry.group, entry.weights))
        return Dataset(tuple(weighted(entry) for entry in self.entries))

    def fingerprint(self) -> str:
        """A text that is the same for the same entries in the same order, and for no others."""
        digest = hashlib.sha256()
        for entry in self.entries:
            digest.update(entry.content())
            digest.update(repr((entry.weights, entry.group)).encode())
        return digest.hexdigest()


def labelled(
    structure: Structure,
    energy: Any = None,
    forces: Any = None,
    stress: Any = None,
    *,
    known: Any = None,
    weights: Any = None,
    group: str = "",
    origin: str = "",
) -> LabelledStructure:
    """One entry of a data set, its labels checked. Arguments as the attributes of `LabelledStructure`.

    Raises:
        InputError: a label of another shape, or not finite; a stress without a volume; a negative weight.
    """
    require_structure(structure)
    n, where = structure.n_atoms, origin or "the structure"
    return LabelledStructure(
        structure=structure,
        energy=None if energy is None else number(f"the energy of {where}", energy, "eV"),
        forces=_forces(forces, known, n, where),
        stress=_stress(stress, structure, where),
        known=None if forces is None else _known(known, n, where),
        weights=as_weights(weights, where),
        group=group,
        origin=origin,
    )


def as_weights(value: Any, where: str) -> LabelWeights:
    """Weights out of one number for all labels, or out of three.

    Raises:
        InputError: one is negative, or no number.
    """
    if value is None:
        return LabelWeights()
    several = isinstance(value, tuple | list | np.ndarray)
    parts = tuple(value) if several else (value,) * 3
    if len(parts) != 3:
        raise InputError(f"weights of {where} = {value}: give one number, or three: energy, forces, stress.")
    weight = lambda name, x: number(f"weight of the {name} of {where}", x, at_least=0.0)
    return LabelWeights(*map(weight, LabelWeights._fields, parts))


def _column(name: str, values: Any, n: int) -> list[Any]:
    if values is None:
        return [None] * n
    if len(values) != n:
        raise InputError(
            f"{len(values)} {name} for {n} structures: give one for each, None where it is not known."
        )
    return list(values)


def _known(known: Any, n: int, where: str) -> np.ndarray | None:
    if known is None:
        return None
    mask = np.asarray(known)
    if mask.shape != (n,) or mask.dtype != bool:
        raise InputError(f"the mask of known forces of {where} has shape {mask.shape}: give ({n},) of bool.")
    return None if mask.all() else mask


def _forces(value: Any, known: Any, n: int, where: str) -> np.ndarray | None:
    if value is None:
        return None
    forces = np.array(value, float)
    if forces.shape != (n, 3):
        raise InputError(f"the forces of {where} have shape {forces.shape}: {n} atoms need ({n}, 3).")
    mask = _known(known, n, where)
    if mask is not None:
        forces[~mask] = 0.0
    if not np.isfinite(forces).all():
        atom = int(np.argmin(np.isfinite(forces).all(1)))
        raise InputError(
            f"the force on atom {atom} of {where} is {forces[atom]}: labels must be finite. Leave the label "
            "out (None), or say with known= which forces count."
        )
    return forces


def _stress(value: Any, structure: Structure, where: str) -> np.ndarray | None:
    if value is None:
        return None
    stress = np.array(value, float)
    stress = tensor_of(stress) if stress.shape == (6,) else stress
    if stress.shape != (3, 3):
        raise InputError(
            f"the stress of {where} has shape {stress.shape}: give (3, 3), or (6,) in Voigt order."
        )
    if not np.isfinite(stress).all():
        raise InputError(f"the stress of {where} is not finite: leave it out (None).")
    if not abs(np.linalg.det(np.asarray(structure.cell))) > 0:
        raise InputError(f"{where} has a stress and no volume: leave the stress out, or give the cell.")
    return stress


def tensor_of(voigt: Float[np.ndarray, "6"]) -> Float[np.ndarray, "3 3"]:
    """Symmetric tensor of six Voigt components, on the host: data sets have thousands."""
    tensor = np.zeros((3, 3))
    for value, (a, b) in zip(voigt, VOIGT, strict=True):
        tensor[a, b] = tensor[b, a] = value
    return tensor


def _known_forces(entry: LabelledStructure) -> int:
    if entry.forces is None:
        return 0
    return entry.structure.n_atoms if entry.known is None else int(entry.known.sum())
