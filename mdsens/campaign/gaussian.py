"""The task of a crystal at a temperature, in a Gaussian approximation: numbers, state, and their Jacobian."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from mdsens.campaign.kinds import GAUSSIAN_STATE, Content, GivenTask, relaxed_states
from mdsens.checks import number
from mdsens.equilibria.gaussian import GaussianState, gaussian_state
from mdsens.equilibria.gaussian_content import gaussian_content
from mdsens.sensitivity.problem import select
from mdsens.structure import volume

UNITS = {"free_energy": "eV", "energy": "eV", "volume": "Å³", "displacement": "Å"}


def compute_gaussian(given: GivenTask) -> Content:
    """Relax the structure, find its Gaussian, and derive its numbers by the parameters if that is asked for.

    Raises:
        InputError: a temperature that is none. Else as `relax` and `gaussian_state`.
    """
    temperature = number("options.temperature", given.options["temperature"], "K", above=0)
    (relaxed,) = relaxed_states(given).values()
    potential, start = relaxed.equilibrium.potential, relaxed.structure
    settings = {name: given.options[name] for name in GAUSSIAN_STATE if name in given.options}

    def state(potential: Any) -> GaussianState:
        return gaussian_state(potential, start, temperature, **settings)

    parameters = given.options.get("parameters")
    if parameters is None and not given.options.get("derivatives"):
        return _content(state(potential))
    selection = select(potential, parameters)
    theta = jnp.asarray(selection.values(potential))

    def numbers(theta: Float[Array, "parameters"]) -> tuple[Float[Array, "numbers"], GaussianState]:
        found = state(selection.replaced(potential, theta))
        return _numbers(found), found

    # one state, and an adjoint solve for each of its numbers
    values, pull, found = jax.vjp(numbers, theta, has_aux=True)
    rows = [pull(direction)[0] for direction in jnp.eye(len(values))]
    return {**_content(found), "parameters": list(selection.names), "jacobian": np.stack(rows)}


def _numbers(state: GaussianState) -> Float[Array, "numbers"]:
    """In the order of `UNITS`; the displacement is that of the atom that moves most."""
    largest = jnp.max(state.displacements)
    return jnp.stack([state.free_energy, state.energy, volume(state.structure), largest])


def _content(state: GaussianState) -> Content:
    measured = {"names": list(UNITS), "units": list(UNITS.values()), "values": _numbers(state)}
    return {**measured, "states": {"structure": state.structure}, "gaussian": gaussian_content(state)}
