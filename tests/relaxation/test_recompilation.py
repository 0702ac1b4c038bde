"""A fit changes parameters and positions thousands of times: only the first of them may compile."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import references
from ase.build import bulk
from compilations import compilations

import mdsens as ms


def test_relaxation_and_gradient_compile_once_for_a_size():
    potential = references.potential(references.table("stillinger_weber")["sw-si-crystal"])
    structure = ms.Structure.from_ase(bulk("Si", cubic=True, a=5.431))

    def stretched(potential: ms.Potential, structure: ms.Structure):
        relaxed = ms.relax(potential, structure, cell="isotropic", fmax=1e-9)
        return ms.volume(relaxed.structure) + jnp.sum(relaxed.structure.positions**2) + relaxed.energy

    def once(gamma: float, seed: int) -> float:
        changed = ms.replace_parameters(potential, {"gamma": gamma, "sigma": 2.0951 + 0.01 * seed})
        move = 0.02 * np.random.default_rng(seed).normal(size=structure.positions.shape)
        value, gradient = jax.value_and_grad(stretched)(
            changed, structure.at(structure.positions + jnp.asarray(move))
        )
        return float(value) + float(gradient.gamma)

    first = once(1.2, 0)
    with compilations() as compiled:
        again = [once(1.21, 1), once(1.19, 2)]
    assert len({first, *again}) == 3  # they are different problems
    assert compiled == []


STEPPERS = [ms.FIRE(), ms.LBFGS(), ms.NewtonCG(), ms.JaxMDFIRE(), ms.DampedNewton(), ms.GradientFlow()]


@pytest.mark.parametrize("stepper", STEPPERS, ids=repr)
def test_a_stepper_that_goes_on_meets_the_program_that_it_began_with(stepper):
    # numbers of weak type are another type to JAX than those that a compiled loop returns
    memory = stepper.start(jnp.zeros(6))
    assert not any(leaf.weak_type for leaf in jax.tree.leaves(memory))
