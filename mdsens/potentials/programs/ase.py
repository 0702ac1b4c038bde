"""Any ASE calculator as a potential."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mdsens.checks import number
from mdsens.errors import InputError
from mdsens.potentials.programs.differences import STEP, difference
from mdsens.potentials.programs.evaluator import Situation
from mdsens.potentials.programs.potential import ProgramPotential, from_program

if TYPE_CHECKING:
    from ase import Atoms


def from_ase(
    calculator: Any,
    *,
    elements: Sequence[str] = (),
    parameters: Mapping[str, Any] | None = None,
    set_parameters: Callable[[Any, dict[str, Any]], None] | None = None,
    stress: str = "of the calculator",
    noise: float | None = None,
    source: str = "",
) -> ProgramPotential:
    """A potential from an ASE calculator: forces are the calculator's, second derivatives by differences.

        potential = ms.from_ase(EMT(), elements=("Cu",))
        relaxed = ms.relax(potential, copper, cell="isotropic")

    With `set_parameters` the calculator's own parameters are differentiated by, out of forces at perturbed
    parameters:

        def set_parameters(calculator, values): calculator.set(epsilon=values["epsilon"])

    Not for calculators that run JAX themselves (it may wait for itself): bind those as networks. Limits of
    cell and boundaries: see `ProgramPotential`.

    Args:
        elements: chemical symbols it is for; () if any.
        parameters: values by name that `set_parameters` hands to the calculator.
        set_parameters: called with the calculator and all values, by name; the calculator then forgets its
            results (`reset`).
        stress: "of the calculator", or "by differences" of the energy for one that has none.
        noise: error of the forces, eV/Å; needed for a calculator in float32, where differences are taken over
            wider steps. Minima and derivatives are then as good as that.
    Raises:
        InputError: no calculator; parameters without a callback, or the other way round; later, when it is
            asked: no forces, no stress, forces of another number of atoms, float32 without `noise`.
        NonFiniteError: later: NaN from the calculator.
    """
    if not hasattr(calculator, "calculate") or isinstance(calculator, type):
        raise InputError(
            f"{calculator!r} is no ASE calculator: build one, such as EMT(), and pass it: ms.from_ase(EMT())."
        )
    if bool(parameters) != (set_parameters is not None):
        raise InputError(
            "parameters and set_parameters belong together: values by name, and the function that hands them "
            "to the calculator, set_parameters(calculator, values). Leave both out for a calculator as it is."
        )
    if stress not in ("of the calculator", "by differences"):
        raise InputError(f"stress = '{stress}': write 'of the calculator' or 'by differences'.")
    if noise is not None:
        number("noise", noise, "eV/Å", above=0)
    program = _Calculator(calculator, set_parameters, stress == "by differences", noise)
    name = source or type(calculator).__name__
    return from_program(program, parameters=parameters, elements=elements, source=name)


class _Calculator:
    """An ASE calculator as a program."""

    def __init__(self, calculator: Any, set_parameters: Any, strain: bool, noise: float | None):
        self.calculator, self.set_parameters, self.strain, self.noise = (
            calculator,
            set_parameters,
            strain,
            noise,
        )
        self.atoms: Atoms | None = None
        self.told: dict[str, np.ndarray] | None = None

    def energy_and_gradient(self, situation: Situation) -> tuple[Any, Any, Any]:
        atoms = self._atoms(situation)
        self._tell(situation.parameters)
        forces = np.asarray(self._property("forces", atoms))
        if forces.shape != (len(atoms), 3):
            raise InputError(
                f"{self.name} gives forces of shape {forces.shape} for {len(atoms)} atoms: it was made for "
                "another structure. Build a calculator for this one."
            )
        if forces.dtype != np.float64 and self.noise is None:
            raise InputError(
                f"{self.name} gives forces in {forces.dtype}: minima and differences need float64. Build it "
                "with float64 (dtype='float64' or so), or say how noisy its forces are, noise=1e-6 (eV/Å), "
                "and relax with a larger fmax."
            )
        energy = float(np.asarray(self._property("energy", atoms)).reshape(()))
        energy = float(self.calculator.results.get("free_energy", energy))  # what forces are the slope of
        gradient = -forces.astype(float)
        return energy, gradient, self._cell_gradient(atoms, gradient)

    @property
    def name(self) -> str:
        return f"the calculator {type(self.calculator).__name__}"

    def _atoms(self, situation: Situation) -> "Atoms":
        from ase import Atoms

        atoms = self.atoms
        if atoms is None or not _is_of(atoms, situation):
            atoms = self.atoms = Atoms(numbers=situation.species, pbc=situation.pbc)
        atoms.set_cell(situation.cell)
        atoms.set_positions(situation.positions)
        return atoms

    def _tell(self, values: dict[str, np.ndarray]) -> None:
        if self.set_parameters is None:
            return
        if self.told is not None and all(np.array_equal(values[k], self.told[k]) for k in values):
            return
        plain = lambda array: float(array) if array.ndim == 0 else array
        self.set_parameters(self.calculator, {name: plain(v) for name, v in values.items()})
        if hasattr(self.calculator, "reset"):
            self.calculator.reset()  # its results belong to other parameters
        self.told = values

    def _property(self, which: str, atoms: "Atoms") -> Any:
        from ase.calculators.calculator import PropertyNotImplementedError

        remedy = {
            "forces": "Relaxation and derivatives need forces: use another calculator.",
            "energy": "Use another calculator.",
        }[which]
        try:
            value = self.calculator.get_property(which, atoms)
        except PropertyNotImplementedError as error:
            raise InputError(f"{self.name} gives no {which}. {remedy}") from error
        if value is None:
            raise InputError(f"{self.name} gives no {which}. {remedy}")
        return value

    def _cell_gradient(self, atoms: "Atoms", gradient: np.ndarray) -> np.ndarray | None:
        # For a homogeneous strain dx = x e, dh = h e, and dE = V sigma : e is
        #     V sigma = x^T dE/dx + h^T dE/dh.
        cell = np.asarray(atoms.cell)
        volume = abs(np.linalg.det(cell))
        if not atoms.pbc.any():
            return np.zeros((3, 3))
        if volume == 0:
            raise InputError(
                f"the structure is periodic along {tuple(atoms.pbc)} and has a cell vector of length zero: "
                "the stress of a calculator needs a volume. Give all three cell vectors."
            )
        stress = None if self.strain else self._stress(atoms)
        if stress is None and not self.strain:
            return None
        virial = self._virial(atoms) if stress is None else volume * stress
        return np.linalg.solve(cell.T, virial - atoms.positions.T @ gradient)

    def _stress(self, atoms: "Atoms") -> np.ndarray | None:
        from ase.calculators.calculator import PropertyNotImplementedError
        from ase.stress import voigt_6_to_full_3x3_stress

        try:
            value = self.calculator.get_property("stress", atoms)
        except PropertyNotImplementedError:
            value = None
        if value is None:
            return None
        stress = np.asarray(value, float)
        return stress if stress.shape == (3, 3) else voigt_6_to_full_3x3_stress(stress)

    def _virial(self, atoms: "Atoms") -> np.ndarray:
        cell, positions = np.array(atoms.cell), atoms.positions.copy()
        virial = np.zeros((3, 3))
        for a in range(3):
            for b in range(a + 1):
                strain = np.zeros((3, 3))
                strain[a, b] += 0.5
                strain[b, a] += 0.5

                def energy(t: float, strain: np.ndarray = strain) -> np.ndarray:
                    F = np.eye(3) + t * strain
                    atoms.set_cell(cell @ F)
                    atoms.set_positions(positions @ F)
                    value = float(self._property("energy", atoms))
                    return np.array([self.calculator.results.get("free_energy", value)])

                slope, _ = difference(energy, STEP)
                virial[a, b] = virial[b, a] = slope[0]
        atoms.set_cell(cell)
        atoms.set_positions(positions)
        return virial


def _is_of(atoms: "Atoms", situation: Situation) -> bool:
    """Whether these are the atoms of a situation, wherever they stand."""
    same_species = np.array_equal(atoms.numbers, situation.species)
    return same_species and tuple(atoms.pbc) == situation.pbc
