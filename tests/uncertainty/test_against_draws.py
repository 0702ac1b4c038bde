"""Propagated errors of relaxed silicon against hundreds of relaxations, within their own error."""

import ase.build
import numpy as np
import pytest

import mdsens as ms
from mdsens.uncertainty import ParameterDistribution, monte_carlo, propagate

SILICON = ms.load_potential("si-stillinger-weber-1985")
NAMES = ("epsilon", "sigma", "lambda", "gamma", "A", "B")


def correlated(size: float) -> ParameterDistribution:
    """Relative errors of this size, correlated at random."""
    values = ms.parameter_values(SILICON)
    root = np.random.default_rng(5).normal(size=(6, 6)) / np.sqrt(6)
    scale = size * np.array([values[name] for name in NAMES])
    return ParameterDistribution.from_factor(SILICON, scale[:, None] * root, NAMES)


@pytest.mark.validation
@pytest.mark.parametrize(("size", "order"), [(0.003, "first order"), (0.03, "second order")])
def test_errors_of_crystal_and_vacancy_are_those_of_500_relaxations(size, order):
    bulk = ms.Structure.from_ase(ase.build.bulk("Si", a=5.431, cubic=True))
    vacancy = ms.Structure.create(np.asarray(bulk.positions)[1:], ["Si"] * 7, cell=bulk.cell)
    observables = ["lattice_constant", "energy_per_atom", ms.observables.formation("vacancy", "bulk")]
    states = {"bulk": bulk, "vacancy": vacancy}
    options = {"cell": "isotropic", "fmax": 1e-9}
    second = order == "second order"
    found = propagate(observables, SILICON, states, correlated(size), second_order=second, **options)
    drawn = monte_carlo(observables, SILICON, states, correlated(size), draws=500, seed=2, **options)
    assert found.order == order and len(drawn.lost) < 5
    of_means, of_errors = drawn.against(found)
    for row in zip(found.observables, found.means, drawn.means, found.errors, drawn.errors, strict=True):
        print("{:20} means {:.6g} {:.6g} errors {:.4g} {:.4g}".format(*row))
    print(f"off by {np.round(of_means, 1)} and {np.round(of_errors, 1)} standard errors of the draws")
    # a part in 40 000 is beyond four; what is left of the next order at 3 % of each parameter is as large
    assert np.abs(of_means).max() < 4 and np.abs(of_errors).max() < 4
