"""Relaxed states and their sensitivities against tables made with LAMMPS by re-relaxation."""

import jax.numpy as jnp
import numpy as np
import pytest
import references
from states import cluster, log_derivatives

import mdsens as ms


@pytest.mark.parametrize(
    ("name", "case"),
    [
        ("lennard_jones", "lj13-binary-cluster"),
        pytest.param("lennard_jones", "lj38-cluster", marks=pytest.mark.validation),
        ("lennard_jones", "lj-binary-glass-64"),
        pytest.param("lennard_jones", "lj-ar-vacancy-107", marks=pytest.mark.validation),
        ("stillinger_weber", "sw-si-vacancy-63"),
        pytest.param("tersoff", "tersoff-si-t3-vacancy-63", marks=pytest.mark.validation),
    ],
    ids=lambda x: x,
)
def test_positions_follow_the_parameters_as_in_the_tables(name, case):
    case = references.table(name)[case]
    potential, start = references.potential(case), references.structure(case)
    values, rows = (case[k].get("fixed_cell", case[k]) for k in ("values", "sensitivities"))
    if not any(
        start.pbc
    ):  # the starts of free clusters, rounded to 1e-6, are turned by as much: take the table's orientation
        start = start.at(jnp.asarray(values["positions"]["value"]))
    relaxed = ms.relax(potential, start, fmax=1e-10)
    references.assert_agrees(relaxed.energy, values["energy"], "energy")
    # the tables have the mean displacement taken out, as a relaxation has
    references.assert_agrees(relaxed.structure.positions, values["positions"], "positions")
    mine = log_derivatives(
        lambda p: {"positions": ms.relax(p, start, fmax=1e-10).structure.positions}, potential
    )["positions"]
    for parameter, row in rows["positions"].items():
        references.assert_agrees(mine[references.flat_name(parameter)], row, f"positions, {parameter}")


@pytest.mark.validation  # tests/sensitivity/test_analysis.py claims the same of a report, in every run
def test_box_and_energy_of_a_vacancy_at_zero_pressure_follow_the_parameters():
    case = references.table("stillinger_weber")["sw-si-vacancy-63"]
    potential, start = references.potential(case), references.structure(case)

    def observables(p):
        relaxed = ms.relax(p, start, cell="isotropic", fmax=1e-10)
        return {"box_length": relaxed.structure.cell[0, 0], "relaxed_energy_zero_pressure": relaxed.energy}

    here, mine = observables(potential), log_derivatives(observables, potential)
    for quantity, value in here.items():
        references.assert_agrees(value, case["values"]["zero_pressure"][quantity], quantity)
        for parameter, row in case["sensitivities"]["zero_pressure"][quantity].items():
            references.assert_agrees(
                mine[quantity][references.flat_name(parameter)], row, f"{quantity}, {parameter}"
            )


def test_the_one_species_cluster_is_the_two_species_one_with_one_species():
    # parameters that no atom uses have no sensitivity, exactly
    case = references.table("lennard_jones")["lj13-cluster"]
    start = references.structure(case)
    potential, _ = cluster()
    ms.relax(potential, start, fmax=1e-10)
    mine = log_derivatives(
        lambda p: {"positions": ms.relax(p, start, fmax=1e-10).structure.positions}, potential
    )["positions"]
    references.assert_agrees(mine.pop("sigma[Ar-Ar]"), case["sensitivities"]["positions"]["sigma"], "sigma")
    assert (
        np.abs(mine.pop("epsilon[Ar-Ar]")).max() < 1e-11
    )  # an energy scale moves nothing; left is |F| of the solution
    assert not any(np.any(rest) for rest in mine.values())
