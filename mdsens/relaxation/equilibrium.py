"""A state with an equation: where it is, how it moves, and how good it is.

At the solution the generalised forces vanish, F(w*, theta) = 0, for any theta. One derivative of that
equation,

    H dw* = - (dF/dtheta) dtheta,        H = dF/dw,

gives the motion of the solution, whatever walk found it. H is singular along the gauge, where w* does not
move. `mdsens.implicit.root` is the same rule for any equation; here the operator, its null space and its
factor are known.

Source: Blondel et al., NeurIPS 2022, arXiv:2105.15183.
"""

import functools
from typing import Any, Self

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import eval_context
from jaxtyping import Array, Bool, Float

from mdsens.batching import map_rows
from mdsens.compiling import compiled_soon
from mdsens.gauge import Gauge, find_gauge
from mdsens.ghosts import list_without_ghosts, number_of_real, padded, real_part, without_ghosts
from mdsens.implicit.blocks import BorderedMatrix
from mdsens.implicit.linear import (
    GMRES,
    AbstractLinearSolver,
    Assembled,
    ConjugateGradient,
    Embedded,
    Factorized,
    NearlySymmetric,
    Refined,
    solve,
)
from mdsens.implicit.spectrum import Spectrum, dense_spectrum, iterative_spectrum, positive_definite
from mdsens.neighbors import Capacity, Neighbors
from mdsens.potentials.base import Potential
from mdsens.quantities import neighbors_of
from mdsens.relaxation.certificate import SOFT, Certificate
from mdsens.relaxation.coordinates import Coordinates, closed
from mdsens.relaxation.landscape import (
    Landscape,
    Vector,
    hessian_times,
    merit,
    residuals_once,
    structure_at,
)
from mdsens.relaxation.precondition import (
    ElasticPreconditioner,
    WaveBox,
    build_preconditioner,
    grid_of,
    longest_waves,
    test_vectors,
)
from mdsens.structure import Structure
from mdsens.threads import in_one_thread

DENSE_LIMIT = 1200  # unknowns up to which the Hessian is built and factorised

Rows = Float[Array, "rows unknowns"]


class Operator(eqx.Module):
    """H around a state, with what solves need: the arrays behind `Equilibrium.solve`, for compiled functions.

    Attributes:
        gauge: null space. preconditioner: None where the solver needs none.
        method: solves H y = b.
        symmetric: whether H is, see `Landscape`.
    """

    gauge: Gauge
    preconditioner: ElasticPreconditioner | None
    method: AbstractLinearSolver
    symmetric: bool = eqx.field(static=True)

    def precondition(self, v: Vector) -> Vector:
        """The preconditioner's product; v itself without one."""
        return v if self.preconditioner is None else self.preconditioner(v)


class Product(eqx.Module):
    """v -> H v by the derivative of the forces along v."""

    landscape: Landscape
    w: Vector

    def __call__(self, v: Vector) -> Vector:
        """The product."""
        return self.landscape.product(self.w, v)


class Deflated(eqx.Module):
    """v -> H v, with one eigenvector moved up the spectrum by a shift.

    Attributes:
        mode: the eigenvector, of norm 1. shift: eV/Å².
    """

    product: Any
    mode: Vector
    shift: Float[Array, ""]

    def __call__(self, v: Vector) -> Vector:
        """The product."""
        return self.product(v) + self.shift * (self.mode @ v) * self.mode


class Internal(eqx.Module):
    """How the atoms settle while the cell is held: H_uu of the state, factorised.

    Attributes:
        gauge: of the displacements alone.
        method: solves H_uu u = b, also a little away from the state.
    """

    gauge: Gauge
    method: AbstractLinearSolver

    def first(self, n: int) -> "Internal":
        """The same for the first n atoms, if the others are ghosts."""
        unknowns = len(self.gauge.free)
        if unknowns == 3 * n:
            return self
        gauge = Gauge(self.gauge.free[: 3 * n], self.gauge.rigid[:, : 3 * n])
        return Internal(gauge, Embedded(self.method, unknowns))


