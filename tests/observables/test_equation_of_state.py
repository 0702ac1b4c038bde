"""Equations of state and tables of free energies: exact curves, phonopy's silicon, derivatives."""

import ase.build
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose

import mdsens as ms
from mdsens.errors import InputError
from mdsens.observables import equation_of_state, fit_equation_of_state, quasiharmonic_table
from mdsens.observables.equation_of_state import FORMS, pressure_of

NUMBERS = jnp.array([-3.5, 47.0, 0.87, 5.3])
V = np.linspace(43.0, 52.0, 7)

# phonopy 4.10.0, test/qha/test_QHA.py and tprop-Si.dat (BSD-3-Clause): volumes (Å³) and energies (eV) of
# silicon in its cubic cell, free energies of its vibrations in kJ/mol, and what phonopy makes of them
SILICON_V = [140.03, 144.5, 149.06, 153.72, 158.47, 163.32, 168.27, 173.32, 178.47, 183.72, 189.07]
SILICON_E = [
    *(-42.132246, -42.600974, -42.949142, -43.188162, -43.326751, -43.375124),
    *(-43.339884, -43.230619, -43.054343, -42.817825, -42.527932),
]
SILICON_T = [0.0, 200.0, 400.0, 600.0, 800.0]
SILICON_F = """
52.8987521 51.7310397 50.4937448 49.2241575 47.9307636 46.6315169 45.3248891 44.0266389 42.7311744 41.4484382
40.1856911
43.9193217 43.398814 42.5349398 41.4798181 40.286694 39.008141 37.6488444 36.2433842 34.7863932 33.2966282
31.7856744
12.7439153 12.7887685 12.1049831 10.9926933 9.5627535 7.918431 6.0726386 4.0915414 1.9695212 -0.2577748
-2.568229
-35.4125713 -34.9845235 -35.667675 -37.0124541 -38.8506117 -41.0272698 -43.5215132 -46.2345381 -49.1728294
-52.2831178 -55.532208
-95.9922761 -95.2455068 -95.989824 -97.6259923 -99.9286373 -102.6911793 -105.8849211 -109.3782675 -113.1788824
-117.2157852 -121.4446607
"""
SILICON_VOLUMES = [164.4548783, 164.4847063, 164.7929816, 165.2226063, 165.7050586]


def silicon_free_energies():
    table = np.array(SILICON_F.split(), float).reshape(5, 11)
    return table * ms.units.KJ_PER_MOL


@pytest.mark.parametrize("form", FORMS)
def test_a_curve_of_the_form_itself_is_found_again(form):
    E = FORMS[form](jnp.asarray(V), NUMBERS)
    p = pressure_of(form, jnp.asarray(V), NUMBERS)
    for pressures in (None, p):
        found = fit_equation_of_state(V, E, pressures, form)
        assert_allclose(found.numbers, NUMBERS, rtol=1e-7)
        assert float(found.residual) < 1e-10
    assert_allclose(found.pressure(47.0), 0.0, atol=1e-9)
    # B = -V dp/dV at V0
    slope = jax.grad(lambda v: pressure_of(form, v, NUMBERS))(47.0)
    assert_allclose(-47.0 * slope, 0.87, rtol=1e-10)


def test_the_table_of_silicon_expands_as_phonopy_says():
    found = quasiharmonic_table(SILICON_V, SILICON_E, SILICON_T, silicon_free_energies())
    assert_allclose(
        found.volumes, SILICON_VOLUMES, atol=2e-4
    )  # they are rounded, and so is eV in kJ/mol there
    assert_allclose(found.bulk_moduli[0] * ms.units.GPA, 87.4121501, rtol=1e-4)
    assert_allclose(
        found.expansion[2], np.diff(SILICON_VOLUMES)[1:3].sum() / 400 / SILICON_VOLUMES[2], rtol=1e-2
    )


def test_a_fit_moves_with_what_it_is_fitted_to():
    E = FORMS["vinet"](jnp.asarray(V), NUMBERS) + 1e-3 * jnp.sin(jnp.asarray(V))

    def volume0(E):
        return fit_equation_of_state(V, E).volume0

    gradient = jax.grad(volume0)(E)
    push = np.cos(V)
    twin = (volume0(E + 1e-5 * push) - volume0(E - 1e-5 * push)) / 2e-5
    assert_allclose(gradient @ push, twin, rtol=1e-6)


def test_the_curve_of_a_crystal_has_its_bulk_modulus():
    potential = ms.LennardJones(0.0104, 3.405, elements=("Ar",), cutoff_radius=8.5)
    start = ms.Structure.from_ase(ase.build.bulk("Ar", "fcc", a=5.305296921548048))
    strains = (-0.003, -0.0015, 0.0, 0.0015, 0.003)

    def numbers(potential):
        return equation_of_state(potential, start, strains).numbers

    E0, V0, B, _ = numbers(potential)
    C = ms.observables.elastic_constants(potential, start)
    assert_allclose([V0, B], [start.cell[0, 1] ** 3 * 2, ms.observables.bulk_modulus(C)], rtol=2e-4)
    # energies go as epsilon, volumes do not
    by_epsilon = jax.jacrev(numbers)(potential).epsilon * potential.epsilon
    assert_allclose(by_epsilon[:3], [E0, 0.0, B], rtol=1e-6, atol=1e-8)


WRONG = {
    "form": (dict(form="vinett"), "no equation of state 'vinett'. Did you mean 'vinet'"),
    "few": (dict(volumes=V[:3], energies=V[:3]), "3 volumes for the four numbers"),
    "shapes": (dict(energies=V[:3]), "have the shapes"),
    "slope": (dict(energies=-V), "lowest at the end of the volumes"),
}


@pytest.mark.parametrize("case", WRONG)
def test_points_that_make_no_curve_are_refused(case):
    options, message = WRONG[case]
    given = {"volumes": V, "energies": (V - 47.0) ** 2, **options}
    with pytest.raises(InputError, match=message):
        fit_equation_of_state(**given)


def test_tables_that_do_not_fit_together_are_refused():
    with pytest.raises(InputError, match=r"give \(temperatures, volumes\)"):
        quasiharmonic_table(SILICON_V, SILICON_E, [0.0], silicon_free_energies())
    with pytest.raises(InputError, match="temperatures must ascend"):
        quasiharmonic_table(SILICON_V, SILICON_E, [0.0, 0.0], silicon_free_energies()[:2])
    slab = ase.build.fcc111("Ar", (1, 1, 2), a=5.3, vacuum=8.0)
    with pytest.raises(InputError, match="equations of state need a structure that is periodic in three"):
        equation_of_state(ms.load_potential("ar-lennard-jones"), ms.Structure.from_ase(slab))
