"""Names mean what they say, for every crystal and every composition."""

import pickle

import ase.build
import jax.numpy as jnp
import pytest
from ase.geometry import cell_to_cellpar, cellpar_to_cell
from numpy.testing import assert_allclose
from states import cluster

import mdsens as ms
from mdsens import errors
from mdsens.observables import NAMED, formation, named
from mdsens.relaxation.equilibrium import Equilibrium
from mdsens.sensitivity.first_order import SensitivityProblem

ARGON = ms.LennardJones(0.0104, 3.405, elements=("Ar",), cutoff_radius=8.5, cut=ms.ForceShifted())
CELL = ("a", "b", "c", "alpha", "beta", "gamma")


def measured(names, potential, atoms, **options):
    """Values by name of a relaxed structure, without their derivatives."""
    state = ms.relax(potential, ms.Structure.from_ase(atoms), cell="full", **options)
    return dict(zip(names, SensitivityProblem.of(state, list(names), None, None).values(), strict=True))


def test_hexagonal_constants_are_entries_of_the_matrix():
    # LAMMPS by differences of strained cells: 4.655, 1.964, 1.240 GPa
    start = ase.build.bulk("Ar", "hcp", a=3.76, c=6.14)
    names = ["C11", "C22", "C12", "C44", "C66", *CELL]
    found = measured(names, ARGON, start)
    assert_allclose([found[n] for n in ("C11", "C12", "C44")], [4.653, 1.966, 1.240], atol=5e-4)
    assert_allclose(found["C22"], found["C11"], rtol=1e-8)
    assert_allclose(found["C66"], (found["C11"] - found["C12"]) / 2, rtol=1e-8)
    assert_allclose(
        [found[n] for n in ("a", "b", "alpha", "beta", "gamma")], [3.75147785] * 2 + [90, 90, 120], rtol=1e-8
    )
    assert_allclose(found["c"], 6.12320780, rtol=1e-8)
    with pytest.raises(errors.InputError, match=r"space group P6_3/mmc \(194\).*a, b, c"):
        measured(["lattice_constant"], ARGON, start)
    with pytest.raises(errors.InputError, match=r"C11_cubic is that of a cubic crystal"):
        measured(["C11_cubic"], ARGON, start)


def test_a_rotated_primitive_cell_has_the_constants_of_its_crystal():
    silicon = ms.load_potential("si-stillinger-weber-1985")
    atoms = ase.build.bulk("Si", "diamond", a=5.431)
    atoms.set_cell(cellpar_to_cell(cell_to_cellpar(atoms.cell)), scale_atoms=True)
    names = ["lattice_constant", "a", "alpha", "C11_cubic", "C12_cubic", "C44_cubic", "C11", "K"]
    found = measured(names, silicon, atoms)
    right = [5.43095, 5.43095, 90, 151.4245, 76.4221, 56.4493]  # of the cubic cell, as README shows it
    assert_allclose([found[n] for n in names[:6]], right, rtol=2e-6)
    assert_allclose(found["K"], (found["C11_cubic"] + 2 * found["C12_cubic"]) / 3, rtol=1e-9)
    assert abs(found["C11"] - found["C11_cubic"]) > 10  # the entry of the matrix, in the axes of this cell


def test_the_lattice_constant_follows_the_cell_of_a_supercell():
    crystal = ms.Structure.from_ase(ase.build.bulk("Ar", "fcc", a=5.25) * (1, 2, 1))
    state = ms.relax(ARGON, crystal, cell="full")
    values, jacobian = ms.first_order(state, ["lattice_constant"], ["sigma"])
    counted, same = ms.first_order(state, [ms.observables.lattice_constant(cells=0.5)], ["sigma"])
    assert_allclose([values, jacobian[0]], [counted, same[0]], rtol=1e-9)


@pytest.mark.parametrize("name", ["C11", "K", "lattice_constant", "volume", "a", "C11_cubic"])
def test_what_has_no_meaning_without_a_crystal_is_refused(name):
    slab = ase.build.fcc100("Ar", (1, 1, 3), a=5.25, vacuum=8.0)
    slab.pbc = (1, 1, 0)
    for atoms in (slab, ase.Atoms("Ar2", [[0, 0, 0], [3.8, 0, 0]])):
        state = Equilibrium.at(ARGON, ms.Structure.from_ase(atoms))
        with pytest.raises(errors.InputError, match=r"periodic|periodicity"):
            named([name])[0].bound({"structure": state})


# --- defects --------------------------------------------------------------------------------------


def defect_states(potential, bulk, defect):
    crystal = ms.Structure.from_ase(bulk)
    return {
        "defect": Equilibrium.at(potential, ms.Structure.from_ase(defect)),
        "bulk": Equilibrium.at(potential, crystal),
    }


def test_defects_of_a_compound_need_reservoirs():
    cdte = ms.load_potential("cdte-stillinger-weber-1989")
    cell = ase.build.bulk("CdTe", "zincblende", a=6.506420069, cubic=True)
    right = {
        "V_Cd": 2.9601,
        "V_Te": 1.8900,
        "Te_Cd": 0.7344,  # one Cd goes to its reservoir, and one Te comes out of the other
    }  # eV, with elemental diamond crystals as reservoirs
    references = {"Cd": -1.16003, "Te": -2.23009}
    for name, energy in right.items():
        atoms = cell.repeat(2)
        first = atoms.symbols.indices()["Te" if name == "V_Te" else "Cd"][0]
        atoms.rattle(0.02, seed=2)
        if name == "Te_Cd":
            atoms.symbols[first] = "Te"
        else:
            del atoms[first]
        states = defect_states(cdte, cell, atoms)
        with pytest.raises(
            errors.InputError, match=r"formation energy depends on where.*references=\{\"Cd|Te\""
        ):
            formation().bound(states)
        relaxed = ms.relax(cdte, ms.Structure.from_ase(atoms), fmax=1e-5, check_minimum=False)
        states["defect"] = relaxed.equilibrium
        found = formation(references=references).bound(states)
        assert found.names == ("formation_energy",)  # a number has no volume
        assert_allclose(SensitivityProblem.of(states, found, None, None).values(), energy, atol=2e-4)


