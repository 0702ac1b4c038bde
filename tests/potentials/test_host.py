"""Energies of a program on the host: derivatives by every input, many frames in one call, one at a time."""

import threading
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose

from mdsens.errors import InputError
from mdsens.potentials.host import HostEnergy, frame_by_frame, host_energy

X = jnp.asarray(np.random.default_rng(0).normal(size=(3, 5, 2, 3)))


def test_frames_reach_the_host_together_and_in_order():
    calls = []

    def evaluate(frames):
        calls.append(len(frames))
        return np.sum(frames**2, axis=(1, 2)), 2 * frames

    energy = HostEnergy(evaluate, 2)
    energies, gradients = jax.jit(jax.vmap(jax.vmap(jax.value_and_grad(energy))))(X)
    assert_allclose(energies, jnp.sum(X**2, axis=(2, 3)), rtol=1e-14)
    assert_allclose(gradients, 2 * X, rtol=1e-14)
    assert calls == [15]


def test_derivatives_by_positions_and_cell_are_those_of_the_host():
    def evaluate(positions, cell):
        return (
            np.sum(positions @ cell),
            np.tile(cell.sum(1), (len(positions), 1)),
            np.tile(positions.sum(0)[:, None], 3),
        )

    many = frame_by_frame(evaluate, ["Ar", "Ar"])
    energy = lambda positions, cell: host_energy(many, positions, cell)
    exact = lambda positions, cell: jnp.sum(positions @ cell)
    cell = jnp.asarray(np.random.default_rng(1).normal(size=(3, 3)))
    for transform in (lambda f: jax.grad(f, (0, 1)), lambda f: jax.jit(jax.jacfwd(f, (0, 1)))):
        for ours, theirs in zip(
            transform(energy)(X[0, 0], cell), transform(exact)(X[0, 0], cell), strict=True
        ):
            assert_allclose(ours, theirs, rtol=1e-14)
    # a batch of one input meets a single other one
    batch = jax.vmap(energy, (0, None))(X[0], cell)
    assert_allclose(batch, jax.vmap(exact, (0, None))(X[0], cell), rtol=1e-13)


def test_one_call_at_a_time_reaches_the_program():
    inside, most = [], []

    def evaluate(positions):
        inside.append(1)
        most.append(len(inside))
        time.sleep(0.005)
        inside.pop()
        return 0.0, np.zeros_like(positions)

    many = frame_by_frame(evaluate, ["Ar", "Ar"])
    threads = [threading.Thread(target=many, args=(np.zeros((4, 2, 3)),)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1] * 12


def test_another_number_of_atoms_and_second_derivatives_are_refused():
    energy = HostEnergy(lambda frames: (np.zeros(len(frames)), np.zeros_like(frames)), 2)
    with pytest.raises(InputError, match=r"shape \(3, 3\) for 2 atoms"):
        energy(jnp.zeros((3, 3)))
    with pytest.raises(InputError, match="second derivatives"):
        jax.hessian(energy)(X[0, 0])
