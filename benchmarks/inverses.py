"""Roots of 20 000 mixtures of 8 ramps: what each solver takes, how far off it ends, what a gradient adds.

    python benchmarks/inverses.py            # both precisions
    python benchmarks/inverses.py 20000 30   # roots, repetitions

Times are least and median over repetitions in which all solvers take turns, so that what else runs on the
machine slows all of them; ratios are of the least. "Cost" counts bisection-14 as 1. Errors are the smaller of
|x - x*| and |f(x) - y|, with f evaluated in float64 for the numbers that the solver was given; a failure is
one above 1e-12 (float64) or 1e-6 (float32), or no root at all. Adversarial mixtures have slopes from 1e-6 to
10 000 and ramps from 1/200 to the whole interval.
"""

import statistics
import sys
import time
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

jax.config.update("jax_enable_x64", True)

from mdsens.flows.transforms import LEAST_STEEPNESS, RampMixture, ramp  # noqa: E402
from mdsens.implicit.inverse import BracketedNewton, value_and_slope  # noqa: E402


def mixtures(n: int, adversarial: bool, dtype: type, components: int = 8) -> tuple[RampMixture, jax.Array]:
    """Increasing functions of the interval onto itself, and a value for each."""
    rng = np.random.default_rng(int(adversarial))
    shape = (n, components)
    center, steepness = rng.random(shape), LEAST_STEEPNESS[1] + 2 * rng.random(shape)
    sharpness, slope, share = (
        1 + 10 * rng.random(shape),
        np.full((n, 1), 0.01),
        rng.dirichlet(np.ones(components), n),
    )
    if adversarial:
        sharpness, slope = 10 ** rng.uniform(0, 2.3, shape), 10 ** rng.uniform(-6, -1, (n, 1))
        steepness = LEAST_STEEPNESS[1] + 10 * rng.random(shape) ** 2
        share = rng.dirichlet(np.full(components, 0.3), n)
    first, last = (
        np.asarray(ramp(z, steepness)[0]) for z in (0.5 - sharpness * center, 0.5 + sharpness * (1 - center))
    )
    height = (1 - slope) * share / (last - first)
    numbers = (slope[:, 0], -np.sum(height * first, -1), height, center, sharpness, steepness)
    f = RampMixture(*(jnp.asarray(number, dtype) for number in numbers), domain="interval")
    # half of the values uniform, half those of uniform x, which fall on the flat stretches
    y = jnp.where(
        rng.random(n) < 0.5, jnp.asarray(rng.random(n), dtype), f(jnp.asarray(rng.random(n), dtype))
    )
    return f, jnp.clip(y, 0, 1)


# --- the rivals: solver(function, y, lower, upper) ------------------------------------------------------


def bisection(steps: int) -> Callable:
    def solve(f, y, low, high):
        def halve(_, bracket):
            low, high = bracket
            middle = 0.5 * (low + high)
            below = f(middle) < y
            return jnp.where(below, middle, low), jnp.where(below, high, middle)

        low, high = jax.lax.fori_loop(0, steps, halve, (low, high))
        return 0.5 * (low + high)

    return solve


def multi_bin(bins: int, rounds: int) -> Callable:
    """Evaluate at all inner edges of the bins of a bracket, then on into the bin with the root.

    One after the other: on a CPU nothing is gained by evaluating at all edges at once, and memory is lost.
    """

    def solve(f, y, low, high):
        def zoom(_, bracket):
            low, high = bracket

            def edge(k):
                return low + (high - low) * (k / bins)

            def one_more(k, count):
                return count + (f(edge(k)) < y)

            k = jax.lax.fori_loop(1, bins, one_more, jnp.zeros(y.shape, int)).astype(y.dtype)
            return edge(k), edge(k + 1)

        low, high = jax.lax.fori_loop(0, rounds, zoom, (low, high))
        return 0.5 * (low + high)

    return solve


def chandrupatla(steps: int) -> Callable:
    """Inverse quadratic interpolation where it can be trusted, bisection elsewhere.

    Source: Chandrupatla, Adv. Eng. Software 28, 145 (1997).
    """

    def solve(f, y, low, high):
        def step(_, state):
            a, b, c, fa, fb, fc, t = state
            x = a + t * (b - a)
            fx = f(x) - y
            same = jnp.sign(fx) == jnp.sign(fa)
            b, c = jnp.where(same, b, a), jnp.where(same, a, b)
            fb, fc = jnp.where(same, fb, fa), jnp.where(same, fa, fb)
            a, fa = x, fx
            xi, phi = (a - b) / (c - b), (fa - fb) / (fc - fb)
            trusted = (phi**2 < xi) & ((1 - phi) ** 2 < 1 - xi)
            quadratic = fa / (fb - fa) * fc / (fb - fc) + (c - a) / (b - a) * fa / (fc - fa) * fb / (fc - fb)
            return a, b, c, fa, fb, fc, jnp.where(trusted & jnp.isfinite(quadratic), quadratic, 0.5)

        fl, fh = f(low) - y, f(high) - y
        a, b, _, fa, fb, _, _ = jax.lax.fori_loop(
            0, steps, step, (low, high, low, fl, fh, fl, jnp.full_like(y, 0.5))
        )
        return jnp.where(jnp.abs(fa) < jnp.abs(fb), a, b)

    return solve


def safeguarded_newton(steps: int, bisections: int = 0) -> Callable:
    """Newton within a bracket, bisection where it would leave; after `bisections` plain ones."""

    def solve(f, y, low, high):
        def step(_, state):
            x, low, high = state
            value, slope = value_and_slope(f, x)
            low, high = jnp.where(value < y, x, low), jnp.where(value < y, high, x)
            x = x - (value - y) / slope
            return jnp.where((x >= low) & (x <= high), x, 0.5 * (low + high)), low, high

        x = bisection(bisections)(f, y, low, high)
        return jax.lax.fori_loop(0, steps, step, (x, low, high))[0]

    return solve


