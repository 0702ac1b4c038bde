"""What data say of parameters, and what they leave open."""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from triangle import ARGON, EPSILON, SIDE, SIGMA, TRIANGLE

import mdsens as ms
from mdsens.datasets import Dataset, label
from mdsens.errors import InputError
from mdsens.fitting import ForceMatching, LabelTolerances, ParameterSpace, RelaxedTargets, Target, fit
from mdsens.uncertainty import from_fit, laplace, sloppiness

ENERGIES = LabelTolerances(energy=0.001, forces=None, stress=None)


@pytest.fixture(scope="module")
def data() -> Dataset:
    """Triangles of four sizes."""
    sizes = (0.95, 1.0, 1.05, 1.2)
    structures = [ms.Structure.create(s * np.asarray(TRIANGLE.positions), ["Ar"] * 3) for s in sizes]
    return label(ARGON, Dataset.create(structures))


def energies(epsilon: float, sigma: float) -> np.ndarray:
    """Of an atom of each triangle, by hand."""
    r = SIDE * SIGMA * np.array([0.95, 1.0, 1.05, 1.2])
    return 4 * epsilon * ((sigma / r) ** 12 - (sigma / r) ** 6)


def slopes() -> np.ndarray:
    """d energies / d (epsilon, sigma) by differences."""
    step = 1e-6
    by_epsilon = energies(1.0, SIGMA)
    by_sigma = (energies(EPSILON, SIGMA + step) - energies(EPSILON, SIGMA - step)) / (2 * step)
    return np.stack([by_epsilon, by_sigma], axis=1)


def test_the_covariance_is_the_inverse_of_the_information_in_the_data(data):
    found = laplace(ARGON, ForceMatching(data, tolerances=ENERGIES))
    J = slopes() / 0.001
    # differences: their step squared, and rounding of 1e-16 by it
    assert_allclose(found.covariance, np.linalg.inv(J.T @ J), rtol=1e-6)
    assert found.names == ("epsilon", "sigma") and found.source == "Laplace"
    assert_allclose(found.mean, [EPSILON, SIGMA])


def test_a_prior_adds_its_information(data):
    priors = {"epsilon": (None, 0.01)}
    space = ParameterSpace.of(ARGON, priors=priors)
    found = laplace(space, ForceMatching(data, tolerances=ENERGIES))
    J = slopes() / 0.001
    information = J.T @ J + np.diag([1 / (0.01 * EPSILON) ** 2, 0])
    assert_allclose(found.covariance, np.linalg.inv(information), rtol=1e-6)


def test_what_the_data_do_not_know_is_named():
    # the energy of the relaxed triangle does not know sigma
    target = RelaxedTargets(TRIANGLE, [Target("energy", -3 * EPSILON, 0.001)])
    with pytest.raises(InputError, match=r"the data say nothing about sigma .*: freeze them .*priors="):
        laplace(ARGON, target)
    only = laplace(ParameterSpace.of(ARGON, "epsilon"), target)
    assert_allclose(only.standard_errors, 0.001 / 3, rtol=1e-6)
    with pytest.raises(InputError, match=r"1 residuals of 1 variables leave none to tell the noise by"):
        laplace(ParameterSpace.of(ARGON, "epsilon"), target, scaled=True)


def test_a_fit_hands_over_its_errors_and_its_noise(data):
    result = fit(ARGON, ForceMatching(data, tolerances=ENERGIES))
    found = from_fit(result)
    assert_allclose(found.standard_errors, list(result.errors.values()), rtol=1e-9)
    assert found.source == "fit"
    # without residuals there is no noise
    assert_allclose(from_fit(result, scaled=True).standard_errors, 0, atol=1e-9)


def test_relaxed_observables_and_forces_know_different_directions(data, tmp_path):
    kinds = {
        "energies": ForceMatching(data, tolerances=ENERGIES),
        "relaxed": RelaxedTargets(TRIANGLE, [Target("energy", -3 * EPSILON, 0.001)]),
    }
    spectra = sloppiness(ParameterSpace.of(ARGON, priors={"sigma": (None, 0.1)}), kinds)
    relaxed = spectra.found["relaxed"]
    # dE / dln(epsilon) = -3 epsilon, and nothing of sigma; the prior does not count
    assert_allclose(relaxed.singular, [3 * EPSILON / 0.001, 0], atol=1e-6)
    assert_allclose(np.abs(relaxed.directions), np.eye(2), atol=1e-9)
    # that direction is epsilon, which the energies know as the inverse of their information says
    J = slopes() * [EPSILON, SIGMA] / 0.001
    known = np.sqrt(np.diag(np.linalg.inv(J.T @ J)))
    assert_allclose(spectra.error("relaxed", "energies"), known, rtol=1e-6)
    assert np.isinf(spectra.error("energies", "relaxed")).all()
    spectra.plot(tmp_path / "spectra.png")
    assert spectra.table().row_count == 2
    with pytest.raises(InputError, match="no data are called 'forces': there are energies, relaxed"):
        spectra.error("forces", "relaxed")
