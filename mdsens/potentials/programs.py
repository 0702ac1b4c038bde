"""Programs outside JAX as potentials: any ASE calculator, a model of another library.

Such a program knows energies, forces and perhaps the stress. With z = (positions x, cell h, parameters theta)
mdsens needs of it

    E(z),    dE/dz,    and products with the matrix of second derivatives  d2E/dz2.

What the program does not have exactly is made of central differences of what it has: products with the
Hessian out of forces along the vector, parameters out of forces at perturbed parameters. A difference at
step t errs by t^2 in truncation and by noise / t in rounding, so it is made at several steps, halved each
time, and extrapolated (Ridders). The spread of the table is the error, which certificates show.

The matrix is symmetric, hence both modes of differentiation come out of it.

Source: Ridders, Adv. Eng. Software 4, 75 (1982).
"""

import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Protocol, runtime_checkable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float

from mdsens.checks import number
from mdsens.errors import InputError, NonFiniteError
from mdsens.neighbors import Neighbors
from mdsens.potentials.base import Potential
from mdsens.potentials.products import host_product
from mdsens.structure import Structure

if TYPE_CHECKING:
    from ase import Atoms

LIST_RADIUS = 4.0  # Å: the neighbor list says only how close atoms stand; the program has its own
STEP = 4e-3  # Å, of the farthest moving atom in the widest difference
PARAMETER_STEP = 4e-3  # of the parameter itself
LEVELS = 5  # halvings of the step, at most
GOOD = 1e-9  # relative error at which a difference is good enough
KEPT = 64  # evaluations remembered


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
    evaluator: "Evaluator" = eqx.field(static=True)
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
        return _energy((self.evaluator, structure.pbc), structure.species, *asked)

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
        return float(sum(np.sum(np.abs(v) * e) for v, e in zip(directions, errors, strict=True)))

    def _point(self, structure: Structure) -> "Point":
        theta = [np.ravel(np.asarray(self.parameters[name], float)) for name, _ in self.evaluator.layout]
        arrays = structure.species, structure.positions, structure.cell
        return (*(np.asarray(array) for array in arrays), np.concatenate([np.zeros(0), *theta]))


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
    values = {name: _as_array(name, value) for name, value in sorted((parameters or {}).items())}
    layout = tuple((name, value.shape) for name, value in values.items())
    evaluator = Evaluator(program, layout)
    return ProgramPotential(evaluator=evaluator, parameters=values, elements=tuple(elements), source=source)


def _as_array(name: str, value: Any) -> Array:
    try:
        array = np.asarray(value, float)
    except (TypeError, ValueError) as error:
        raise InputError(f"parameter {name} = {value!r}: give a number or an array of numbers.") from error
    return jnp.asarray(array)


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

        same = (
            self.atoms is not None
            and tuple(self.atoms.pbc) == situation.pbc
            and np.array_equal(self.atoms.numbers, situation.species)
        )
        if not same:
            self.atoms = Atoms(numbers=situation.species, pbc=situation.pbc)
        assert self.atoms is not None
        self.atoms.set_cell(situation.cell)
        self.atoms.set_positions(situation.positions)
        return self.atoms

    def _tell(self, values: dict[str, np.ndarray]) -> None:
        if self.set_parameters is None:
            return
        if self.told is not None and all(np.array_equal(values[k], self.told[k]) for k in values):
            return
        plain = {name: float(v) if v.ndim == 0 else v for name, v in values.items()}
        self.set_parameters(self.calculator, plain)
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
        cell, volume = np.asarray(atoms.cell), abs(np.linalg.det(np.asarray(atoms.cell)))
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

                virial[a, b] = virial[b, a] = difference(energy, STEP)[0][0]
        atoms.set_cell(cell)
        atoms.set_positions(positions)
        return virial


def difference(
    function: Callable[[float], np.ndarray], step: float, noise: float = 0.0
) -> tuple[np.ndarray, np.ndarray]:
    """Derivative at zero of a function of one number, and an estimate of its error.

    Central differences at halved steps, extrapolated until the table stops getting better.

    Args:
        step: the widest. noise: of the function; steps are then as wide as that asks for.
    """
    # D(t) = f' + a t^2 + b t^4 + ...; with D at t and t/2, (4 D(t/2) - D(t)) / 3 is free of the first term.
    # The error of an entry is how far it lies from the two it came from; too small a step and it grows again.
    step = max(step, 30.0 * np.cbrt(noise)) if noise else step
    rows: list[list[np.ndarray]] = []
    best, error = np.zeros(0), np.zeros(0)
    for level in range(LEVELS):
        t = step / 2**level
        row = [(function(t) - function(-t)) / (2 * t)]
        for order, above in enumerate(rows[-1] if rows else []):
            factor = 4.0 ** (order + 1)
            row.append((factor * row[order] - above) / (factor - 1))
        if not rows:
            best, error = row[0], np.full_like(row[0], np.inf)
        for order in range(1, len(row)):
            spread = np.maximum(np.abs(row[order] - row[order - 1]), np.abs(row[order] - rows[-1][order - 1]))
            if np.max(spread, initial=0.0) <= np.max(error, initial=0.0):
                best, error = row[order], spread
        rows.append(row)
        if level and np.max(error, initial=0.0) <= GOOD * np.max(np.abs(best), initial=0.0):
            break
    return best, error + noise / step