class Equilibrium:
    """A stationary point of a landscape.

    What derivatives around it need is made when first asked for, and kept.

    It holds plain numbers, never traced ones; a `Relaxed` that is being differentiated carries the one it
    stands for.

    Attributes:
        landscape: with the neighbor list of this state; with ghosts behind the atoms, where the potential may
            meet them (`mdsens.ghosts`).
        w: the solution, in the landscape's coordinates.
        gauge: directions along which nothing can be solved; the moves of ghosts are among them.
    """

    def __init__(self, landscape: Landscape, w: Vector, gauge: Gauge):
        """Take a state as it is; `at` makes one from a structure."""
        self.landscape, self.w, self.gauge = landscape, w, gauge

    @classmethod
    def settled(cls, landscape: Landscape, w: Vector) -> Self:
        """The state at w: its gauge is that of atoms that stay where they are."""
        structure = structure_at(landscape.coordinates, w)
        return cls(landscape, w, gauge_of(landscape, structure, settled=True))

    @classmethod
    def at(
        cls,
        potential: Potential,
        structure: Structure,
        basis: Any = None,
        target: Any = None,
        *,
        skin: float | None = None,
        capacity: Capacity | None = None,
    ) -> Self:
        """The state of a structure that somebody else has found, such as a saddle point.

        Args:
            basis: (strains, 3, 3) strains that were free; none by default.
            target: (3, 3) stress they were relaxed to, eV/Å³; zero by default.
            skin: of its neighbor list, Å; default a tenth of the cutoff.
            capacity: shapes of a list to keep.
        """
        basis = np.zeros((0, 3, 3)) if basis is None else np.asarray(basis)
        structure = padded(potential, structure)
        coordinates = Coordinates(structure, jnp.asarray(basis), closed(basis))
        skin = default_skin(potential) if skin is None else skin
        neighbors = neighbors_of(potential, structure, skin, capacity)
        target = jnp.zeros((3, 3)) if target is None else jnp.asarray(target)
        return cls.settled(Landscape(potential, coordinates, target, neighbors), jnp.zeros(coordinates.size))

    # --- where it is ----------------------------------------------------------------------------------

    @functools.cached_property
    def structure(self) -> Structure:
        """Atoms and cell."""
        return without_ghosts(structure_at(self.landscape.coordinates, self.w))

    @functools.cached_property
    def neighbors(self) -> Neighbors:
        """A list that is complete around the structure."""
        return list_without_ghosts(self.landscape.neighbors, self.n_atoms)

    @property
    def potential(self) -> Potential:
        """What the state is one of."""
        return self.landscape.potential

    @property
    def n_atoms(self) -> int:
        """Atoms in the structure."""
        return number_of_real(self.landscape.coordinates.reference)

    @property
    def _unknowns(self) -> int:
        """Displacements of the atoms, and strains: without those of ghosts."""
        return 3 * self.n_atoms + self.landscape.n_strains

    def _without_ghosts(self, vector: np.ndarray) -> np.ndarray:
        return real_part(vector, self.n_atoms, self.landscape.coordinates.reference.n_atoms)

    @functools.cached_property
    def _left(self) -> tuple[Vector, Array, Array]:
        _, gradient = merit(self.landscape, self.gauge.free, self.w)
        return gradient, *residuals_once(self.landscape, self.w, gradient)[:2]

    @property
    def gradient(self) -> Vector:
        """F at w, eV/Å: what is left of the forces."""
        return self._left[0]

    @property
    def fmax(self) -> float:
        """Largest force on a free atom, eV/Å."""
        return float(self._left[1])

    @property
    def stress_error(self) -> float:
        """Largest stress off target, eV/Å³."""
        return float(self._left[2])

    # --- how it moves ---------------------------------------------------------------------------------

    @functools.cached_property
    def preconditioner(self) -> ElasticPreconditioner:
        """An approximate inverse of the Hessian, for solves that iterate."""
        return preconditioner_of(self.landscape, self.w, grid_of(self.structure), self.assembled)

    @functools.cached_property
    def assembled(self) -> BorderedMatrix | None:
        """The Hessian written down block by block, where that pays; None: products of the potential serve."""
        if not self.symmetric:
            return None
        with eval_context():  # first asked for inside a rule, where JAX traces all it sees
            return self.landscape.assembled(self.w)

    @functools.cached_property
    def hessian(self) -> tuple[np.ndarray, np.ndarray] | None:
        """P H P and P as matrices on the host, up to DENSE_LIMIT unknowns; None beyond."""
        if self._unknowns > DENSE_LIMIT:
            return None
        gauge, projector = self.gauge, self.gauge.matrix
        if self.assembled is not None:
            return gauge.project_matrix(self.assembled.dense()), projector
        # what the projector leaves nothing of needs no product
        left = projector.any(axis=1)
        products = np.zeros_like(projector)
        products[left] = hessian_times(self.landscape, self.w, projector[left])
        # the rows of `products` are those of (H P)^T
        return gauge.project_rows(products).T, projector

    @functools.cached_property
    def factor(self) -> Factorized | None:
        """The Hessian factorised, for small systems."""
        return _factorize(*self.hessian) if self.hessian else None

    @functools.cached_property
    def spectrum(self) -> Spectrum:
        """Lowest and highest curvature, eV/Å²."""
        if self.hessian:
            return self._dense_spectrum(*self.hessian)
        return self._iterative_spectrum(self._product)

    def _iterative_spectrum(self, product: Any) -> Spectrum:
        here = structure_at(self.landscape.coordinates, self.w)
        waves = longest_waves(here, WaveBox.around(here), self.landscape.n_strains)
        return _iterative_spectrum(product, self.gauge, self.preconditioner, waves)

    @property
    def _product(self) -> Any:
        return self.assembled or Product(self.landscape, self.w)

    @functools.cached_property
    def next_curvature(self) -> float:
        """Lowest curvature but one, eV/Å²: that of the Hessian with its softest mode moved to the top."""
        ends = self.spectrum
        shift = ends.highest - ends.lowest
        if self.hessian:
            matrix, projector = self.hessian
            deflated = matrix + shift * np.outer(ends.mode, ends.mode)
            return float(self._dense_spectrum(deflated, projector).lowest)
        product = Deflated(self._product, jnp.asarray(ends.mode), jnp.asarray(shift))
        return float(self._iterative_spectrum(product).lowest)

    def _dense_spectrum(self, hessian: np.ndarray, projector: np.ndarray) -> Spectrum:
        # the work grows with the cube of the size: without the rows and columns of ghosts
        here = self._without_ghosts(np.arange(len(self.w)))
        square = np.ix_(here, here)
        ends = dense_spectrum(hessian[square], projector[square], self.gauge.rank)
        mode = np.zeros(len(self.w))
        mode[here] = ends.mode
        return ends._replace(mode=mode)

    @property
    def symmetric(self) -> bool:
        """Whether H is symmetric, see `Landscape.symmetric`."""
        return self.landscape.symmetric

    def operator(self, chosen: AbstractLinearSolver | None = None) -> Operator:
        """H and its solver: the one asked for; by default the factorised Hessian, or one that iterates."""
        method = chosen or self.factor or self._iterative
        if isinstance(method, ConjugateGradient) and not self.symmetric:
            crooked = not self.landscape.coordinates.conservative
            method = GMRES() if crooked else NearlySymmetric(method, self.landscape.n_strains)
        direct = isinstance(method, Factorized)
        return Operator(self.gauge, None if direct else self.preconditioner, method, self.symmetric)

    @property
    def _iterative(self) -> AbstractLinearSolver:
        return (
            ConjugateGradient()
            if self.assembled is None
            else Refined(Assembled(self.assembled), rtol=2e-11, least=1)
        )

    def solve(
        self, rows: Rows, *, transposed: bool = False, linear_solver: AbstractLinearSolver | None = None
    ) -> Rows:
        """H^+ of each row, all in one block; of H^T if transposed."""
        return _solve_rows(self.operator(linear_solver), self.landscape, self.w, rows, transposed)

    def response(
        self,
        landscape: Landscape,
        w: Vector,
        direction: Any,
        linear_solver: AbstractLinearSolver | None = None,
    ) -> Vector:
        """Tangent of the solution for a tangent of the landscape: dw = -H^+ (dF/dtheta) dtheta.

        Args:
            landscape, w: this state's own, perhaps traced: the response is differentiable again.
            direction: a tangent of the landscape, None where a leaf does not change.
        """
        return _response(self.operator(linear_solver), landscape, w, direction)

    def pullback(self, cotangent: Vector, linear_solver: AbstractLinearSolver | None = None) -> Landscape:
        """What a cotangent of the solution is for the landscape: -(dF/dtheta)^T H^-T cotangent."""
        adjoint = self.solve(cotangent[None], transposed=True, linear_solver=linear_solver)[0]
        return _pull_landscape(self.landscape, self.w, adjoint)

    @functools.cached_property
    def internal(self) -> Internal:
        """How the atoms settle while the cell is held."""
        n = 3 * self.landscape.coordinates.reference.n_atoms
        gauge = Gauge(self.gauge.free[:n], self.gauge.rigid)
        if self.hessian is None:
            return Internal(gauge, ConjugateGradient())
        matrix, projector = (a[:n, :n] for a in self.hessian)
        return Internal(
            gauge, Refined(_factorize(*_unstrained(self.landscape.coordinates, self.w, matrix, projector)))
        )

    # --- how good it is -------------------------------------------------------------------------------

    @functools.cached_property
    def is_minimum(self) -> bool:
        """As the certificate says, whose eigenvalues take ten times as long as a proof where there is one."""
        return self._proven_minimum or self.certificate.is_minimum

    @property
    def is_saddle(self) -> bool:
        """As the certificate says."""
        return not self.is_minimum and self.certificate.is_saddle

    @property
    def is_singular(self) -> bool:
        """As the certificate says."""
        return not self.is_minimum and self.certificate.is_singular

    @property
    @in_one_thread
    def _proven_minimum(self) -> bool:
        # No curvature is higher than the norm |H|. So if H - SOFT |H| is positive definite off the gauge, the
        # lowest is above SOFT times the highest.
        if self._knows_its_certificate or not self.gauge.rank or not self.symmetric:
            return False
        matrix = self._dense_matrix
        if matrix is None:
            return False
        size = float(np.linalg.norm(matrix))
        self.gauge.lift(matrix, size)
        matrix[np.diag_indices(len(matrix))] -= SOFT * size
        return positive_definite(matrix)

    @property
    def _knows_its_certificate(self) -> bool:
        # what its doubt rests on, where second derivatives are differences, is no matrix
        return "certificate" in vars(self) or self.potential.by_differences

    @property
    def _dense_matrix(self) -> np.ndarray | None:
        """The Hessian as a matrix of its own, up to DENSE_LIMIT unknowns."""
        if self._unknowns <= DENSE_LIMIT and self.assembled is not None:
            return self.assembled.dense()
        return self.hessian[0].copy() if self.hessian else None

    @functools.cached_property
    def certificate(self) -> Certificate:
        """Quality of the state (without the linear residual, which belongs to a sensitivity)."""
        n, unknowns, rank = self.n_atoms, self._unknowns, self.gauge.rank
        infinite: Any = (np.inf, np.zeros(len(self.w)), np.inf, 0.0)
        ends = self.spectrum if rank else Spectrum(*infinite)
        whole_mode = np.asarray(ends.mode)
        mode = self._without_ghosts(whole_mode)
        falls = rank and float(ends.lowest) < 0
        return Certificate(
            fmax=self.fmax,
            stress_error=self.stress_error,
            lowest_curvature=float(ends.lowest),
            highest_curvature=float(ends.highest),
            curvature_error=float(ends.residual),
            mode=mode[: 3 * n].reshape(n, 3),
            strain_mode=mode[3 * n :],
            unknowns=unknowns,
            gauge=unknowns - rank,
            difference_error=self._difference_error(whole_mode) if rank else np.nan,
            next_curvature=self.next_curvature if falls else np.nan,
        )

    def require(self, name: str = "the state", partial: object = None) -> None:
        """Raise unless the state is what it is meant to be: a minimum.

        Raises:
            SaddlePointError: it is none.
        """
        if not self.is_minimum:
            self.certificate.require_minimum(name, partial)

    def _difference_error(self, mode: np.ndarray) -> float:
        if not self.potential.by_differences:
            return np.nan
        coordinates = self.landscape.coordinates
        structure, move = jax.jvp(coordinates.structure, (self.w,), (jnp.asarray(mode),))
        return self.potential.curvature_error(structure, move.positions, move.cell)

    @property
    def nbytes(self) -> int:
        """Memory of all that is kept, bytes."""
        # What is kept does not change once it is made: it is measured once.
        sizes = vars(self).setdefault("_sizes", {})
        for name in vars(self).keys() - sizes.keys():
            sizes[name] = _bytes_of(vars(self)[name])
        return sum(sizes.values())

    def __getstate__(self) -> dict[str, Any]:
        # What can be made again is not sent to other processes.
        return {name: getattr(self, name) for name in ("landscape", "w", "gauge")}

    def __repr__(self) -> str:
        return f"Equilibrium({self.structure}, {type(self.potential).__name__}, fmax={self.fmax:.1e} eV/Å)"


