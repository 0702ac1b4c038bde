"""Relaxed properties as residuals: published fits, derivatives, states that are followed or lost."""

import ase.build
import equinox as eqx
import jax.numpy as jnp
import numpy as np
import pytest

import mdsens as ms
from mdsens.errors import InputError, NotConvergedError
from mdsens.fitting import ParameterSpace, RelaxedTargets, Target, TargetStructure, fit
from mdsens.observables import elastic
from mdsens.quantities import evaluate
from mdsens.units import GPA

SILICON = ms.load_potential("si-stillinger-weber-1985")
DIAMOND = ms.Structure.from_ase(ase.build.bulk("Si", "diamond", a=5.431, cubic=True))
CONSTANTS = ("C11", "C12", "C44")
MEASURED = (153.21414, 56.79690, 74.83264)  # GPa, targets of arXiv:2409.13844
# Frobenius norm of the difference of Mandel matrices: C44 counts twice there, and entries occur 3, 6, 3 times
WIDTHS = (3**-0.5, 6**-0.5, 12**-0.5)


def constants(values=MEASURED):
    return [Target(name, v, w) for name, v, w in zip(CONSTANTS, values, WIDTHS, strict=True)]


@pytest.mark.validation
def test_freeing_the_angle_meets_all_elastic_constants_of_silicon_in_five_steps():
    space = ParameterSpace.of(SILICON, ["epsilon", "sigma", "lambda", "costheta0"])
    targets = [*constants(), Target("lattice_constant", 5.4310, 0.01)]
    result = fit(space, RelaxedTargets(TargetStructure(DIAMOND, cell="isotropic"), targets))
    assert [record.taken for record in result.history] == [True] * len(result.history)
    assert len(result.history) <= 5
    assert result.loss < 1e-16
    found = [result.parameters[name] for name in ("epsilon", "sigma", "lambda", "costheta0")]
    np.testing.assert_allclose(found, [1.906672, 2.090210, 31.128884, -0.395717], rtol=2e-6)


@pytest.mark.validation  # half a minute of compiling for two parameters instead of four
def test_two_parameters_meet_a_floor_that_relaxing_the_cell_hardly_moves():
    space = ParameterSpace.of(SILICON, ["epsilon", "lambda"])
    result = fit(space, RelaxedTargets(TargetStructure(DIAMOND, cell="isotropic"), constants()))
    assert np.sqrt(result.loss) == pytest.approx(22.5373, abs=5e-5)
    assert {entry.row.name for entry in result.floor} == set(CONSTANTS)


# In a held cell there is a stress s, and second derivatives of the energy by the strain are not the stress
# per strain: E''_11 = C11, E''_12 = C12 + s, E''_44 = C44 - s / 2 for a hydrostatic s.


def curvatures(potential, states):
    C11, C12, C44 = elastic(CONSTANTS).function(potential, states)
    structure, neighbors = states["structure"]
    s = GPA * jnp.trace(evaluate(potential, structure, neighbors).stress) / 3
    return C11, C12 + s, C44 - s / 2


@pytest.mark.validation  # the same fit as above with the cell held
def test_published_optimum_of_two_parameters_with_the_cell_held():
    second = ms.Observable(CONSTANTS, ("GPa",) * 3, curvatures)
    targets = [
        Target(second, v, w, component=name) for name, v, w in zip(CONSTANTS, MEASURED, WIDTHS, strict=True)
    ]
    result = fit(ParameterSpace.of(SILICON, ["epsilon", "lambda"]), RelaxedTargets(DIAMOND, targets))
    assert np.sqrt(result.loss) == pytest.approx(22.536002, rel=1e-5)
    assert result.parameters["epsilon"] == pytest.approx(1.935161, rel=1e-5)
    assert result.parameters["lambda"] == pytest.approx(33.786738, rel=1e-5)


# --- an atom between two walls: small systems that compile in seconds -----------------------------


def line(sigma=3.0, gap=9.0):
    """An argon atom near a neon atom, with a krypton atom on its other side; both of them are held."""
    potential = ms.LennardJones(
        epsilon=[0.01, 0.004, 0.01, 0.01, 0.012, 0.01],
        sigma=[3.0, sigma, 3.0, 3.0, 3.0, 3.0],
        elements=("Ne", "Ar", "Kr"),
        cutoff_radius=20.0,
    )
    fixed = [[True] * 3, [False, True, True], [True] * 3]
    structure = ms.Structure.create(
        [[0.0, 0, 0], [1.13 * sigma, 0, 0], [gap, 0, 0]], ["Ne", "Ar", "Kr"], fixed=fixed
    )
    return potential, structure


def where(potential, states):
    return (states["structure"].structure.positions[1, 0],)


PLACE = ms.Observable(("x",), ("Å",), where)
NAMES = ["sigma[Ne-Ar]", "epsilon[Ar-Kr]"]


def test_jacobian_is_that_of_relaxing_again():
    potential, structure = line()
    term = RelaxedTargets(structure, [Target(PLACE, 3.5, 0.1), Target("energy", -0.01, 0.001)])
    r, J = term.residuals_and_jacobian(potential, NAMES)
    for k, (name, step) in enumerate(zip(NAMES, (1e-4, 1e-6), strict=True)):
        value = ms.parameter_values(potential)[name]
        up, down = (
            term.residuals_and_jacobian(ms.replace_parameters(potential, {name: value + d}), NAMES)[0]
            for d in (step, -step)
        )
        # relaxed to 1e-8 eV/Å, with a curvature of 0.03 eV/Å²: 3e-7 Å of 1e-4; second order is 1e-8
        np.testing.assert_allclose((up - down) / (2 * step), J[:, k], rtol=1e-2 if k else 1e-4)
    assert r[0] == pytest.approx((float(term_position(term, potential)) - 3.5) / 0.1)


