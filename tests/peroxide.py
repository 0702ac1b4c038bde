"""Hydrogen peroxide as the smallest flow with all of a molecule: stiff bonds and angles, a free torsion."""

import jax.numpy as jnp
import numpy as np

from mdsens.flows.boltzmann import BoltzmannGenerator
from mdsens.flows.flow import Flow, Normal, Uniform
from mdsens.flows.internal_coordinates import ZMatrix
from mdsens.flows.layers import Split, Turns, Whiten

SPECIES = (1, 8, 8, 1)
BONDS = ((0, 1), (1, 2), (2, 3))
TEMPERATURE = 300.0
OH, OO, ANGLE = 0.097, 0.145, np.radians(100.0)  # nm, rad
BOND_WIDTH, ANGLE_WIDTH = 0.0025, 0.06  # kT / width² is 400 000 kJ/mol/nm² and 690 kJ/mol/rad²


def generator() -> BoltzmannGenerator:
    """Bonds and angles independent and Gaussian, as stiff as in the molecule; the torsion uniform."""
    coordinates = ZMatrix.from_topology((4, BONDS, SPECIES))
    middle = np.array(
        [OO if {row[0], row[1]} == {1, 2} else OH for row in coordinates.rows[1:]] + [ANGLE] * 2
    )
    width = np.array([BOND_WIDTH] * 3 + [ANGLE_WIDTH] * 2)
    whiten = Whiten(
        "stiff", *(jnp.asarray(a) for a in (middle, np.diag(1 / width), np.diag(width), -np.log(width).sum()))
    )
    split = Split((("bonds", 3), ("angles", 2)), (("stiff", tuple(range(5))),))
    flow = Flow((coordinates, split, Turns("torsions"), whiten), {"stiff": Normal(5), "torsions": Uniform(1)})  # pyright: ignore
    return BoltzmannGenerator(flow, SPECIES, TEMPERATURE)


def positions() -> np.ndarray:
    """An arrangement near equilibrium without symmetry, Å."""
    rng = np.random.default_rng(0)
    rotation = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    plain = np.array([[-0.95, 0.17, 0.0], [0.0, 0.0, 0.0], [0.1, 1.44, 0.05], [0.2, 1.6, 0.99]])
    return (plain + 0.01 * rng.normal(size=(4, 3))) @ rotation.T + np.array([1.0, -2.0, 0.5])