SOLVERS = {
    "bisection-14": bisection(14),
    "bisection-50": bisection(50),
    "Chandrupatla-16": chandrupatla(16),
    "multi-bin, 16 bins x 4": multi_bin(16, 4),
    "multi-bin, 16 bins x 12": multi_bin(16, 12),
    "safeguarded Newton-16": safeguarded_newton(16),
    "bisection-14 + Newton-2": safeguarded_newton(2, 14),
    "BracketedNewton, 1 guard": BracketedNewton(guard_steps=1),
    "BracketedNewton": BracketedNewton(),
}


# --- the table ------------------------------------------------------------------------------------------


@eqx.filter_jit
def solved(solver: Callable, f: RampMixture, y: jax.Array) -> jax.Array:
    return solver(f, y, *f.bracket(y))


@eqx.filter_jit
def off(f: RampMixture, y: jax.Array, x: jax.Array) -> jax.Array:
    """The smaller of |x - x*| and |f(x) - y|, everything given taken for exact."""
    f, y, x = jax.tree.map(lambda a: a.astype(jnp.float64), (f, y, x))
    return jnp.minimum(jnp.abs(x - solved(bisection(60), f, y)), jnp.abs(f(x) - y))


def take_turns(actions: dict[str, Callable], repetitions: int) -> dict[str, tuple[float, float]]:
    """Least and median time of each, in ms."""
    times = {name: [] for name in actions}
    for action in actions.values():
        jax.block_until_ready(action())  # compile
    for _ in range(repetitions):
        for name, action in actions.items():
            start = time.perf_counter()
            jax.block_until_ready(action())
            times[name].append(1e3 * (time.perf_counter() - start))
    return {name: (min(t), statistics.median(t)) for name, t in times.items()}


def table(dtype: type, n: int, repetitions: int) -> None:
    limit = 1e-12 if dtype is np.float64 else 1e-6
    f, y = mixtures(n, False, dtype)
    hard, hard_y = mixtures(100_000, True, dtype)
    times = take_turns(
        {name: lambda solver=solver: solved(solver, f, y) for name, solver in SOLVERS.items()}, repetitions
    )
    unit = times["bisection-14"][0]
    print(f"\n{np.dtype(dtype)}: {n} roots; errors over these, and over 100 000 adversarial mixtures")
    print(
        f"{'solver':<24} {'least ms':>9} {'median ms':>10} {'cost':>6} {'error':>8} {'adversarial':>12} "
        f"{'failures':>9}"
    )
    for name, solver in SOLVERS.items():
        error, worst = (np.asarray(off(g, v, solved(solver, g, v))) for g, v in ((f, y), (hard, hard_y)))
        failures = int(np.sum(~(error <= limit)) + np.sum(~(worst <= limit)))
        least, median = times[name]
        numbers = f"{least / unit:6.2f} {np.nanmax(error):8.1e} {np.nanmax(worst):12.1e} {failures:9d}"
        print(f"{name:<24} {least:9.2f} {median:10.2f} {numbers}", flush=True)
    ours = times["BracketedNewton"][0]
    print(
        f"BracketedNewton / bisection-14: {ours / unit:.2f}   bisection-50 / BracketedNewton: "
        f"{times['bisection-50'][0] / ours:.1f}"
    )


def gradients(dtype: type, n: int, repetitions: int) -> None:
    """What value, log-slope and their gradient w.r.t. all parameters and inputs cost, both ways."""
    f, y = mixtures(n, False, dtype)
    x = solved(BracketedNewton(), f, y)

    def forward(f, x):
        return sum(jnp.sum(part) for part in f.forward(x))

    def backward(f, y):
        return sum(jnp.sum(part) for part in f.inverse(y))

    def log_slopes(y, f):
        return jnp.sum(f.inverse(y)[1])

    def squared_forces(f, y):
        return jnp.sum(jax.grad(log_slopes)(y, f) ** 2)

    cases = {
        "forward": (forward, x),
        "forward, gradient": (jax.value_and_grad(forward, argnums=(0, 1)), x),
        "inverse": (backward, y),
        "inverse, gradient": (jax.value_and_grad(backward, argnums=(0, 1)), y),
        "inverse, gradient of forces": (jax.value_and_grad(squared_forces, argnums=(0, 1)), y),
    }
    compiled = {name: (eqx.filter_jit(function), at) for name, (function, at) in cases.items()}
    times = take_turns(
        {name: lambda function=function, at=at: function(f, at) for name, (function, at) in compiled.items()},
        repetitions,
    )
    print(f"\n{np.dtype(dtype)}: {n} values and log-slopes, gradients w.r.t. all parameters and inputs")
    print(f"{'':<28} {'least ms':>9} {'median ms':>10} {'cost':>6}   (forward with gradient = 1)")
    for name, (least, median) in times.items():
        print(
            f"{name:<28} {least:9.2f} {median:10.2f} {least / times['forward, gradient'][0]:6.2f}", flush=True
        )


def main() -> None:
    n, repetitions = [int(word) for word in sys.argv[1:3]] + [20_000, 15][len(sys.argv[1:3]) :]
    print(f"jax {jax.__version__}, {jax.devices()[0].device_kind}")
    for dtype in (np.float64, np.float32):
        table(dtype, n, repetitions)
        gradients(dtype, n, repetitions)


if __name__ == "__main__":
    main()
