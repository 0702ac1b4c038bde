"""Free energies and averages of a target system out of the samples of a flow, and their derivatives.

The flow has a normalized density p(x). The target has the reduced energy u(x; theta), in kT, and parameters
theta. With the weights

    w(x) = exp(-u(x; theta)) / p(x)

the free energy of the target, relative to the flow whose partition function is 1, and its averages are means
over
samples of the flow:

    F = -log ∫ exp(-u) dx = -log <w>_p,        <A> = <w A>_p / <w>_p.

The derivatives by the parameters are averages of the target themselves, over the same samples:

    dF/dtheta   = <du/dtheta>,
    d<A>/dtheta = <dA/dtheta> - <A du/dtheta> + <A> <du/dtheta>.

Automatic differentiation of the functions here gives just these, at fixed samples x and fixed log p. Where x
and log p come from `flow.draw`, derivatives by the parameters of the flow pass through them as well.

For molecules p and the target's partition function are those of the shape (see `Flow`): place and
orientation, which contribute -log(8 pi² V) to the free energy of any molecule, are left out of both.

Source: Zwanzig, J. Chem. Phys. 22, 1420 (1954); with a map, Jarzynski, Phys. Rev. E 65, 046122 (2002); with a
    flow, Wirnsberger et al., J. Chem. Phys. 153, 144112 (2020).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.scipy.special import logsumexp
from jaxtyping import Array, Float

from mdsens.batching import map_rows
from mdsens.errors import InputError, NonFiniteError, NotConvergedError
from mdsens.implicit.inverse import inverse

AT_ONCE = 1024  # samples evaluated together where there are many
# Samples; with fewer the spread of the weights is itself unknown, and so is every error bar
MIN_EFFECTIVE = 10.0

LogWeights = Float[Array | np.ndarray, " n"]
FromFlow = Float[Array | np.ndarray, " n_0"]
FromTarget = Float[Array | np.ndarray, " n_1"]


class FreeEnergy(NamedTuple):
    """A free energy difference.

    Attributes:
        value: F_target - F_flow, kT.
        error: its standard error for independent samples, kT. No derivative.
        effective_samples: how many equally weighted samples would tell as much.
    """

    value: Float[Array, ""]
    error: Float[Array, ""]
    effective_samples: Float[Array, ""]


class Average(NamedTuple):
    """An average over the target.

    Attributes:
        value: of the shape of the observable, in its unit.
        error: standard error for independent samples. No derivative.
        effective_samples: how many equally weighted samples would tell as much.
    """

    value: Float[Array, "..."]
    error: Float[Array, "..."]
    effective_samples: Float[Array, ""]


class EnsembleSensitivity(NamedTuple):
    """A free energy or an average of the target, and its derivatives by the target's parameters.

    Attributes:
        value: free energy difference (kT), or the average.
        error: its standard error.
        derivatives: by each array of floats in theta, a tree like theta (None where it holds something else);
            value's shape comes first, then the parameter's.
        errors: standard errors of the derivatives, likewise.
        effective_samples: how many equally weighted samples would tell as much.
    """

    value: Float[Array, "..."]
    error: Float[Array, "..."]
    derivatives: Any
    errors: Any
    effective_samples: Float[Array, ""]


def log_weights(
    reduced_energy: Callable[..., Array], x: Any, log_p: LogWeights, *theta: Any
) -> Float[Array, " n"]:
    """log w = -u(x; theta) - log p(x) of each sample.

    Differentiable w.r.t. theta, x and log p. Works under jit; then NaN is not reported.

    Args:
        reduced_energy: u(x) or u(x, theta) of one sample, in kT.
        x: samples (n, ...) of the flow, in its unit.
        log_p: the flow's log density of each, as `Flow.sample` returns it.
        theta: parameters of the target, if u takes them: any tree.
    Returns:
        log w (n,); -inf where u is infinite, for such a sample has no weight.
    Raises:
        InputError: numbers of samples that differ.
        NonFiniteError: u or log p is NaN.
    """
    _count(x, log_p)
    return _without_nan(_energies(reduced_energy, x, theta), jnp.asarray(log_p))


def effective_sample_size(log_w: LogWeights, clip: float | None = None) -> Float[Array, ""]:
    """Share of the samples that count, (sum w)² / (n sum w²): 1 for equal weights, 1/n if one has all the weight.

    Args:
        log_w: log weights.
        clip: share of the weights, the largest, that are set to the smallest among them first. A few flawed
            samples then no longer hide how good the others are; but a clipped weight is a biased one, and
            what the clipped number says of the flow holds without its tail only. 1e-2 is a usual choice.
    Returns:
        A number in (0, 1]; times n, the effective number of samples.
    Raises:
        InputError: a clip outside [0, 1).
        NonFiniteError: NaN among the weights, or none above zero.
    Source: Kish, Survey Sampling, Wiley (1965); truncated weights, Ionides, J. Comput. Graph. Stat. 17, 295
    (2008).
    """
    if clip is not None and not 0 <= clip < 1:
        raise InputError(
            f"clip = {clip}: the share of the weights that are clipped must be at least 0 and below 1."
        )
    log_w = _usable(log_w)
    largest = int(np.ceil((clip or 0.0) * log_w.size))
    if largest:
        log_w = jnp.minimum(log_w, jnp.sort(log_w)[-largest])
    return _share(log_w)


def free_energy_difference(log_w: LogWeights, *, min_effective: float = MIN_EFFECTIVE) -> FreeEnergy:
    """F_target - F_flow = -log <w> from samples of the flow.

    Differentiable in log w: with theta in the energies this is dF/dtheta. Works under jit; then nothing is
    raised.

    Its bias is half its squared error, upwards. Where samples of the target are at hand too, `bennett` is
    better.

    Args:
        log_w: of `log_weights`.
        min_effective: effective samples asked for. With fewer, neither value nor error can be trusted; 0
            shows them.
    Raises:
        InputError: less than two samples.
        NonFiniteError: NaN among the weights, or none above zero.
        NotConvergedError: fewer effective samples than `min_effective`; `partial` is the result.
    Source: Zwanzig, J. Chem. Phys. 22, 1420 (1954).
    """
    result = _difference(_usable(log_w))
    _check_overlap(result, result.effective_samples, min_effective, "the samples of the flow")
    return result


def bennett(
    log_w_flow: FromFlow, log_w_target: FromTarget, *, min_effective: float = MIN_EFFECTIVE
) -> FreeEnergy:
    """F_target - F_flow from samples of both ends: of all estimates from the same samples that with the least variance.

    Differentiable in the log weights, to any order, as `joint_log_weights` is: with theta in the target's
    energies the derivative is dF/dtheta = <du/dtheta>.

    Args:
        log_w_flow: -u - log p at samples of the flow.
        log_w_target: -u - log p at samples of the target. Molecular dynamics gives correlated ones: pass
            frames that are a correlation time apart, or the error is too small.
        min_effective: effective samples asked for at either end.
    Returns:
        FreeEnergy: `effective_samples` is that of the end with fewer of them, where it overlaps with the
        other.
    Raises:
        InputError: less than two samples at an end.
        NonFiniteError: NaN among the weights; an infinite weight at a sample of the target.
        NotConvergedError: fewer effective samples than `min_effective`; `partial` is the result.
    Source: Bennett, J. Comput. Phys. 22, 245 (1976); as maximum likelihood, Shirts, Bair, Hooker, Pande,
        Phys. Rev. Lett. 91, 140601 (2003).
    """
    result = _bennett(_usable(log_w_flow), _usable(log_w_target, everywhere=True))
    _check_overlap(result, result.effective_samples, min_effective, "the samples of one end")
    return result


def joint_log_weights(log_w_flow: FromFlow, log_w_target: FromTarget) -> Float[Array, " both"]:
    """Log weights, w.r.t. the target, of the samples of both ends together: first the flow's, then the target's.

    The samples of both are samples of the mixture (n_0 p + n_1 p_target) / n. With these weights they serve
    `reweighted_average` and `free_energy_difference` (which gives Bennett's value) like samples of one flow.

    Differentiable in the log weights through u(x; theta), to any order: the density that the samples came
    from stays where it is when theta moves. Not through log p: hold the flow fixed.
    (Differentiating Bennett's condition at fixed samples would give the average of du/dtheta over the
    *overlap* of the two ensembles, for it forgets that the target's samples follow theta.)

    Source: the two-state case of Shirts, Chodera, J. Chem. Phys. 129, 124105 (2008).
    """
    flow, target = _usable(log_w_flow), _usable(log_w_target, everywhere=True)
    return _joint(_balance_point(flow, target), flow, target)


def reweighted_average(
    values: Float[Array | np.ndarray, "samples ..."],
    log_w: LogWeights,
    *,
    min_effective: float = MIN_EFFECTIVE,
) -> Average:
    """<A> of the target from samples of the flow.

    Differentiable in values and log w: with theta in both this is d<A>/dtheta. Works under jit; then nothing
    is raised.

    Args:
        values: A of each sample, numbers or arrays: `jax.vmap(observable)(x)`.
        log_w: of `log_weights` or `joint_log_weights`.
        min_effective: effective samples asked for; 0 shows the result whatever it is.
    Raises:
        InputError: less than two samples, or numbers of samples that differ.
        NonFiniteError: NaN among the weights, or A not finite where the weight is above zero.
        NotConvergedError: fewer effective samples than `min_effective`; `partial` is the result.
    """
    _count(values, log_w)
    log_w = _usable(log_w)
    value, error = _mean_and_error(jax.nn.softmax(log_w), jnp.asarray(values))
    result = Average(value, error, _effective(log_w))
    _check_finite({"the average": result.value})
    _check_overlap(result, result.effective_samples, min_effective, "the samples of the flow")
    return result


def free_energy_sensitivity(
    reduced_energy: Callable[[Any, Any], Array],
    theta: Any,
    x: Any,
    log_p: LogWeights,
    *,
    min_effective: float = MIN_EFFECTIVE,
) -> EnsembleSensitivity:
    """F_target - F_flow and dF/dtheta = <du/dtheta>, with standard errors.

    Args:
        reduced_energy: u(x, theta) of one sample, kT.
        theta: parameters of the target: any tree, a potential for one.
        x: samples (n, ...) of the flow.
        log_p: the flow's log density of each.
        min_effective: effective samples asked for.
    Returns:
        EnsembleSensitivity: derivatives in kT per unit of the parameter. The derivative is at constant kT.
    Raises:
        InputError: theta without floats, less than two samples, numbers of samples that differ.
        NonFiniteError: NaN energies, or derivatives that are not finite.
        NotConvergedError: fewer effective samples than `min_effective`; `partial` is the result.
    """
    theta = _with_parameters(theta)
    _count(x, log_p)
    u, slopes = _energies_and_slopes(reduced_energy, theta, x)
    log_w = _usable(_without_nan(u, jnp.asarray(log_p)))
    result = _free_energy_response(log_w, slopes)
    _check_finite({"dF/dtheta": result.derivatives})
    _check_overlap(result, result.effective_samples, min_effective, "the samples of the flow")
    return result


def average_sensitivity(
    observable: Callable[[Any, Any], Array],
    reduced_energy: Callable[[Any, Any], Array],
    theta: Any,
    x: Any,
    log_p: LogWeights,
    *,
    min_effective: float = MIN_EFFECTIVE,
) -> EnsembleSensitivity:
    """<A> of the target and d<A>/dtheta = <dA/dtheta> - cov(A, du/dtheta), with standard errors.

    Args:
        observable: A(x, theta) of one sample: a number or an array.
        reduced_energy: u(x, theta) of one sample, kT.
        theta: parameters of the target: any tree.
        x: samples (n, ...) of the flow.
        log_p: the flow's log density of each.
        min_effective: effective samples asked for.
    Raises:
        InputError, NonFiniteError, NotConvergedError: as `free_energy_sensitivity`.
    """
    theta = _with_parameters(theta)
    _count(x, log_p)
    u, slopes = _energies_and_slopes(reduced_energy, theta, x)
    values, own_slopes = _values_and_slopes(observable, theta, x)
    log_w = _usable(_without_nan(u, jnp.asarray(log_p)))
    result = _average_response(log_w, values, own_slopes, slopes)
    _check_finite({"the average": result.value, "d<A>/dtheta": result.derivatives})
    _check_overlap(result, result.effective_samples, min_effective, "the samples of the flow")
    return result


# --- sums over weights
# ---------------------------------------------------------------------------------------------


@jax.jit
def _share(log_w: Array) -> Array:
    w = jnp.exp(log_w - jax.lax.stop_gradient(jnp.max(log_w)))
    return jnp.sum(w) ** 2 / (w.size * jnp.sum(w * w))


def _effective(log_w: Array) -> Array:
    return jax.lax.stop_gradient(log_w.size * _share(log_w))


@jax.jit
def _difference(log_w: Array) -> FreeEnergy:
    """-log <w>, whatever the weights."""
    n = log_w.size
    value = np.log(n).item() - logsumexp(log_w)
    # var(-log <w>) = var(w) / (n <w>²), with the variance from n - 1
    w = jnp.exp(jax.lax.stop_gradient(log_w - jnp.max(log_w)))
    error = jnp.sqrt(jnp.sum((w / jnp.mean(w) - 1) ** 2) / (n * (n - 1)))
    return FreeEnergy(value, error, _effective(log_w))


@jax.jit
def _mean_and_error(weights: Array, values: Array) -> tuple[Array, Array]:
    # <A> = sum W A; by the delta method its variance is that of the mean of W (A - <A>)
    W, n = _along(weights, values), weights.size
    values = jnp.where(W > 0, values, 0)  # a clash: no weight, and no finite value
    mean = jnp.sum(W * values, axis=0)
    error = jnp.sqrt(n / (n - 1) * jnp.sum(jax.lax.stop_gradient(W * (values - mean)) ** 2, axis=0))
    return mean, error


@jax.jit
def _free_energy_response(log_w: Array, slopes: Any) -> EnsembleSensitivity:
    # dF/dtheta = sum_i W_i du_i/dtheta,  W_i = w_i / sum w
    weights = jax.nn.softmax(log_w)
    value, error, effective = _difference(log_w)
    derivatives, errors = _each(lambda g: _mean_and_error(weights, g), slopes)
    return EnsembleSensitivity(value, error, derivatives, errors, effective)


@jax.jit
def _average_response(log_w: Array, values: Array, own_slopes: Any, slopes: Any) -> EnsembleSensitivity:
    weights = jax.nn.softmax(log_w)
    value, error = _mean_and_error(weights, values)
    deviation = jnp.where(_along(weights, values) > 0, values - value, 0)

    # d<A>/dtheta = sum_i W_i h_i,  h_i = dA_i/dtheta - (A_i - <A>) (du_i/dtheta - <du/dtheta>)
    # The errors of <A> and <du/dtheta> in h cancel to first order, as sum_i W_i (A_i - <A>) = 0.
    def derivative(own: Array, g: Array) -> tuple[Array, Array]:
        g = jnp.where(_along(weights, g) > 0, g - _mean_and_error(weights, g)[0], 0)
        product = deviation.reshape(*values.shape, *[1] * (g.ndim - 1)) * g.reshape(
            -1, *[1] * (values.ndim - 1), *g.shape[1:]
        )
        return _mean_and_error(weights, own - product)

    derivatives, errors = _each(derivative, own_slopes, slopes)
    return EnsembleSensitivity(value, error, derivatives, errors, _effective(log_w))


def _along(weights: Array, values: Array) -> Array:
    """The weights, to multiply values (n, ...)."""
    return weights.reshape(-1, *[1] * (values.ndim - 1))


def _each(function: Callable[..., tuple[Array, Array]], *trees: Any) -> tuple[Any, Any]:
    """Two trees, of the first and the second results of function on each leaf."""
    pairs = [function(*leaves) for leaves in zip(*(jax.tree.leaves(tree) for tree in trees), strict=True)]
    form = jax.tree.structure(trees[0])
    return form.unflatten([a for a, _ in pairs]), form.unflatten([b for _, b in pairs])


# --- both ends -----------------------------------------------------------------------------------------------------


def _fermi(F: Array, log_w_flow: Array, log_w_target: Array) -> tuple[Array, Array]:
    """Logarithms of Bennett's Fermi functions of the samples of either end."""
    # f_0 = 1 / (1 + exp(M + du - F)) over the flow, f_1 = 1 / (1 + exp(-(M + du - F))) over the target, with
    # du = u + log p = -log w and M = log(n_0 / n_1)
    shift = F - np.log(log_w_flow.size / log_w_target.size).item()
    return jax.nn.log_sigmoid(log_w_flow + shift), jax.nn.log_sigmoid(-(log_w_target + shift))


class _Balance(eqx.Module):
    """log sum f_0 - log sum f_1, which increases with F; with logarithms its slope is near 1 even without overlap."""

    log_w_flow: Float[Array, " n_0"]
    log_w_target: Float[Array, " n_1"]

    def __call__(self, F: Float[Array, ""]) -> Float[Array, ""]:
        f_0, f_1 = _fermi(F, self.log_w_flow, self.log_w_target)
        return logsumexp(f_0) - logsumexp(f_1)


@jax.jit
def _balance_point(log_w_flow: Array, log_w_target: Array) -> Array:
    """Bennett's F: as many samples of the flow look like the target's as the other way round. Without a derivative."""
    log_w_flow, log_w_target = jax.lax.stop_gradient((log_w_flow, log_w_target))
    n = max(log_w_flow.size, log_w_target.size)
    # With a = F - M, s the logistic function, and the largest log w_flow = t and the smallest log w_target =
    # b, the sums are at least s(t + a) and s(-b - a), and at most n s(t + a) and n s(-b - a). So the first is
    # the larger one at a = c - min(t, b), and the second one at a = -c - max(t, b), if exp(c) > n.
    t, b = jnp.max(log_w_flow), jnp.min(log_w_target)
    c, M = np.log(n).item() + 1, np.log(log_w_flow.size / log_w_target.size).item()
    balance = _Balance(log_w_flow, log_w_target)
    return inverse(balance, jnp.zeros((), t.dtype), M - c - jnp.maximum(t, b), M + c - jnp.minimum(t, b))


@jax.jit
def _joint(F: Array, log_w_flow: Array, log_w_target: Array) -> Array:
    # exp(-u) / [(n_0 p + n_1 p_target) / n],  p_target = exp(F - u)
    #     = w n / (n_0 + n_1 exp(F) w_0),  w_0 = w at the theta that the samples belong to: it has no derivative
    n_0, n_1 = log_w_flow.size, log_w_target.size
    log_w = jnp.concatenate([log_w_flow, log_w_target])
    share_0, share_1 = np.log(n_0 / (n_0 + n_1)).item(), np.log(n_1 / (n_0 + n_1)).item()
    return log_w - jnp.logaddexp(share_0, share_1 + F + jax.lax.stop_gradient(log_w))


@jax.jit
def _bennett(log_w_flow: Array, log_w_target: Array) -> FreeEnergy:
    F = _balance_point(log_w_flow, log_w_target)
    # The condition compares two independent means of Fermi functions, f_0 over the flow and f_1 over the
    # target:
    #     var F = [<f_0²> / <f_0>² - 1] / n_0 + [<f_1²> / <f_1>² - 1] / n_1
    # the variances of two free energies of perturbation with the weights f_0 and f_1.
    one, other = (_difference(f) for f in _fermi(F, log_w_flow, log_w_target))
    value = _difference(_joint(F, log_w_flow, log_w_target)).value
    effective = jnp.minimum(one.effective_samples, other.effective_samples)
    return FreeEnergy(value, jax.lax.stop_gradient(jnp.hypot(one.error, other.error)), effective)


# --- energies of all samples
# ---------------------------------------------------------------------------------------


@eqx.filter_jit
def _energies(reduced_energy: Callable[..., Array], x: Any, theta: tuple[Any, ...]) -> Array:
    return map_rows(lambda row: reduced_energy(row, *theta), x, batch=AT_ONCE)


@eqx.filter_jit
def _energies_and_slopes(
    reduced_energy: Callable[[Any, Any], Array], theta: Any, x: Any
) -> tuple[Array, Any]:
    slope = eqx.filter_value_and_grad(lambda theta, row: reduced_energy(row, theta))
    return map_rows(lambda row: slope(theta, row), x, batch=AT_ONCE)


@eqx.filter_jit
def _values_and_slopes(observable: Callable[[Any, Any], Array], theta: Any, x: Any) -> tuple[Array, Any]:
    parameters, rest = eqx.partition(theta, eqx.is_inexact_array)

    def both(row: Any) -> tuple[Array, Any]:
        function = lambda parameters: jnp.asarray(observable(row, eqx.combine(parameters, rest)), float)
        return function(parameters), jax.jacrev(function)(parameters)

    return map_rows(both, x, batch=AT_ONCE)


def _with_parameters(theta: Any) -> Any:
    """theta with every float as an array, so that it can be differentiated."""
    theta = jax.tree.map(lambda leaf: jnp.asarray(leaf) if eqx.is_inexact_array_like(leaf) else leaf, theta)
    if not any(eqx.is_inexact_array(leaf) for leaf in jax.tree.leaves(theta)):
        raise InputError(
            "theta holds no floats, so there is nothing to differentiate by: pass the parameters as floats "
            "(1.0, not 1)."
        )
    return theta


# --- what can go wrong
# ---------------------------------------------------------------------------------------------


def _count(x: Any, other: Any) -> None:
    sizes = {np.shape(leaf)[0] if np.ndim(leaf) else 0 for leaf in jax.tree.leaves(x)}
    if sizes != {np.shape(other)[0]}:
        raise InputError(
            f"{' and '.join(map(str, sorted(sizes)))} samples and {np.shape(other)[0]} densities or weights: "
            "give one for each."
        )


@jax.custom_jvp
def _without_nan(u: Array, log_p: Array) -> Array:
    """log w = -u - log p. Looks at the numbers on the host, also behind derivatives being taken; not under jit."""
    log_w = -u - log_p
    if not isinstance(log_w, Tracer) and (bad := np.flatnonzero(np.isnan(np.asarray(log_w)))).size:
        raise NonFiniteError(
            f"{bad.size} of {log_w.size} log weights are NaN, the first that of sample {bad[0]}: u = "
            f"{float(u[bad[0]]):g} kT, "
            f"log p = {float(log_p[bad[0]]):g}. Look at this sample; if its atoms overlap, let the energy be "
            "infinite there, not NaN."
        )
    return log_w


_without_nan.defjvp(lambda primals, tangents: (_without_nan(*primals), -tangents[0] - tangents[1]))


def _usable(log_w: Any, *, everywhere: bool = False) -> Array:
    """Log weights as an array of two or more.

    `everywhere`: of samples of the target, whose weight cannot be zero.
    """
    log_w = jnp.asarray(log_w)
    if log_w.ndim != 1 or log_w.size < 2:
        raise InputError(
            f"log weights of shape {log_w.shape}: give one number for each sample, for two samples or more."
        )
    return (_finite if everywhere else _without_infinities)(log_w)


@jax.custom_jvp
def _without_infinities(log_w: Array) -> Array:
    if not isinstance(log_w, Tracer):
        values = np.asarray(log_w)
        if (bad := np.flatnonzero(np.isnan(values) | (values == np.inf))).size:
            raise NonFiniteError(
                f"{bad.size} of {values.size} log weights are NaN or inf, the first that of sample {bad[0]}: "
                f"{values[bad[0]]}. "
                "u and log p must be numbers there."
            )
        if not np.any(values > -np.inf):
            raise NonFiniteError(
                f"all {values.size} weights are zero: the target's energy is infinite at every sample."
            )
    return log_w


@jax.custom_jvp
def _finite(log_w: Array) -> Array:
    if not isinstance(log_w, Tracer) and (bad := np.flatnonzero(~np.isfinite(np.asarray(log_w)))).size:
        raise NonFiniteError(
            f"{bad.size} of {log_w.size} log weights at samples of the target are not finite, the first that "
            f"of sample {bad[0]}: "
            f"{log_w[bad[0]]}. The target has been there, so u and log p must be finite: leave out frames "
            "that the flow cannot describe."
        )
    return log_w


_without_infinities.defjvp(lambda primals, tangents: (_without_infinities(*primals), tangents[0]))
_finite.defjvp(lambda primals, tangents: (_finite(*primals), tangents[0]))


def _check_overlap(result: Any, effective: Array, least: float, which: str) -> None:
    if isinstance(effective, Tracer) or float(effective) >= least:
        return
    raise NotConvergedError(
        f"of {which} only {float(effective):.2g} count, below min_effective = {least:g}: a few weights outdo "
        "all others, the flow and the "
        "target hardly overlap, and the error bar cannot be trusted. Draw more samples or train the flow "
        "longer; "
        "min_effective=0 shows the numbers.",
        result,
    )


def _check_finite(named: dict[str, Any]) -> None:
    for name, tree in named.items():
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
            if not isinstance(leaf, Tracer) and not np.isfinite(np.asarray(leaf)).all():
                raise NonFiniteError(
                    f"{name}{jax.tree_util.keystr(path)} is not finite: the observable or the derivative of "
                    "the energy is NaN or infinite "
                    "at a sample that has weight."
                )
