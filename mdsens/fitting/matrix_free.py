"""Gauss-Newton for very many parameters: the matrix of derivatives is never written down.

A step minimises the residuals to first order, held near by a damping mu (Levenberg, Marquardt):

    (J^T J + mu D) p = -J^T r,        D = diag(J^T J).

Conjugate gradients need products with J^T J alone: one derivative forward along v, one back from J v,
batch by batch, each as cheap as some forces. D scales parameters of different units alike, and is an
estimate: for signs s at random the squares of J^T s are D on the average. Its signs come from the number
of the step, so that a fit that goes on ends with the same bits. The damping falls where the loss fell as
predicted, and grows where it did not.

Source: Nocedal, Wright, Numerical Optimization, chapters 7 and 10; Nielsen, Damping parameter in
Marquardt's method (1999), for the damping; Bekas, Kokiopoulou, Saad, Appl. Numer. Math. 57, 1214 (2007),
for D.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, Self

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float

from mdsens.checks import instance, number, whole
from mdsens.datasets.batches import LabelledBatch, batch_values
from mdsens.errors import FileFormatError, InputError, NonFiniteError
from mdsens.fitting.force_matching import ForceMatching, LabelTolerances
from mdsens.fitting.train_potential import PotentialParameters
from mdsens.io.files import check_free
from mdsens.io.hdf5 import read_hdf5, write_hdf5
from mdsens.potentials.base import Potential, require_potential
from mdsens.potentials.parameters import check_parameters
from mdsens.precision import require_x64

KIND = "matrix-free fit"
PROBES = 8  # random signs for D
SMALLEST = 1e-10  # of the largest entry of D: parameters that no label knows stay where they are
HIGHEST = 1e12  # damping at which no step is left
GAIN = 1e-3  # share of its prediction by which the loss must fall

Vector = Float[np.ndarray, "parameters"]


class MatrixFreeProgress(NamedTuple):
    """What a callback sees after each step.

    Attributes:
        taken: whether the loss fell. products: with J^T J, in this step.
    """

    step: int
    taken: bool
    loss: float
    damping: float
    products: int


class MatrixFreeFit(NamedTuple):
    """How a fit ended.

    Attributes:
        potential: with the lowest loss. status: in words.
        losses: at the start and after each step. products: with J^T J in all.
    """

    potential: Potential
    status: str
    losses: Float[np.ndarray, "steps"]
    products: int


def fit_matrix_free(
    potential: Potential,
    term: ForceMatching,
    *,
    frozen: tuple[str, ...] = (),
    max_steps: int = 50,
    products: int = 100,
    damping: float = 1e-3,
    tolerance: float = 1e-6,
    enough: float = 1e-4,
    checkpoint: str | Path | None = None,
    resume: bool = False,
    overwrite: bool = False,
    progress: Callable[[MatrixFreeProgress], None] | None = None,
) -> MatrixFreeFit:
    """Fit all parameters of a potential to data; for a few of them `fit` says more and takes fewer steps.

    Args:
        potential: where the fit starts.
        term: data, tolerances, what outliers count.
        frozen: beginnings of names of parameters that stay.
        max_steps: steps tried.
        products: with J^T J in a step, at most.
        damping: of the first step.
        tolerance: the fit has converged when a step promises to lower the loss by a smaller share,
        enough: or when the root mean square of the residuals, which are without unit, is smaller.
        checkpoint: a file (.h5) written after every step.
        resume: go on from that file if it is there; ends with the same bits.
        overwrite: replace that file.
        progress: called after every step.
    Raises:
        InputError: a term with energies that are fitted along, no parameters, the file of another fit.
        NonFiniteError: the loss is not finite at the start, or its derivative is not at a step; `partial` is
            then the fit up to there. A step to where the loss is not finite is not taken.
    """
    require_x64()
    instance("term", term, ForceMatching, "Write ForceMatching(data).")
    if term.shift_energies:
        raise InputError(
            "shift_energies = True: energies that are fitted along join all batches. Take them off before: "
            "subtract_references(data, reference_energies(data))."
        )
    problem = _Problem(require_potential(potential), term, frozen)
    negligible = number("enough", enough, at_least=0.0) ** 2 * problem.labels
    number("damping", damping, above=0.0)
    number("tolerance", tolerance, above=0.0)
    whole("products", products, at_least=1)
    file = None if checkpoint is None else _File(checkpoint, problem.settings())
    state = problem.begin(damping) if file is None else file.begin(problem, damping, resume, overwrite)
    status = None if state.loss > negligible else "converged"
    while status is None and state.step < whole("max_steps", max_steps):
        before = state
        state, status = problem.advance(state, products, tolerance)
        status = status if state.loss > negligible else "converged"
        if file is not None:
            file.write(state)
        if progress is not None:
            done = state.products - before.products
            progress(
                MatrixFreeProgress(state.step, state.loss < before.loss, state.loss, state.damping, done)
            )
    return problem.ended(state, status or "stopped after max_steps")


class _State(NamedTuple):
    """A fit between two steps."""

    x: Vector
    losses: tuple[float, ...]
    damping: float
    growth: float
    products: int

    @property
    def step(self) -> int:
        return len(self.losses) - 1

    @property
    def loss(self) -> float:
        return self.losses[-1]

    def refused(self, products: int) -> Self:
        """After a step that did not lower the loss."""
        return self._replace(
            losses=(*self.losses, self.loss),
            damping=self.damping * self.growth,
            growth=2 * self.growth,
            products=self.products + products,
        )

    def taken(self, x: Vector, loss: float, gain: float, products: int) -> Self:
        """After a step that did."""
        factor = max(1 / 3, 1 - (2 * min(gain, 1.0) - 1) ** 3)
        return self._replace(
            x=x,
            losses=(*self.losses, loss),
            damping=max(self.damping * factor, 1e-12),
            growth=2.0,
            products=self.products + products,
        )


class _Problem:
    """What is fitted."""

    def __init__(self, potential: Potential, term: ForceMatching, frozen: tuple[str, ...]):
        check_parameters(potential)
        self.potential, self.term = potential, term
        model = PotentialParameters.of(potential, frozen)
        if not model.arrays:
            raise InputError(f"frozen = {frozen!r} leaves no parameter to fit.")
        self.start, self.unravel = ravel_pytree(model)
        counts = term.data.counts()
        rows = counts.energies, 3 * counts.atoms_with_forces, 6 * counts.stresses
        self.labels = sum(n for n, t in zip(rows, term.tolerances, strict=True) if t is not None)

    def settings(self) -> dict[str, Any]:
        """What must be the same when a fit goes on."""
        return {
            "potential": f"{type(self.potential).__name__}, {len(self.start)} numbers",
            "start": float(np.sum(np.asarray(self.start) * np.cos(np.arange(len(self.start))))),
            "data": self.term.data.fingerprint(),
            "tolerances": list(self.term.tolerances),
            "huber": self.term.huber,
        }

    def at(self, x: Vector) -> Potential:
        """The potential with these parameters."""
        return self.unravel(jnp.asarray(x)).put_into(self.potential)

    def ended(self, state: _State, status: str) -> MatrixFreeFit:
        """What a fit comes to that ends in a state."""
        return MatrixFreeFit(self.at(state.x), status, np.array(state.losses), state.products)

    def begin(self, damping: float) -> _State:
        """The state before the first step."""
        x = np.asarray(self.start)
        loss = self.loss(x)
        if not np.isfinite(loss):
            raise NonFiniteError(
                f"the loss at the start is {loss}: look for structures with atoms on top of each other "
                "(mdsens.datasets.inspect), or start from other parameters."
            )
        return _State(x, (loss,), damping, 2.0, 0)

    def loss(self, x: Vector) -> float:
        """Sum of squared residuals; infinite outside the bounds of the form."""
        try:
            potential = self.at(x)
            check_parameters(potential)
        except InputError:
            return np.inf
        found = sum(float(_loss(*self._arguments(x, batch))) for batch in self.term.batches(potential))
        return found if np.isfinite(found) else np.inf

    def _arguments(self, x: Vector, batch: LabelledBatch) -> "_Arguments":
        residuals = BatchResiduals(self.potential, self.term.tolerances, self.term.huber, self.unravel)
        return residuals, jnp.asarray(x), batch

    def advance(self, state: _State, products: int, tolerance: float) -> tuple[_State, str | None]:
        """One step, and how the fit has ended if it has."""
        batches = self.term.batches(self.at(state.x))
        arguments = [self._arguments(state.x, batch) for batch in batches]
        gradient = _sum(_gradient(*some) for some in arguments)
        if not np.isfinite(gradient).all():
            raise self._without_derivative(state)
        D = self._diagonal(arguments, state.step)
        product = lambda v: _sum(_product(*some, jnp.asarray(v)) for some in arguments)
        step, used, curvature = _conjugate_gradients(product, gradient, D, state.damping, products)
        promise = -(2 * float(gradient @ step) + curvature)
        if promise <= tolerance * state.loss:
            return state._replace(products=state.products + used), "converged"
        loss = self.loss(state.x + step)
        gain = (state.loss - loss) / promise
        if gain > GAIN:
            return state.taken(state.x + step, loss, gain, used), None
        state = state.refused(used)
        stuck = state.damping > HIGHEST
        return state, "no step lowers the loss any more" if stuck else None

    def _without_derivative(self, state: _State) -> NonFiniteError:
        where = f"step {state.step}" if state.step else "the start"
        kept = self.ended(state, "stopped where the loss has no derivative")
        return NonFiniteError(
            f"the loss of {where} is {state.loss:.6g}, and its derivative is not finite: the form is not "
            "smooth there. The parameters of that step are in this error's `partial`, and in the checkpoint "
            "if there is one. Start from others, or freeze those that the form has no derivative by.",
            kept,
        )

    def _diagonal(self, arguments: "list[_Arguments]", step: int) -> Vector:
        keys = jax.random.split(jax.random.key(step), PROBES)
        squares = [
            _sum(_pulled_signs(*some, jax.random.fold_in(key, k)) for k, some in enumerate(arguments)) ** 2
            for key in keys
        ]
        D = np.mean(squares, axis=0)
        return np.maximum(D, SMALLEST * D.max() if D.max() > 0 else 1.0)


def _conjugate_gradients(
    product: Callable[[Vector], Vector], gradient: Vector, D: Vector, damping: float, most: int
) -> tuple[Vector, int, float]:
    """p with (G + damping D) p = -gradient, roughly; how many products it took, and p G p."""
    p, Gp = np.zeros_like(gradient), np.zeros_like(gradient)
    r = -gradient
    z = r / ((1 + damping) * D)
    d, rz = z, float(r @ z)
    first = rz
    used = 0
    # to a part in 1e8 of the error: with exact data convergence stays faster than linear
    while used < most and rz > 1e-16 * first > 0:
        Gd = product(d)
        used += 1
        Ad = Gd + damping * D * d
        bend = float(d @ Ad)
        if not bend > 0:
            break
        length = rz / bend
        p, Gp, r = p + length * d, Gp + length * Gd, r - length * Ad
        z = r / ((1 + damping) * D)
        rz, last = float(r @ z), rz
        d = z + (rz / last) * d
    return p, used, float(p @ Gp)


class BatchResiduals(eqx.Module):
    """Residuals of a batch as one vector, zero where a label is missing."""

    potential: Potential
    tolerances: LabelTolerances = eqx.field(static=True)
    huber: float | None = eqx.field(static=True)
    unravel: Callable[[Array], PotentialParameters] = eqx.field(static=True)

    def __call__(self, x: Float[Array, "parameters"], batch: LabelledBatch) -> Float[Array, "rows"]:
        """At parameters x."""
        found = batch_values(self.unravel(x).put_into(self.potential), batch)
        parts = []
        for name, tolerance in self.tolerances._asdict().items():
            if tolerance is None:
                continue
            off = getattr(found, name) - getattr(batch, name)
            factors = jnp.sqrt(getattr(batch, f"{name}_weight")) / tolerance
            factors = factors / batch.sizes if name == "energy" else factors
            parts.append((factors.reshape(*factors.shape, *[1] * (off.ndim - factors.ndim)) * off).ravel())
        residuals = jnp.concatenate(parts)
        return residuals if self.huber is None else _softened(residuals, self.huber)


_Arguments = tuple[BatchResiduals, Array, LabelledBatch]


def _softened(r: Float[Array, "rows"], d: float) -> Float[Array, "rows"]:
    # as in `force_matching`: s² = 2 d² (u - 1), u = sqrt(1 + r²/d²)
    return r * jnp.sqrt(2 / (jnp.sqrt(1 + (r / d) ** 2) + 1))


@eqx.filter_jit
def _loss(residuals: BatchResiduals, x: Array, batch: LabelledBatch) -> Array:
    return jnp.sum(residuals(x, batch) ** 2)


@eqx.filter_jit
def _gradient(residuals: BatchResiduals, x: Array, batch: LabelledBatch) -> Array:
    r, pull = jax.vjp(lambda x: residuals(x, batch), x)
    return pull(r)[0]


@eqx.filter_jit
def _product(residuals: BatchResiduals, x: Array, batch: LabelledBatch, v: Array) -> Array:
    _, push = jax.linearize(lambda x: residuals(x, batch), x)
    return jax.linear_transpose(push, x)(push(v))[0]


@eqx.filter_jit
def _pulled_signs(residuals: BatchResiduals, x: Array, batch: LabelledBatch, key: Array) -> Array:
    r, pull = jax.vjp(lambda x: residuals(x, batch), x)
    return pull(jax.random.rademacher(key, r.shape, r.dtype))[0]


def _sum(parts: Any) -> Vector:
    return np.sum([np.asarray(part) for part in parts], axis=0)


class _File:
    """The file of a fit: everything that the next step needs."""

    def __init__(self, path: str | Path, settings: dict[str, Any]):
        self.path = Path(path)
        if self.path.suffix not in (".h5", ".hdf5"):
            raise InputError(f"checkpoint = '{path}': fits are kept in HDF5, end the name in .h5.")
        self.settings = json.loads(json.dumps(settings))

    def begin(self, problem: _Problem, damping: float, resume: bool, overwrite: bool) -> _State:
        """The state to go on from."""
        if not (resume and self.path.exists()):
            check_free(self.path, overwrite)
            state = problem.begin(damping)
            self.write(state)
            return state
        content = read_hdf5(self.path, kind=KIND)
        try:
            known = json.loads(content["settings"])
            numbers = (float(content["damping"]), float(content["growth"]), int(content["products"]))
            state = _State(content["x"], tuple(content["losses"].tolist()), *numbers)
        except (KeyError, TypeError, ValueError) as error:
            raise FileFormatError(
                f"'{self.path}' is no whole file of a fit ({error}): begin anew."
            ) from error
        for name, value in self.settings.items():
            if known.get(name) != value:
                raise InputError(
                    f"'{self.path}' is the file of another fit: its {name} is {known.get(name)}, and here "
                    f"{value}. Fit into another file, or pass overwrite=True."
                )
        return state

    def write(self, state: _State) -> None:
        """Keep a state."""
        content = {**state._asdict(), "losses": np.array(state.losses), "settings": json.dumps(self.settings)}
        write_hdf5(self.path, content, kind=KIND, overwrite=True)