def _bytes_of(value: Any) -> int:
    if isinstance(value, Certificate):
        return 0
    return sum(int(leaf.nbytes) for leaf in jax.tree.leaves(value) if hasattr(leaf, "nbytes"))


def certify(state: Any) -> Certificate:
    """Certificate of a relaxed state (without the linear residual, which belongs to a sensitivity)."""
    return (state if isinstance(state, Equilibrium) else state.equilibrium).certificate


def default_skin(potential: Potential) -> float:
    """Extra reach of neighbor lists, Å: a tenth of the cutoff."""
    cutoff = float(potential.cutoff)
    return 0.0 if np.isinf(cutoff) else 0.1 * cutoff


def preconditioner_of(
    landscape: Landscape, w: Vector, grid: tuple[int, int, int], matrix: BorderedMatrix | None = None
) -> ElasticPreconditioner:
    """The preconditioner that fits the Hessian at w.

    Args:
        matrix: this Hessian, where it is written down.
    """
    structure = structure_at(landscape.coordinates, w)
    box = WaveBox.around(structure)
    tests = test_vectors(structure, box, landscape.n_strains)
    if matrix is None:
        products = hessian_times(landscape, w, np.asarray(tests))
    else:
        products = _matrix_times(matrix, tests)
    return build_preconditioner(structure, box, grid, tests, products)


