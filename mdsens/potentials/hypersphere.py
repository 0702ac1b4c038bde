"""Functions on the unit sphere in four dimensions, and integrals over it.

A point g with |g| = 1 in four dimensions is a rotation in three (g and -g the same one). The harmonics of
degree l are the (l + 1)² functions that are polynomials of degree l in g and of no lower one; in the language
of rotations they are the elements of the Wigner matrices of 2j = l. Of a weight that sits at the point h, the
part of degree l is

    f_l(g) = U_l(g . h) = sin((l + 1) w) / sin w,     cos w = g . h,

the Chebyshev polynomial of the second kind. Of many weights it is the sum, which needs only moments: U_l is a
polynomial in g . h and so a sum over monomials of h with coefficients that depend on g,

    U_l(g . h) = sum_a K_la(g) h^a,     h^a = h_1^a1 h_2^a2 h_3^a3 h_4^a4.

All monomials are raised to one degree of the right parity by powers of |h|² = 1. K_l as a matrix (points g,
monomials) has the rank (l + 1)²; its two factors are the harmonics at the points g and as polynomials of h.

Integrals over the sphere, of total measure 1, are sums over the grid of three Euler angles: equal steps in
two of them, Gauss points in the cosine of the third. With n + 1 steps and n // 2 + 1 Gauss points they are
exact for polynomials of even degree up to 2n.
"""

import functools
import itertools
import math
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

Points = tuple[Float[Array, "..."], ...]  # the four coordinates, each an array of its own
IDENTITY = (0.0, 0.0, 0.0, 1.0)  # no rotation


class Hypersphere(NamedTuple):
    """Points of a grid, and the harmonics up to some degree on it.

    Attributes:
        points: (points, 4).
        weights: (points,) of the integral.
        harmonics: for each degree, its values at the points, (points, harmonics).
        polynomials: for each degree, its coefficients, (harmonics, monomials), see `exponents`.
    """

    points: np.ndarray
    weights: np.ndarray
    harmonics: tuple[np.ndarray, ...]
    polynomials: tuple[np.ndarray, ...]

    @property
    def degree(self) -> int:
        """The highest."""
        return len(self.harmonics) - 1

    def at(self, h: tuple[float, ...]) -> list[np.ndarray]:
        """Parts of a weight of 1 at h, by degree, each (points,)."""
        cosine = self.points @ np.array(h)
        angle = np.arccos(np.clip(cosine, -1.0, 1.0))
        chebyshev = lambda n: np.sin((n + 1) * angle) / np.sin(angle)
        return [chebyshev(n) for n in range(self.degree + 1)]

    def parts(
        self, weights: Float[Array, "atoms width"], h: tuple[Float[Array, "atoms width"], ...]
    ) -> list[Float[Array, "points atoms"]]:
        """Parts of the weights at h, by degree, each summed over the width."""
        by_degree = zip(self.harmonics, self.coefficients(weights, h), strict=True)
        return [jnp.asarray(values) @ own for values, own in by_degree]

    def coefficients(
        self, weights: Float[Array, "atoms width"], h: tuple[Float[Array, "atoms width"], ...]
    ) -> list[Float[Array, "harmonics atoms"]]:
        """The same parts, as coefficients of the harmonics."""
        found = {}
        for top, moments in _moments(weights, h, self.degree).items():
            degrees = range(top % 2, top + 1, 2)
            coefficients = np.concatenate([self.polynomials[n] for n in degrees]) @ moments
            ends = np.cumsum([(n + 1) ** 2 for n in degrees])
            found |= zip(degrees, jnp.split(coefficients, ends[:-1]), strict=True)
        return [found[n] for n in range(self.degree + 1)]


def _moments(weights: Array, h: tuple[Array, ...], degree: int) -> dict[int, Float[Array, "monomials atoms"]]:
    """Sums over the width of weights times monomials of the highest degree and of the one below it.

    A monomial of degree 8 is a product of two of degree 4, and the sums of all products are products of
    matrices. Each of the moments is taken once from these.
    """
    p, q = (degree + 1) // 2, degree // 2
    known = _monomials(h, p)
    stacked = lambda powers: jnp.stack([known[e] for e in powers])
    left = exponents(p)
    right = [*exponents(q), *exponents(q - 1)]
    products = jnp.einsum("iaw,jaw->ija", stacked(left), weights * stacked(right))
    products = products.reshape(-1, products.shape[-1])
    powers = [_sum(e, f) for e, f in itertools.product(left, right)]
    place = {e: k for k, e in enumerate(powers)}
    rows = lambda top: np.array([place[e] for e in exponents(top)])
    return {top: products[rows(top)] for top in (degree, degree - 1)}


