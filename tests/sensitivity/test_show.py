"""What a table shows of a number: the digits that its own error allows, and never nan."""

import dataclasses

import ase.build
import numpy as np
import pytest

import mdsens as ms
from mdsens.sensitivity.show import _with_error


@pytest.mark.parametrize(
    ("number", "error", "shown"),
    [
        (1.04012345, 1e-9, "1.0401"),
        (1.04012345, 3e-3, "1.040"),
        (1.04012345, 0.2, "1.0"),
        (-3.9355, 0.0, "-3.9355"),
        (1e-9, 1e-8, "0"),
        (0.0, 0.0, "0"),
        (1e-12, 1e-13, "0"),
        (0.3, 0.9, "-"),
        (np.nan, 1.0, "-"),
        (5.0, np.inf, "-"),
        (123456.0, 1e-3, "1.2346e+05"),
    ],
)
def test_a_number_is_shown_to_the_digits_its_error_allows(number, error, shown):
    assert _with_error(number, error) == shown


def nothing(potential, states):
    return (0.0 * states["structure"].structure.cell[0, 0],)


def test_an_observable_that_is_zero_blanks_no_other():
    # C14 vanishes by symmetry; its elasticity is noise over noise. Which noise depends on the compiler:
    # here is one, with an error bar above it.
    argon = ms.LennardJones(0.0104, 3.405, elements=("Ar",), cutoff_radius=8.5, cut=ms.ForceShifted())
    crystal = ms.Structure.from_ase(ase.build.bulk("Ar", "fcc", a=5.25, cubic=True))
    zero = ms.Observable(("nothing",), ("Å",), nothing)
    report = ms.sensitivities(["C11", "C14", zero], argon, crystal, cell="full", second_order=False)
    assert abs(report.values[1]) < 1e-12
    values, errors = report.values.copy(), report.errors.copy()
    values[1], errors[1] = 4.8e-18, 1e-14
    report = dataclasses.replace(report, values=values, errors=errors)
    text = str(report)
    rows = {line.split()[1]: line for line in text.splitlines() if line.startswith("│")}
    assert "1.0000" in rows["C11"] and "-3.9355" in rows["C11"]
    assert "nan" not in text
    assert rows["C14"].split("│")[3].strip() in ("-", "0")
    assert [cell.strip() for cell in rows["nothing"].split("│")[3:5]] == ["0", "0"]
    worse = dataclasses.replace(report, errors=report.errors + 1.0)
    assert "nan" not in str(worse)