# --- compiled once for each size ------------------------------------------------------------------


@eqx.filter_jit
def _matrix_times(matrix: BorderedMatrix, rows: Rows) -> Rows:
    return map_rows(matrix, rows)


@eqx.filter_jit
def _factorize(matrix: Any, projector: Any) -> Factorized:
    return Factorized.of(matrix, projector)


def gauge_of(landscape: Landscape, structure: Structure, settled: bool) -> Gauge:
    """The gauge of a structure on the landscape; `settled`: atoms stay where they are."""
    return _gauge_of(landscape, structure, jnp.asarray(settled))


@compiled_soon
def _gauge_of(landscape: Landscape, structure: Structure, settled: Bool[Array, ""]) -> Gauge:
    # one program for both answers
    return find_gauge(
        landscape.potential, structure, landscape.neighbors, landscape.n_strains, settled=settled
    )


@eqx.filter_jit
def _unstrained(coordinates: Coordinates, w: Vector, matrix: Any, projector: Any) -> tuple[Array, Array]:
    """H_uu and its projector for displacements of the strained cell itself."""
    # x = (x0 + u) F: a displacement d of the cell as it stands is u = d F^-1, so H_dd = F^-1 H_uu F^-T for
    # each pair of atoms. Shifts stay shifts; where coordinates are fixed the frame of u is kept, which F only
    # bends by the strain.
    _, F = coordinates.split(w)
    n = coordinates.reference.n_atoms
    inverse = jnp.linalg.inv(F)
    blocks = matrix.reshape(n, 3, n, 3)
    bent = jnp.einsum("ab,ibjd,cd->iajc", inverse, blocks, inverse).reshape(3 * n, 3 * n)
    return projector @ bent @ projector, projector


