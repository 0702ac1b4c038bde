"""LAMMPS .tersoff, .edip and .vashishta files: what is read, and what is said about a broken one.

Energies: see peers/, and test_bond_orders.py for machines without LAMMPS.
"""

import re

import numpy as np
import pytest

import mdsens as ms
from mdsens.errors import FileFormatError, InputError

#          m gamma lambda3 c d costheta0 n beta lambda2 B R D lambda1 A
SILICON = "Si Si Si 3 1.0 0.0 100390 16.217 -0.59825 0.78734 1.1e-6 1.7322 471.18 2.85 0.15 2.4799 1830.8"
COLUMNS = dict(zip(["m", "gamma", "lambda3", "c", "d", "h", "n", "beta", "mu", "B", "R", "D", "lambda", "A"],
                   SILICON.split()[3:], strict=True))  # fmt: skip


def entry(triple, **changed):
    return " ".join([triple.replace("_", " "), *map(str, {**COLUMNS, **changed}.values())])


def binary(**changed):
    """Text of a file for Si and C; `changed` gives other numbers to some entries."""
    triples = [f"{a}_{b}_{c}" for a in ("Si", "C") for b in ("Si", "C") for c in ("Si", "C")]
    return "\n".join(entry(t, **changed.get(t, {})) for t in triples)


def read(text, tmp_path, elements=None, name="some.tersoff"):
    file = tmp_path / name
    file.write_text(text)
    return ms.load_potential(file, elements)


def test_numbers_are_those_of_the_paper(tmp_path):
    mine, ours = (
        ms.parameter_values(p)
        for p in (read(SILICON, tmp_path), ms.load_potential("sic-tersoff-1989", ["Si"]))
    )
    assert mine == ours


def test_parameters_belong_to_as_few_species_as_the_file_has_different_numbers(tmp_path):
    of_carbon = {f"C_{a}_{b}": {"c": 38049} for a in ("Si", "C") for b in ("Si", "C")}
    potential = read(binary(**of_carbon), tmp_path)
    assert potential.sharing == () and potential.labels("c") == ("Si", "C")
    assert list(potential.c) == [100390, 38049]
    # the stretch of a bond, by the third atom; the attraction, by the center
    potential = read(binary(Si_Si_C={"lambda3": 1.0}, Si_C_C={"lambda3": 1.0, "B": 400}), tmp_path)
    assert dict(potential.sharing) == {"B": "ordered pair", "lambda3": "ordered pair"}
    values = ms.parameter_values(potential)
    assert (values["B[Si-C]"], values["B[C-Si]"]) == (400, 471.18)
    assert (values["lambda3[Si-C]"], values["lambda3[C-Si]"]) == (1.0, 0.0)
    # everything in its own place
    values = ms.parameter_values(read(binary(Si_C_Si={"gamma": 2.0}), tmp_path))
    assert values["gamma[Si-C-Si]"] == 2.0
    assert sum(v for name, v in values.items() if name.startswith("gamma")) == 9.0


def test_sharing_survives_being_written(tmp_path):
    potential = read(binary(Si_C_Si={"gamma": 2.0, "m": 1}), tmp_path)
    ms.save_potential(potential, tmp_path / "set.toml")
    copy = ms.load_potential(tmp_path / "set.toml")
    assert ms.parameter_values(copy) == ms.parameter_values(potential)
    assert (copy.sharing, copy.m) == (potential.sharing, potential.m)


def test_names_that_are_no_symbols_are_chosen_by_a_table(tmp_path):
    text = SILICON.replace("Si", "Si(B)") + "\n" + SILICON.replace("Si", "Si(C)").replace("1830.8", "1800")
    assert float(read(text, tmp_path, {"Si": "Si(C)"}).A) == 1800
    with pytest.raises(FileFormatError, match=r"'Si\(B\)' is no chemical symbol"):
        read(text, tmp_path)
    with pytest.raises(InputError, match=r"nothing called Si\(D\); it has Si\(B\), Si\(C\)"):
        read(text, tmp_path, {"Si": "Si(D)"})


