"""Buckingham, Born-Mayer-Huggins, damped charges: against an independent code; LAMMPS is in peers/."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose
from references import assert_agrees, structure, table

import mdsens as ms
from mdsens.errors import NonFiniteError
from mdsens.quantities import evaluate
from mdsens.strain import VOIGT
from mdsens.units import COULOMB

# The tables take 14.399645 eV Å for e² / 4 pi epsilon_0: charges that are larger by this make up for it.
UNIT = np.sqrt(14.399645 / COULOMB)
NAMES = {
    "A_12": "Buckingham.A[Na-Cl]",
    "rho_12": "Buckingham.rho[Na-Cl]",
    "A_22": "Buckingham.A[Cl-Cl]",
    "rho_22": "Buckingham.rho[Cl-Cl]",
    "C_22": "Buckingham.C[Cl-Cl]",
}
CHARGES = ("Ewald.charge[Na]", "Ewald.charge[Cl]")


def salt_of(record, accuracy=1e-12):
    p = record["potential"]["parameters"]
    elements = ("Na", "Cl")
    short = ms.Buckingham(
        A=[0.0, p["A_12"], p["A_22"]],
        rho=[1.0, p["rho_12"], p["rho_22"]],
        C=[0.0, 0.0, p["C_22"]],
        elements=elements,
        cutoff_radius=record["potential"]["cutoff"],
        cut=ms.Truncated(),
    )
    return short + ms.Ewald(np.array([1.0, -1.0]) * UNIT * p["q"], elements, accuracy)


def voigt(tensor):
    return np.stack([np.asarray(tensor)[a, b] for a, b in VOIGT])


def test_a_rattled_crystal_has_the_numbers_of_an_independent_code_and_so_have_their_derivatives():
    record = table("buckingham")["buck-nacl-rattled-64"]
    potential, atoms = salt_of(record), structure(record)
    neighbors = ms.neighbors_of(potential, atoms)
    values = {name: ms.parameter_values(potential)[name] for name in (*NAMES.values(), *CHARGES)}

    def all_three(scales):
        changed = {name: values[name] * scales[k] for k, name in enumerate(NAMES.values())}
        changed |= {name: values[name] * scales[-1] for name in CHARGES}  # q of both
        result = evaluate(ms.replace_parameters(potential, changed), atoms, neighbors)
        return result, result

    slopes, here = jax.jit(jax.jacfwd(all_three, has_aux=True))(jnp.ones(6))
    mine = {"energy": here.energy, "forces": here.forces, "stress": voigt(here.stress)}
    for name, value in mine.items():
        exact = np.array(record["values"][name]["value"])
        assert_allclose(value, exact, rtol=0, atol=1e-11 * np.abs(exact).max() + 1e-13)
    for quantity, records in record["sensitivities"].items():
        slope = voigt(slopes.stress) if quantity == "stress" else getattr(slopes, quantity)
        for theta, one in records.items():
            k = [*NAMES, "q"].index(theta)
            assert_agrees(np.asarray(slope)[..., k], one, f"d {quantity} / dln {theta}")


def rows(report, theta):
    """d / dln(theta) of all numbers of a report; q is the charge of both species."""
    columns = [report.parameters.index(name) for name in _names(theta)]
    return sum(report.theta[k] * (report.clamped + report.relaxation)[:, k] for k in columns)


@pytest.mark.parametrize(
    "names",
    [
        pytest.param(["lattice_constant", "energy_per_atom"], marks=pytest.mark.validation),
        pytest.param(["C11", "C12", "C44"], marks=pytest.mark.validation),
    ],
    ids=["lattice", "elastic"],
)
def test_the_relaxed_crystal_and_its_derivatives_are_those_of_an_independent_code(names):
    record = table("buckingham")["buck-nacl-crystal"]
    report = ms.sensitivities(
        names,
        salt_of(record),
        structure(record).deformed(1.01 * jnp.eye(3)),
        cell="isotropic",
        parameters=[*NAMES.values(), *CHARGES],
        second_order=False,
    )
    for name, value in zip(names, report.values, strict=True):
        # ours to the stated accuracy of 1e-12; elastic constants of the other code are differences of stress
        assert_allclose(value, record["values"][name]["value"], rtol=1e-9 if name[0] == "C" else 1e-11)
    if "C44" in names:
        # a pair potential at rest: Cauchy's relation
        assert_allclose(report.values[1], report.values[2], rtol=1e-10)
    for theta in (*NAMES, "q"):
        for name, slope in zip(names, rows(report, theta), strict=True):
            assert_agrees(slope, record["sensitivities"][name][theta], f"d {name} / dln {theta}")


@pytest.mark.validation  # takes a minute to compile
def test_the_ions_about_a_schottky_pair_are_where_an_independent_code_has_them_and_follow_its_parameters():
    record = table("buckingham")["buck-nacl-schottky-62"]
    potential = salt_of(record)
    relaxed = ms.relax(potential, structure(record), fmax=1e-10)
    values, slopes = record["values"]["fixed_cell"], record["sensitivities"]["fixed_cell"]
    assert_allclose(relaxed.energy, values["energy"]["value"], rtol=1e-12)
    centered = lambda x: np.asarray(x) - np.mean(x, axis=-2, keepdims=True)
    wanted = np.array(values["positions"]["value"])
    assert_allclose(centered(relaxed.structure.positions), centered(wanted), rtol=0, atol=1e-9)
    for theta in ("A_12", "q"):
        change = {name: ms.parameter_values(potential)[name] for name in _names(theta)}

        def moved(s, change=change):
            scaled = ms.replace_parameters(potential, {name: v * (1 + s) for name, v in change.items()})
            return ms.relax(scaled, structure(record), fmax=1e-10).structure.positions

        slope = jax.jvp(moved, (0.0,), (1.0,))[1]
        assert_agrees(centered(slope), slopes["positions"][theta], f"d positions / dln {theta}")


def _names(theta):
    return CHARGES if theta == "q" else (NAMES[theta],)


# --- distances that no ion comes to


def oxide(distance):
    return ms.Structure.create([[0.0, 0.0, 0.0], [distance, 0.0, 0.0]], ["Si", "O"])


def test_ions_that_fall_onto_each_other_are_an_error_and_not_a_deep_energy():
    silica = ms.load_potential("sio2-bks")
    assert np.isfinite(ms.energy(silica, oxide(1.3)))
    with pytest.raises(NonFiniteError, match=r"atoms 0 \(Si\) and 1 \(O\) are 8.00e-01 Å apart"):
        ms.energy(silica, oxide(0.8))


def test_the_wall_stands_where_the_attraction_begins_to_win():
    short = ms.load_potential("sio2-bks").parts[0]
    r = np.linspace(0.5, 1.6, 2201)
    bare = np.asarray(
        dataclasses.replace(short, wall=False).pair_energies(jnp.asarray(r), jnp.full(len(r), 1))
    )
    walled = np.asarray(short.pair_energies(jnp.asarray(r), jnp.full(len(r), 1)))
    summit = r[bare.argmax()]
    assert np.isinf(walled[r < summit - 1e-3]).all()
    assert_allclose(walled[r > summit + 1e-3], bare[r > summit + 1e-3], rtol=1e-14)


def test_a_pair_without_repulsion_has_no_wall():
    free = ms.Buckingham(0.0, 0.3, 10.0, ("Na",), 8.0)
    assert np.isfinite(free.pair_energies(jnp.asarray(0.5), None))


def test_damped_sums_come_close_to_ewald_and_closer_with_the_cutoff():
    record = table("buckingham")["buck-nacl-crystal"]
    crystal = structure(record)
    exact = float(ms.energy(ms.Ewald([1.0, -1.0], ("Na", "Cl")), crystal))
    for form in (ms.DampedShiftedForce, ms.Wolf):
        near, far = (
            float(ms.energy(form([1.0, -1.0], ("Na", "Cl"), alpha=a, cutoff_radius=r), crystal))
            for r, a in ((9.0, 0.25), (18.0, 0.2))
        )
        assert abs(far - exact) < 1e-3 * abs(exact)
        assert abs(far - exact) < abs(near - exact) < 1e-2 * abs(exact)


def test_ionic_sets_are_read_and_written_with_every_digit(tmp_path):
    for name in ("sio2-bks", "nacl-fumi-tosi", "mgo-lewis-catlow"):
        potential = ms.load_potential(name)
        ms.save_potential(potential, tmp_path / f"{name}.toml")
        again = ms.load_potential(tmp_path / f"{name}.toml")
        assert ms.parameter_values(again) == ms.parameter_values(potential)
        assert again == potential
    free = ms.Ewald(accuracy=1e-9)
    ms.save_potential(free, tmp_path / "free.toml")
    assert ms.load_potential(tmp_path / "free.toml") == free
