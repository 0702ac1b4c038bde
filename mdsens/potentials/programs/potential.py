"""A potential whose energy another program computes."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float

from mdsens.errors import InputError
from mdsens.neighbors import Neighbors
from mdsens.potentials.base import Potential
from mdsens.potentials.programs.evaluator import Evaluator, Point, Program
from mdsens.potentials.programs.rules import program_energy
from mdsens.structure import Structure

LIST_RADIUS = 4.0  # Å: the neighbor list says only how close atoms stand; the program has its own


class ProgramPotential(Potential):
    """A potential whose energy another program computes; made by `from_ase` and `from_program`.

    Relaxes with every solver, has certificates, elastic constants and derivatives w.r.t. its parameters. No
    third derivatives: elastic constants cannot be differentiated, nor can a derivative.

    What cells, boundaries and numbers of atoms the program can deal with is its own affair, and not known
    here: some programs see only nearest images and give wrong energies in cells thinner than two cutoffs.
    `mdsens.testing.check_potential` compares a cell with its double, and tells.

    Attributes:
        evaluator: asks the program. parameters: what can be differentiated by.
        elements: chemical symbols it is for; () if any, which the program then has to say itself.
    """

    local: ClassVar[bool] = False
    evaluator: Evaluator = eqx.field(static=True)
    parameters: dict[str, Float[Array, "..."]] = eqx.field(metadata={"unit": "?"})
    elements: tuple[str, ...] = eqx.field(static=True)
    source: str = eqx.field(static=True)

    @property
    def by_differences(self) -> bool:  # type: ignore[override]
        """Whether the program has no Hessian products of its own."""
        return not hasattr(self.evaluator.program, "hessian_product")

    @property
    def cutoff(self) -> Float[Array, ""]:
        """Radius of the list that says how close atoms stand, Å; the program looks as far as it likes."""
        return jnp.asarray(LIST_RADIUS)

    def energy(self, structure: Structure, neighbors: Neighbors) -> Float[Array, ""]:
        theta = [jnp.ravel(self.parameters[name]) for name, _ in self.evaluator.layout]
        flat = jnp.concatenate([jnp.zeros(0), *theta])
        asked = (structure.positions, structure.cell, flat)
        return program_energy((self.evaluator, structure.pbc), structure.species, *asked)

    def check_structure(self, structure: Structure) -> None:
        """Ask the program once, so that what it cannot do is said before anything is compiled.

        Raises:
            InputError: what is missing or has the wrong shape. NonFiniteError: NaN from the program.
        """
        leaves = jax.tree.leaves((structure, self.parameters))
        if not any(isinstance(leaf, Tracer) for leaf in leaves):
            self.evaluator.evaluate(structure.pbc, self._point(structure))

    def curvature_error(self, structure: Structure, dx: Any, dcell: Any) -> float:
        """How far the curvature of the energy along a direction may be off, for its differences, eV/Å²."""
        directions = np.asarray(dx), np.asarray(dcell)
        _, errors = self.evaluator.curvature(structure.pbc, self._point(structure), directions)
        pairs = zip(directions, errors, strict=True)
        return float(sum(np.sum(np.abs(v) * error) for v, error in pairs))

    def _point(self, structure: Structure) -> Point:
        flat = lambda name: np.ravel(np.asarray(self.parameters[name], float))
        theta = [flat(name) for name, _ in self.evaluator.layout]
        arrays = structure.species, structure.positions, structure.cell
        species, x, h = (np.asarray(array) for array in arrays)
        return species, x, h, np.concatenate([np.zeros(0), *theta])


def from_program(
    program: Program,
    *,
    parameters: Mapping[str, Any] | None = None,
    elements: Sequence[str] = (),
    source: str = "",
) -> ProgramPotential:
    """A potential from an object with `energy_and_gradient`; see `Program` for what else it may bring.

    Args:
        parameters: values by name, numbers or arrays: what derivatives are taken by.
        elements: chemical symbols the program is for; () if any.
    Raises:
        InputError: the object has no `energy_and_gradient`, or a parameter is no number.
    """
    if not isinstance(program, Program):
        raise InputError(
            f"{type(program).__name__} has no method energy_and_gradient(situation): see mdsens.potentials."
            "programs.Program. For an ASE calculator write ms.from_ase(calculator)."
        )
    given = sorted((parameters or {}).items())
    values = {name: _as_array(name, value) for name, value in given}
    layout = tuple((name, value.shape) for name, value in values.items())
    evaluator = Evaluator(program, layout)
    return ProgramPotential(evaluator=evaluator, parameters=values, elements=tuple(elements), source=source)


def _as_array(name: str, value: Any) -> Array:
    try:
        array = np.asarray(value, float)
    except (TypeError, ValueError) as error:
        raise InputError(f"parameter {name} = {value!r}: give a number or an array of numbers.") from error
    return jnp.asarray(array)