def _monomials(h: tuple[Array, ...], degree: int) -> dict[tuple[int, ...], Array]:
    """All monomials up to a degree: each is one of lower degree times a variable."""
    known: dict[tuple[int, ...], Array] = {}
    known[0, 0, 0, 0] = jnp.ones_like(h[0])
    for powers in itertools.chain.from_iterable(map(exponents, range(1, degree + 1))):
        k = next(k for k in range(4) if powers[k])
        lower = tuple(power - (axis == k) for axis, power in enumerate(powers))
        known[powers] = known[lower] * h[k]
    return known


def _sum(e: tuple[int, ...], f: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(a + b for a, b in zip(e, f, strict=True))


# --- on the host, once for each degree


@functools.cache
def hypersphere(degree: int) -> Hypersphere:
    """Harmonics up to a degree, 2 or more, on a grid that integrates products of three of them."""
    points, weights = _grid(3 * degree // 2)
    root = np.sqrt(weights)[:, None]
    harmonics, polynomials = [], []
    for n in range(degree + 1):
        top = degree - (degree - n) % 2
        # the harmonics that come out are orthogonal over the sphere
        kernel = root * _kernel(points, n, top)
        left, sizes, right = np.linalg.svd(kernel, full_matrices=False)
        rank = (n + 1) ** 2
        harmonics.append(left[:, :rank] / root)
        polynomials.append(sizes[:rank, None] * right[:rank])
    return Hypersphere(points, weights, tuple(harmonics), tuple(polynomials))


def _grid(n: int) -> tuple[np.ndarray, np.ndarray]:
    # z = cos(b/2) e^(i (a + c) / 2), w = sin(b/2) e^(i (c - a) / 2): a polynomial of even degree 2n in g has
    # e^(i m a) and e^(i m c) with |m| <= n only, and where both m = 0 a polynomial of degree n in cos b.
    cosine, gauss = np.polynomial.legendre.leggauss(n // 2 + 1)
    steps = 2 * np.pi * np.arange(n + 1) / (n + 1)
    grid = np.meshgrid(steps, np.arccos(cosine), steps, indexing="ij")
    a, b, c = (angle.ravel() for angle in grid)
    near, far = np.cos(b / 2), np.sin(b / 2)
    plus, minus = (a + c) / 2, (c - a) / 2
    one = far * np.cos(minus), far * np.sin(minus)
    other = near * np.sin(plus), near * np.cos(plus)
    points = np.stack([*one, *other], axis=1)
    shape = (n + 1, len(gauss), n + 1)
    along_b = np.broadcast_to(gauss[None, :, None] / 2, shape)
    return points, along_b.ravel() / (n + 1) ** 2


def exponents(degree: int) -> list[tuple[int, ...]]:
    """The monomials of four variables, in the order in which `Hypersphere` has them."""
    candidates = itertools.product(range(degree + 1), repeat=4)
    return [e for e in candidates if sum(e) == degree]


def _kernel(points: np.ndarray, degree: int, top: int) -> np.ndarray:
    """K_l(g) for l = degree, (points, monomials of degree `top`)."""
    # U_l(t) = sum_k (-1)^k (l - k choose k) (2 t)^(l - 2k), lowest powers first, each raised by |h|²
    total = np.zeros((len(points), len(exponents(degree % 2))))
    for n in range(degree % 2, top + 1, 2):
        if n > degree % 2:
            total = total @ _raising(n - 2)
        if n <= degree:
            k = (degree - n) // 2
            factor = (-1) ** k * math.comb(degree - k, k) * 2.0**n
            total = total + factor * _power_of_product(points, n)
    return total


def _power_of_product(points: np.ndarray, n: int) -> np.ndarray:
    """(g . h)^n as a polynomial of h, (points, monomials of degree n)."""
    powers = exponents(n)
    orders = [math.prod(map(math.factorial, e)) for e in powers]
    counts = float(math.factorial(n)) / np.array(orders, float)
    monomials = np.prod(points[:, None, :] ** np.array(powers), axis=-1)
    return counts * monomials


def _raising(degree: int) -> np.ndarray:
    """A polynomial of some degree times |h|², as a matrix on its coefficients."""
    place = {e: k for k, e in enumerate(exponents(degree + 2))}
    matrix = np.zeros((len(exponents(degree)), len(place)))
    for row, e in enumerate(exponents(degree)):
        for axis in range(4):
            raised = list(e)
            raised[axis] += 2
            matrix[row, place[tuple(raised)]] += 1.0
    return matrix
