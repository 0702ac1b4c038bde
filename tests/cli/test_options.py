"""What the texts of options mean, and what is said of those that mean nothing."""

import string
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

import mdsens as ms
from mdsens.cli import options
from mdsens.cli.flow import inputs
from mdsens.errors import FileFormatError, InputError
from mdsens.strain import VOIGT_NAMES

WORDS = st.text(string.ascii_letters + "_[]-", min_size=1, max_size=8)


def structure(n: int = 6) -> ms.Structure:
    positions = np.arange(3.0 * n).reshape(n, 3)
    return ms.Structure.create(positions, ["Cu", "Ni"] * (n // 2))


# --- cells ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("text", "meaning"), [("none", None), ("isotropic", "isotropic"), ("full", "full")])
def test_cells_by_name(text, meaning):
    assert options.cell_option(text) == meaning


@given(st.lists(st.sampled_from(VOIGT_NAMES), min_size=1, unique=True), st.sampled_from([",", ", ", " ,"]))
def test_a_list_of_strains_frees_these_and_no_others(names, comma):
    mask = options.cell_option(comma.join(names))
    assert [name for name, free in zip(VOIGT_NAMES, mask, strict=True) if free] == [
        name for name in VOIGT_NAMES if name in names
    ]


@pytest.mark.parametrize("text", ["", "all", "xx,,yy", "x", "XX", "xx;yy", "full,xx", "zx"])
def test_a_cell_that_means_nothing_is_refused_with_what_there_is(text):
    with pytest.raises(InputError, match=r"is unknown\. Use none, isotropic, full, or a list out of xx,yy"):
        options.cell_option(text)


# --- atoms ----------------------------------------------------------------------------------------------


@given(st.lists(st.integers(0, 5), min_size=1, max_size=4))
def test_atoms_listed_are_held_and_no_others(rows):
    fixed = np.asarray(options.fix_option(structure(), [",".join(map(str, rows))]).fixed)
    assert_array_equal(np.flatnonzero(fixed.all(1)), sorted(set(rows)))
    assert not fixed[[k for k in range(6) if k not in rows]].any()


@given(st.integers(0, 5), st.integers(0, 5), st.text("xyz", min_size=1, max_size=4))
def test_ranges_and_axes(first, last, axes):
    fixed = np.asarray(options.fix_option(structure(), [f"{first}-{last}:{axes}"]).fixed)
    held = np.zeros((6, 3), bool)
    for axis in set(axes):
        held[first : last + 1, "xyz".index(axis)] = True
    assert_array_equal(fixed, held)


def test_choices_add_up_with_each_other_and_with_what_the_file_holds():
    start = ms.Structure.create(np.eye(3), ["Cu", "Ni", "Cu"], fixed=[[True] * 3, [False] * 3, [False] * 3])
    held = options.fix_option(start, ["Ni:x", "1:z", "2:y"]).fixed
    assert_array_equal(held, [[True] * 3, [True, False, True], [False, True, False]])
    assert_array_equal(options.fix_option(start, None).fixed, start.fixed)


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ("6", "there is no atom 6; 6 atoms are counted from 0 to 5"),
        ("0-6", "there is no atom 6"),
        ("-1", "'-1' is neither an index"),
        ("1-", "there is no"),
        ("a-b", "'a-b' is neither"),
        ("1.5", "'1.5' is neither"),
        ("", "'' is neither"),
        ("Fe", "nor one of Cu, Ni"),
        ("0:", "'' are no axes"),
        ("0:xq", "'xq' are no axes"),
        ("0:X", "'X' are no axes"),
    ],
)
def test_a_choice_of_atoms_that_cannot_be_read_is_quoted(choice, message):
    if choice == "1-":  # an open range is the one atom
        assert np.asarray(options.fix_option(structure(), [choice]).fixed)[1].all()
        return
    with pytest.raises(InputError, match=message):
        options.fix_option(structure(), [choice])


# --- names and values -----------------------------------------------------------------------------------


@given(st.dictionaries(WORDS, st.floats(allow_nan=False, allow_infinity=False), max_size=4))
def test_named_values_are_taken_apart(values):
    texts = [f" {name} = {value!r} " for name, value in values.items()]
    found = options.named_values(texts, "--set", "NAME=VALUE")
    assert {name: float(text) for name, text in found.items()} == values


@pytest.mark.parametrize("text", ["epsilon", "=3", "epsilon=", " = ", ""])
def test_a_value_without_a_name_is_refused_with_the_form(text):
    with pytest.raises(InputError, match=r"--references .*: write Cd=FILE"):
        options.named_values([text], "--references", "Cd=FILE")


def test_values_may_hold_an_equals_sign():
    assert options.named_values(["Cd=a=b.xyz"], "--references", "Cd=FILE") == {"Cd": "a=b.xyz"}


@pytest.mark.parametrize("change", ["epsilon=0.011", "epsilon = 0.011", "epsilon=11e-3"])
def test_a_parameter_is_changed(change):
    potential = options.potential_option("ar-lennard-jones", [change])
    assert ms.parameter_values(potential)["epsilon"] == 0.011


