"""Free energies: from samples of the reference alone, or of both ends."""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import logsumexp
from jaxtyping import Array, Float

from mdsens.ensembles.checks import check_overlap, usable
from mdsens.ensembles.weights import MIN_EFFECTIVE, LogWeights, effective
from mdsens.implicit.inverse import inverse

FromReference = Float[Array | np.ndarray, " n_0"]
FromTarget = Float[Array | np.ndarray, " n_1"]


class FreeEnergy(NamedTuple):
    """A free energy difference.

    Attributes:
        value: F_target - F_reference, kT.
        error: its standard error for independent samples, kT. No derivative.
        effective_samples: how many equally weighted samples would tell as much.
    """

    value: Float[Array, ""]
    error: Float[Array, ""]
    effective_samples: Float[Array, ""]


def free_energy_difference(log_w: LogWeights, *, min_effective: float = MIN_EFFECTIVE) -> FreeEnergy:
    """F_target - F_reference = -log <w> from samples of the reference.

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
    result = perturbation(usable(log_w))
    check_overlap(result, result.effective_samples, min_effective, "the samples of the reference")
    return result


def bennett(
    log_w_reference: FromReference, log_w_target: FromTarget, *, min_effective: float = MIN_EFFECTIVE
) -> FreeEnergy:
    """F_target - F_reference from samples of both ends.

    Of all estimates from the same samples it has the least variance.

    Differentiable in the log weights, to any order, as `joint_log_weights` is: with theta in the target's
    energies the derivative is dF/dtheta = <du/dtheta>.

    Args:
        log_w_reference: -u - log p at samples of the reference.
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
    result = _bennett(usable(log_w_reference), usable(log_w_target, everywhere=True))
    check_overlap(result, result.effective_samples, min_effective, "the samples of one end")
    return result


def joint_log_weights(log_w_reference: FromReference, log_w_target: FromTarget) -> Float[Array, " both"]:
    """Log weights, w.r.t. the target, of the samples of both ends: the reference's, then the target's.

    The samples of both are samples of the mixture (n_0 p + n_1 p_target) / n. With these weights they serve
    `reweighted_average` and `free_energy_difference` (which gives Bennett's value) like samples of one
    reference.

    Differentiable in the log weights through u(x; theta), to any order: the density that the samples came
    from stays where it is when theta moves. Not through log p: hold the reference fixed.
    (Differentiating Bennett's condition at fixed samples would give the average of du/dtheta over the
    *overlap* of the two ensembles, for it forgets that the target's samples follow theta.)

    Source: the two-state case of Shirts, Chodera, J. Chem. Phys. 129, 124105 (2008).
    """
    reference, target = usable(log_w_reference), usable(log_w_target, everywhere=True)
    return _joint(_balance_point(reference, target), reference, target)


@jax.jit
def perturbation(log_w: Array) -> FreeEnergy:
    """-log <w>, the free energy of perturbation, whatever the weights."""
    n = log_w.size
    value = np.log(n).item() - logsumexp(log_w)
    # var(-log <w>) = var(w) / (n <w>²), with the variance from n - 1
    w = jnp.exp(jax.lax.stop_gradient(log_w - jnp.max(log_w)))
    relative = w / jnp.mean(w) - 1
    error = jnp.sqrt(jnp.sum(relative**2) / (n * (n - 1)))
    return FreeEnergy(value, error, effective(log_w))


def _fermi(F: Array, log_w_reference: Array, log_w_target: Array) -> tuple[Array, Array]:
    """Logarithms of Bennett's Fermi functions of the samples of either end."""
    # f_0 = 1 / (1 + exp(M + du - F)) over the reference, f_1 = 1 / (1 + exp(-(M + du - F))) over the target,
    # with du = u + log p = -log w and M = log(n_0 / n_1)
    shift = F - np.log(log_w_reference.size / log_w_target.size).item()
    return jax.nn.log_sigmoid(log_w_reference + shift), jax.nn.log_sigmoid(-(log_w_target + shift))


class _Balance(eqx.Module):
    """log sum f_0 - log sum f_1, which increases with F.

    With logarithms its slope is near 1 even without overlap.
    """

    log_w_reference: Float[Array, " n_0"]
    log_w_target: Float[Array, " n_1"]

    def __call__(self, F: Float[Array, ""]) -> Float[Array, ""]:
        f_0, f_1 = _fermi(F, self.log_w_reference, self.log_w_target)
        return logsumexp(f_0) - logsumexp(f_1)


@jax.jit
def _balance_point(log_w_reference: Array, log_w_target: Array) -> Array:
    """Bennett's F: as many samples of the reference look like the target's as the other way round.

    Without a derivative.
    """
    log_w_reference, log_w_target = jax.lax.stop_gradient((log_w_reference, log_w_target))
    n = max(log_w_reference.size, log_w_target.size)
    # With a = F - M, s the logistic function, and the largest log w_reference = t and the smallest
    # log w_target = b, the sums are at least s(t + a) and s(-b - a), and at most n s(t + a) and n s(-b - a).
    # So the first is the larger one at a = c - min(t, b), and the second one at a = -c - max(t, b), if
    # exp(c) > n.
    t, b = jnp.max(log_w_reference), jnp.min(log_w_target)
    c = np.log(n).item() + 1
    M = np.log(log_w_reference.size / log_w_target.size).item()
    balance = _Balance(log_w_reference, log_w_target)
    lower = M - c - jnp.maximum(t, b)
    upper = M + c - jnp.minimum(t, b)
    return inverse(balance, jnp.zeros((), t.dtype), lower, upper)


@jax.jit
def _joint(F: Array, log_w_reference: Array, log_w_target: Array) -> Array:
    # exp(-u) / [(n_0 p + n_1 p_target) / n],  p_target = exp(F - u)
    #     = w n / (n_0 + n_1 exp(F) w_0),
    # w_0 = w at the theta that the samples belong to: it has no derivative
    n_0, n_1 = log_w_reference.size, log_w_target.size
    log_w = jnp.concatenate([log_w_reference, log_w_target])
    share_0 = np.log(n_0 / (n_0 + n_1)).item()
    share_1 = np.log(n_1 / (n_0 + n_1)).item()
    return log_w - jnp.logaddexp(share_0, share_1 + F + jax.lax.stop_gradient(log_w))


@jax.jit
def _bennett(log_w_reference: Array, log_w_target: Array) -> FreeEnergy:
    F = _balance_point(log_w_reference, log_w_target)
    # The condition compares two independent means of Fermi functions, f_0 over the reference and f_1 over the
    # target:
    #     var F = [<f_0²> / <f_0>² - 1] / n_0 + [<f_1²> / <f_1>² - 1] / n_1
    # the variances of two free energies of perturbation with the weights f_0 and f_1.
    one, other = (perturbation(f) for f in _fermi(F, log_w_reference, log_w_target))
    value = perturbation(_joint(F, log_w_reference, log_w_target)).value
    least = jnp.minimum(one.effective_samples, other.effective_samples)
    return FreeEnergy(value, jax.lax.stop_gradient(jnp.hypot(one.error, other.error)), least)