def test_sets_that_have_symbols_take_no_names():
    with pytest.raises(InputError, match=r"a \.toml file knows its elements by their symbols"):
        ms.load_potential("sic-tersoff-1989", {"Si": "Si(D)"})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "there are no entries"),
        (SILICON + " 1.0", "line 1: an entry of 18 words"),
        ("# Tersoff\n" + SILICON.replace("16.217", "x"), "line 2: 'x' stands where the number d belongs"),
        (SILICON.replace(" 3 1.0", " 2 1.0"), "m = 2: give 3 or 1"),
        (SILICON.replace("16.217", "0"), "d = 0 1 lies outside its bounds"),
        (SILICON.replace("2.85", "-2.85"), "R = -2.85 Å lies outside its bounds"),
        (binary(Si_C_C={"A": 1700}), "A is 1700 for Si C C and 1830.8 for C Si Si. The repulsion"),
        (binary(Si_C_C={"D": 0.1}), "D is 0.1 for Si C C and 0.15 for C Si Si"),
        ("\n".join(binary().splitlines()[:-1]), "no entry for C C C: Si, C need all 8"),
        ("# UNITS: real\n" + SILICON, "LAMMPS units 'real'"),
    ],
)
def test_mistake_in_a_tersoff_file_is_said(tmp_path, text, message):
    with pytest.raises(FileFormatError, match=re.escape(message)) as caught:
        read(text, tmp_path)
    assert "some.tersoff" in str(caught.value)


def test_sharing_and_powers_that_make_no_sense_are_refused():
    silicon = ms.load_potential("si-tersoff-1988-t2")
    numbers = {name: getattr(silicon, name) for name in silicon.parameter_fields()}
    for setting, message in (
        ({"sharing": {"K": "pair"}}, "sharing names 'K', which is no parameter of Tersoff"),
        ({"sharing": {"A": "ordered triple"}}, "A belongs to 'ordered triple'; choose one of species, pair"),
        ({"sharing": 3}, "sharing = 3: give the names of parameters"),
        ({"m": 2}, "m = 2: give 3 or 1"),
        ({"m": (3, 3)}, "for each of the 1 ordered triples"),
    ):
        with pytest.raises(InputError, match=re.escape(message)):
            ms.Tersoff(**numbers, **setting, elements=("Si",))


# --- angles

VASHISHTA = {
    "In_In_In": "273.6 7 -1.21 -1.21 4.5 0 2.75 0 6 0 0 0 0 0",
    "P_P_P": "1813 7 1.21 1.21 4.5 52.7 2.75 0 6 0 0 0 0 -0.33",
    "In_P_P": "4847 9 1.21 -1.21 4.5 26.4 2.75 270 6 4.3 1 3.55 7 -0.33",
    "P_In_In": "4847 9 1.21 -1.21 4.5 26.4 2.75 270 6 4.3 1 3.55 7 -0.33",
    **dict.fromkeys(("In_In_P", "In_P_In", "P_In_P", "P_P_In"), "0 0 0 0 0 0 0 0 0 0 0 0 0 0"),
}


def vashishta(**changed):
    return "\n".join(f"{t.replace('_', ' ')} {numbers}" for t, numbers in {**VASHISHTA, **changed}.items())


def test_charges_of_elements_come_from_the_products_of_the_pairs(tmp_path):
    values = ms.parameter_values(read(vashishta(), tmp_path, name="InP.vashishta"))
    assert np.allclose([values["Z[In]"], values["Z[P]"]], [1.21, -1.21], rtol=1e-14)
    assert values["B[In-P-P]"] == values["B[P-In-In]"] == 4.3 and values["B[In-In-P]"] == 0


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (
            {"P_In_In": VASHISHTA["P_In_In"].replace("4847", "4800")},
            "H is 4847 for In P P and 4800 for P In In",
        ),
        ({"In_In_P": "0 0 0 0 0 0 0 0 0 1 0 0 0 0"}, "B is 1 for In In P and 0 for In P In"),
        ({"P_P_P": VASHISHTA["P_P_P"].replace("1.21 1.21", "1.3 1.3")}, "charges would be In 1.21, P -1.3"),
        ({"P_P_P": VASHISHTA["P_P_P"].replace("4.5", "-4.5")}, "lambda1[P-P] = -4.5 Å lies outside"),
    ],
)
def test_mistake_in_a_vashishta_file_is_said(tmp_path, changed, message):
    with pytest.raises(FileFormatError, match=re.escape(message)):
        read(vashishta(**changed), tmp_path, name="InP.vashishta")


def test_edip_file_has_its_columns(tmp_path):
    numbers = "7.98 1.5 3.12 2.56 3.1 0.007 0.25 1.12 1.45 0.69 1.2 0.57 312.1 -0.165 32.5 0.286 0.66"
    values = ms.parameter_values(read(f"Si Si Si {numbers}", tmp_path, name="Si.edip"))
    assert (values["cutoffA"], values["lambda"], values["sigma"], values["u4"]) == (3.12, 1.45, 0.57, 0.66)
    with pytest.raises(FileFormatError, match="the last entry has 19 words of 20"):
        read(f"Si Si Si {numbers[:-5]}", tmp_path, name="Si.edip")


def test_switch_of_the_repulsion_must_begin_before_it_ends():
    with pytest.raises(InputError, match=r"inner = 2\.5 Å, cutoff_radius = 2\.0 Å"):
        ms.ZBL.of(("Si",), 2.5, 2.0)
