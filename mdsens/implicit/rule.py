"""Differentiate a solution without looking at how it was found.

A solution x*(theta) is what satisfies F(x*, theta) = 0: an optimum, whose gradient vanishes; a fixed point,
where T(x, theta) - x does; a constrained optimum, through its Karush-Kuhn-Tucker conditions. One derivative
of the condition,

    A dx* = - (dF/dtheta) dtheta,        A = dF/dx at x*,

gives the motion of the solution: any solver may find it, on any device, in any language. One linear solve a
direction forward, one with A^T a cotangent backward.

Source: Blondel et al., Efficient and Modular Implicit Differentiation, NeurIPS 2022, arXiv:2105.15183.
"""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.flatten_util import ravel_pytree

from mdsens.errors import InputError, NotConvergedError
from mdsens.implicit.linear import GMRES, AbstractLinearSolver, ConjugateGradient, Dense, solve
from mdsens.implicit.vectors import form_difference
from mdsens.precision import require_x64

DENSE_LIMIT = 1000  # unknowns up to which the default linear solver builds the matrix


def root(
    optimality: Callable[..., Any],
    solver: Callable[..., Any],
    *,
    linear_solver: AbstractLinearSolver | None = None,
    symmetric: bool = False,
    project: Callable[[Any, Any], Any] | None = None,
    check: float | None = 1e-6,
) -> Callable[..., Any]:
    """Make a solver of F(x, theta) = 0 differentiable w.r.t. theta.

    Forward and reverse mode, nested to any order. Inside `jax.jit` wherever `solver` itself can be traced; a
    solver that loops on the host (scipy, another program) is called with concrete values, and cannot.

        solution = root(jax.grad(loss), minimize)
        jax.jacobian(solution, argnums=1)(init, theta)

    Everything a derivative is wanted for goes through theta: a traced value that `optimality` or `solver`
    merely closes over is refused by JAX. `mdsens.relax` is the case of a relaxed structure, with an operator,
    null space and factor that are known (`mdsens.Equilibrium`).

    Args:
        optimality: (x, *theta) -> F, with one array for each array of x, of the same shape.
        solver: (init, *theta) -> x with F(x, *theta) = 0. x and theta are pytrees; arrays of floats are the
            unknowns and the parameters, all else is passed through.
        linear_solver: of A y = b; by default `Dense` up to 1000 unknowns (DENSE_LIMIT), beyond that
            `ConjugateGradient` if symmetric and `GMRES` if not.
        symmetric: A is symmetric, as where F is the gradient of something. Conjugate gradients (the default
            for large systems) also need it positive; give GMRES() for a large indefinite system.
        project: (v, x) -> P v, a symmetric projector for changes v of x: along what it removes F has no root
            of its own (A is singular, from both sides) and x* is taken not to move. At its x it counts as
            constant.
        check: largest component of |F| accepted at the solution, in the units of F; None accepts any.
    Returns:
        solution(init, *theta) -> x. The derivative w.r.t. init is zero: it only chooses among solutions.
    Raises:
        InputError: F and x have different shapes.
        NotConvergedError: F is not zero at the solution; `.partial` is the x returned by `solver`. Under
            `jax.jit` the same message comes as a run-time error of equinox.
        PrecisionError: float64 is off.
    """

    def solution(init: Any, *theta: Any) -> Any:
        require_x64()
        # Arrays pass through the rule. What is no array (a name, a function) goes around it.
        parameters, rest = eqx.partition(theta, eqx.is_inexact_array)
        arrays, constants = eqx.partition(rest, eqx.is_array)
        start, start_constants = eqx.partition(init, eqx.is_array)
        no_arrays: list[Any] = []

        @jax.custom_jvp
        def find(start, arrays, parameters):
            theta = eqx.combine(parameters, arrays, constants)
            x = solver(eqx.combine(start, start_constants), *theta)
            as_array = lambda leaf: jnp.asarray(leaf) if isinstance(leaf, float) else leaf
            x = jax.tree.map(as_array, x)
            if not no_arrays:
                _check_shapes(optimality, x, theta)
            if check is not None:
                x = _check_residual(optimality, x, theta, check)
            x, other = eqx.partition(x, eqx.is_array)
            no_arrays[:] = [other]
            return x

        @find.defjvp
        def rule(primals, tangents):
            # under jax.grad a plain number of Python arrives here as such
            start, arrays, parameters = jax.tree.map(jnp.asarray, primals)
            x = find(start, arrays, parameters)
            whole = eqx.combine(x, no_arrays[0])
            theta = eqx.combine(parameters, arrays, constants)
            change = _response(optimality, linear_solver, symmetric, project, whole, theta, tangents[2])
            # integers among the arrays of x have a tangent of their own type
            of_integers = jax.tree.map(lambda leaf: np.zeros(leaf.shape, jax.dtypes.float0), x)
            return x, eqx.combine(change, of_integers)

        x = find(start, arrays, parameters)
        return eqx.combine(x, no_arrays[0])

    return solution