def test_a_stoichiometric_defect_needs_none_and_an_elemental_reservoir_changes_nothing():
    bulk = ase.build.bulk("Ar", "fcc", a=5.25, cubic=True)
    defect = bulk.repeat(2)
    del defect[0]
    structures = {"defect": ms.Structure.from_ase(defect), "bulk": ms.Structure.from_ase(bulk)}
    report = ms.sensitivities(
        ["formation", formation(references={"Ar": "bulk"}, cells=8)],
        ARGON,
        structures,
        cell={"defect": None, "bulk": "isotropic"},
        second_order=False,
    )
    assert report.observables == ("formation_energy", "formation_volume") * 2
    assert_allclose(report.values[:2], report.values[2:], rtol=1e-10)
    assert_allclose(report.derivative[:2], report.derivative[2:], rtol=1e-8, atol=1e-8)


# --- the contract ---------------------------------------------------------------------------------


def test_every_named_observable_can_be_sent_to_another_process():
    for name in NAMED:
        assert pickle.loads(pickle.dumps(named([name]))) == named([name])
    assert pickle.loads(pickle.dumps(named(["C11", "K_clamped"]))) == named(["C11", "K_clamped"])


def positions(potential, states):
    return (states["structure"].structure.positions,)


def test_arrays_are_observables_too():
    potential, start = cluster()
    observable = ms.Observable(("x",), ("Å",), positions)
    report = ms.sensitivities([observable], potential, start, parameters=["sigma[Ar-Ar]"], second_order=False)
    assert report.observables[:4] == ("x[0][0]", "x[0][1]", "x[0][2]", "x[1][0]") and len(report.values) == 39
    assert_allclose(report.derivative[:, 0], report.moves["structure"][0].ravel(), atol=1e-12)
    values, jacobian = ms.first_order(report.relaxed["structure"], observable, ["sigma[Ar-Ar]"])
    assert_allclose(values, report.values, atol=0)
    assert_allclose(jacobian, report.derivative, rtol=1e-9, atol=1e-12)


def too_many(potential, states):
    return (jnp.zeros(()), jnp.zeros(()))


def whole(potential, states):
    return (jnp.asarray(3),)


def undefined(potential, states):
    return (jnp.log(-(states["structure"].structure.positions[0, 0] ** 2)),)


def steep(potential, states):
    return (jnp.sqrt(0.0 * states["structure"].structure.positions[0, 0]),)


def elsewhere(potential, states):
    return (states["defect"].structure.positions[0, 0],)


@pytest.mark.parametrize(
    ("function", "error", "message"),
    [
        (too_many, errors.InputError, "returns 2 numbers for 1 names"),
        (whole, errors.InputError, r"is of type int.*only floating numbers"),
        (undefined, errors.NonFiniteError, "the observable thing is nan"),
        (steep, errors.NonFiniteError, r"derivative of thing by epsilon\[Ar-Ar\] is nan"),
        (elsewhere, errors.InputError, r"measured on the state 'defect'.*States: structure"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_what_an_observable_returns_is_checked(function, error, message):
    potential, start = cluster()
    with pytest.raises(error, match=message):
        ms.first_order(
            ms.relax(potential, start), ms.Observable(("thing",), ("1",), function), ["epsilon[Ar-Ar]"]
        )


@pytest.mark.parametrize(
    ("observables", "parameters", "message"),
    [
        ([], None, "no observables are given"),
        (["energy"], [], "no parameters to differentiate by"),
        (["energy"], ["sigma[Ar-Ar]", "sigma[Ar-Ar]"], "is named 2 times"),
        (["energie"], None, r"Did you mean 'energy'\?"),
        ([len], None, r"mdsens\.Observable\(names, units, function\)"),
        (["energy"], "sigma", "give a list of names"),
    ],
)
def test_what_is_asked_for_is_checked_before_anything_is_relaxed(observables, parameters, message):
    potential, start = cluster()
    with pytest.raises(errors.InputError, match=message):
        ms.sensitivities(observables, potential, start, parameters=parameters)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: ms.observables.lattice_constant(cells=0), r"cells = 0: it must be .*above 0"),
        (lambda: formation(cells=2.5), r"cells = 2\.5: give a whole number"),
        (lambda: formation(references="Cd"), r"references must be a Mapping, not str"),
        (lambda: formation(references={"Cd": None}), r"the reference of Cd = None: give one real number"),
        (lambda: ms.observables.elastic("C77"), r"no elastic constant 'C77'"),
        (lambda: ms.observables.cell_parameters("d"), r"no cell parameter 'd'"),
        (lambda: ms.Observable("energy", ("eV",), positions), r"give a tuple, such as \('energy',\)"),
        (lambda: ms.Observable(("x", "y"), ("Å",), positions), r"one unit for each name"),
    ],
)
def test_observables_check_what_they_are_made_of(build, message):
    with pytest.raises(errors.InputError, match=message):
        build()
