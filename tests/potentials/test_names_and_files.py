"""Names of parameters for any elements, and parameter sets that survive their file with every bit."""

import itertools

import jax
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

import mdsens as ms
from mdsens.errors import InputError
from mdsens.potentials.base import entry_labels

ELEMENTS = st.lists(
    st.sampled_from(["H", "C", "N", "O", "Ar", "Fe", "Ni", "Cu", "Cd", "Te"]),
    min_size=1,
    max_size=4,
    unique=True,
).map(tuple)
POSITIVE = st.floats(1e-6, 1e3)
TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\0\r"), max_size=40)
CUTS = st.sampled_from([ms.ForceShifted(), ms.Shifted(), ms.Truncated(), ms.Smooth(), ms.Smooth(onset=0.6)])
FILES = settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])


def n_pairs(elements) -> int:
    return len(elements) * (len(elements) + 1) // 2


@st.composite
def lennard_jones(draw):
    elements = draw(ELEMENTS)
    n = n_pairs(elements)
    numbers = st.lists(POSITIVE, min_size=n, max_size=n) if n > 1 else POSITIVE
    cutoff = draw(st.floats(1.0, 20.0))
    return ms.LennardJones(draw(numbers), draw(numbers), elements, cutoff, draw(CUTS), None, draw(TEXTS))


@st.composite
def morse(draw):
    elements = draw(ELEMENTS)
    n = n_pairs(elements)
    numbers = st.lists(POSITIVE, min_size=n, max_size=n) if n > 1 else POSITIVE
    cutoff = draw(st.floats(1.0, 20.0))
    return ms.Morse(draw(numbers), draw(numbers), draw(numbers), elements, cutoff, draw(CUTS), draw(TEXTS))


POTENTIALS = lennard_jones() | morse()


@given(POTENTIALS)
def test_every_number_has_a_name_of_its_own(potential):
    entries = ms.parameter_entries(potential)
    names = [entry.name for entry in entries]
    assert len(set(names)) == len(names)
    arrays = [leaf for leaf in jax.tree.leaves(potential) if hasattr(leaf, "size")]
    assert len(names) == sum(leaf.size for leaf in arrays)
    assert list(ms.parameter_values(potential)) == names


@given(POTENTIALS)
def test_labels_are_spelled_with_elements_that_the_potential_has(potential):
    for name in ms.parameter_values(potential):
        label = name.partition("[")[2].removesuffix("]")
        assert (label == "") == (len(potential.elements) == 1)
        assert set(label.split("-")) - {""} <= set(potential.elements)


@given(POTENTIALS, st.data())
def test_one_name_changes_one_number(potential, data):
    before = ms.parameter_values(potential)
    name = data.draw(st.sampled_from(sorted(before)))
    value = data.draw(POSITIVE)
    after = ms.parameter_values(ms.replace_parameters(potential, {name: value}))
    assert after == before | {name: value}
    assert ms.parameter_values(potential) == before


@given(POTENTIALS)
def test_replacing_all_by_their_values_changes_nothing(potential):
    same = ms.replace_parameters(potential, ms.parameter_values(potential))
    assert jax.tree.structure(same) == jax.tree.structure(potential)
    jax.tree.map(assert_array_equal, same, potential)


@FILES
@given(POTENTIALS)
def test_a_file_keeps_every_bit_form_settings_and_source(tmp_path, potential):
    ms.save_potential(potential, tmp_path / "set.toml", overwrite=True)
    copy = ms.load_potential(tmp_path / "set.toml")
    assert jax.tree.structure(copy) == jax.tree.structure(potential)
    assert ms.parameter_values(copy) == ms.parameter_values(potential)


@FILES
@given(POTENTIALS, st.data())
def test_elements_of_a_file_may_be_asked_for_in_any_order(tmp_path, potential, data):
    wanted = tuple(data.draw(st.permutations(potential.elements)))
    ms.save_potential(potential, tmp_path / "set.toml", overwrite=True)
    turned = ms.load_potential(tmp_path / "set.toml", elements=wanted)
    assert turned.elements == wanted
    before, after = ms.parameter_values(potential), ms.parameter_values(turned)
    for name, value in after.items():
        field, _, label = name.partition("[")
        kinds = label.removesuffix("]").split("-")
        assert value in {before.get(name), before.get(f"{field}[{'-'.join(reversed(kinds))}]")}


@given(ELEMENTS)
def test_labels_list_every_combination_once(elements):
    n = len(elements)
    pairs = entry_labels(elements, "pair")
    assert len(pairs) == n_pairs(elements) == len({frozenset(label.split("-")) for label in pairs})
    ordered = entry_labels(elements, "ordered pair")
    assert list(ordered) == [f"{a}-{b}" for a, b in itertools.product(elements, repeat=2)]
    triples = entry_labels(elements, "triple")
    assert len(set(triples)) == len(triples) == n * n_pairs(elements)
    assert list(entry_labels(elements, "species")) == list(elements)


@given(POTENTIALS, st.text("abcdefgh[]-.0123456789", min_size=1, max_size=10))
def test_a_name_that_there_is_not_is_refused_and_named(potential, name):
    if name in ms.parameter_values(potential):
        return
    with pytest.raises(InputError, match="has no parameter '"):
        ms.replace_parameters(potential, {name: 1.0})


@pytest.mark.parametrize("value", [-1.0, -1e-300, np.nan, np.inf, -np.inf])
def test_a_value_out_of_its_bounds_is_found_in_any_place(value):
    potential = ms.LennardJones([0.01, value, 0.02], [3.0, 3.1, 3.2], ("Ar", "Kr"), 8.0)
    with pytest.raises(InputError, match=r"epsilon\[Ar-Kr\]"):
        ms.check_parameters(potential)


@pytest.mark.parametrize("value", ["0.1", None, 1j, [0.1, 0.2]])
def test_a_replacement_that_is_no_number_is_refused(value):
    potential = ms.LennardJones(0.01, 3.4, ("Ar",), 8.0)
    with pytest.raises(InputError, match="epsilon"):
        ms.replace_parameters(potential, {"epsilon": value})


@pytest.mark.parametrize("name", ["epsilon", "epsilon[Kr]", "epsilon[Ar]", "sigma[Ar-Ar", "EPSILON[Ar-Ar]"])
def test_half_a_name_is_no_name_where_there_are_several(name):
    potential = ms.LennardJones([0.01, 0.011, 0.02], [3.0, 3.1, 3.2], ("Ar", "Kr"), 8.0)
    with pytest.raises(InputError, match=r"Its parameters: epsilon\[Ar-Ar\], epsilon\[Ar-Kr\]"):
        ms.replace_parameters(potential, {name: 1.0})