def fixed_point(map: Callable[..., Any], solver: Callable[..., Any], **options: Any) -> Callable[..., Any]:
    """Make a solver of x = T(x, theta) differentiable w.r.t. theta.

    As `root` for F = x - T(x, theta): A = 1 - dT/dx is positive where T contracts.

    Args:
        map: (x, *theta) -> T, of the form of x.
        solver: (init, *theta) -> x with T(x, *theta) = x, by any means: iterating T, Anderson mixing, Newton.
        options: those of `root`.
    """

    def optimality(x: Any, *theta: Any) -> Any:
        x, image = _unknowns(x), _unknowns(map(x, *theta))
        if (difference := form_difference(x, image)) is not None:
            raise InputError(f"the map returns {difference}: T(x) must have the form of x.")
        leaves, form = jax.tree.flatten(x)
        pairs = zip(leaves, jax.tree.leaves(image), strict=True)
        return jax.tree.unflatten(form, [a - b for a, b in pairs])

    return root(optimality, solver, **options)


@eqx.filter_jit
def _response(optimality, linear_solver, symmetric, project, x, theta, direction):
    """Tangent of the solution for a tangent of the parameters: dx = -A^+ (dF/dtheta) dtheta."""
    unknowns, fixed = eqx.partition(x, eqx.is_inexact_array)
    parameters, constants = eqx.partition(theta, eqx.is_inexact_array)
    flat, unravel = ravel_pytree(unknowns)

    def F(v, parameters):
        theta = eqx.combine(parameters, constants)
        return ravel_pytree(_unknowns(optimality(eqx.combine(unravel(v), fixed), *theta)))[0]

    def P(v):
        where = eqx.combine(unravel(jax.lax.stop_gradient(flat)), fixed)
        return ravel_pytree(_unknowns(project(unravel(v), where)))[0]

    if linear_solver is None:
        iterative = ConjugateGradient() if symmetric else GMRES()
        linear_solver = Dense() if flat.shape[0] <= DENSE_LIMIT else iterative
    of_unknowns = lambda v: F(v, parameters)
    force_change = jax.jvp(lambda p: F(flat, p), (parameters,), (direction,))[1]
    product = lambda v: jax.jvp(of_unknowns, (flat,), (v,))[1]
    options = {"solver": linear_solver, "symmetric": symmetric}
    if project is not None:
        options["project"] = P
    return unravel(solve(product, -force_change, **options))


def _unknowns(tree):
    return eqx.filter(tree, eqx.is_inexact_array)


@eqx.filter_jit
def _largest(optimality, x, theta):
    residual, _ = ravel_pytree(_unknowns(optimality(x, *theta)))
    return jnp.max(jnp.abs(residual), initial=0.0)


def _check_shapes(optimality, x, theta) -> None:
    residual = eqx.filter_eval_shape(optimality, x, *theta)
    is_inexact = lambda leaf: hasattr(leaf, "dtype") and jnp.issubdtype(leaf.dtype, jnp.inexact)
    difference = form_difference(_unknowns(x), eqx.filter(residual, is_inexact))
    if difference is not None:
        raise InputError(
            f"the optimality condition returns {difference}: as many equations as unknowns, one array for "
            "each array of x. For a loss give its gradient, jax.grad(loss)."
        )


def _check_residual(optimality, x, theta, limit: float):
    largest = _largest(optimality, x, theta)
    advice = (
        "its derivative would be that of another point. Tighten the tolerance of the solver, or set check= "
        "to the value you accept."
    )
    if isinstance(largest, Tracer):
        message = f"the optimality condition is above check = {limit:.1e} at the solution: {advice}"
        return eqx.error_if(x, ~(largest <= limit), message)
    if not float(largest) <= limit:
        raise NotConvergedError(
            f"the optimality condition is {float(largest):.1e} at the solution, above check = {limit:.1e}: "
            f"{advice}",
            x,
        )
    return x