def test_elements_of_lammps_types():
    assert options.species_option(None) is None
    assert options.species_option("Ar, Kr") == ["Ar", "Kr"]
    assert options.species_of(Path("a.data"), None, "Ar") == ["Ar"]
    assert options.species_of(Path("a.cif"), None, "Ar") is None
    assert options.species_of(Path("a.cif"), "lammps-data", "Ar") == ["Ar"]


# --- outputs --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("output", "prefix"),
    [
        (None, "si-relaxed"),
        ("out/", "out/si-relaxed"),
        ("out", "out"),
        ("out/name", "out/name"),
        ("name.v2", "name.v2"),
    ],
)
def test_where_results_go(tmp_path, monkeypatch, output, prefix):
    monkeypatch.chdir(tmp_path)
    assert options.output_prefix(output, Path("data/si.cell.extxyz"), "relaxed") == Path(prefix)


def test_a_folder_that_is_there_needs_no_slash(tmp_path):
    prefix = options.output_prefix(str(tmp_path), Path("si.extxyz"), "relaxed")
    assert prefix == tmp_path / "si-relaxed"


def test_files_of_one_command_have_different_names():
    names = options.structure_files(Path("a"), ("csv", "h5", "png"), None)
    assert names["structure"] == Path("a.extxyz") and len(set(names.values())) == 4
    with pytest.raises(InputError, match="is another file of this command"):
        options.structure_files(Path("a"), ("json", "h5"), "json")


# --- options in a file ----------------------------------------------------------------------------------

KNOWN = {
    "fmax": ("fmax", False),
    "set": ("parameters", True),
    "fix": ("fix", True),
    "cell": ("cell", False),
    "range": ("ranges", False),
    "max-steps": ("max_steps", False),
}


def read(tmp_path, text: str) -> dict:
    (tmp_path / "o.toml").write_text(text)
    return options.read_config(tmp_path / "o.toml", KNOWN)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("fmax = 1e-6", {"fmax": "1e-06"}),
        ("max_steps = 7", {"max_steps": "7"}),
        ("max-steps = 7", {"max_steps": "7"}),
        ("range = false", {"ranges": False}),
        ('cell = ["xx", "yy"]', {"cell": "xx,yy"}),
        ('fix = ["0", "1:z"]', {"fix": ["0", "1:z"]}),
        ("fix = [0, 3]", {"fix": ["0", "3"]}),
        ('fix = "0"', {"fix": ["0"]}),
        ("[set]\nepsilon = 2.2\nsigma = 3", {"parameters": ["epsilon=2.2", "sigma=3"]}),
        ("", {}),
    ],
)
def test_a_file_says_what_would_be_typed(tmp_path, text, expected):
    assert read(tmp_path, text) == expected


@pytest.mark.parametrize(
    ("text", "kind", "message"),
    [
        ("fmaxx = 1", InputError, "Did you mean 'fmax'"),
        ("q = 1", InputError, "'q' in .* is no option here. Options: fmax, set"),
        ("fmax = ", FileFormatError, "is not TOML"),
        ("fmax = 1\nfmax = 2", FileFormatError, "is not TOML"),
    ],
)
def test_a_file_that_says_nothing_of_use_is_refused(tmp_path, text, kind, message):
    with pytest.raises(kind, match=message):
        read(tmp_path, text)


def test_a_file_that_is_no_text_is_refused(tmp_path):
    (tmp_path / "o.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(FileFormatError, match="is not TOML"):
        options.read_config(tmp_path / "o.toml", KNOWN)


# --- flows ----------------------------------------------------------------------------------------------


@given(st.lists(st.integers(1, 999), min_size=1, max_size=4))
def test_sizes_of_layers(sizes):
    assert inputs.hidden_sizes(",".join(map(str, sizes))) == tuple(sizes)


@pytest.mark.parametrize("text", ["", "128,", "0", "-3", "12.5", "a", "128;128"])
def test_sizes_that_are_none_are_refused(text):
    with pytest.raises(InputError, match="a list of positive numbers such as 128,128"):
        inputs.hidden_sizes(text)


def test_atoms_of_a_block():
    assert inputs.atoms_of("--block", None) is None
    assert inputs.atoms_of("--block", "0, 5,1") == (0, 5, 1)
    for text in ("", "0,", "-1", "C"):
        with pytest.raises(InputError, match=r"--block .*a list of atoms such as 0,1,5"):
            inputs.atoms_of("--block", text)


def test_a_force_field_needs_names_and_a_molecule():
    with pytest.raises(InputError, match="name the OpenMM force field with --force-field"):
        inputs.force_field_energy("", 300.0, None, "--reverse-kl-weight")
    with pytest.raises(InputError, match=r"train with --topology FILE\.pdb"):
        inputs.force_field_energy("", 300.0, "amber99sbildn.xml", "--reverse-kl-weight")
