"""LAMMPS data as people write them: comments, styles, image flags, orders; and what is said of others."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose

import mdsens as ms
from mdsens.errors import FileFormatError, InputError
from mdsens.io.structures import lammps_sections

HEAD = """{title}

{n} atoms
{kinds} atom types

0.0 6.0 xlo xhi
0.0 6.5 ylo yhi
0.0 7.0 zlo zhi
"""
MASSES = {"Ar": 39.948, "Kr": 83.798, "Si": 28.0855, "Cu": 63.546}
FILES = settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
PLACES = np.array([[0.5, 0.5, 0.5], [3.5, 0.5, 0.5], [0.5, 3.5, 0.5], [3.5, 3.5, 4.0]])


def text(rows, masses="", title="LAMMPS data", n=4, kinds=2, style="atomic", more="") -> str:
    return HEAD.format(title=title, n=n, kinds=kinds) + masses + f"\nAtoms # {style}\n\n{rows}\n{more}"


def masses_of(*symbols: str) -> str:
    rows = "\n".join(f"{k} {MASSES[symbol]}" for k, symbol in enumerate(symbols, 1))
    return f"\nMasses\n\n{rows}\n"


def read(tmp_path, content: str, **options) -> ms.Structure:
    (tmp_path / "a.data").write_text(content)
    return ms.read_structure(tmp_path / "a.data", **options)


@FILES
@given(st.permutations(range(4)), st.lists(st.sampled_from([1, 2]), min_size=4, max_size=4))
def test_atoms_come_in_the_order_of_their_numbers_not_of_their_lines(tmp_path, order, kinds):
    rows = [f"{k + 1} {kinds[k]} {PLACES[k][0]} {PLACES[k][1]} {PLACES[k][2]}" for k in range(4)]
    structure = read(tmp_path, text("\n".join(rows[k] for k in order), masses_of("Ar", "Kr")))
    assert structure.symbols == [("Ar", "Kr")[kind - 1] for kind in kinds]
    assert_allclose(structure.positions, PLACES, atol=1e-12)


@FILES
@given(
    st.permutations(range(4)),
    st.lists(st.sampled_from(["Ar", "Kr"]), min_size=4, max_size=4),
    st.sampled_from(["Ar Kr", "Kr Ar"]),
)
def test_labels_say_the_same_as_numbers_in_any_order(tmp_path, order, symbols, listed):
    labels = listed.split()
    section = "\nAtom Type Labels\n\n" + "\n".join(f"{k} {label}" for k, label in enumerate(labels, 1)) + "\n"
    rows = [f"{k + 1} {symbols[k]} {PLACES[k][0]} {PLACES[k][1]} {PLACES[k][2]}" for k in range(4)]
    structure = read(tmp_path, text("\n".join(rows[k] for k in order), section))
    assert structure.symbols == symbols
    assert_allclose(structure.positions, PLACES, atol=1e-12)


def test_image_flags_move_atoms_by_whole_cells(tmp_path):
    rows = "1 1 0.5 0.5 0.5 0 0 0\n2 1 0.5 3.5 0.5 1 0 -2"
    structure = read(tmp_path, text(rows, masses_of("Ar"), n=2, kinds=1))
    assert_allclose(structure.positions, [[0.5, 0.5, 0.5], [6.5, 3.5, -13.5]], atol=1e-12)


def test_velocities_and_bonds_are_read_past(tmp_path):
    rows = "\n".join(f"{k + 1} 1 {x} {y} {z}" for k, (x, y, z) in enumerate(PLACES))
    more = "\nVelocities\n\n" + "\n".join(f"{k} 0.1 0.2 0.3" for k in range(1, 5)) + "\n"
    structure = read(tmp_path, text(rows, masses_of("Si"), kinds=1, more=more))
    assert structure.symbols == ["Si"] * 4


@pytest.mark.parametrize("comment", ["", "  # silicon", "#c"])
def test_comments_behind_masses_are_no_masses(tmp_path, comment):
    rows = "\n".join(f"{k + 1} 1 {x} {y} {z} {comment}" for k, (x, y, z) in enumerate(PLACES))
    masses = f"\nMasses # in u\n\n1 28.0855 {comment}\n"
    assert read(tmp_path, text(rows, masses, kinds=1)).symbols == ["Si"] * 4


def test_a_title_is_no_section(tmp_path):
    rows = "\n".join(f"{k + 1} 1 {x} {y} {z}" for k, (x, y, z) in enumerate(PLACES))
    structure = read(tmp_path, text(rows, masses_of("Cu"), title="Masses", kinds=1))
    assert structure.symbols == ["Cu"] * 4


def test_sections_are_told_apart_by_their_titles():
    sections = lammps_sections(
        text("1 1 0 0 0", masses_of("Ar", "Kr"), n=1, more="\nPair Coeffs\n\n1 0.1 3\n")
    )
    assert set(sections) == {"Masses", "Atoms", "Pair Coeffs"}
    assert sections["Masses"] == [["1", "39.948"], ["2", "83.798"]]
    assert sections["Atoms"] == [["1", "1", "0", "0", "0"]]


@pytest.mark.parametrize(
    ("masses", "message"),
    [
        ("", "no mass for atom type 1, so its element is unknown"),
        ("\nMasses\n\n1 39.948\n", "no mass for atom type 2"),
        ("\nMasses\n\n1 39.948\n2 1.0\n", "the mass 1 u of atom type 2"),
        ("\nMasses\n\n1 39.948\n2 500.0\n", "the mass 500 u of atom type 2 is that of no element"),
        ("\nMasses\n\n1 58.9\n2 39.948\n", "the mass 58.9 u of atom type 1"),
    ],
)
def test_masses_that_tell_no_element_ask_for_species(tmp_path, masses, message):
    rows = "\n".join(f"{k + 1} {1 + k % 2} {x} {y} {z}" for k, (x, y, z) in enumerate(PLACES))
    with pytest.raises(InputError, match=f"{message}.*--species Ar,Kr"):
        read(tmp_path, text(rows, masses))
    if masses.count("\n") == 4:  # of one type alone
        with pytest.raises(InputError, match="masses for 1 of 2 atom types: add the others"):
            read(tmp_path, text(rows, masses), species=["Co", "Ni"])
        return
    assert read(tmp_path, text(rows, masses), species=["Co", "Ni"]).symbols == ["Co", "Ni"] * 2


@pytest.mark.parametrize(
    ("species", "message"),
    [
        (["Ar"], "has 2 atom types; name the element of each"),
        (["Ar", "Kr", "Xe"], "has 2 atom types"),
        (["Ar", "Krypton"], "'Krypton' is no chemical symbol"),
        (["Ar", "kr"], "'kr' is no chemical symbol. Did you mean 'Kr'"),
    ],
)
def test_species_that_do_not_fit_the_types_are_refused(tmp_path, species, message):
    rows = "\n".join(f"{k + 1} {1 + k % 2} {x} {y} {z}" for k, (x, y, z) in enumerate(PLACES))
    with pytest.raises(InputError, match=message):
        read(tmp_path, text(rows), species=species)


def test_species_are_for_lammps_data_alone(tmp_path):
    ms.write_structure(tmp_path / "a.extxyz", ms.Structure.create([[0, 0, 0]], ["Ar"]))
    with pytest.raises(InputError, match="only LAMMPS data files leave it open"):
        ms.read_structure(tmp_path / "a.extxyz", species=["Ar"])


@pytest.mark.parametrize("content", ["", "no data\n", "4 atoms\n\nAtoms\n\n1 1 0 0 0\n"])
def test_what_is_no_lammps_data_is_said(tmp_path, content):
    with pytest.raises(FileFormatError, match=r"has no line '\.\.\. atom types'"):
        read(tmp_path, content)


def test_atoms_of_a_style_that_cannot_be_read_are_said(tmp_path):
    with pytest.raises(FileFormatError, match="cannot read a structure from"):
        read(tmp_path, text("1 1 0.5\n2 1 0.5", masses_of("Ar"), n=2, kinds=1))


def test_one_element_of_two_masses_cannot_be_written(tmp_path):
    isotopes = ms.Structure.create([[0, 0, 0], [2, 2, 2]], ["Ar"] * 2, [5.0] * 3, masses=[36.0, 40.0])
    with pytest.raises(InputError, match="one mass for each atom type, and Ar has 36 and 40 u"):
        ms.write_structure(tmp_path / "a.data", isotopes)
    assert not list(tmp_path.iterdir())
