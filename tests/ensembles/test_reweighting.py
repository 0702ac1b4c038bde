"""Free energies and averages by reweighting.

Against Gaussian integrals, quadrature, identities and differences.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose

import mdsens as ms
from mdsens.calculators.reduced import reduced_potential
from mdsens.ensembles import (
    average_sensitivity,
    bennett,
    effective_sample_size,
    free_energy_difference,
    free_energy_sensitivity,
    joint_log_weights,
    log_weights,
    reweighted_average,
)
from mdsens.errors import InputError, NonFiniteError, NotConvergedError
from mdsens.flows.flow import Flow, Normal
from mdsens.flows.internal_coordinates import ZMatrix
from mdsens.flows.layers import Elementwise, Name, Split, Whiten
from mdsens.flows.transforms import AffineFamily, LineMixture
from mdsens.testing import central_difference

# The target is a particle in a harmonic well in two dimensions, u = k |x - m|² / 2 + c:
#     F = c - log(2 pi / k),   <x> = m,   <|x - m|²> = 2 / k
# and so dF/dk = 1/k, dF/dm = 0, dF/dc = 1, d<x>/dm = 1, d<|x|²>/dk = -2/k².
WELL = {"k": jnp.array(np.array(1.5)), "m": jnp.array([0.2, -0.1]), "c": jnp.array(np.array(3.0))}
EXACT_F = 3.0 - np.log(2 * np.pi / 1.5)


def well(x, theta):
    return 0.5 * theta["k"] * jnp.sum((x - theta["m"]) ** 2) + theta["c"]


def square(x, theta):
    return jnp.sum(x**2)


N = 4000


@pytest.fixture(scope="module")
def samples():
    """Of a flow that is not the target, but overlaps with it: a unit Gaussian."""
    flow = Flow((Name("x"), Elementwise.zeros("x", 2, AffineFamily())), {"x": Normal(2)})
    return flow.sample(jax.random.key(1), N, batch=N)


def log_normal(x):
    """log p of the unit Gaussian."""
    return -0.5 * np.sum(x * x, axis=-1) - np.log(2 * np.pi)


def within(value, exact, error, n=4):
    """Seeded, so within four standard errors or not for good.

    An error bar ten times too large is caught by the calibration below.
    """
    assert abs(float(value) - exact) < n * float(error)


def test_free_energy_of_a_harmonic_well_is_that_of_its_gaussian_integral(samples):
    result = free_energy_difference(log_weights(well, *samples, WELL))
    assert 0.005 < float(result.error) < 0.03  # the weights spread by half their mean or so, over sqrt(4000)
    within(result.value, EXACT_F, result.error)


def test_weights_of_a_perfect_flow_are_equal_and_its_free_energy_has_no_error(samples):
    x, log_p = samples
    log_w = log_weights(lambda x: 0.5 * jnp.sum(x * x) + np.log(2 * np.pi) + 7.0, x, log_p)
    result = free_energy_difference(log_w)
    # rounding of log p and u, some 1e-15 of numbers near 10
    assert_allclose(result.value, 7.0, rtol=1e-14)
    assert float(result.error) < 1e-14
    assert_allclose(effective_sample_size(log_w), 1.0, rtol=1e-14)
    both = bennett(log_w, log_w[: N // 2])
    assert_allclose(both.value, 7.0, rtol=1e-14)
    assert float(both.error) < 1e-14


def test_effective_sample_size_counts_what_is_there():
    n, k = 1000, 250
    some = np.where(np.arange(n) < k, 0.3, -np.inf)  # k equal weights, the others zero
    assert_allclose(effective_sample_size(some), k / n, rtol=1e-14)
    assert_allclose(effective_sample_size(np.where(np.arange(n) == 3, 800.0, 0.0)), 1 / n, rtol=1e-14)
    # shifting the energy changes no weight relative to the others
    random = np.random.default_rng(0).normal(size=n)
    assert_allclose(effective_sample_size(random + 1e3), effective_sample_size(random), rtol=1e-12)


def test_clipping_sets_the_largest_weights_to_the_smallest_among_them():
    log_w = np.zeros(1000)
    log_w[:10] = np.arange(10) * 100.0  # ten in a thousand are huge: their smallest is like all others
    assert float(effective_sample_size(log_w)) < 2e-3
    assert_allclose(effective_sample_size(log_w, clip=1e-2), 1.0, rtol=1e-14)
    assert_allclose(effective_sample_size(log_w, clip=0.0), effective_sample_size(log_w), rtol=0)
    w = np.exp(np.sort(np.random.default_rng(2).normal(size=200)))
    w[-7:] = w[-7]
    assert_allclose(
        effective_sample_size(np.log(w), clip=0.031), w.sum() ** 2 / (w**2).sum() / 200, rtol=1e-12
    )  # 6.2 rounds up to 7


def test_stated_errors_are_the_scatter_of_repeated_estimates():
    # 600 independent estimates from 400 samples a side. The ratio of scatter and stated error has a standard
    # error of 1 / sqrt(2 x 600) = 3 %, and estimates from 400 samples are Gaussian to a few percent.
    n_trials, n = 600, 400
    rng = np.random.default_rng(5)
    x = rng.normal(size=(n_trials, n, 2))
    y = rng.normal(size=(n_trials, n, 2)) / np.sqrt(1.5) + [0.2, -0.1]

    @jax.jit
    @jax.vmap
    def all_estimates(x, y, log_p, log_q):
        flow, target = log_weights(well, x, log_p, WELL), log_weights(well, y, log_q, WELL)
        mean = reweighted_average(jnp.sum(x**2, -1), flow)
        slope = free_energy_sensitivity(well, WELL, x, log_p)
        response = average_sensitivity(square, well, WELL, x, log_p)
        exact_square = 2 / 1.5 + 0.05
        return {
            "perturbation": (free_energy_difference(flow)[:2], EXACT_F),
            "Bennett": (bennett(flow, target)[:2], EXACT_F),
            "average": (mean[:2], exact_square),
            "dF/dk": ((slope.derivatives["k"], slope.errors["k"]), 1 / 1.5),
            "d<|x|²>/dk": ((response.derivatives["k"], response.errors["k"]), -2 / 1.5**2),
            "d<|x|²>/dm": ((response.derivatives["m"][0], response.errors["m"][0]), 2 * 0.2),
        }

    estimates = all_estimates(x, y, log_normal(x), log_normal(y))
    results = {
        name: (np.asarray(v), np.asarray(e), float(exact[0])) for name, ((v, e), exact) in estimates.items()
    }
    for name, (value, error, exact) in results.items():
        z = (value - exact) / error
        assert 0.9 < np.sqrt(np.mean(z**2)) < 1.12, name
    assert results["Bennett"][1].mean() < results["perturbation"][1].mean()


def test_derivatives_by_parameters_are_averages_and_covariances(samples):
    x, log_p = samples

    def estimates(theta):
        log_w = log_weights(well, x, log_p, theta)
        values = {
            "F": free_energy_difference(log_w).value,
            "A": reweighted_average(jnp.sum(x**2, -1), log_w).value,
        }
        return values, values

    compiled = jax.jit(jax.jacrev(estimates, has_aux=True))
    automatic = compiled(WELL)[0]
    differences = central_difference(lambda theta: compiled(theta)[1], WELL, step=1e-3, order=4)
    F = free_energy_sensitivity(well, WELL, x, log_p)
    A = average_sensitivity(square, well, WELL, x, log_p)
    for name in WELL:
        for key, sensitivity in (("F", F), ("A", A)):
            assert_allclose(sensitivity.derivatives[name], automatic[key][name], rtol=1e-11, atol=1e-12)
            # error of the differences: step⁴ = 1e-12, rounding 1e-15 / 1e-3
            assert_allclose(automatic[key][name], differences[key][name], rtol=1e-10, atol=1e-11)
    # the same written out: <x> relative to the covariance with du/dk = |x - m|² / 2
    w = np.exp(np.asarray(log_weights(well, x, log_p, WELL)))
    w /= w.sum()
    r, s = 0.5 * np.sum((x - np.asarray(WELL["m"])) ** 2, 1), np.sum(x**2, 1)
    assert_allclose(F.derivatives["k"], w @ r, rtol=1e-12)
    assert_allclose(A.derivatives["k"], -(w @ (r * s) - (w @ r) * (w @ s)), rtol=1e-11)
    # and the exact ones
    within(F.derivatives["k"], 1 / 1.5, F.errors["k"])
    within(A.derivatives["k"], -2 / 1.5**2, A.errors["k"])
    assert_allclose(F.derivatives["c"], 1.0, rtol=1e-12)
    assert float(F.errors["c"]) < 1e-14


def test_second_derivative_of_the_free_energy_is_minus_the_variance(samples):
    x, log_p = samples
    F = lambda k: free_energy_difference(log_weights(well, x, log_p, WELL | {"k": k})).value
    w = jax.nn.softmax(log_weights(well, x, log_p, WELL))
    r = 0.5 * jnp.sum((x - WELL["m"]) ** 2, axis=1)
    for mode in (jax.jacfwd, jax.jacrev):
        assert_allclose(jax.jit(mode(jax.grad(F)))(1.5), -(w @ r**2 - (w @ r) ** 2), rtol=1e-10)


def test_observables_may_be_arrays_and_depend_on_the_parameters(samples):
    x, log_p = samples

    def observable(x, theta):
        return theta["k"] * jnp.outer(x, x - theta["m"])

    result = average_sensitivity(observable, well, WELL, x, log_p)
    assert result.value.shape == result.error.shape == (2, 2)
    assert result.derivatives["m"].shape == result.errors["m"].shape == (2, 2, 2)

    @jax.jit
    @jax.jacrev
    def automatic(theta):
        return reweighted_average(
            jax.vmap(lambda x: observable(x, theta))(x), log_weights(well, x, log_p, theta)
        ).value

    expected = automatic(WELL)
    for name in WELL:
        assert_allclose(result.derivatives[name], expected[name], rtol=1e-11, atol=1e-12)
    # <k (x - m) (x - m)> = 1 by equipartition, whatever k and m: derivatives vanish
    assert np.all(np.abs(result.value - np.eye(2)) < 4 * result.error)
    assert np.all(np.abs(result.derivatives["k"]) < 4 * result.errors["k"])


def two_ends(k):
    """Samples of the unit Gaussian, half as many of the centered well of stiffness k, and log p of either."""
    rng = np.random.default_rng(3)
    x, y = rng.normal(size=(N, 2)), rng.normal(size=(N // 2, 2)) / np.sqrt(k)
    return (x, log_normal(x)), (y, log_normal(y))


def centered(x, k):
    return 0.5 * k * jnp.sum(x**2)


def test_bennett_solves_its_equation_with_different_numbers_of_samples():
    flow, target = two_ends(6.0)
    lf, lt = (np.asarray(log_weights(centered, *part, 6.0)) for part in (flow, target))
    result = bennett(lf, lt)
    within(result.value, -np.log(2 * np.pi / 6.0), result.error)
    # the condition as Shirts et al. write it, M = log(n_0 / n_1) and du = -log w
    M, F = np.log(len(lf) / len(lt)), float(result.value)
    assert_allclose(np.sum(1 / (1 + np.exp(M - lf - F))), np.sum(1 / (1 + np.exp(-(M - lt - F)))), rtol=1e-11)
    # one more way to write the variance: [<1 / (2 + 2 cosh(M + du - F))>^-1 - n/n_0 - n/n_1] / n, over all n
    # samples together. It holds in the limit of many samples: to 1 / sqrt(2000) or so.
    both = np.concatenate([lf, lt])
    n = len(both)
    variance = (1 / np.mean(1 / (2 + 2 * np.cosh(M - both - F))) - n / len(lf) - n / len(lt)) / n
    assert_allclose(result.error, np.sqrt(variance), rtol=0.05)
    assert_allclose(free_energy_difference(joint_log_weights(lf, lt)).value, F, rtol=1e-13)


def test_bennett_finds_the_free_energy_where_ends_hardly_overlap():
    # widths apart by a factor of 40: the target's region has 1/1600 of the flow's samples
    flow, target = two_ends(1600.0)
    log_w = [log_weights(centered, *part, 1600.0) for part in (flow, target)]
    result = bennett(*log_w)
    within(result.value, -np.log(2 * np.pi / 1600.0), result.error)
    assert 0.1 < float(result.error) < 0.5
    # a million times narrower, and none of the flow's samples comes near the target
    with pytest.raises(NotConvergedError, match="of the samples of one end only"):
        bennett(*(log_weights(centered, *part, 1e6) for part in two_ends(1e6)))


def test_derivative_of_bennett_is_an_average_over_the_target():
    flow, target = two_ends(6.0)

    def F(k):
        return bennett(log_weights(centered, *flow, k), log_weights(centered, *target, k)).value

    def mean_square(k):
        log_w = joint_log_weights(log_weights(centered, *flow, k), log_weights(centered, *target, k))
        return reweighted_average(jnp.sum(jnp.concatenate([flow[0], target[0]]) ** 2, -1), log_w).value

    # both and their derivatives: F has been differentiated in reverse before
    (slope, square), (curvature, response) = jax.jit(
        lambda k: jax.jvp(lambda k: (jax.grad(F)(k), mean_square(k)), (k,), (1.0,))
    )(6.0)
    # dF/dk = <|x|²>/2 = 1/k. The mean over 2000 of the target's samples alone scatters by 1/k / sqrt(2000),
    # 2 %, and the joint one by less; |x|⁴ of the second derivative by twice that. (Bennett's equation
    # differentiated at fixed samples gives 0.235 instead of 0.167.)
    assert_allclose(slope, 1 / 6, rtol=0.06)
    assert_allclose(slope, 0.5 * square, rtol=1e-11)
    assert_allclose(curvature, 0.5 * response, rtol=1e-10)
    assert_allclose(response, -2 / 36, rtol=0.12)


def test_derivatives_pass_through_samples_into_the_flow():
    # ramps on the line: the samples come out of root finding
    family, keys = LineMixture(2), jax.random.split(jax.random.key(2), 64)
    parameters = np.random.default_rng(0).normal(scale=0.5, size=2 * family.n_raw)

    def estimates(parameters):
        moved = Flow((Name("x"), Elementwise("x", family, parameters.reshape(2, -1))), {"x": Normal(2)})
        x, log_p = jax.vmap(moved.draw)(keys)
        log_w = log_weights(well, x, log_p, WELL)
        reverse_kl = -jnp.mean(log_w)
        values = jnp.stack(
            [
                reverse_kl,
                free_energy_difference(log_w).value,
                reweighted_average(jnp.sum(x**2, -1), log_w).value,
            ]
        )
        return values, values

    along = np.random.default_rng(1).normal(size=parameters.size)
    along /= np.linalg.norm(along)
    compiled = jax.jit(jax.jacrev(estimates, has_aux=True))
    exact = compiled(parameters)[0] @ along
    moved = lambda s: compiled(parameters + s * along)[1]
    # A step of 1e-3 along a unit vector: the fourth-order differences' own error is 1e-12 times a fifth
    # derivative, and roots good to 1e-13 or so make 1e-10 of noise.
    assert_allclose(exact, central_difference(moved, 0.0, step=1e-3, order=4), rtol=1e-8)
    assert np.all(np.abs(exact) > 1e-3)


def test_free_energy_of_a_trimer_is_that_of_quadrature():
    # three atoms with Morse bonds, in internal coordinates (two bonds and the angle between them)
    structure = ms.Structure.create(np.zeros((3, 3)), ["Ar"] * 3)
    morse = ms.Morse(D0=1.0, alpha=1.5, r0=3.0, elements=("Ar",))
    u = reduced_potential(morse, structure, 300.0)
    coordinates = ZMatrix.from_topology((3, [(0, 1), (0, 2)]))

    # the reference: the integral over the shape, with its volume element, by Gauss-Legendre points over ten
    # widths
    points, gauss = np.polynomial.legendre.leggauss(24)
    b, t = 0.3 + 0.1 * points, np.pi / 3 + 0.4 * points
    grid = [a.ravel() for a in np.meshgrid(b, b, t, indexing="ij")]
    volume = np.log(0.1 * 0.1 * 0.4) + np.log(gauss[:, None, None] * gauss[:, None] * gauss).ravel()

    @jax.jit
    @jax.value_and_grad
    def reference(potential):
        def one(b, c, t):
            x, log_det = coordinates.inverse(
                {"bonds": jnp.stack([b, c]), "angles": t[None], "torsions": jnp.zeros(0)}
            )
            return log_det - u(x, potential)

        return -jax.scipy.special.logsumexp(jax.vmap(one)(*grid) + volume)

    exact, slopes = reference(morse)
    merge = Split((("bonds", 2), ("angles", 1), ("torsions", 0)), (("q", (0, 1, 2)),))
    # a Gaussian somewhat wider than the wells: sqrt(kT / 2 D0 alpha²) = 0.076 Å
    frames = np.random.default_rng(1).normal(size=(2000, 3)) * [0.009, 0.009, 0.04] + [
        0.301,
        0.301,
        np.pi / 3,
    ]
    flow = Flow((coordinates, merge, Whiten.of("q", frames)), {"q": Normal(3)})
    x, log_p = flow.sample(jax.random.key(4), N, batch=N)
    result = free_energy_sensitivity(lambda x, potential: u(x, potential), morse, x, log_p)
    assert 0.3 < float(result.effective_samples) / N < 0.99
    assert float(result.error) < 0.02
    within(result.value, float(exact), result.error)
    for name in ("D0", "alpha", "r0"):
        within(getattr(result.derivatives, name), float(getattr(slopes, name)), getattr(result.errors, name))
    # the numbers themselves are known well enough to tell: dF/dD0 is -3/kT = -116 but for the motion
    assert float(result.errors.D0) < 0.01 * abs(float(slopes.D0))


def test_many_samples_in_pieces_are_the_same_samples(samples):
    x, log_p = np.tile(samples[0], (1, 300)), samples[1]  # 2.4 million numbers
    u = lambda x: jnp.sum(x[:2] ** 2)
    assert_allclose(log_weights(u, x, log_p), -np.sum(x[:, :2] ** 2, 1) - log_p, rtol=1e-14, atol=1e-14)


def test_samples_of_infinite_energy_have_no_weight(samples):
    x, log_p = samples

    def walled(x, theta):
        inside = x[0] > 0
        return jnp.where(inside, well(x, theta), jnp.inf) + jnp.where(inside, 0.0, theta["k"] * jnp.nan)

    with pytest.raises(NonFiniteError, match="log weights are NaN"):
        log_weights(walled, x, log_p, WELL)
    walled = lambda x, theta: jnp.where(x[0] > 0, 1.0, jnp.inf) * well(x, theta)
    result = free_energy_sensitivity(walled, WELL, x, log_p)
    inside = x[:, 0] > 0
    n, m = len(x), inside.sum()
    kept = free_energy_sensitivity(well, WELL, x[inside], log_p[inside])
    assert_allclose(result.value, kept.value + np.log(n / m), rtol=1e-12)
    for name in WELL:
        assert_allclose(result.derivatives[name], kept.derivatives[name], rtol=1e-11)
    with pytest.raises(NonFiniteError, match="infinite at every sample"):
        free_energy_difference(np.full(5, -np.inf))


def test_a_flow_beside_its_target_is_no_quiet_number():
    z = np.random.default_rng(0).normal(size=(N, 2))
    x, log_p = z + 12.0, log_normal(z)
    log_w = log_weights(well, x, log_p, WELL)
    with pytest.raises(NotConvergedError, match=r"only 1\.?\d* count, below min_effective = 10") as caught:
        free_energy_difference(log_w)
    assert caught.value.partial.value == free_energy_difference(log_w, min_effective=0).value
    # also behind a derivative that is being taken
    with pytest.raises(NotConvergedError):
        jax.grad(lambda theta: free_energy_difference(log_weights(well, x, log_p, theta)).value)(WELL)
    with pytest.raises(NotConvergedError):
        free_energy_sensitivity(well, WELL, x, log_p)
    with pytest.raises(NotConvergedError):
        reweighted_average(x, log_w)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: log_weights(square, np.zeros((3, 2)), np.zeros(4), WELL), "3 samples and 4 densities"),
        (lambda: reweighted_average(np.zeros(3), np.zeros(4)), "3 samples and 4"),
        (lambda: free_energy_difference(np.zeros(1)), "two samples or more"),
        (lambda: effective_sample_size(np.zeros(10), clip=1.0), "clip = 1.0"),
        (
            lambda: free_energy_sensitivity(well, {"k": 1}, np.zeros((3, 2)), np.zeros(3)),
            "nothing to differentiate",
        ),
    ],
)
def test_input_errors_say_what_is_wrong(call, message):
    with pytest.raises(InputError, match=message):
        call()


def test_nan_never_becomes_a_free_energy():
    bad = np.array([0.0, np.nan, 1.0])
    with pytest.raises(NonFiniteError, match="sample 1"):
        free_energy_difference(bad)
    with pytest.raises(NonFiniteError, match="first that of sample 1"):
        jax.grad(
            lambda k: free_energy_difference(log_weights(lambda x, k: k * x, bad, np.zeros(3), k)).value
        )(1.0)
    with pytest.raises(NonFiniteError, match="samples of the target"):
        bennett(np.zeros(3), np.array([0.0, np.inf]))
    with pytest.raises(NonFiniteError, match="not finite"):
        reweighted_average(bad, np.zeros(3), min_effective=0)
