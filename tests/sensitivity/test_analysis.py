"""Sensitivity reports against re-relaxed LAMMPS, against identities.

And against themselves in the other mode.
"""

import h5py
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from references import assert_agrees, flat_name, structure, table
from references import potential as potential_of

import mdsens as ms
from mdsens.observables import Observable, elastic, energy, energy_per_atom, formation, lattice_constant

CASE = table("stillinger_weber")["sw-si-vacancy-63"]
QUANTITIES = {
    "lattice_constant": "lattice_constant",
    "formation_energy": "formation_energy_zero_pressure",
    "formation_volume": "formation_volume",
    "energy": "relaxed_energy_zero_pressure",
}


@pytest.fixture(scope="module")
def states():
    crystal = table("stillinger_weber")["sw-si-crystal"]
    return {"defect": structure(CASE), "bulk": structure(crystal)}


@pytest.fixture(scope="module")
def parameters():
    return list(CASE["sensitivities"]["zero_pressure"]["lattice_constant"])


@pytest.fixture(scope="module")
def report(states, parameters):
    """The vacancy of 63 atoms at zero pressure, edge of the cubic cell relaxed as in the tables.

    Re-relaxations too.
    """
    observables = [lattice_constant("bulk"), energy("defect"), formation()]
    return ms.sensitivities(
        observables,
        potential_of(CASE),
        states,
        cell="isotropic",
        parameters=parameters,
        mode="forward",
        check=True,
    )


@pytest.mark.parametrize("mine, theirs", QUANTITIES.items())
def test_defect_and_bulk_together_agree_with_lammps(report, parameters, mine, theirs):
    i = report.observables.index(mine)
    reference = CASE["values"]["zero_pressure"][theirs]["value"]
    np.testing.assert_allclose(report.values[i], reference, rtol=1e-9)
    for k, parameter in enumerate(parameters):
        assert flat_name(parameter) == report.parameters[k]
        assert_agrees(
            report.matrix("log")[i, k],
            CASE["sensitivities"]["zero_pressure"][theirs][parameter],
            f"{mine} by {parameter}",
        )


def test_exact_identities(report):
    """epsilon scales energies, sigma lengths; A and lambda are the two terms of the energy."""
    E, column = report.matrix("elasticity"), report.parameters.index
    rows = report.observables.index
    powers = {
        "lattice_constant": (0, 1),
        "energy": (1, 0),
        "formation_energy": (1, 0),
        "formation_volume": (0, 3),
    }
    for name, (by_epsilon, by_sigma) in powers.items():
        np.testing.assert_allclose(E[rows(name), column("epsilon")], by_epsilon, atol=1e-10)
        np.testing.assert_allclose(E[rows(name), column("sigma")], by_sigma, atol=1e-10)
        np.testing.assert_allclose(
            E[rows(name), column("A")] + E[rows(name), column("lambda")], by_epsilon, atol=1e-10
        )


def test_forward_and_reverse_agree(report, states, parameters):
    observables = [lattice_constant("bulk"), energy("defect"), formation()]
    reverse = ms.sensitivities(
        observables,
        potential_of(CASE),
        states,
        cell="isotropic",
        parameters=parameters,
        mode="reverse",
        second_order=False,
    )
    assert (report.mode, reverse.mode) == ("forward", "reverse")
    scale = np.abs(report.derivative).max(1, keepdims=True)
    np.testing.assert_allclose(reverse.derivative / scale, report.derivative / scale, atol=1e-11)
    np.testing.assert_allclose(reverse.clamped / scale, report.clamped / scale, atol=1e-11)
    assert max(c.linear_residual for c in reverse.certificate.values()) < 1e-12


def test_check_compares_with_re_relaxation(report):
    difference = report.matrix("elasticity", report.check.derivative - report.derivative)
    # central differences at 1e-4: truncation 1e-8 x third derivative (up to 100 here), rounding 1e-9
    assert np.abs(difference).max() < 2e-6
    assert report.check.elsewhere == ()


def test_first_order_is_off_by_a_tenth_where_the_report_says(report):
    """At the smallest range of each parameter, the observable that set it is off by 10 %.

    Up to third order; none by much more.
    """
    tried = report.check.at_range
    for k in range(len(report.parameters)):
        if np.isfinite(tried[:, k]).any():
            i = np.nanargmin(np.where(report.radius[:, k] > 1e-4, report.radius[:, k], np.inf))
            assert 0.07 < tried[i, k] < 0.13, (report.observables[i], report.parameters[k])
            assert np.nanmax(tried[:, k]) < 0.13
    assert np.isfinite(tried).sum() > 10


def test_error_bars_are_true_bounds():
    """Stop the relaxation early on purpose.

    The error bar must cover the distance from the converged derivative.
    """
    potential, start = potential_of(CASE), structure(CASE)
    squared = Observable(
        ("spread",),
        ("Å²",),
        lambda potential, states: (jnp.sum(states["structure"].structure.positions[:4] ** 2),),
    )
    kwargs = dict(parameters=["gamma", "lambda"], second_order=False)
    exact = ms.sensitivities([squared], potential, start, **kwargs)
    loose = ms.sensitivities([squared], potential, start, fmax=3e-3, **kwargs)
    off = np.abs(loose.derivative - exact.derivative)
    assert loose.certificate["structure"].fmax > 1e-5
    assert np.all(off > 1e3 * exact.errors)  # the case means something
    assert np.all(off < 2 * loose.errors)
    assert np.all(loose.errors < 20 * off)