Point = tuple[np.ndarray, ...]  # species, positions, cell, all parameters in a row


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
        return self._remembered("curvature", pbc, (*point, *v), lambda: self._curvature(pbc, point, v))

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
        slope = lambda t: self.gradient_by_parameters(pbc, (species, x, h, theta + t * dtheta))
        return difference(slope, step)[0]

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
        wanted = ((), situation.positions.shape, (3, 3))
        if any(array.shape != shape for array, shape in zip(answer, wanted, strict=True)):
            raise InputError(
                f"{name} gives energy, dE/dx and dE/dcell of shapes {[a.shape for a in answer]}; for "
                f"{len(situation.positions)} atoms they must be {list(wanted)}."
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
            found = tuple(np.asarray(array, float) for array in exact(self._situation(pbc, point), *v))
            return found, tuple(np.zeros_like(array) for array in found)
        species, x, h, theta = point
        # the farthest move: of an atom in the cell, or of an image one cell vector away
        length = max(np.linalg.norm(v[0], axis=1).max(initial=0.0), np.linalg.norm(v[1], axis=1).max())
        if length == 0:
            still = (np.zeros_like(x), np.zeros_like(h))
            return still, still
        forces = lambda t: _joined(self._checked(pbc, (species, x + t * v[0], h + t * v[1], theta))[1:])
        noise = getattr(self.program, "noise", None) or 0.0
        slope, error = difference(lambda t: forces(t / length), STEP, noise)
        return _apart(length * slope, point), _apart(length * error, point)

    def _perturbed(self, pbc: tuple[bool, ...], point: Point) -> tuple[np.ndarray, np.ndarray]:
        theta = point[3]
        rows = [self._along_parameters(pbc, point, unit)[0] for unit in np.eye(len(theta))]
        self._checked(pbc, point)  # leaves the program with its own parameters
        table = np.array(rows).reshape(len(theta), -1)
        return table[:, 0], table[:, 1:]

    def _along_parameters(self, pbc: tuple[bool, ...], point: Point, dtheta: np.ndarray) -> Any:
        species, x, h, theta = point
        if not np.any(dtheta):
            return np.zeros(1 + x.size + h.size), np.zeros(1 + x.size + h.size)

        def all_of(t: float) -> np.ndarray:
            energy, *slopes = self._checked(pbc, (species, x, h, theta + t * dtheta))
            return np.concatenate([[energy], _joined(slopes)])

        return difference(all_of, _parameter_step(theta, dtheta))

    def _flat(self, values: Mapping[str, Any]) -> np.ndarray:
        parts = [np.ravel(np.asarray(values[name], float)) for name, _ in self.layout]
        return np.concatenate([np.zeros(0), *parts])


def _joined(arrays: Sequence[np.ndarray]) -> np.ndarray:
    return np.concatenate([np.ravel(array) for array in arrays])


def _apart(row: np.ndarray, point: Point) -> tuple[np.ndarray, ...]:
    n = point[1].size
    return row[:n].reshape(point[1].shape), row[n:].reshape(3, 3)


def _parameter_step(theta: np.ndarray, dtheta: np.ndarray) -> float:
    # a small part of the parameters that change, or of one where they are zero
    moved = dtheta != 0
    size = np.linalg.norm(theta[moved])
    return float(PARAMETER_STEP * (size if size > 0 else 1.0) / np.linalg.norm(dtheta))


# --- as JAX sees it. Static: (evaluator, pbc). Arrays: species, positions, cell, parameters in a row.

Static = tuple[Evaluator, tuple[bool, ...]]


def _ask(answer: Callable[..., Any], shapes: Sequence[Any], arrays: tuple[Any, ...]) -> Any:
    """Call the host with arrays; without JAX in between if they are plain: errors then keep their class."""
    if not any(isinstance(array, Tracer) for array in arrays):
        return tuple(jnp.asarray(y) for y in answer(tuple(np.asarray(array) for array in arrays)))
    out = tuple(jax.ShapeDtypeStruct(tuple(shape), jnp.dtype(float)) for shape in shapes)
    call = lambda *a: tuple(np.asarray(y, float) for y in answer(tuple(np.asarray(array) for array in a)))
    return jax.pure_callback(call, out, *arrays, vmap_method="sequential")


def _static_jvp(function: Any) -> Any:
    return jax.custom_jvp(function, nondiff_argnums=(0,))


@_static_jvp
def _energy(static: Static, species: Array, x: Array, h: Array, theta: Array) -> Array:
    evaluator, pbc = static
    return _ask(lambda at: evaluator.evaluate(pbc, at)[:1], [()], (species, x, h, theta))[0]


def _energy_jvp(static: Static, primals: Any, tangents: Any) -> tuple[Array, Array]:
    slopes = (_by_positions, _by_cell, _by_parameters)
    change = jnp.zeros(())
    for slope, tangent in zip(slopes, tangents[1:], strict=True):
        if not _is_zero(tangent):
            change = change + jnp.vdot(slope(static, *primals), tangent)
    return _energy(static, *primals), change


def _is_zero(tangent: Any) -> bool:
    return isinstance(tangent, jax.custom_derivatives.SymbolicZero) or tangent.size == 0


_energy.defjvp(_energy_jvp, symbolic_zeros=True)


@_static_jvp
def _by_positions(static: Static, species: Array, x: Array, h: Array, theta: Array) -> Array:
    evaluator, pbc = static
    return _ask(lambda at: evaluator.evaluate(pbc, at)[1:2], [x.shape], (species, x, h, theta))[0]


@_static_jvp
def _by_cell(static: Static, species: Array, x: Array, h: Array, theta: Array) -> Array:
    evaluator, pbc = static
    evaluator.require_stress()  # said before anything is compiled, where it is known by now

    def answer(at: Point) -> tuple[np.ndarray, ...]:
        of_cell = evaluator.evaluate(pbc, at)[2:]
        evaluator.require_stress()
        return of_cell

    return _ask(answer, [(3, 3)], (species, x, h, theta))[0]


@_static_jvp
def _by_parameters(static: Static, species: Array, x: Array, h: Array, theta: Array) -> Array:
    evaluator, pbc = static
    answer = lambda at: (evaluator.gradient_by_parameters(pbc, at),)
    return _ask(answer, [theta.shape], (species, x, h, theta))[0]


def _filled(values: tuple[Array, ...], tangents: tuple[Any, ...]) -> tuple[Array, ...]:
    pairs = zip(values, tangents, strict=True)
    return tuple(jnp.zeros_like(value) if _is_zero(tangent) else tangent for value, tangent in pairs)


def _of_geometry(which: int, function: Any) -> Any:
    def rule(static: Static, point: Any, tangents: Any) -> tuple[Array, Array]:
        x, h = point[1:3]
        dx, dh, dtheta = tangents[1:]
        value = function(static, *point)
        change = jnp.zeros_like(value)
        if not (_is_zero(dx) and _is_zero(dh)):
            moves = _filled((x, h), (dx, dh))
            A = _Curvature(*static)
            change = change + host_product(A, A, point, moves, (x.shape, (3, 3)))[which]
        if not _is_zero(dtheta):
            push, pull = _Pushed(*static), _Pulled(*static)
            change = change + host_product(push, pull, point, (dtheta,), (x.shape, (3, 3)))[which]
        return value, change

    return rule


def _of_parameters(static: Static, point: Any, tangents: Any) -> tuple[Array, Array]:
    x, h, theta = point[1:]
    dx, dh, dtheta = tangents[1:]
    value = _by_parameters(static, *point)
    change = jnp.zeros_like(value)
    if not (_is_zero(dx) and _is_zero(dh)):
        moves = _filled((x, h), (dx, dh))
        push, pull = _Pushed(*static), _Pulled(*static)
        change = change + host_product(pull, push, point, moves, (theta.shape,))[0]
    if not _is_zero(dtheta):
        bend = _Bent(*static)
        change = change + host_product(bend, bend, point, (dtheta,), (theta.shape,))[0]
    return value, change


_by_positions.defjvp(_of_geometry(0, _by_positions), symbolic_zeros=True)
_by_cell.defjvp(_of_geometry(1, _by_cell), symbolic_zeros=True)
_by_parameters.defjvp(_of_parameters, symbolic_zeros=True)


class _Curvature(NamedTuple):
    """Block of positions and cell; its own transpose."""

    evaluator: Evaluator
    pbc: tuple[bool, ...]

    def __call__(self, point: Point, v: tuple[np.ndarray, ...]) -> tuple[np.ndarray, ...]:
        return self.evaluator.curvature(self.pbc, point, v)[0]


class _Pushed(NamedTuple):
    """From parameters to positions and cell."""

    evaluator: Evaluator
    pbc: tuple[bool, ...]

    def __call__(self, point: Point, v: tuple[np.ndarray, ...]) -> tuple[np.ndarray, ...]:
        return self.evaluator.pushed(self.pbc, point, v[0])


class _Pulled(NamedTuple):
    """From positions and cell to parameters: the transpose of `_Pushed`."""

    evaluator: Evaluator
    pbc: tuple[bool, ...]

    def __call__(self, point: Point, v: tuple[np.ndarray, ...]) -> tuple[np.ndarray, ...]:
        return (self.evaluator.pulled(self.pbc, point, v),)


class _Bent(NamedTuple):
    """Block of the parameters; its own transpose."""

    evaluator: Evaluator
    pbc: tuple[bool, ...]

    def __call__(self, point: Point, v: tuple[np.ndarray, ...]) -> tuple[np.ndarray, ...]:
        return (self.evaluator.bent(self.pbc, point, v[0]),)
