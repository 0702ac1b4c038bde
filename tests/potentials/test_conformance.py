"""All that mdsens relies on, of every form and adapter: one test for each potential and claim."""

import pytest
from conforming import CASES, OF_LAMMPS, height_over_cutoff, report

import mdsens as ms
from mdsens import public
from mdsens.potentials.base import Potential


def marks(name):
    return [] if CASES[name].quick else [pytest.mark.validation]


PAIRS = [
    pytest.param(name, claim, marks=marks(name), id=f"{name}-{claim}")
    for name, case in CASES.items()
    for claim in case.claims
    if claim not in case.but
]
NAMES = [pytest.param(name, marks=marks(name), id=name) for name in CASES]


@pytest.mark.parametrize(("name", "claim"), PAIRS)
def test_claim(name, claim):
    found = {check.claim: check for check in report(name).checks}
    assert claim in found, f"not looked at: {report(name).left_out}"
    assert found[claim].holds, str(found[claim])


@pytest.mark.parametrize("name", NAMES)
def test_no_other_claim_is_made(name):
    made = {check.claim for check in report(name).checks}
    assert made == set(CASES[name].claims)


@pytest.mark.parametrize("name", NAMES)
def test_what_jumps_where_atoms_cross_the_cutoff_is_what_the_form_says(name):
    assert report(name).at_cutoff == CASES[name].jump


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.small])
def test_cell_is_smaller_than_the_cutoff(name):
    assert height_over_cutoff(name) < 1


def test_every_form_of_the_package_has_a_row():
    values = [getattr(public, name) for name in public.__all__]
    forms = {value for value in values if isinstance(value, type) and issubclass(value, Potential)}
    tried = {type(part) for name in WITHOUT_PEERS for part in parts_of(CASES[name].make()[0])}
    # what others build on; rows of other packages are left out where these are missing
    others = {Potential, ms.PairPotential, ms.JaxMDPotential, ms.TersoffZBL, ms.TersoffMod}
    assert forms - tried <= others


WITHOUT_PEERS = [name for name in CASES if name not in OF_LAMMPS and "jax" not in name]


def parts_of(potential):
    return [potential, *getattr(potential, "parts", ())]
