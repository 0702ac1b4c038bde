"""A cell under shear: its Hessian has no symmetry, and a report must not notice."""

import pytest
from numpy.testing import assert_allclose
from states import SHEAR, copper

import mdsens as ms


@pytest.mark.validation
def test_both_modes_and_both_solvers_agree_and_know_it():
    potential, start = copper()
    options = dict(cell="full", stress=SHEAR)
    forward = ms.sensitivities(["volume", "energy"], potential, start, **options, mode="forward")
    reverse = ms.sensitivities(
        ["volume", "energy"],
        potential,
        start,
        **options,
        mode="reverse",
        linear_solver=ms.ConjugateGradient(),
    )
    assert_allclose(reverse.matrix(), forward.matrix(), rtol=1e-10)
    # an error bar compares with one Newton step more: with H in place of its transpose it would be 1e-2
    assert max(forward.errors.max(), reverse.errors.max()) < 1e-10
