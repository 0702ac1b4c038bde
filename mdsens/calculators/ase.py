"""Any potential of mdsens as an ASE calculator, for optimizers, molecular dynamics and scripts that exist."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from ase.calculators.calculator import Calculator, Parameters, all_changes
from ase.stress import full_3x3_to_voigt_6_stress
from jaxtyping import Array, Float

from mdsens.arrays import on_device
from mdsens.calculators.lists import RecentLists
from mdsens.checks import nearest, number
from mdsens.errors import InputError
from mdsens.ghosts import number_of_real, padded, without_ghosts
from mdsens.neighbors import Neighbors
from mdsens.observables.elastic import elastic_constants
from mdsens.potentials.base import Potential, check_elements
from mdsens.potentials.parameter_sets import load_potential
from mdsens.potentials.parameters import check_parameters, parameter_values, replace_parameters
from mdsens.precision import require_x64
from mdsens.quantities import EnergyForcesStress, check_finite, evaluate, neighbors_of
from mdsens.relaxation.equilibrium import default_skin
from mdsens.structure import Structure, arrays_named, volume
from mdsens.structure_arrays import ASE_CHARGES

if TYPE_CHECKING:
    from ase import Atoms

HESSIAN_LIMIT = 9000  # coordinates: the matrix then has 0.65 GB
AT_ONCE = 64  # rows of the Hessian
OTHERS = frozenset({"energies", "stresses", "hessian", "elastic_constants"})  # programs of their own
LASTING = frozenset({"stress", "energies"})  # asked for once, computed at once the next time


class MDSens(Calculator):
    """Energy, forces, stress, Hessian and elastic constants of a potential for ASE.

    Neighbor lists are kept with a skin, for the last few structures (images of a path share a calculator),
    and made anew only when they could miss a pair; their size is kept as well, so that nothing is compiled
    again while atoms and cell move. The potential may be replaced at any time: `calc.potential = ...`, or
    `calc.set(epsilon=0.011)` by the flat names of its parameters.

    Properties: energy and free_energy (eV) and forces (eV/Å), which come together; when asked for, stress
    (eV/Å³, Voigt xx yy zz yz xz xy, positive in tension; not for structures without volume), energies (eV)
    and stresses (atoms, 6) in eV/Å³, each atom's share, if the form shares its energy among atoms; hessian
    (3 atoms, 3 atoms) in eV/Å² and elastic_constants (6, 6) in eV/Å³. Stress and energies that were asked for
    are computed at once the next time the atoms have moved.
    Constraints are ASE's business: forces and Hessian are those of the potential.
    """

    def __init__(
        self,
        potential: Potential | str | Path,
        skin: float | None = None,
        *,
        properties: Sequence[str] = (),
        atoms: "Atoms | None" = None,
        directory: str | Path = ".",
        label: str | None = None,
    ):
        """Take a potential into use.

        Args:
            potential: any potential of mdsens, or what `load_potential` takes: the name of a parameter set,
                or a file.
            skin: extra reach of the neighbor list, Å; default a tenth of the cutoff.
            properties: of "stress" and "energies" those computed at every call, asked for or not: what reads
                `results` itself, or writes them to files, may want both.
            atoms: get this calculator at once.
            directory: as ASE has it; nothing is written there.
            label: as ASE has it.
        Raises:
            InputError: not a potential, parameters out of bounds, negative skin; later, an element without
            parameters.
            NonFiniteError: when computing: NaN positions, or atoms at the same place.
            PrecisionError: float64 is off, now or when computing.
        """
        require_x64()
        super().__init__(label=label, directory=str(directory))
        self.skin = _checked_skin(skin)
        self._structure: Structure | None = None
        self._lists = RecentLists()
        self._always = _checked_properties(properties)
        self._asked = self._asked_before = frozenset()
        self.potential = potential
        if atoms is not None:
            atoms.calc = self

    @property
    def _used_skin(self) -> float:
        return self._default_skin if self.skin is None else self.skin

    @property
    def potential(self) -> Potential:
        """The potential in use."""
        return self._potential

    @potential.setter
    def potential(self, potential: Potential | str | Path) -> None:
        potential = _as_potential(potential)
        check_parameters(potential)
        self._shares = type(potential).site_energies is not Potential.site_energies
        self.implemented_properties = [
            "energy",
            "free_energy",
            *(["energies", "stresses"] if self._shares else []),
            "forces",
            "stress",
            "hessian",
            "elastic_constants",
        ]
        self._potential = potential
        self._default_skin = default_skin(potential)
        self._elements_known = False
        self.parameters = Parameters(_described(potential), skin=self.skin)
        self.reset()

    def set(self, **changes: Any) -> dict[str, Any]:
        """Change parameters by their flat names, `potential` or `skin`; the next request is computed anew.

        Names that are no Python names go in as a dictionary: `calc.set(**{"epsilon[Ni-Cu]": 0.4})`.

        Returns:
            what is different now.
        Raises:
            InputError: a name that there is not, or a value out of bounds.
        """
        if not changes:
            return {}
        before = self.todict()
        potential = _as_potential(changes.pop("potential", self._potential))
        skin = _checked_skin(changes.pop("skin", self.skin))
        known = [*parameter_values(potential), "skin", "potential"]
        for name in changes:
            if name not in known:
                raise InputError(
                    f"MDSens has no parameter '{name}'.{nearest(name, known)} There are {', '.join(known)}."
                )
        replaced = replace_parameters(potential, changes)
        check_parameters(replaced)
        self.skin = skin
        self.potential = replaced
        self._lists.clear()
        after = self.todict()
        return {name: value for name, value in after.items() if before.get(name) != value}

    def __repr__(self) -> str:
        """Form, elements, values and skin."""
        values = [f"{name}={value:.8g}" for name, value in parameter_values(self._potential).items()]
        elements = ["-".join(self._potential.elements)] if self._potential.elements else []
        skin = "" if self.skin is None else f", skin={self.skin:g}"
        return f"MDSens({type(self._potential).__name__}({', '.join([*elements, *values])}){skin})"

    def __getstate__(self) -> dict[str, Any]:
        """Without lists and arrays that the next request makes again."""
        return {**self.__dict__, "_lists": RecentLists(), "_structure": None, "_elements_known": False}

    def calculate(
        self,
        atoms: "Atoms | None" = None,
        properties: Sequence[str] = ("energy",),
        system_changes: Sequence[str] = tuple(all_changes),
    ) -> None:
        """Fill `results`: energy and forces, what was asked for, and what was of the atoms before."""
        require_x64()
        known = {} if system_changes else self.results
        super().calculate(atoms, properties, system_changes)
        if self.atoms is None:
            raise InputError("MDSens has no atoms yet: pass them, or set atoms.calc to this calculator.")
        wanted = self._wanted(frozenset(properties), anew=not known)
        structure = self._take_over(self.atoms)
        stress = "stress" in wanted and _has_volume(structure)
        if not known or (stress and "stress" not in known):
            found, neighbors = self._evaluated(structure, stress)
            known = known | found
        else:
            neighbors = self._list_of(structure)
        self.results = known | self._others(wanted, structure, neighbors)

    def get_property(self, name: str, atoms: "Atoms | None" = None, allow_calculation: bool = True) -> Any:
        """As ASE has it; what is asked for is remembered, whether it was there or is computed."""
        found = super().get_property(name, atoms, allow_calculation)
        if allow_calculation:
            self._asked |= {name}
        return found

    def check_state(self, atoms: "Atoms", tol: float = 1e-15) -> list[str]:
        """What has changed since the last results, of what ASE looks at and of the potential's columns.

        To the last bit, whatever `tol` is: ASE asks three times a step of dynamics.
        """
        old = self.atoms
        if old is None:
            return list(all_changes)
        pairs: dict[str, tuple[Any, Any]] = {"pbc": (old.pbc, atoms.pbc)}
        pairs["cell"] = (old.cell.array, atoms.cell.array)
        for name in {*all_changes, *self._potential.columns} - set(pairs):
            pairs[name] = (old.arrays.get(name), atoms.arrays.get(name))
        return [name for name, pair in pairs.items() if not np.array_equal(*pair)]

    def _wanted(self, properties: frozenset[str], anew: bool) -> frozenset[str]:
        """What to compute. An optimizer of the cell asks for stresses at every step, others never do."""
        if anew:
            self._asked_before, self._asked = self._asked, frozenset()
        self._asked |= properties
        return self._always | properties | (self._asked_before & LASTING if anew else frozenset())

    def _evaluated(self, structure: Structure, stress: bool) -> tuple[dict[str, Any], Neighbors]:
        """Energy and forces, and the stress if it is wanted; with the list that they were computed with."""
        result, neighbors = self._evaluate(structure, stress)
        n = number_of_real(structure)
        energy = float(result.energy)
        forces = np.array(np.asarray(result.forces)[:n])
        if not (np.isfinite(energy) and np.isfinite(forces).all()):
            check_finite(result, _on_device(structure), neighbors)
        found = {"energy": energy, "free_energy": energy, "forces": forces}
        if stress:
            found["stress"] = full_3x3_to_voigt_6_stress(np.asarray(result.stress))
        return found, neighbors

    def _others(self, wanted: frozenset[str], structure: Structure, neighbors: Neighbors) -> dict[str, Any]:
        """What costs more than forces and is seldom asked for."""
        wanted = wanted & OTHERS
        if not wanted:
            return {}
        structure = _on_device(structure)
        given = self._potential, structure, neighbors
        n, found = number_of_real(structure), {}
        if "energies" in wanted and self._shares:
            found["energies"] = np.array(_site_energies(*given))[:n]
        if "stresses" in wanted and self._shares and _has_volume(structure):
            found["stresses"] = _stresses(*given)[:n]
        if "hessian" in wanted:
            found["hessian"] = _hessian(*given)
        if "elastic_constants" in wanted:
            found["elastic_constants"] = np.array(elastic_constants(self._potential, structure))
        return found

    def get_hessian(self, atoms: "Atoms | None" = None) -> Float[np.ndarray, "n n"]:
        """Second derivatives of the energy by all coordinates, x y z of the first atom first; eV/Å².

        Raises:
            InputError: more than HESSIAN_LIMIT coordinates.
        """
        return np.asarray(self.get_property("hessian", atoms))

    def get_elastic_constants(self, atoms: "Atoms | None" = None) -> Float[np.ndarray, "6 6"]:
        """Elastic constants of relaxed atoms, which relax under the strain; eV/Å³, Voigt xx yy zz yz xz xy.

        Raises:
            InputError: as `mdsens.observables.elastic_constants`.
        """
        return np.asarray(self.get_property("elastic_constants", atoms))

    def _take_over(self, atoms: "Atoms") -> Structure:
        # ASE's `system_changes` does not serve here: it is empty when the same atoms come again after an
        # error.
        old = self._structure
        if old is None or not _same_but_places(old, atoms):
            old = Structure.create(
                atoms.positions,
                atoms.numbers,
                atoms.cell.array,
                atoms.pbc,
                charges=atoms.arrays.get(ASE_CHARGES),
                columns=arrays_named(atoms, self._potential.columns),
            )
            self._elements_known = False
        if not self._elements_known:
            check_elements(self._potential, old)
            whole = jax.tree.map(on_device, old)  # the last call left its places on the host
            old = padded(self._potential, without_ghosts(whole))
            self._elements_known = True
        self._structure = _on_host(old, atoms)
        return self._structure

    def _evaluate(self, structure: Structure, stress: bool) -> tuple[EnergyForcesStress, Neighbors]:
        # Pairs do not depend on species: a list survives exchanges of atoms, and `slack` says for how long.
        kept = self._lists.nearest(structure, near_enough=self._used_skin / 4)
        if kept is not None:
            # In one call, for almost always the list still holds.
            result, slack = _evaluate_with_slack(self._potential, structure, kept, stress)
            if float(slack) >= 0:
                return result, kept
        new = self._new_list(structure)
        result, _ = _evaluate_with_slack(self._potential, structure, new, stress)
        return result, new

    def _list_of(self, structure: Structure) -> Neighbors:
        """A list that holds for atoms that did not move since the last call."""
        kept = self._lists.nearest(structure)
        return self._new_list(structure) if kept is None else kept

    def _new_list(self, structure: Structure) -> Neighbors:
        capacity = self._lists.capacity(structure)
        new = neighbors_of(self._potential, structure, self._used_skin, capacity)
        self._lists.add(structure, new)
        return new


def _as_potential(given: Any) -> Potential:
    """A potential, or the one that a name or file stands for."""
    potential = load_potential(given) if isinstance(given, (str, Path)) else given
    if not isinstance(potential, Potential):
        raise InputError(
            f"MDSens needs a potential of mdsens, not {type(potential).__name__}: "
            "mdsens.load_potential(name or file) gives one."
        )
    return potential


def _checked_skin(skin: Any) -> float | None:
    return None if skin is None else number("skin", skin, "Å", at_least=0.0)


def _on_host(old: Structure, atoms: "Atoms") -> Structure:
    """The atoms where they are now, as numbers of the host: the compiled call takes them over by itself."""
    ghosts = np.asarray(old.positions)[len(atoms) :]
    places = np.concatenate([atoms.positions, ghosts]), np.array(atoms.cell.array)
    return eqx.tree_at(lambda structure: (structure.positions, structure.cell), old, places)


def _on_device(structure: Structure) -> Structure:
    return structure.at(on_device(structure.positions), on_device(structure.cell))


def _has_volume(structure: Structure) -> bool:
    return bool(np.any(np.asarray(structure.cell), axis=1).all())


def _checked_properties(properties: Any) -> frozenset[str]:
    names = [properties] if isinstance(properties, str) else list(properties)
    for name in names:
        if name not in LASTING:
            raise InputError(
                f"properties has '{name}'.{nearest(str(name), LASTING)} It says which of 'energies' and "
                "'stress' are computed at every call; the others come when they are asked for."
            )
    return frozenset(names)


def _same_but_places(old: Structure, atoms: "Atoms") -> bool:
    """The same atoms, periodic along the same of the vectors that are there."""
    n = number_of_real(old)
    if (n, old.pbc) != (len(atoms), tuple(atoms.pbc)):
        return False
    same_species = np.array_equal(np.asarray(old.species)[:n], atoms.numbers)
    there = np.any(atoms.cell.array, 1)
    same_vectors = np.array_equal(np.any(np.asarray(old.cell), 1), there)
    charges = None if old.charges is None else np.asarray(old.charges)[:n]
    same_charges = np.array_equal(np.asarray(charges), np.asarray(atoms.arrays.get(ASE_CHARGES)))
    pairs = [(values, atoms.arrays.get(name)) for name, values in old.columns.items()]
    same_columns = all(np.array_equal(np.asarray(mine)[:n], np.asarray(new)) for mine, new in pairs)
    return same_species and same_vectors and same_charges and same_columns


def _described(potential: Potential) -> dict[str, Any]:
    """Form, values and all else that makes a potential what it is, as numbers and texts."""
    fields = [field for field in dataclasses.fields(potential) if field.metadata.get("static")]
    choices = {field.name: _plain(getattr(potential, field.name)) for field in fields}
    values = {name: float(value) for name, value in parameter_values(potential).items()}
    return {"form": type(potential).__name__} | choices | values


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, (tuple, list)):
        return [_plain(part) for part in value]
    return repr(value)


@eqx.filter_jit
def _evaluate_with_slack(
    potential: Potential, structure: Structure, neighbors: Neighbors, stress: bool
) -> tuple[EnergyForcesStress, Float[Array, ""]]:
    """Without `stress` there are zeros in its place."""
    slack = neighbors.slack(structure, potential.cutoff)
    if stress:
        return evaluate(potential, structure, neighbors), slack
    energy = lambda x: potential.energy(structure.at(x), neighbors)
    value, gradient = jax.value_and_grad(energy)(structure.positions)
    return EnergyForcesStress(value, -gradient, jnp.zeros((3, 3))), slack


@eqx.filter_jit
def _site_energies(potential: Potential, structure: Structure, neighbors: Neighbors) -> Float[Array, "atoms"]:
    return potential.site_energies(structure, neighbors)


def _stresses(
    potential: Potential, structure: Structure, neighbors: Neighbors
) -> Float[np.ndarray, "atoms 6"]:
    matrices = np.asarray(_site_stresses(potential, structure, neighbors))
    return np.array([full_3x3_to_voigt_6_stress(matrix) for matrix in matrices])


@eqx.filter_jit
def _site_stresses(
    potential: Potential, structure: Structure, neighbors: Neighbors
) -> Float[Array, "atoms 3 3"]:
    # The energy e_a of atom a depends on the vectors r_ab to its neighbors alone. Under the strain
    # x -> x (1 + s) they become r_ab (1 + s), so that
    #     de_a/ds = sum_b r_ab (de_a/dr_ab)^T,
    # the virial of atom a. The virials add up to dE/ds = V stress.
    def energies(strain: Array) -> Array:
        deformed = structure.deformed(jnp.eye(3) + (strain + strain.T) / 2)
        return potential.site_energies(deformed, neighbors)

    return jax.jacfwd(energies)(jnp.zeros((3, 3))) / volume(structure)


def _hessian(potential: Potential, structure: Structure, neighbors: Neighbors) -> Float[np.ndarray, "n n"]:
    atoms = number_of_real(structure)
    n = 3 * atoms
    if n > HESSIAN_LIMIT:
        raise InputError(
            f"the Hessian of {atoms} atoms has {n} x {n} numbers: the limit is {HESSIAN_LIMIT} "
            "coordinates. mdsens relaxes and differentiates without the matrix."
        )
    unit = np.eye(-(-n // AT_ONCE) * AT_ONCE, 3 * structure.n_atoms)
    unit[n:] = 0.0
    pieces = [unit[k : k + AT_ONCE] for k in range(0, n, AT_ONCE)]
    rows = [np.asarray(_rows(potential, structure, neighbors, piece)) for piece in pieces]
    hessian = np.concatenate(rows)[:n, :n]
    return (hessian + hessian.T) / 2  # equal up to rounding


@eqx.filter_jit
def _rows(
    potential: Potential, structure: Structure, neighbors: Neighbors, directions: Float[Any, "rows n"]
) -> Float[Array, "rows n"]:
    """Products of the Hessian with some directions: derivatives of the gradient along them."""
    x = structure.positions
    gradient = jax.grad(lambda x: potential.energy(structure.at(x), neighbors))

    def product(direction: Array) -> Array:
        return jax.jvp(gradient, (x,), (direction.reshape(x.shape),))[1].ravel()

    return jax.vmap(product)(jnp.asarray(directions))
