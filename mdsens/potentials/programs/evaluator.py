"""Asks a program on the host, remembers what it said, and makes of differences what it does not have.

Products with the Hessian are differences of forces along the vector; derivatives by the parameters are
differences of energy and forces at perturbed parameters.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np

from mdsens.errors import InputError, NonFiniteError
from mdsens.potentials.programs.differences import STEP, difference

PARAMETER_STEP = 4e-3  # of the parameter itself
KEPT = 64  # evaluations remembered


Point = tuple[np.ndarray, ...]  # species, positions, cell, all parameters in a row


class Situation(NamedTuple):
    """What a program is asked about.

    Attributes:
        positions: (atoms, 3) Å. cell: (3, 3) rows are the cell vectors, Å; zero rows where there are none.
        species: (atoms,) atomic numbers. pbc: along which cell vectors the structure repeats.
        parameters: by name, as they were given.
    """

    positions: np.ndarray
    cell: np.ndarray
    species: np.ndarray
    pbc: tuple[bool, ...]
    parameters: dict[str, np.ndarray]


@runtime_checkable
class Program(Protocol):
    """What a program must give, and may.

    Beyond the one method, a program that has them exactly brings any of

        hessian_product(situation, dx, dcell) -> (atoms, 3) and (3, 3): change of the two gradients along
            (dx, dcell), eV/Å;
        parameter_gradient(situation) -> dE/dtheta by name, eV per unit of the parameter;
        parameter_pullback(situation, dx, dcell) -> by name, the derivative w.r.t. each parameter of the
            change of the energy along (dx, dcell).

    What it does not bring is made of differences.
    """

    def energy_and_gradient(self, situation: Situation) -> tuple[Any, Any, Any]:
        """Energy (eV), dE/dpositions (atoms, 3), dE/dcell (3, 3) at held positions (None: unknown), eV/Å."""
        ...


class Evaluator:
    """Asks a program on the host, one question at a time, and remembers the last answers.

    Attributes:
        layout: name and shape of each parameter, in the order of the vector of all.
    """

    def __init__(self, program: Program, layout: tuple[tuple[str, tuple[int, ...]], ...]):
        self.program, self.layout = program, layout
        self.size = sum(int(np.prod(shape)) for _, shape in layout)
        self.without_stress = False  # as the last answer had it
        self._lock = threading.RLock()
        self._answers: OrderedDict[Any, Any] = OrderedDict()

    def require_stress(self) -> None:
        """Raise if the program gave no derivative by the cell.

        Raises:
            InputError: says how to do without.
        """
        if self.without_stress:
            name = getattr(self.program, "name", type(self.program).__name__)
            raise InputError(
                f"{name} gives no stress, and strains need it. Pass stress='by differences' to from_ase, "
                "which takes differences of the energy (12 to 60 energies each time), or hold the cell: "
                "ms.relax(..., cell=None), forces by jax.grad of ms.energy."
            )

    def evaluate(self, pbc: tuple[bool, ...], point: Point) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Energy, dE/dx, dE/dcell."""
        return self._remembered("evaluate", pbc, point, lambda: self._checked(pbc, point))

    def curvature(self, pbc: tuple[bool, ...], point: Point, v: tuple[np.ndarray, ...]) -> Any:
        """Changes of dE/dx and dE/dcell along (dx, dcell), and their errors."""
        find = lambda: self._curvature(pbc, point, v)
        return self._remembered("curvature", pbc, (*point, *v), find)

    def slopes(self, pbc: tuple[bool, ...], point: Point) -> tuple[np.ndarray, np.ndarray]:
        """dE/dtheta (parameters,), and with it the change of (dE/dx, dE/dcell) in rows by differences."""
        return self._remembered("slopes", pbc, point, lambda: self._perturbed(pbc, point))

    def gradient_by_parameters(self, pbc: tuple[bool, ...], point: Point) -> np.ndarray:
        """dE/dtheta, exact if the program has it."""
        exact = getattr(self.program, "parameter_gradient", None)
        if exact is None:
            return self.slopes(pbc, point)[0]
        with self._lock:
            return self._flat(exact(self._situation(pbc, point)))

    def pulled(self, pbc: tuple[bool, ...], point: Point, v: tuple[np.ndarray, ...]) -> np.ndarray:
        """Derivative by the parameters of the change of the energy along (dx, dcell)."""
        exact = getattr(self.program, "parameter_pullback", None)
        if exact is None:
            return self.slopes(pbc, point)[1] @ _joined(v)
        with self._lock:
            return self._flat(exact(self._situation(pbc, point), *v))

    def pushed(self, pbc: tuple[bool, ...], point: Point, dtheta: np.ndarray) -> tuple[np.ndarray, ...]:
        """Changes of dE/dx and dE/dcell along a change of the parameters."""
        if not hasattr(self.program, "parameter_pullback"):
            row = dtheta @ self.slopes(pbc, point)[1]
        else:
            row = self._along_parameters(pbc, point, dtheta)[0][1:]
        return _apart(row, point)

    def bent(self, pbc: tuple[bool, ...], point: Point, dtheta: np.ndarray) -> np.ndarray:
        """Change of dE/dtheta along a change of the parameters."""
        if not np.any(dtheta):
            return np.zeros(self.size)
        species, x, h, theta = point
        step = _parameter_step(theta, dtheta)
        at = lambda t: (species, x, h, theta + t * dtheta)
        change, _ = difference(lambda t: self.gradient_by_parameters(pbc, at(t)), step)
        return change

    # --- how

    def _remembered(self, what: str, pbc: Any, arrays: Point, find: Callable[[], Any]) -> Any:
        key = (what, pbc, *(array.tobytes() for array in arrays))
        with self._lock:
            if key not in self._answers:
                self._answers[key] = find()
            self._answers.move_to_end(key)
            while len(self._answers) > KEPT:
                self._answers.popitem(last=False)
            return self._answers[key]

    def _situation(self, pbc: tuple[bool, ...], point: Point) -> Situation:
        species, x, h, theta = point
        values, start = {}, 0
        for name, shape in self.layout:
            count = int(np.prod(shape))
            values[name] = theta[start : start + count].reshape(shape)
            start += count
        return Situation(np.array(x), np.array(h), np.array(species), tuple(pbc), values)

    def _checked(self, pbc: tuple[bool, ...], point: Point) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        name = type(self.program).__name__
        situation = self._situation(pbc, point)
        energy, gradient, of_cell = self.program.energy_and_gradient(situation)
        self.without_stress = of_cell is None and any(pbc)
        of_cell = np.zeros((3, 3)) if of_cell is None else of_cell
        answer = tuple(np.asarray(array, float) for array in (energy, gradient, of_cell))
        shapes = [array.shape for array in answer]
        wanted = [(), situation.positions.shape, (3, 3)]
        if shapes != wanted:
            raise InputError(
                f"{name} gives energy, dE/dx and dE/dcell of shapes {shapes}; for "
                f"{len(situation.positions)} atoms they must be {wanted}."
            )
        if not all(np.isfinite(array).all() for array in answer):
            bad = np.flatnonzero(~np.isfinite(answer[1]).all(axis=1))
            where = f"the force on atom {bad[0]}" if len(bad) else "the energy or the stress"
            whose = getattr(self.program, "name", name)
            raise NonFiniteError(
                f"{where} from {whose} is not finite (energy {energy} eV). Look for atoms "
                "that overlap, or an element that the program does not know."
            )
        return answer  # type: ignore[return-value]

    def _curvature(self, pbc: tuple[bool, ...], point: Point, v: tuple[np.ndarray, ...]) -> Any:
        exact = getattr(self.program, "hessian_product", None)
        if exact is not None:
            product = exact(self._situation(pbc, point), *v)
            found = tuple(np.asarray(array, float) for array in product)
            return found, tuple(np.zeros_like(array) for array in found)
        species, x, h, theta = point
        dx, dh = v
        # the farthest move: of an atom in the cell, or of an image one cell vector away
        length = np.linalg.norm(np.concatenate([dx, dh]), axis=1).max()
        if length == 0:
            still = (np.zeros_like(x), np.zeros_like(h))
            return still, still

        def forces(t: float) -> np.ndarray:
            _, *slopes = self._checked(pbc, (species, x + t * dx, h + t * dh, theta))
            return _joined(slopes)

        noise = getattr(self.program, "noise", None) or 0.0
        slope, error = difference(lambda t: forces(t / length), STEP, noise)
        return _apart(length * slope, point), _apart(length * error, point)

    def _perturbed(self, pbc: tuple[bool, ...], point: Point) -> tuple[np.ndarray, np.ndarray]:
        theta = point[3]
        along = lambda unit: self._along_parameters(pbc, point, unit)[0]
        rows = [along(unit) for unit in np.eye(len(theta))]
        self._checked(pbc, point)  # leaves the program with its own parameters
        table = np.array(rows).reshape(len(theta), -1)
        return table[:, 0], table[:, 1:]

    def _along_parameters(self, pbc: tuple[bool, ...], point: Point, dtheta: np.ndarray) -> Any:
        species, x, h, theta = point
        if not np.any(dtheta):
            nothing = np.zeros(1 + x.size + h.size)
            return nothing, nothing

        def all_of(t: float) -> np.ndarray:
            at = (species, x, h, theta + t * dtheta)
            energy, *slopes = self._checked(pbc, at)
            return np.concatenate([[energy], _joined(slopes)])

        return difference(all_of, _parameter_step(theta, dtheta))

    def _flat(self, values: Mapping[str, Any]) -> np.ndarray:
        flat = lambda name: np.ravel(np.asarray(values[name], float))
        parts = [flat(name) for name, _ in self.layout]
        return np.concatenate([np.zeros(0), *parts])


def _joined(arrays: Sequence[np.ndarray]) -> np.ndarray:
    return np.concatenate([np.ravel(array) for array in arrays])


def _apart(row: np.ndarray, point: Point) -> tuple[np.ndarray, ...]:
    x = point[1]
    return row[: x.size].reshape(x.shape), row[x.size :].reshape(3, 3)


def _parameter_step(theta: np.ndarray, dtheta: np.ndarray) -> float:
    # a small part of the parameters that change, or of one where they are zero
    moved = dtheta != 0
    size = np.linalg.norm(theta[moved])
    return float(PARAMETER_STEP * (size if size > 0 else 1.0) / np.linalg.norm(dtheta))
