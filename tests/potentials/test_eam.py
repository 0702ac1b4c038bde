"""Embedded atoms: tables, analytic forms, and what must be the same whatever the numbers."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ase.build import bulk
from embedded import TWO, alloy, tables_of
from numpy.testing import assert_allclose

import mdsens as ms
from mdsens.errors import InputError
from mdsens.observables import cubic_constants, elastic_constants
from mdsens.potentials.tables import Tables, knot_positions

METALS = [f"{metal}-gupta-1993" for metal in ("ag", "al", "au", "cu", "ni", "pd", "pt")]
COHESIVE = dict(ag=2.960, al=3.339, au=3.779, cu=3.544, ni=4.435, pd=3.936, pt=5.853)  # eV, of the paper
EDGE = dict(ag=4.085, al=4.050, au=4.079, cu=3.615, ni=3.523, pd=3.887, pt=3.924)  # Å, of the paper
JOHNSON = ms.Johnson(
    E_c=[3.5, 4.4], r_e=[2.55, 2.49], alpha=[5.1, 5.0], f_e=[0.3, 0.41], beta=[5.9, 6.4], phi_e=[0.6, 0.7],
    gamma=[8.0, 8.9], elements=("Cu", "Ni"), cutoff_radius=3.5, cut=ms.Smooth(0.85),
)  # fmt: skip


def primitive(symbol, edge):
    return ms.Structure.from_ase(bulk(symbol, "fcc", a=edge))


@pytest.fixture(scope="module")
def tabulated():
    return tables_of(TWO, 400)


def test_a_cubic_is_what_its_table_says_and_its_knots_are_met():
    x = knot_positions(12, 0.5)
    cubic = lambda x: 1 - 2 * x + 0.3 * x**2 - 0.05 * x**3
    tables = Tables.through(jnp.asarray(cubic(x))[None], 0.5)
    # slopes from four neighbors are exact for a cubic; next to the ends they are not
    between = jnp.linspace(x[2], x[-3], 57)
    assert_allclose(tables.held(tables.place(between), None), cubic(between), rtol=1e-13)
    assert_allclose(tables.held(tables.place(jnp.asarray(x)), None), cubic(x), rtol=1e-13)


def test_behind_the_last_knot_a_table_is_held_or_prolonged():
    knots = jnp.asarray([0.0, 1.0, 4.0, 9.0, 16.0, 25.0])
    tables = Tables.through(knots[None], 1.0)
    beyond = tables.place(jnp.asarray(7.0))
    assert tables.held(beyond, None) == 25.0
    assert tables.prolonged(beyond, None) == 25.0 + 2 * (25.0 - 16.0)


def test_tables_of_a_gupta_potential_have_its_energy_forces_and_stress(tabulated):
    structure = alloy()
    mine, exact = (ms.energy_forces_stress(p, structure) for p in (tables_of(TWO, 4000), TWO))
    # the cubics are off by the fourth power of the spacing
    assert_allclose(mine.energy, exact.energy, rtol=1e-9)
    assert_allclose(mine.forces, exact.forces, atol=1e-6)
    assert_allclose(mine.stress, exact.stress, atol=1e-8)


def test_derivative_by_a_knot_is_the_difference_of_energies_and_by_all_others_none(tabulated):
    structure = alloy()
    slopes = jax.grad(lambda p: ms.energy(p, structure))(tabulated)
    # the energy is linear in the pair table and nearly so in the others
    for name, field in (("F[Cu][90]", slopes.F[1, 90]), ("rphi[Ni-Cu][220]", slopes.rphi[1, 220]),
                        ("rho[Cu-Ni][230]", slopes.rho[2, 230])):  # fmt: skip
        value = ms.parameter_values(tabulated)[name]
        up, down = (
            ms.energy(ms.replace_parameters(tabulated, {name: value + step}), structure)
            for step in (1e-5, -1e-5)
        )
        assert_allclose(field, (up - down) / 2e-5, rtol=1e-6, atol=1e-9, err_msg=name)
    assert abs(float(slopes.rphi[1, 220])) > 1e-3
    assert np.all(slopes.rphi[:, :150] == 0)  # no pair is that close


def test_only_energies_have_a_meaning_not_the_three_functions(tabulated):
    # F + c rho with phi - 2 c rho(r) is the same, as far as r rho(r) and rho(r) have the same cubics
    c, structure, fine = 0.07, alloy(), tables_of(TWO, 4000)
    n = fine.rho.shape[-1]
    r, rho = knot_positions(n, fine.dr), knot_positions(n, fine.drho)
    both_ways = fine.rho[jnp.asarray([0, 1, 3])] + fine.rho[jnp.asarray([0, 2, 3])]
    other = dataclasses.replace(fine, F=fine.F + c * rho, rphi=fine.rphi - c * r * both_ways)
    assert_allclose(ms.energy(other, structure), ms.energy(fine, structure), rtol=1e-9)


@pytest.mark.parametrize("name", METALS)
def test_crystal_of_a_parameter_set_has_the_paper_s_energy_and_rests_at_its_edge(name):
    symbol = name[:2]
    crystal = primitive(symbol.capitalize(), EDGE[symbol])
    found = ms.energy_forces_stress(ms.load_potential(name), crystal)
    assert found.energy == pytest.approx(-COHESIVE[symbol], abs=3e-3)
    # at an edge off by 3e-5, the trace of the stress is 9 · 3e-5 bulk moduli, of up to 290 GPa (platinum)
    assert abs(np.trace(found.stress)) < 9 * 3e-5 * 290 / 160.2


def test_difference_of_c12_and_c44_is_the_curvature_of_the_embedding():
    # E = sum 1/2 phi + F(rho): under the strains e_xx and e_yy, and under e_xy, pairs contribute the same to
    # C12 and C44 at rest (Cauchy), and F contributes F'' (d rho/d e_xx)² / volume to C12 alone.
    potential = ms.load_potential("cu-gupta-1993")
    rest = ms.relax(potential, primitive("Cu", 3.615), cell="isotropic").structure
    _, C12, C44 = cubic_constants(elastic_constants(potential, rest))
    neighbors = ms.neighbors_of(potential, rest)
    d = np.asarray(neighbors.vectors(rest))[np.asarray(neighbors.valid)]
    r = jnp.linalg.norm(d, axis=1)

    def hopping(r):
        bare = lambda r: potential.xi**2 * jnp.exp(-2 * potential.q * (r / potential.r0 - 1))
        return jnp.where(r < potential.cutoff_radius, potential.cut(bare, r, potential.cutoff_radius), 0.0)

    rho = 2 * jnp.sum(hopping(r))  # every pair of the list is met from either end
    by_strain = 2 * np.sum(jax.vmap(jax.grad(hopping))(r) * d[:, 0] ** 2 / r)
    curvature = 0.25 * rho**-1.5  # of -sqrt(rho)
    assert_allclose(C12 - C44, curvature * by_strain**2 / ms.volume(rest), rtol=1e-9)


def test_crystal_of_johnson_follows_the_curve_of_rose():
    for kind in (0, 1):
        one = lambda name, kind=kind: getattr(JOHNSON, name)[kind]
        for stretch in (0.97, 1.0, 1.04):
            crystal = primitive(JOHNSON.elements[kind], stretch * float(one("r_e")) * np.sqrt(2))
            t = one("alpha") * (stretch - 1)
            # the switch has not begun at 0.85 · 3.5 Å, and the second neighbors are beyond 3.4 Å
            sharp = dataclasses.replace(JOHNSON, cutoff_radius=3.2, cut=ms.Truncated())
            assert_allclose(ms.energy(sharp, crystal), -one("E_c") * (1 + t) * jnp.exp(-t), rtol=1e-12)


def test_johnson_of_equal_species_is_that_of_one():
    twice = {name: [float(getattr(JOHNSON, name)[0])] * 2 for name in JOHNSON.parameter_fields()}
    once = {name: values[0] for name, values in twice.items()}
    settings = dict(cutoff_radius=3.5, cut=ms.Smooth(0.85))
    two = ms.Johnson(**twice, elements=("Ni", "Cu"), **settings)
    structure = alloy()
    copper = ms.Structure.create(structure.positions, ["Cu"] * 16, structure.cell)
    one = ms.Johnson(**once, elements=("Cu",), **settings)
    assert_allclose(ms.energy(two, structure), ms.energy(one, copper), rtol=1e-13)


def test_tables_survive_a_toml_file(tabulated, tmp_path):
    small = tables_of(TWO, 12)
    ms.save_potential(small, tmp_path / "small.toml")
    again = ms.load_potential(tmp_path / "small.toml")
    assert isinstance(again, ms.EAM) and again.finnis_sinclair and again.drho == small.drho
    for name, value in ms.parameter_values(small).items():
        assert ms.parameter_values(again)[name] == value


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(drho=-0.1), "drho = -0.1: it must be"),
        (dict(cutoff_radius=7.0), "cutoff_radius = 7.0: it must be"),
        (dict(F=np.zeros((2, 4))), "F has 4 knots; a table needs 5 or more"),
        (dict(rho=np.zeros((2, 12))), "rho has shape"),
        (dict(elements=()), "EAM needs elements"),
    ],
)
def test_tables_that_make_no_potential_are_refused(change, message):
    small = tables_of(TWO, 12)
    if change.get("elements") == ():
        change = dict(change, F=np.zeros(12), rho=np.zeros(12), rphi=np.zeros(12), finnis_sinclair=False)
    with pytest.raises(InputError, match=message):
        dataclasses.replace(small, **change)
