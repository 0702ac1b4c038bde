"""A normalizing flow of a molecule as an ASE calculator: its -log p, in eV, is a potential like any other.

A Boltzmann generator of the temperature T has learned p(x) = exp(-U(x) / kT) / Z. Turned around,

    U(x) = -kT log p(x),

up to the constant kT log Z: differences of energies and all forces are those of the potential of mean force
that the flow stands for, exact derivatives at that.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from ase.calculators.calculator import Calculator, Parameters, all_changes
from ase.data import chemical_symbols
from ase.formula import Formula

from mdsens.errors import InputError, NonFiniteError
from mdsens.flows.boltzmann import BoltzmannGenerator, energies_and_forces
from mdsens.precision import require_x64
from mdsens.units import from_kT, from_kT_per_nm, to_nm

if TYPE_CHECKING:
    from ase import Atoms


class FlowCalculator(Calculator):
    """Energy and forces of a molecule from a flow, for ASE: optimizers, vibrations, molecular dynamics.

        atoms.calc = FlowCalculator(generator)
        VelocityVerlet(atoms, 0.5 * ase.units.fs).run(1000)

    Computed in float64, whatever the flow was trained in. The energy is a free energy in the sense that the
    flow's temperature is part of it, and has no meaning but in differences. Compiled once, at the first
    request. Longer runs, or many at once, are faster with `mdsens.dynamics.nve`, which runs them compiled.

    Properties: energy and free_energy (eV, the same number), forces (eV/Å). No stress: the molecule is alone.
    """

    implemented_properties = ["energy", "free_energy", "forces"]  # noqa: RUF012  (ASE's own convention)

    def __init__(
        self,
        generator: BoltzmannGenerator,
        *,
        atoms: "Atoms | None" = None,
        directory: str | Path = ".",
        label: str | None = None,
    ):
        """Take a flow into use.

        Args:
            generator: the flow of one molecule, with elements and temperature.
            atoms: get this calculator at once.
            directory: as ASE has it; nothing is written there.
            label: as ASE has it.
        Raises:
            InputError: no `BoltzmannGenerator`; when computing: other atoms than the generator's, or periodic
            ones.
            NonFiniteError: when computing: NaN positions, or an arrangement that has no bonds, angles and
            torsions.
            PrecisionError: float64 is off.
        """
        require_x64()
        super().__init__(label=label, directory=str(directory))
        self.generator = generator
        if atoms is not None:
            atoms.calc = self

    @property
    def generator(self) -> BoltzmannGenerator:
        """The flow in use; it may be replaced, and the next request is computed anew."""
        return self._generator

    @generator.setter
    def generator(self, generator: BoltzmannGenerator) -> None:
        if not isinstance(generator, BoltzmannGenerator):
            raise InputError(
                f"FlowCalculator needs a BoltzmannGenerator, not {type(generator).__name__}: it knows the "
                "elements and the temperature, which a flow alone does not. BoltzmannGenerator(flow, "
                "species, temperature) makes one."
            )
        self._generator = generator.astype(jnp.float64)
        self.parameters = Parameters(_described(self._generator))
        self.reset()

    def set(self, **changes: Any) -> dict[str, Any]:
        """Take another flow: `calc.set(generator=...)`.

        Raises:
            InputError: anything else; a flow has no parameters by name.
        """
        before = self.todict()
        generator = changes.pop("generator", None)
        if changes:
            raise InputError(
                f"FlowCalculator has no parameter '{next(iter(changes))}': there is only generator."
            )
        if generator is not None:
            self.generator = generator
        after = self.todict()
        return {name: value for name, value in after.items() if before.get(name) != value}

    def __repr__(self) -> str:
        """Molecule and temperature."""
        molecule = Formula.from_list([chemical_symbols[z] for z in self._generator.species]).format("hill")
        return f"FlowCalculator({molecule}, {self._generator.temperature:g} K)"

    def calculate(
        self,
        atoms: "Atoms | None" = None,
        properties: Sequence[str] = ("energy",),
        system_changes: Sequence[str] = tuple(all_changes),
    ) -> None:
        """Fill `results`: energy and forces together."""
        require_x64()
        super().calculate(atoms, properties, system_changes)
        if self.atoms is None:
            raise InputError(
                "FlowCalculator has no atoms yet: pass them, or set atoms.calc to this calculator."
            )
        self._check(self.atoms)
        temperature = self._generator.temperature
        positions = jnp.asarray(to_nm(self.atoms.positions[None]))
        energies, forces = energies_and_forces(self._generator.flow, positions)
        energy = from_kT(float(energies[0]), temperature)
        forces = from_kT_per_nm(np.asarray(forces[0]), temperature)
        if not (np.isfinite(energy) and np.isfinite(forces).all()):
            raise NonFiniteError(_what_is_wrong(self.atoms, energy, forces))
        self.results = {"energy": energy, "free_energy": energy, "forces": forces}

    def _check(self, atoms: "Atoms") -> None:
        species = self._generator.species
        if len(atoms) != len(species):
            raise InputError(
                f"the structure has {len(atoms)} atoms, and the flow is that of a molecule of "
                f"{len(species)}: it knows no solvent and no other molecules."
            )
        different = np.flatnonzero(atoms.numbers != np.asarray(species)).tolist()
        if different:
            i = different[0]
            raise InputError(
                f"atom {i} is {atoms.symbols[i]}, and the flow has {chemical_symbols[species[i]]} there "
                f"({len(different)} atoms differ). The atoms must be in the order of the trajectory that the "
                "flow was trained on."
            )
        if atoms.pbc.any():
            raise InputError(
                f"the structure is periodic, pbc = {atoms.pbc.tolist()}, and the flow is that of one "
                "molecule in free space: set atoms.pbc = False (and make the molecule whole, if a border "
                "cuts it)."
            )
        bad = np.flatnonzero(~np.isfinite(atoms.positions).all(1)).tolist()
        if bad:
            raise NonFiniteError(
                f"the position of atom {bad[0]} ({atoms.symbols[bad[0]]}) is {atoms.positions[bad[0]]} Å."
            )


def _described(generator: BoltzmannGenerator) -> dict[str, Any]:
    """What tells flows apart, as numbers and texts."""
    mark = hashlib.blake2b(digest_size=12)
    for leaf in jax.tree.leaves(generator.flow):
        mark.update(np.ascontiguousarray(leaf).tobytes())
    return {
        "form": "BoltzmannGenerator",
        "temperature": float(generator.temperature),
        "species": [int(z) for z in generator.species],
        "fingerprint": mark.hexdigest(),
    }


def _what_is_wrong(atoms: "Atoms", energy: float, forces: np.ndarray) -> str:
    distances = atoms.get_all_distances() + np.diag([np.inf] * len(atoms))
    i, j = np.unravel_index(np.argmin(distances), distances.shape)
    bad = np.flatnonzero(~np.isfinite(forces).all(1))
    which = (
        f" and the force on atom {bad[0]} ({atoms.symbols[bad[0]]}) {forces[bad[0]]} eV/Å" if len(bad) else ""
    )
    return (
        f"the energy is {energy} eV{which}: the flow has no density here. The nearest atoms are {i} "
        f"({atoms.symbols[i]}) and {j} ({atoms.symbols[j]}), {distances[i, j]:.3f} Å apart. Atoms that lie "
        "upon each other, or three bonded ones in a line, have no internal coordinates; and far from the "
        "structures of the training data everything is extrapolated."
    )