@eqx.filter_jit
def _iterative_spectrum(
    product: Any, gauge: Gauge, preconditioner: ElasticPreconditioner, guesses: Rows
) -> Spectrum:
    return iterative_spectrum(product, guesses.shape[1], gauge.project, preconditioner, guesses)


@eqx.filter_jit
def _response(operator: Operator, landscape: Landscape, w: Vector, direction: Any) -> Vector:
    changing, still = eqx.partition(landscape, eqx.is_inexact_array)
    zero = lambda x, d: jnp.zeros_like(x) if d is None and x is not None else d
    full = jax.tree.map(zero, changing, direction, is_leaf=lambda x: x is None)
    # Reverse mode cuts this program in two, the first for what the second needs of the forces. As these are
    # formed anew in the second, hardly anything is left of the first, and both compile in 60 % of the time.
    gradient = jax.checkpoint(lambda m: eqx.combine(m, still).gradient(w))
    force_change = jax.jvp(gradient, (changing,), (full,))[1]
    return solve(
        lambda v: landscape.product(w, v),
        -force_change,
        solver=operator.method,
        project=operator.gauge.project,
        precondition=operator.precondition,
        symmetric=operator.symmetric,
    )


@eqx.filter_jit
def _solve_rows(operator: Operator, landscape: Landscape, w: Vector, rows: Rows, transposed: bool) -> Rows:
    project = operator.gauge.project
    run = operator.method.solve_transposed if transposed else operator.method.solve

    def product(v: Vector) -> Vector:
        return project(landscape.product(w, project(v)))

    def matvec(v: Vector) -> Vector:
        return jax.linear_transpose(product, v)(v)[0] if transposed else product(v)

    return map_rows(lambda b: run(matvec, b, project, operator.precondition), rows)


@eqx.filter_jit
def _pull_landscape(landscape: Landscape, w: Vector, adjoint: Vector) -> Landscape:
    changing, still = eqx.partition(landscape, eqx.is_inexact_array)
    pulled = landscape.pull(w, adjoint, changing, lambda _, values: eqx.combine(values, still))
    return jax.tree.map(jnp.negative, pulled)