def term_position(term, potential):
    return term.evaluate(potential, tuple(NAMES), {}).memory["structure"]["positions"][1, 0]


def test_the_next_relaxation_starts_where_first_order_says():
    potential, structure = line()
    term, names = RelaxedTargets(structure, [Target(PLACE, 3.5, 0.1)]), tuple(NAMES)
    first = term.evaluate(potential, names, {})
    far = {}
    for step in (0.02, 0.01):
        changed = ms.replace_parameters(potential, {"sigma[Ne-Ar]": 3.0 + step})
        theta = np.array([3.0 + step, 0.012])
        start = term.start("structure", theta, first.memory)
        found = term.evaluate(changed, names, first.memory).memory["structure"]["positions"]
        far[step] = abs(float(start.positions[1, 0]) - found[1, 0])
    assert far[0.02] < 0.01 * 0.02
    assert far[0.02] / far[0.01] == pytest.approx(4, rel=0.1)  # what is left is of second order


@pytest.mark.validation
def test_a_surface_energy_as_target_is_met_in_proportion_to_the_only_energy():
    argon = ms.load_potential("ar-lennard-jones")
    crystal = ms.relax(
        argon, ms.Structure.from_ase(ase.build.bulk("Ar", a=5.3, cubic=True)), cell="isotropic"
    )
    cell, positions = np.asarray(crystal.structure.cell), np.asarray(crystal.structure.positions)
    layers = np.concatenate([positions + k * cell[2] for k in range(3)])
    slab = ms.Structure.create(
        layers, ["Ar"] * len(layers), cell + np.diag([0, 0, 2 * cell[2, 2] + 12.0]), pbc=[True, True, False]
    )
    structures = {"bulk": TargetStructure(crystal.structure, cell="isotropic"), "slab": slab}
    surface = Target("surface_energy", 0.04, 1e-4)
    term = RelaxedTargets(structures, [surface])
    residual = term.residuals_and_jacobian(argon, ["epsilon"])[0][0]
    before = 0.04 + 1e-4 * residual
    result = fit(ParameterSpace.of(argon, ["epsilon"], scale="log"), term)
    # energies are epsilon times, lengths sigma times, a function of the form
    ratio = ms.parameter_values(result.potential)["epsilon"] / ms.parameter_values(argon)["epsilon"]
    assert ratio == pytest.approx(0.04 / before, rel=1e-6)
    assert 0.02 < before < 0.08  # J/m²


def test_a_minimum_that_ends_on_the_way_is_said_and_stepped_back_from():
    # with a larger sigma the atom is pushed out of its well beside neon, and falls to krypton
    potential, structure = line()
    space = ParameterSpace.of(potential, ["sigma[Ne-Ar]"])
    with pytest.raises(NotConvergedError, match="the states cannot be followed further") as error:
        fit(space, RelaxedTargets(structure, [Target(PLACE, 4.5, 0.01)]))
    result = error.value.partial
    assert "'structure'" in str(error.value)
    assert 3.9 < result.rows[0].value < 4.2
    assert all(record.note for record in result.history if not record.taken)


def test_a_fit_steps_back_where_a_linear_solve_of_its_derivatives_fails(monkeypatch):
    from mdsens.sensitivity import first_order

    potential, structure = line()
    forward, calls = first_order._forward, []

    def fails_once(*arguments):
        calls.append(arguments)
        if len(calls) == 2:
            raise eqx.EquinoxRuntimeError("what a solve that was compiled says")
        return forward(*arguments)

    monkeypatch.setattr(first_order, "_forward", fails_once)
    space = ParameterSpace.of(potential, ["sigma[Ne-Ar]"])
    result = fit(space, RelaxedTargets(structure, [Target(PLACE, 3.45, 0.01)]))
    first, *others = result.history
    assert first.lost
    assert "a linear solve of the derivatives did not converge" in first.note
    assert any(record.taken for record in others)
    assert result.loss < 1e-12


# --- what is asked for ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        ([], "no targets are given"),
        ([Target("C11x", 1.0)], "no observable 'C11x'. Did you mean 'C11'"),
        ([Target("C11", 1.0, on="bulkk")], "no structure 'bulkk'. Did you mean 'bulk'"),
        ([Target("formation_energy", 1.0)], "no structure 'defect'"),
        ([Target("C11", float("nan"))], r"the target C11 \(bulk\) = nan: it must be finite"),
        ([Target("C11", 1.0, 0.0)], r"the tolerance of C11 \(bulk\) = 0.0: it must be finite and above 0"),
        ([Target("energy", 0.0)], r"the target energy \(bulk\) is zero, of which one percent is nothing"),
        ([Target("C11", 1.0), Target("C11", 2.0)], r"two targets are named C11 \(bulk\)"),
        (["C11"], r"a target must be a Target, not str \('C11'\)"),
        ([Target(PLACE, 1.0, component="y")], "the observable of a target has the numbers x, and no 'y'"),
    ],
)
def test_targets_that_make_no_sense_are_refused(targets, message):
    with pytest.raises(InputError, match=message):
        RelaxedTargets({"bulk": DIAMOND, "other": DIAMOND}, targets)


def test_structures_need_names_that_a_file_can_hold():
    with pytest.raises(InputError, match="names are not empty and have no slash"):
        RelaxedTargets({"a/b": DIAMOND}, [Target("C11", 1.0)])
