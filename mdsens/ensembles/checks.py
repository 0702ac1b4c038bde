"""What can go wrong with weighted samples, looked at on the host.

The checks pass traced values through: under jit nothing is raised. Where a derivative is being taken (but not
under jit) they still see the numbers, by rules of differentiation of their own.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array

from mdsens.errors import InputError, NonFiniteError, NotConvergedError


def check_counts(x: Any, other: Any) -> None:
    """As many samples as densities or weights."""
    sizes = {np.shape(leaf)[0] if np.ndim(leaf) else 0 for leaf in jax.tree.leaves(x)}
    if sizes != {np.shape(other)[0]}:
        raise InputError(
            f"{' and '.join(map(str, sorted(sizes)))} samples and {np.shape(other)[0]} densities or weights: "
            "give one for each."
        )


def with_parameters(theta: Any) -> Any:
    """theta with every float as an array, so that it can be differentiated."""
    theta = jax.tree.map(lambda leaf: jnp.asarray(leaf) if eqx.is_inexact_array_like(leaf) else leaf, theta)
    if not any(eqx.is_inexact_array(leaf) for leaf in jax.tree.leaves(theta)):
        raise InputError(
            "theta holds no floats, so there is nothing to differentiate by: pass the parameters as floats "
            "(1.0, not 1)."
        )
    return theta


def usable(log_w: Any, *, everywhere: bool = False) -> Array:
    """Log weights as an array of two or more.

    `everywhere`: of samples of the target, whose weight cannot be zero.
    """
    log_w = jnp.asarray(log_w)
    if log_w.ndim != 1 or log_w.size < 2:
        raise InputError(
            f"log weights of shape {log_w.shape}: give one number for each sample, for two samples or more."
        )
    return _finite(log_w) if everywhere else _without_infinities(log_w)


@jax.custom_jvp
def without_nan(u: Array, log_p: Array) -> Array:
    """log w = -u - log p, none of them NaN."""
    log_w = -u - log_p
    if isinstance(log_w, Tracer):
        return log_w
    bad = np.flatnonzero(np.isnan(np.asarray(log_w)))
    if bad.size:
        raise NonFiniteError(
            f"{bad.size} of {log_w.size} log weights are NaN, the first that of sample {bad[0]}: "
            f"u = {float(u[bad[0]]):g} kT, log p = {float(log_p[bad[0]]):g}. Look at this sample; if its "
            "atoms overlap, let the energy be infinite there, not NaN."
        )
    return log_w


@jax.custom_jvp
def _without_infinities(log_w: Array) -> Array:
    if isinstance(log_w, Tracer):
        return log_w
    values = np.asarray(log_w)
    bad = np.flatnonzero(np.isnan(values) | (values == np.inf))
    if bad.size:
        raise NonFiniteError(
            f"{bad.size} of {values.size} log weights are NaN or inf, the first that of sample {bad[0]}: "
            f"{values[bad[0]]}. u and log p must be numbers there."
        )
    if not np.any(values > -np.inf):
        raise NonFiniteError(
            f"all {values.size} weights are zero: the target's energy is infinite at every sample."
        )
    return log_w


@jax.custom_jvp
def _finite(log_w: Array) -> Array:
    if isinstance(log_w, Tracer):
        return log_w
    bad = np.flatnonzero(~np.isfinite(np.asarray(log_w)))
    if bad.size:
        raise NonFiniteError(
            f"{bad.size} of {log_w.size} log weights at samples of the target are not finite, the first that "
            f"of sample {bad[0]}: {log_w[bad[0]]}. The target has been there, so u and log p must be finite: "
            "leave out frames that the reference cannot describe."
        )
    return log_w


@without_nan.defjvp
def _without_nan_jvp(primals: tuple[Array, Array], tangents: tuple[Array, Array]) -> tuple[Array, Array]:
    du, dlog_p = tangents
    return without_nan(*primals), -du - dlog_p


@_without_infinities.defjvp
def _without_infinities_jvp(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    return _without_infinities(*primals), tangents[0]


@_finite.defjvp
def _finite_jvp(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    return _finite(*primals), tangents[0]


def check_overlap(result: Any, effective: Array, least: float, which: str) -> None:
    """Effective samples enough to trust the result, which the error carries as `partial`."""
    if isinstance(effective, Tracer) or float(effective) >= least:
        return
    raise NotConvergedError(
        f"of {which} only {float(effective):.2g} count, below min_effective = {least:g}: a few weights outdo "
        "all others, the reference and the target hardly overlap, and the error bar cannot be trusted. Draw "
        "more samples, or bring the reference nearer to the target (if it is a flow, train it longer); "
        "min_effective=0 shows the numbers.",
        result,
    )


def check_finite(named: dict[str, Any]) -> None:
    """Trees of results by what to call them, all of whose numbers must be finite."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(named):
        if isinstance(leaf, Tracer) or np.isfinite(np.asarray(leaf)).all():
            continue
        name = path[0].key + jax.tree_util.keystr(path[1:])
        raise NonFiniteError(
            f"{name} is not finite: the observable or the derivative of the energy is NaN or infinite at a "
            "sample that has weight."
        )
