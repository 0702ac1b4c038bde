"""A program outside JAX that knows energy, gradient and Hessian products is a potential."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from numpy.testing import assert_allclose

import mdsens as ms

LENGTH = 2.5  # Å, of every spring


def springs(x):
    """Energy, gradient and Hessian of springs of 1 eV/Å² between all atoms, by numpy."""
    n, x = len(x), np.asarray(x)
    energy, gradient, hessian = 0.0, np.zeros((n, 3)), np.zeros((n, 3, n, 3))
    for i in range(n):
        for j in range(i):
            r = np.linalg.norm(x[i] - x[j])
            e = (x[i] - x[j]) / r
            energy += 0.5 * (r - LENGTH) ** 2
            block = np.outer(e, e) + (1 - LENGTH / r) * (np.eye(3) - np.outer(e, e))
            for a, b, sign in ((i, j, 1), (j, i, -1)):
                gradient[a] += sign * (r - LENGTH) * e
                hessian[a, :, a] += block
                hessian[a, :, b] -= block
    return energy, gradient, hessian


def outside(function, shape, *arguments):
    """A numpy function as JAX calls it."""
    return jax.pure_callback(
        lambda *a: np.asarray(function(*a)),
        jax.ShapeDtypeStruct(shape, float),
        *arguments,
        vmap_method="sequential",
    )


@jax.custom_jvp
def energy(x):
    return outside(lambda x: springs(x)[0], (), x)


@energy.defjvp
def _(x, dx):
    return energy(*x), jnp.sum(gradient(*x) * dx[0])


@jax.custom_jvp
def gradient(x):
    return outside(lambda x: springs(x)[1], x.shape, x)


@gradient.defjvp
def _(x, dx):
    product = outside(lambda x, v: np.einsum("iajb,jb->ia", springs(x)[2], v), x[0].shape, *x, *dx)
    return gradient(*x), product


class Springs(ms.Potential):
    """The springs as a potential."""

    local = False
    elements: tuple[str, ...] = eqx.field(static=True, default=())
    source: str = eqx.field(static=True, default="")

    @property
    def cutoff(self):
        return jnp.asarray(2.0)

    def energy(self, structure, neighbors):
        return energy(structure.positions)


def test_a_program_with_its_own_hessian_relaxes_with_the_default_solver_and_shows_its_curvature():
    start = ms.Structure.create([[0, 0, 0], [2.7, 0, 0], [0.2, 2.6, 0], [0.9, 0.8, 2.2]], ["Ar"] * 4)
    relaxed = ms.relax(Springs(), start)
    x = np.asarray(relaxed.structure.positions)
    edges = np.linalg.norm(x[:, None] - x, axis=-1)[np.triu_indices(4, 1)]
    assert_allclose(edges, LENGTH, atol=1e-8)
    # the softest mode of a regular tetrahedron of equal springs has the curvature k
    assert_allclose(ms.certify(relaxed).lowest_curvature, 1.0, rtol=1e-6)
