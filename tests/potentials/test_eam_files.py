"""Files of embedded atoms: what is wrong with one is said with line and column."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose

import mdsens as ms
from mdsens.errors import FileFormatError, InputError
from mdsens.potentials.eam_files import HARTREE_BOHR
from mdsens.potentials.tables import Tables


def block(values, per_line=3):
    rows = [values[k : k + per_line] for k in range(0, len(values), per_line)]
    return [" ".join(f"{v:.17g}" for v in row) for row in rows]


F, RHO, PHI = -np.sqrt(np.arange(6.0)), np.linspace(2, 0, 7), np.linspace(3, 0, 7) ** 2


def setfl(fs=False):
    """Lines of a file for Ni and Cu; every table tells whose it is by a factor."""
    lines = ["UNITS: metal CITATION: nobody (2020)", "comment", "comment", "2 Ni Cu", "6 0.5 7 0.6 4.1"]
    for k, name in enumerate(("28 58.7 3.52 fcc", "29 63.5 3.61 fcc"), 1):
        lines += [name, *block(k * F)]
        for other in (1, 2) if fs else (0,):
            lines += block((k + 0.1 * other) * RHO)
    for factor in (1.0, 2.0, 3.0):  # Ni-Ni, Cu-Ni, Cu-Cu
        lines += block(factor * PHI)
    return lines


def funcfl():
    lines = ["UNITS: metal CITATION: Unknown", "29 63.5 3.61 fcc", "6 0.5 7 0.6 3.6"]
    return [*lines, *block(F), *block(PHI), *block(RHO)]


@pytest.fixture
def load(tmp_path):
    def load(lines, name="x.eam.alloy", elements=None):
        (tmp_path / name).write_text("\n".join(lines) + "\n")
        return ms.load_potential(tmp_path / name, elements)

    return load


def test_each_table_goes_to_its_species_and_pair(load):
    potential = load(setfl())
    assert (potential.elements, potential.drho, potential.dr, potential.cutoff_radius) == (
        ("Ni", "Cu"),
        0.5,
        0.6,
        4.1,
    )
    assert_allclose(potential.F, [F, 2 * F])
    assert_allclose(potential.rho, [RHO, 2 * RHO])
    assert_allclose(potential.rphi, [PHI, 2 * PHI, 3 * PHI])
    assert potential.source == "nobody (2020)"
    turned = load(setfl(), elements=["Cu", "Ni"])
    assert_allclose(turned.rphi, [3 * PHI, 2 * PHI, PHI])
    alone = load(setfl(), elements=["Cu"])
    assert_allclose(alone.rphi, 3 * PHI)


def test_density_of_one_kind_at_another_is_named_by_who_feels_it_first(load):
    potential = load(setfl(fs=True), "x.eam.fs")
    rows = dict(zip(potential.labels("rho"), np.asarray(potential.rho[:, 0]) / RHO[0], strict=True))
    # in the file: of the element of the section, at the first and at the second element
    assert rows == pytest.approx({"Ni-Ni": 1.1, "Cu-Ni": 1.2, "Ni-Cu": 2.1, "Cu-Cu": 2.2})


def test_file_of_one_element_loses_its_last_knot_and_squares_its_charge(load):
    potential = load(funcfl(), "x.eam")
    assert potential.elements == ("Cu",)
    assert_allclose(potential.F, F[:-1], rtol=1e-14)
    assert_allclose(potential.rho, RHO[:-1], rtol=1e-14)
    assert_allclose(potential.rphi, HARTREE_BOHR * PHI[:-1] ** 2, rtol=1e-14)
    assert potential.source == "LAMMPS file x.eam"


def changed(number, text):
    """The lines with line `number` replaced."""
    lines = setfl()
    lines[number - 1] = text
    return lines


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (changed(4, "2 Ni"), "line 4: '2 Ni' is not a number of elements and as many names"),
        (changed(4, "2 Ni Qq"), "line 4, column 3: 'Qq' is no chemical symbol"),
        (changed(4, "2 Ni Ni"), "line 4, column 3: the element Ni stands twice"),
        (changed(5, "6 0.5 7 0.6"), "line 5: 4 columns; it must be 5: Nrho drho Nr dr cutoff"),
        (changed(5, "6 0.5 7 x 4.1"), "line 5, column 4: 'x' stands where a number of the grid"),
        (changed(5, "6.5 0.5 7 0.6 4.1"), "line 5, column 1: Nrho = 6.5; it must be a whole number"),
        (changed(5, "6 0.5 4 0.6 2.0"), "line 5, column 3: Nr = 4; it must be a whole number, 5 or more"),
        (changed(5, "6 0.5 7 -0.6 4.1"), "line 5, column 4: dr = -0.6; it must be positive"),
        (changed(5, "6 0 7 0.6 4.1"), "line 5, column 2: drho = 0; it must be positive"),
        (
            changed(5, "6 0.5 7 0.6 4.3"),
            "line 5, column 5: the cutoff 4.3 Å lies behind the end",
        ),
        (changed(6, "28"), "line 6: 1 columns; for Ni it must be"),
        (changed(6, "28 heavy"), "line 6, column 2: 'heavy' stands where a number of atomic number and mass"),
        (changed(8, "1 2 3,5"), "line 8, column 3: '3,5' stands where a number of F of Ni"),
        (changed(8, "1 2 nan"), "line 8, column 3: F of Ni is nan; it must be finite"),
        (changed(8, "1 2 3 4"), "line 8, column 4: F of Ni has 6 values, and 1 more stand on this line"),
        (setfl()[:-1], r"ends where r phi of Cu-Cu \(value 7 of 7\) should stand: it is cut short"),
        ([*setfl(), "1 2"], "the tables are complete, but the file goes on with '1 2'"),
        (changed(1, "UNITS: real"), "LAMMPS units 'real'"),
    ],
)
def test_what_is_wrong_is_said_with_line_and_column(load, lines, message):
    with pytest.raises(FileFormatError, match=message):
        load(lines)


def he(header="6 0.5 7 0.6 4.1 1.0"):
    lines = setfl(fs=True)
    return [*lines[:4], header, *lines[5:]]


def test_the_densities_of_helium_begin_where_the_last_one_and_the_spacing_say(load):
    potential = load(he(), "x.eam.he")
    assert potential.first_density == -1.5
    (curve, *_) = potential.curves()
    assert_allclose(curve.x, [-1.5, -1.0, -0.5, 0.0, 0.5, 1.0])
    # rounded numbers of a table that begins at zero
    assert load(he("6 0.5 7 0.6 4.1 2.5000001"), "x.eam.he").first_density == 0.0


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("6 0.5 7 0.6 4.1", "line 5: 5 columns; it must be 6: Nrho drho Nr dr cutoff rhomax"),
        ("6 0.5 7 0.6 4.1 9", "line 5, column 6: the densities of F run from 6.5 to 9"),
        ("6 0.5 7 0.6 4.1 much", "line 5, column 6: 'much' stands where a number"),
    ],
)
def test_a_header_without_a_last_density_is_said_with_its_column(load, header, message):
    with pytest.raises(FileFormatError, match=message):
        load(he(header), "x.eam.he")


def test_below_the_first_density_the_energy_goes_on_along_a_line():
    knots, spacing = jnp.array([[4.0, 1.0, 0.0, 1.0, 4.0, 9.0]]), 0.5
    table = Tables.through(knots, spacing, -1.0)
    at = lambda x: float(table.prolonged_both_ways(table.place(jnp.asarray(x)), None))
    assert_allclose([at(x) for x in (-1.0, -0.5, 0.0, 1.5)], [4.0, 1.0, 0.0, 9.0], atol=1e-14)
    # the slopes at the ends are those of the last two knots
    assert_allclose([at(-2.0), at(2.5)], [4.0 + 2 * 3.0, 9.0 + 2 * 5.0], atol=1e-13)
    slope = jax.grad(lambda x: table.prolonged_both_ways(table.place(x), None))
    assert_allclose([slope(-1.0 - 1e-9), slope(-1.0 + 1e-9)], -6.0, atol=1e-6)


def test_elements_that_a_file_lacks_are_named(load):
    with pytest.raises(InputError, match="nothing for Al; it has Ni, Cu"):
        load(setfl(), elements=["Al"])
    with pytest.raises(InputError, match="nothing for Ni; it has Cu"):
        load(funcfl(), "x.eam", elements=["Ni"])


def test_mixing_takes_one_file_for_each_element(tmp_path):
    (tmp_path / "a.eam").write_text("\n".join(funcfl()))
    with pytest.raises(InputError, match="one file for each element, and these are for: Cu, Cu"):
        ms.mix_funcfl(tmp_path / "a.eam", tmp_path / "a.eam")
    with pytest.raises(InputError, match="these are for: none"):
        ms.mix_funcfl()
    with pytest.raises(FileFormatError, match="no potential file"):
        ms.mix_funcfl(tmp_path / "b.eam")
    (tmp_path / "c.eam").write_text("\n".join(["", "Cu 63", *funcfl()[2:]]))
    with pytest.raises(FileFormatError, match="line 2: 'Cu 63' must be: atomic number, mass"):
        ms.mix_funcfl(tmp_path / "c.eam")


def test_a_description_shows_the_ends_of_a_table(load):
    lines = setfl()
    text = str(ms.parameter_table(load([*lines[:4], "60 0.5 70 0.06 4.1", *long_tables()])))
    assert "F[Ni][0]" in text and "... 58 more" in text and "rphi[Ni-Cu][69]" in text
    assert len(text.splitlines()) < 40


def long_tables():
    one = lambda n: block(np.linspace(1, 0, n))
    elements = (["28 58.7", *one(60), *one(70)], ["29 63.5", *one(60), *one(70)])
    return [*elements[0], *elements[1], *one(70), *one(70), *one(70)]
