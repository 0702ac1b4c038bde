"""Derivatives by functions: what a change of phi(r), rho(r) or F(rho) does, relaxed again."""

import csv

import numpy as np
import pytest
from embedded import TWO, alloy, tables_of
from numpy.testing import assert_allclose

import mdsens as ms
from mdsens.errors import InputError
from mdsens.potentials.tables import knot_positions

POTENTIAL = tables_of(TWO, 400)


def relaxed(potential):
    return ms.relax(potential, alloy(), cell="isotropic", fmax=1e-11)


@pytest.fixture(scope="module")
def rest():
    return relaxed(POTENTIAL)


@pytest.fixture(scope="module")
def report(rest):
    return ms.functional_sensitivities(rest, ["energy", "volume"])


def bump(middle, width):
    return lambda x: np.exp(-0.5 * ((x - middle) / width) ** 2)


def test_change_along_any_functions_equals_relaxing_again(report):
    changes = {
        "phi[Ni-Cu]": bump(2.6, 0.3),
        "phi[Cu-Cu]": lambda r: np.cos(r) / r,  # a pole at r = 0, where no atoms are
        "rho[Cu-Ni]": lambda r: bump(2.9, 0.2)(r) - 0.5,
        "F[Ni]": lambda rho: 0.1 * np.sin(rho / 5),
    }
    values = []
    for step in (1e-5, -1e-5):
        changed = POTENTIAL
        for name, change in changes.items():
            changed = ms.change_function(changed, name, lambda x, change=change, step=step: step * change(x))
        state = relaxed(changed)
        values.append((state.energy, ms.volume(state.structure)))
    # differences of second order in the step, and the relaxations' 1e-11 eV/Å over it
    assert_allclose(report.along(changes), np.subtract(*values) / 2e-5, rtol=1e-6)


def test_directions_that_change_no_energy_change_no_observable(report):
    # F + c rho with phi - c (rho_ab + rho_ba); and rho stretched together with F. What is left is the
    # difference between the cubics of r rho(r) and of rho(r), at 400 knots.
    tables = {name: f for name, f in report.functions.items()}
    rho = dict(zip(POTENTIAL.labels("rho"), np.asarray(POTENTIAL.rho), strict=True))
    shift = {"F[Ni]": lambda x: x, "F[Cu]": lambda x: x}
    for a, b in (("Ni", "Ni"), ("Ni", "Cu"), ("Cu", "Cu")):
        shift[f"phi[{a}-{b}]"] = lambda r, both=rho[f"{a}-{b}"] + rho[f"{b}-{a}"]: -both
    slope = lambda density: -0.5 * np.sqrt(density)  # of F = -sqrt(rho), times rho
    stretch = {name: lambda r, own=own: own for name, own in ((f"rho[{k}]", v) for k, v in rho.items())}
    stretch |= {name: lambda density: -slope(density) for name in ("F[Ni]", "F[Cu]")}
    for direction in (shift, stretch):
        size = np.abs(np.sum([np.abs(tables[n].along(change)) for n, change in direction.items()], axis=0))
        assert np.all(np.abs(report.along(direction)) < 1e-5 * size)


def test_smoothed_curve_is_the_response_to_bumps_of_area_one(report):
    f = report.functions["phi[Ni-Cu]"]
    width, middle = 0.1, 2.6
    area = width * np.sqrt(2 * np.pi)
    expected = f.along(lambda r: bump(middle, width)(r) / area)
    assert_allclose(f.smoothed(width, np.array([middle]))[:, 0], expected, rtol=1e-12)
    r = knot_positions(400, POTENTIAL.dr)
    assert_allclose(POTENTIAL.dr * f.density @ np.sin(r), f.along(np.sin), rtol=1e-12)


def test_one_function_alone_has_the_same_curve_and_a_sum_has_those_of_its_parts(rest, report):
    alone = ms.functional_sensitivities(rest, "energy", ["rho[Cu-Ni]"])
    assert list(alone.functions) == ["rho[Cu-Ni]"]
    mine, of_all = alone.functions["rho[Cu-Ni]"].by_value[0], report.functions["rho[Cu-Ni]"].by_value[0]
    assert_allclose(mine, of_all, atol=1e-12)
    from mdsens.potentials.curves import curves

    total = ms.SumPotential((POTENTIAL, POTENTIAL), (0.5, 0.5))
    names = [entry.name for entry in ms.parameter_entries(total)]
    assert {knot for curve in curves(total) for knot in curve.knots} == set(names)


def test_curves_are_written_and_drawn(report, tmp_path):
    report.to_csv(tmp_path / "curves.csv")
    with (tmp_path / "curves.csv").open() as file:
        rows = list(csv.DictReader(file))
    one = next(row for row in rows if row["observable"] == "volume" and row["function"] == "phi[Ni-Cu]")
    assert float(one["density"]) == pytest.approx(float(one["dO_df_k"]) / POTENTIAL.dr, rel=1e-14)
    figure = report.plot(tmp_path / "curves.png")
    assert len(figure.axes) == 2 * 9 and (tmp_path / "curves.png").stat().st_size > 10_000


def test_mistakes_are_named(rest, report):
    with pytest.raises(InputError, match=r"there is no function 'phi\[Ni-Cu'\. Did you mean 'phi\[Ni-Cu\]'"):
        ms.functional_sensitivities(rest, "energy", ["phi[Ni-Cu"])
    with pytest.raises(InputError, match="give a list of names out of F"):
        ms.functional_sensitivities(rest, "energy", "phi[Ni-Cu]")
    with pytest.raises(InputError, match="there is no function 'psi'"):
        report.along({"psi": np.sin})
    with pytest.raises(InputError, match="it must give a finite number for each"):
        ms.change_function(POTENTIAL, "F[Cu]", lambda rho: np.log(rho))
    with pytest.raises(InputError, match="width = 0: it must be finite and above 0"):
        report.functions["F[Cu]"].smoothed(0)
    with pytest.raises(InputError, match="Gupta has no tabulated functions"):
        ms.change_function(TWO, "phi", np.sin)
