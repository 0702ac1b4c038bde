"""Quartz with the set of BKS: its structure, its tensor beside published ones, and a fit with relaxation."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

import mdsens as ms
from mdsens.observables.crystal import conventional

SCRIPT = Path(__file__).parents[2] / "workflows" / "refit_quartz.py"
spec = importlib.util.spec_from_file_location("refit_quartz", SCRIPT)
assert spec is not None and spec.loader is not None
script = importlib.util.module_from_spec(spec)
sys.modules["refit_quartz"] = script
spec.loader.exec_module(script)


def test_quartz_has_tetrahedra_of_four_bonds_and_the_space_group_it_is_named_by():
    crystal = script.quartz()
    assert crystal.symbols.count("Si") == 3 and crystal.symbols.count("O") == 6
    near = ms.find_neighbors(crystal, cutoff=1.7)
    bonds = np.linalg.norm(np.asarray(near.vectors(crystal)), axis=1)[np.asarray(near.valid)]
    # Levien et al. give 1.605 and 1.614 Å
    assert len(bonds) == 12
    np.testing.assert_allclose(np.sort(bonds), [1.605] * 6 + [1.614] * 6, atol=1e-3)
    assert conventional(crystal, "quartz").number == 154  # P3_2 21


def test_a_strained_crystal_has_the_same_axes_to_the_last_bit_so_that_nothing_is_compiled_anew():
    crystal = script.quartz()
    for strain in (1e-3, 0.01, -0.02):
        cell = np.asarray(crystal.cell) * [1 + strain, 1 + strain, 1 - strain / 3]
        inside = np.asarray(crystal.positions) @ np.linalg.inv(np.asarray(crystal.cell))
        strained = ms.Structure.create(inside @ cell, crystal.symbols, cell=cell)
        assert conventional(strained, "quartz") == conventional(crystal, "quartz")


def test_places_that_an_operation_leaves_alone_count_once():
    assert len(script.orbit(script.SILICON)) == 3
    assert len(script.orbit(script.OXYGEN)) == 6
    assert len(script.orbit((0.1, 0.2, 0.3))) == 6


def test_constants_are_named_and_set_side_by_side():
    tensor = np.zeros((6, 6))
    tensor[0, 3], tensor[2, 2] = -0.1, 0.5
    found = script.named(tensor)
    assert found["C14"] == pytest.approx(-0.1 * ms.units.GPA) and found["C33"] > 0 and found["C11"] == 0
    table = script.constants_table({"one": found, "measured": script.MEASURED})
    assert table.row_count == 6 and list(table.columns[2].cells)[3] == "-18.0"


@pytest.mark.validation  # minutes of compiling
def test_constants_of_quartz_are_those_that_others_find_with_the_set_only_if_atoms_relax():
    found = script.three_ways(ms.load_potential("sio2-bks"), script.quartz())
    relaxed, clamped = found["atoms relax"], found["clamped, at rest"]
    for name, value in script.PUBLISHED.items():
        # published for another cutoff of the same set, which C33 feels most
        assert relaxed[name] == pytest.approx(value, abs=7.0)
    assert clamped["C11"] > 4 * relaxed["C11"] and clamped["C44"] > 3 * relaxed["C44"]
