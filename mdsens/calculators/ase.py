"""Any potential of mdsens as an ASE calculator, for optimizers, molecular dynamics and scripts that exist."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from ase.calculators.calculator import Calculator, all_changes
from ase.stress import full_3x3_to_voigt_6_stress
from jaxtyping import Array, Float

from mdsens.errors import InputError
from mdsens.neighbors import Neighbors
from mdsens.potentials.base import Potential, check_elements
from mdsens.potentials.parameters import check_parameters
from mdsens.precision import require_x64
from mdsens.quantities import EnergyForcesStress, check_finite, evaluate, neighbors_of
from mdsens.relaxation.search import default_skin
from mdsens.structure import Structure

if TYPE_CHECKING:
    from ase import Atoms


class MDSens(Calculator):
    """Energy, forces and stress of a potential for ASE.

    The neighbor list is kept with a skin and rebuilt only when it could miss a pair; its size is kept as
    well, so that nothing is compiled again while atoms and cell move. The potential may be replaced at any
    time (`calc.potential = replace_parameters(calc.potential, {...})`): the next request is computed anew.

    Properties: energy and free_energy (eV), energies (eV, if the form shares its energy among atoms), forces
    (eV/Å), stress (eV/Å³, Voigt xx yy zz yz xz xy, positive in tension; not for structures without volume).
    Constraints are ASE's business: the forces are those of the potential.
    """

    def __init__(self, potential: Potential, skin: float | None = None):
        """Take a potential into use.

        Args:
            potential: any potential of mdsens.
            skin: extra reach of the neighbor list, Å; default a tenth of the cutoff.
        Raises:
            InputError: not a potential, parameters out of bounds, negative skin; later, an element without
            parameters.
            NonFiniteError: when computing: NaN positions, or atoms at the same place.
            PrecisionError: float64 is off.
        """
        require_x64()
        if skin is not None and not 0 <= skin < np.inf:
            raise InputError(f"skin = {skin} Å: it must be zero or positive, and finite.")
        super().__init__()
        self.skin = skin
        self._structure: Structure | None = None
        self._neighbors: Neighbors | None = None
        self.potential = potential

    @property
    def potential(self) -> Potential:
        """The potential in use."""
        return self._potential

    @potential.setter
    def potential(self, potential: Potential) -> None:
        if not isinstance(potential, Potential):
            raise InputError(
                f"MDSens needs a potential of mdsens, not {type(potential).__name__}: "
                "mdsens.load_potential(name or file) gives one."
            )
        check_parameters(potential)
        shares = type(potential).site_energies is not Potential.site_energies
        self.implemented_properties = [
            "energy",
            "free_energy",
            *(["energies"] if shares else []),
            "forces",
            "stress",
        ]
        self._potential = potential
        self._elements_known = False
        self.reset()

    def calculate(
        self,
        atoms: "Atoms | None" = None,
        properties: Sequence[str] = ("energy",),
        system_changes: Sequence[str] = tuple(all_changes),
    ) -> None:
        """Fill `results`. Energy, forces and stress come together; energies only when asked for."""
        super().calculate(atoms, properties, system_changes)
        assert self.atoms is not None
        structure = self._take_over(self.atoms)
        result = self._evaluate(structure)
        assert self._neighbors is not None
        energy, forces = float(result.energy), np.asarray(result.forces)
        if not (np.isfinite(energy) and np.isfinite(forces).all()):
            check_finite(result, structure, self._neighbors)
        self.results = {"energy": energy, "free_energy": energy, "forces": np.array(forces)}
        if self.atoms.cell.rank == 3:
            self.results["stress"] = full_3x3_to_voigt_6_stress(np.asarray(result.stress))
        if "energies" in properties:
            self.results["energies"] = np.array(_site_energies(self._potential, structure, self._neighbors))

    def _take_over(self, atoms: "Atoms") -> Structure:
        # ASE's `system_changes` does not serve here: it is empty when the same atoms come again after an
        # error.
        old = self._structure
        same_list = old is not None and (old.n_atoms, old.pbc) == (len(atoms), tuple(atoms.pbc))
        if (
            old is not None
            and same_list
            and np.array_equal(np.asarray(old.species), atoms.numbers)
            and np.array_equal(np.any(np.asarray(old.cell), 1), np.any(atoms.cell.array, 1))
        ):
            new = old.at(jnp.array(atoms.positions), jnp.array(atoms.cell.array))
        else:
            new = Structure.create(atoms.positions, atoms.numbers, atoms.cell.array, atoms.pbc)
            self._elements_known = False
        if not self._elements_known:
            check_elements(self._potential, new)
            self._elements_known = True
        # Pairs do not depend on species: a list survives exchanges of atoms, and `slack` says for how long.
        self._neighbors = self._neighbors if same_list else None
        self._structure = new
        return new

    def _evaluate(self, structure: Structure) -> EnergyForcesStress:
        if self._neighbors is not None:
            # In one call, for almost always the list still holds.
            result, slack = _evaluate_with_slack(self._potential, structure, self._neighbors)
            if float(slack) >= 0:
                return result
        capacity = None if self._neighbors is None else self._neighbors.capacity
        skin = default_skin(self._potential) if self.skin is None else self.skin
        self._neighbors = neighbors_of(self._potential, structure, skin, capacity)
        return _evaluate_with_slack(self._potential, structure, self._neighbors)[0]


@eqx.filter_jit
def _evaluate_with_slack(
    potential: Potential, structure: Structure, neighbors: Neighbors
) -> tuple[EnergyForcesStress, Float[Array, ""]]:
    return evaluate(potential, structure, neighbors), neighbors.slack(structure, potential.cutoff)


@eqx.filter_jit
def _site_energies(potential: Potential, structure: Structure, neighbors: Neighbors) -> Float[Array, "atoms"]:
    return potential.site_energies(structure, neighbors)
