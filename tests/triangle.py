"""Three atoms that attract each other: everything about them is known in closed form.

E = -3 epsilon,      r = 2^(1/6) sigma
"""

import jax.numpy as jnp
import numpy as np

import mdsens as ms

EPSILON, SIGMA = 0.0104, 3.4
ARGON = ms.LennardJones(EPSILON, SIGMA, elements=("Ar",))
SIDE = 2 ** (1 / 6)  # of the triangle, in sigma
CORNERS = np.array([[0, 0, 0], [1, 0, 0], [0.5, 3**0.5 / 2, 0]])
TRIANGLE = ms.Structure.create(SIDE * SIGMA * CORNERS, ["Ar"] * 3)
# relative errors of 2 and 1 %, correlated by 0.5
ERRORS = np.array([0.02 * EPSILON, 0.01 * SIGMA])
COVARIANCE = np.outer(ERRORS, ERRORS) * [[1.0, 0.5], [0.5, 1.0]]


def _distance(potential, states):
    x = states["structure"].structure.positions
    return (jnp.linalg.norm(x[1] - x[0]),)


def _density(potential, states):
    structure, neighbors = states["structure"].structure, states["structure"].neighbors
    x = structure.positions
    return (potential.energy(structure, neighbors) / jnp.linalg.norm(x[1] - x[0]) ** 3,)


DISTANCE = ms.Observable(("distance",), ("Å",), _distance)
DENSITY = ms.Observable(("density",), ("eV/Å³",), _density)
OBSERVED = ["energy", DISTANCE, DENSITY]


def distribution(scale: float = 1.0) -> ms.uncertainty.ParameterDistribution:
    return ms.uncertainty.ParameterDistribution.from_covariance(ARGON, scale**2 * COVARIANCE)