def test_certificate_of_a_minimum(report):
    certificate = report.certificate["defect"]
    assert certificate.is_minimum and certificate.gauge == 3
    assert certificate.fmax < 1e-10
    assert np.linalg.norm(certificate.mode) <= 1 + 1e-12
    # the table's lowest eigenvalue at fixed cell bounds the one with a free cell from above only up to the
    # strain mode
    fixed = ms.certify(ms.relax(potential_of(CASE), structure(CASE), fmax=1e-10))
    np.testing.assert_allclose(
        fixed.lowest_curvature, CASE["values"]["fixed_cell"]["smallest_eigenvalues"][0], rtol=1e-6
    )
    np.testing.assert_allclose(
        fixed.highest_curvature, CASE["values"]["fixed_cell"]["largest_eigenvalue"], rtol=1e-6
    )


def test_a_saddle_is_refused():
    """Three Lennard-Jones atoms in a line attract each other evenly: no force, but the line wants to fold."""
    potential = ms.LennardJones(1.0, 1.0, elements=("Ar",))
    line = ms.Structure.create([[-1.12, 0, 0], [0, 0, 0], [1.12, 0, 0]], ["Ar"] * 3)
    with pytest.raises(ms.errors.SaddlePointError, match=r"saddle point.*displaced along"):
        ms.sensitivities([energy()], potential, line)


def test_report_is_written_and_never_overwrites(report, tmp_path):
    report.to_csv(tmp_path / "s.csv")
    report.to_hdf5(tmp_path / "s.h5")
    figure = report.plot(tmp_path / "s.png")
    assert figure.axes and (tmp_path / "s.png").stat().st_size > 10_000
    for write in (report.to_csv, report.to_hdf5):
        with pytest.raises(ms.errors.OutputExistsError, match="overwrite"):
            write(tmp_path / ("s.csv" if write == report.to_csv else "s.h5"))
    with h5py.File(tmp_path / "s.h5") as file:
        np.testing.assert_array_equal(file["derivative"][()], report.derivative)
        np.testing.assert_allclose(
            file["states/defect/structure/positions"], report.relaxed["defect"].structure.positions
        )
        assert file["states/defect/dx_dtheta"].shape == (len(report.parameters), 63, 3)
    again = ms.SensitivityReport.from_hdf5(tmp_path / "s.h5")
    assert (again.observables, again.parameters, again.mode) == (
        report.observables,
        report.parameters,
        report.mode,
    )
    np.testing.assert_array_equal(again.relaxation, report.relaxation)
    np.testing.assert_array_equal(again.moves["defect"], report.moves["defect"])
    np.testing.assert_array_equal(again.structures["defect"].fixed, report.relaxed["defect"].structure.fixed)
    assert again.certificate["bulk"].lowest_curvature == report.certificate["bulk"].lowest_curvature
    assert str(again) == str(report)
    lines = (tmp_path / "s.csv").read_text().splitlines()
    assert len(lines) == 1 + len(report.observables) * len(report.parameters)
    text = str(report)
    assert "formation_energy" in text and "gamma" in text


def test_derivative_from_the_report_is_that_of_relax(report):
    potential = potential_of(CASE)

    def defect_energy_slope(gamma):
        p = ms.replace_parameters(potential, {"gamma": gamma})
        return ms.volume(ms.relax(p, structure(CASE), cell="isotropic", fmax=1e-10).structure)

    slope = jax.jvp(defect_energy_slope, (1.2,), (1.0,))[1]
    volume_row = (
        report.clamped[report.observables.index("formation_volume")]
        + report.relaxation[report.observables.index("formation_volume")]
    )
    # the bulk volume does not depend on gamma
    np.testing.assert_allclose(volume_row[report.parameters.index("gamma")], slope, rtol=1e-9)


@pytest.mark.parametrize(
    "change, message",
    [
        (dict(observables=["C1"]), "no observable 'C1'.*Did you mean 'C1"),
        (dict(parameters=["gama"]), "no parameter 'gama'.*Did you mean 'gamma'"),
        (dict(mode="sideways"), "use 'forward', 'reverse'"),
        (dict(cell={"defect": None}), "no entry for"),
    ],
)
def test_wrong_input_says_what_to_do(change, message):
    crystal = structure(table("stillinger_weber")["sw-si-crystal"])
    arguments = dict(observables=[energy_per_atom()], cell=None, second_order=False) | change
    with pytest.raises(ms.errors.InputError, match=message):
        ms.sensitivities(arguments.pop("observables"), potential_of(CASE), crystal, **arguments)


def test_elastic_constants_by_name_are_grouped():
    groups = ms.observables.named(["energy", "C11", "K_clamped"])
    assert [g.names for g in groups] == [("energy",), ("C11", "K_clamped")]
    with pytest.raises(ms.errors.InputError, match=r"C11 \.\.\. C66"):
        elastic(["C77"])


def test_matrix_kinds_agree(report):
    np.testing.assert_allclose(report.matrix("log"), report.derivative * report.theta)
    np.testing.assert_allclose(report.matrix("elasticity") * report.values[:, None], report.matrix("log"))
