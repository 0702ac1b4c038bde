"""A potential among some of the elements: others see nothing of it. Against LAMMPS: see peers/."""

import jax
import numpy as np
import pytest
from numpy.testing import assert_allclose

import mdsens as ms
from mdsens.errors import InputError

REPULSION = ms.mapped(ms.ZBL.of(("Si", "C"), 1.0, 2.6), pairs=[("Si", "C")])
BONDS = ms.mapped(ms.load_potential("si-tersoff-1988-t2"), {"Si": "Si", "C": None})


def mixture():
    """Eight atoms of a rattled diamond cell, three of them carbon."""
    from ase.build import bulk

    atoms = bulk("Si", "diamond", 5.0, cubic=True)
    atoms.rattle(0.1, seed=3)
    return ms.Structure.create(
        atoms.positions, ["C", "Si", "Si", "C", "Si", "Si", "C", "Si"], atoms.cell.array
    )


def test_atoms_that_see_nothing_might_as_well_be_away():
    both = mixture()
    silicon = np.array(both.symbols) == "Si"
    alone = ms.Structure.create(both.positions[silicon], ["Si"] * 5, both.cell)
    result = ms.energy_forces_stress(BONDS, both)
    expected = ms.energy_forces_stress(BONDS.part, alone)
    assert_allclose(result.energy, expected.energy, rtol=1e-13)
    assert_allclose(result.forces[silicon], expected.forces, atol=1e-12)
    assert_allclose(result.stress, expected.stress, atol=1e-13)
    assert not np.any(result.forces[~silicon])
    assert list(BONDS.contacts(both, ms.neighbors_of(BONDS, both))) == list(silicon)


def test_only_the_chosen_pairs_interact():
    # the energy of all pairs is that of the pairs of either element and of those between the two
    parts = [[("Si", "C")], [("Si", "Si")], [("C", "C")]]
    energies = [float(ms.energy(ms.mapped(REPULSION.part, pairs=pairs), mixture())) for pairs in parts]
    assert min(energies) > 0.01
    assert_allclose(sum(energies), ms.energy(REPULSION.part, mixture()), rtol=1e-13)


def test_an_element_may_stand_for_another():
    both = mixture()
    silicon = ms.Structure.create(both.positions, ["Si"] * 8, both.cell)
    same = ms.mapped(BONDS.part, {"Ge": "Si", "C": "Si", "Si": "Si"})
    assert_allclose(ms.energy(same, both), ms.energy(BONDS.part, silicon), rtol=1e-13)


def test_sum_names_parameters_by_form_and_is_differentiable_by_them():
    both = REPULSION + BONDS
    assert both.elements == ("Si", "C") and float(both.cutoff) == 3.2
    names = list(ms.parameter_values(both))
    assert names[:3] == ["ZBL.Z[Si]", "ZBL.Z[C]", "Tersoff.A"]
    structure = mixture()
    neighbors = ms.neighbors_of(both, structure)
    slope = ms.parameter_values(jax.grad(lambda p: p.energy(structure, neighbors))(both))
    step = lambda value: ms.energy(ms.replace_parameters(both, {"ZBL.Z[C]": value}), structure)
    assert_allclose(slope["ZBL.Z[C]"], (step(6.001) - step(5.999)) / 0.002, rtol=1e-6)
    assert_allclose(
        np.sum([float(ms.energy(p, structure)) for p in (REPULSION, BONDS)]), ms.energy(both, structure)
    )


def test_element_that_nobody_thought_of_is_refused():
    with pytest.raises(InputError, match="no parameters for Ge; it knows Si, C"):
        ms.energy(REPULSION + BONDS, ms.Structure.create([[0, 0, 0], [2, 0, 0]], ["Si", "Ge"]))


@pytest.mark.parametrize(
    ("arguments", "pairs", "message"),
    [
        ({"species": {"Si": "Ge"}}, None, "Si stands for 'Ge', but ZBL knows Si, C"),
        ({"species": {}}, [("Si", "Ge")], "Ge is none of the elements that it acts on, Si, C"),
        ({"species": {"Si": "Si", "C": None}}, [("Si", "C")], "C is none of the elements"),
    ],
)
def test_mistake_is_said_with_what_is_known(arguments, pairs, message):
    with pytest.raises(InputError, match=message):
        ms.mapped(REPULSION.part, **arguments, pairs=pairs)


def test_pairs_cannot_be_chosen_from_bond_orders_nor_atoms_kept_from_far_charges():
    with pytest.raises(InputError, match="Tersoff is more than a sum over pairs"):
        ms.mapped(BONDS.part, pairs=[("Si", "Si")])
    from far_charges import FarCharges

    with pytest.raises(InputError, match="FarCharges acts among all atoms"):
        ms.mapped(FarCharges(1.0, 1.0), {"Si": "Si"})


def test_a_mapped_part_survives_being_written(tmp_path):
    both = REPULSION + 0.5 * BONDS
    ms.save_potential(both, tmp_path / "both.toml")
    copy = ms.load_potential(tmp_path / "both.toml")
    assert jax.tree.structure(copy) == jax.tree.structure(both)
    assert ms.parameter_values(copy) == ms.parameter_values(both)
    text = (tmp_path / "both.toml").read_text()
    for broken, message in (
        (('C = ""', 'C = "Ge"'), "C stands for 'Ge'"),
        (('[["Si"', '[["Ge"'), "Ge is none"),
    ):
        (tmp_path / "both.toml").write_text(text.replace(*broken))
        with pytest.raises(InputError, match=rf"both.toml: part \d: .*{message}"):
            ms.load_potential(tmp_path / "both.toml")


def test_second_derivatives_pair_by_pair_are_those_of_the_energy():
    both, structure = REPULSION + BONDS, mixture()
    neighbors = ms.neighbors_of(both, structure)
    exact = jax.jit(jax.hessian(lambda x: both.energy(structure.at(x), neighbors)))(structure.positions)
    i, j, blocks = both.hessian_blocks(structure, neighbors)
    written = np.zeros((8, 8, 3, 3))
    np.add.at(written, (i, j), blocks)
    assert_allclose(written, np.moveaxis(exact, 1, 2), atol=1e-11)
