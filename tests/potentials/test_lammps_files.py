"""LAMMPS .sw files: what is read, and what is said about a broken one. Energies: see peers/."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

import mdsens as ms
from mdsens.errors import FileFormatError, InputError

#           eps   sigma a    lambda gamma cos    A    B    p    q    tol
SILICON = "Si Si Si 2.1683 2.0951 1.80 21.0 1.20 -0.333333333333 7.049556277 0.6022245584 4.0 0.0 0.0"


def entry(triple, **numbers):
    row = {
        "epsilon": 2.0,
        "sigma": 2.1,
        "a": 1.8,
        "lambda": 21.0,
        "gamma": 1.2,
        "costheta0": -0.3,
        "A": 7.0,
        "B": 0.6,
        "p": 4.0,
        "q": 0.0,
    }
    return f"{triple} " + " ".join(str(v) for v in {**row, **numbers}.values()) + " 0.0"


def binary(**changed):
    """Text of a file for Si and C; `changed` gives other numbers to some entries."""
    triples = [f"{a} {b} {c}" for a in ("Si", "C") for b in ("Si", "C") for c in ("Si", "C")]
    return "\n".join(entry(t, **changed.get(t.replace(" ", "_"), {})) for t in triples)


def read(text, tmp_path, elements=None):
    file = tmp_path / "some.sw"
    file.write_text(text)
    return ms.load_potential(file, elements)


def test_one_element_is_read_as_the_paper_has_it(tmp_path):
    assert ms.parameter_values(read(SILICON, tmp_path)) == ms.parameter_values(
        ms.load_potential("si-stillinger-weber-1985")
    )


def test_comments_blank_lines_and_entries_over_several_lines(tmp_path):
    words = SILICON.split()
    text = (
        "# DATE: today UNITS: metal CITATION: Some One (1999)\n\n"
        + " ".join(words[:5])
        + " # the rest follows\n\n"
    )
    potential = read(text + " ".join(words[5:9]) + "\n# nothing\n" + " ".join(words[9:]) + "\n", tmp_path)
    assert ms.parameter_values(potential) == ms.parameter_values(
        ms.load_potential("si-stillinger-weber-1985")
    )
    assert potential.source == "Some One (1999)"


def test_pair_numbers_come_from_the_entry_with_the_second_element_twice(tmp_path):
    text = binary(
        Si_C_C={"epsilon": 3.0, "gamma": 1.1}, C_Si_Si={"epsilon": 3.0, "gamma": 1.3}, C_C_C={"sigma": 1.5}
    )
    values = ms.parameter_values(read(text, tmp_path))
    assert values["epsilon[Si-C]"] == 3.0
    assert values["sigma[C-C]"] == 1.5
    assert (values["gamma[Si-C]"], values["gamma[C-Si]"]) == (1.1, 1.3)


def test_strength_of_an_angle_is_kept_though_its_two_bonds_differ(tmp_path):
    pair = {"epsilon": 3.0}
    angle = {"epsilon": 1.7, "lambda": 10.0}
    text = binary(Si_C_C=pair, C_Si_Si=pair, Si_Si_C=angle, Si_C_Si=angle)
    values = ms.parameter_values(read(text, tmp_path))
    # lambda eps = 17 eV in the file; ours multiplies by the root of eps(Si-Si) eps(Si-C) = 2 x 3
    assert_allclose(values["lambda[Si-Si-C]"] * np.sqrt(2.0 * 3.0), 17.0)
    assert_allclose(values["lambda[Si-C-C]"], 21.0)


def test_elements_wanted_out_of_those_in_the_file(tmp_path):
    carbon = read(binary(C_C_C={"sigma": 1.5}), tmp_path, ["C"])
    assert carbon.elements == ("C",)
    assert ms.parameter_values(carbon)["sigma"] == 1.5
    assert read(binary(), tmp_path, ["C", "Si"]).elements == ("C", "Si")
    # the other entries need not make sense
    assert read(binary().replace("Si Si C", "Si Si Xx"), tmp_path, ["C"]).elements == ("C",)


def test_pair_of_zeros_does_not_interact(tmp_path):
    zero = dict.fromkeys(("epsilon", "sigma", "a", "gamma", "A", "B"), 0.0)
    potential = read(binary(Si_C_C=zero, C_Si_Si=zero), tmp_path)
    ms.check_parameters(potential)
    apart = ms.Structure.create([[0, 0, 0], [2.0, 0, 0]], ["Si", "C"])
    result = ms.energy_forces_stress(potential, apart)
    assert float(result.energy) == 0.0
    assert not np.any(result.forces)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "there are no entries"),
        ("# only a comment\n", "there are no entries"),
        (SILICON + "\n\nSi Si C 1.0\n", "line 3: the last entry has 4 words of 14"),
        (SILICON + " 1.0", "line 1: an entry of 15 words"),
        ("# two\n" + SILICON + "\n" + SILICON, "line 3: a second entry for Si Si Si; the first is on line 2"),
        (SILICON.replace("2.0951", "two"), "line 1: 'two' stands where the number sigma belongs"),
        (SILICON.replace("2.0951 ", ""), "line 1: the last entry has 13 words of 14"),
        (SILICON.replace("Si", "mW"), "'mW' is no chemical symbol"),
        ("# DATE: today UNITS: real\n" + SILICON, "LAMMPS units 'real'; only 'metal'"),
        (SILICON.replace("2.0951", "-2.0951"), "sigma = -2.0951 Å lies outside its bounds"),
        (binary().replace("Si Si C", "Ge Si C"), "no entry for"),
        ("\n".join(binary().splitlines()[:-2]), "no entry for C C Si and 1 more: Si, C need all 8"),
        (binary(Si_C_C={"sigma": 2.2}), "lines 4 and 5: sigma is 2.2 for Si C C and 2.1 for C Si Si"),
        (binary(Si_Si_C={"lambda": 20.0}), "lambda epsilon is 40 for Si Si C and 42 for Si C Si"),
        (binary(Si_Si_C={"costheta0": 0.0}), "costheta0 is 0 for Si Si C"),
        (
            binary(Si_C_C={"epsilon": 0.0}, C_Si_Si={"epsilon": 0.0}),
            "epsilon = 0 for Si C C, but angles with this pair cost energy",
        ),
    ],
)
def test_mistake_is_said_with_its_line(tmp_path, text, message):
    with pytest.raises(FileFormatError, match=message) as caught:
        read(text, tmp_path)
    assert "some.sw" in str(caught.value)


def test_element_that_is_not_there_is_named(tmp_path):
    with pytest.raises(InputError, match="nothing for Ge; it is about Si, C"):
        read(binary(), tmp_path, ["Si", "Ge"])


def test_byte_order_marks_and_upper_case_endings_are_read(tmp_path):
    values = ms.parameter_values(read(SILICON, tmp_path))
    (tmp_path / "SILICON.SW").write_text(SILICON, encoding="utf-8-sig")
    assert ms.parameter_values(ms.load_potential(str(tmp_path / "SILICON.SW"))) == values
    ms.save_potential(read(SILICON, tmp_path), tmp_path / "set.toml")
    text = (tmp_path / "set.toml").read_text(encoding="utf-8")
    (tmp_path / "SET.TOML").write_text(text, encoding="utf-8-sig")
    assert ms.parameter_values(ms.load_potential(tmp_path / "SET.TOML")) == values
