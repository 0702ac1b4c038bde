"""Several states together: oscillators whose free energies are known; what does not belong together."""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.special import ndtri
from thermal_cases import Quartic, T, balloon_ensemble, kT, one_atom, ring_ensemble

import mdsens as ms
from mdsens.errors import InputError, NotConvergedError

N = 128
STIFFNESS = (0.2, 0.4, 0.8)


def oscillator(a: float) -> ms.Ensemble:
    """Middles of equal shares of the Gaussian of U = a x² / 2: samples without luck."""
    x = np.zeros((N, 1, 3))
    x[:, 0, 0] = np.sqrt(kT / a) * ndtri((np.arange(N) + 0.5) / N)
    return ms.Ensemble.of_frames(Quartic(a, 0.0), one_atom(), x, temperature=T)


@pytest.fixture(scope="module")
def combined():
    pytest.importorskip("pymbar", reason="pymbar is not installed")
    return ms.thermal.combine([oscillator(a) for a in STIFFNESS])


@pytest.mark.peer
def test_free_energies_of_oscillators_are_those_of_their_integrals(combined):
    # f = log sqrt(a) in kT; what the ends of 128 shares lack is less than the errors of 128 random samples
    exact = 0.5 * np.log(np.array(STIFFNESS) / STIFFNESS[0])
    assert_allclose(combined.free_energies, exact, atol=0.3 * combined.errors[0].max())
    assert 0.01 < combined.errors[0, 2] < 0.2


@pytest.mark.peer
def test_a_state_between_those_sampled_has_its_averages(combined):
    there = combined.at({"a": 0.55})
    found = there.average("energy")
    assert_allclose(found["energy"].value, kT / 2, rtol=0.02)
    # <x²> = kT / a: U = a x² / 2 does not move with a
    assert abs(found.derivative("energy", "a").value) < 3 * found.derivative("energy", "a").error + 1e-3
    alone = oscillator(0.8).reweighted({"a": 0.55})
    assert there.effective.samples > 1.5 * alone.effective.samples
    with pytest.raises(NotConvergedError, match=r"independent samples are left"):
        combined.at({"a": 1e7})


def test_states_that_share_no_frames_are_refused():
    one = oscillator(0.2)
    with pytest.raises(InputError, match=r"1 ensembles are given: states are combined from two"):
        ms.thermal.combine([one])
    with pytest.raises(InputError, match=r"ensemble 1 is of Ar3"):
        ms.thermal.combine([one, ring_ensemble()])
    with pytest.raises(InputError, match=r"ensemble 0 is weighted"):
        ms.thermal.combine([balloon_ensemble(), balloon_ensemble()])


def test_without_pymbar_the_error_says_what_to_install(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "pymbar", None)
    monkeypatch.setitem(sys.modules, "pymbar.mbar", None)
    with pytest.raises(InputError, match=r"pip install mdsens\[mbar\]"):
        ms.thermal.combine([oscillator(0.2), oscillator(0.4)])
