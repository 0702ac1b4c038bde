"""Parameter sets: found by name, read, shown, written, and what is said about a broken file."""

import io
import re

import equinox as eqx
import jax
import pytest

import mdsens as ms
from mdsens.errors import FileFormatError, InputError, OutputExistsError, PrecisionError
from mdsens.potentials.parameter_sets import (
    available_potentials,
    load_potential,
    parameter_table,
    save_potential,
)

NAMES = [record.name for record in available_potentials()]


def test_every_set_says_where_its_numbers_come_from():
    assert {
        "si-stillinger-weber-1985",
        "ar-lennard-jones",
        "lennard-jones-reduced",
        "cu-morse",
        "kob-andersen",
    } <= set(NAMES)
    for record in available_potentials():
        assert re.search(r"doi:10\.\d+/\S+|arXiv:\d+\.\d+", record.source), record.name
        assert record.file.is_file()


@pytest.mark.parametrize("name", NAMES)
def test_every_set_loads_and_survives_being_written(name, tmp_path):
    potential = load_potential(name)
    record = next(r for r in available_potentials() if r.name == name)
    assert (type(potential).__name__, potential.elements, potential.source) == (
        record.form,
        record.elements,
        record.source,
    )
    file = tmp_path / "copy.toml"
    save_potential(potential, file)
    copy = load_potential(file)
    # the same form, settings and source, and every bit of every number
    assert jax.tree.structure(copy) == jax.tree.structure(potential)
    assert ms.parameter_values(copy) == ms.parameter_values(potential)


def test_settings_survive_being_written(tmp_path):
    odd = 0.1 + 0.2  # 0.30000000000000004
    potential = ms.LennardJones(
        [odd, 1e-7], [3.4, 3.5], ("Ar", "Kr"), 9.1, ms.Smooth(onset=0.55), "geometric", 'a "quoted" µ source'
    )
    save_potential(potential, tmp_path / "set.toml")
    copy = load_potential(tmp_path / "set.toml")
    assert jax.tree.structure(copy) == jax.tree.structure(potential)
    assert ms.parameter_values(copy)["epsilon[Ar]"] == odd


def test_silicon_has_the_numbers_of_the_paper():
    values = ms.parameter_values(load_potential("si-stillinger-weber-1985"))
    paper = {
        "A": 7.049556277,
        "B": 0.6022245584,
        "p": 4,
        "q": 0,
        "a": 1.80,
        "lambda": 21.0,
        "gamma": 1.20,
        "sigma": 2.0951,
    }
    assert {name: values[name] for name in paper} == paper


def test_unknown_name_suggests_the_nearest_and_lists_all():
    with pytest.raises(
        InputError, match=r"no parameter set is called 'cu-mors'\. Did you mean 'cu-morse'"
    ) as caught:
        load_potential("cu-mors")
    assert all(name in str(caught.value) for name in NAMES)


def test_missing_file_and_strange_ending_are_told_apart(tmp_path):
    with pytest.raises(FileFormatError, match="no potential file"):
        load_potential(tmp_path / "none.toml")
    (tmp_path / "a.xyz").write_text("")
    with pytest.raises(FileFormatError, match=r"must end in one of \.toml, \.sw"):
        load_potential(tmp_path / "a.xyz")


def test_broken_set_is_named_when_the_sets_are_listed(tmp_path, monkeypatch):
    from mdsens.potentials import parameter_sets

    (tmp_path / "broken.toml").write_text("form = ")
    monkeypatch.setattr(parameter_sets, "_folder", lambda: tmp_path)
    with pytest.raises(FileFormatError, match=r"broken\.toml: not a TOML file"):
        available_potentials()


def test_float32_is_refused():
    with jax.enable_x64(False), pytest.raises(PrecisionError, match="JAX_ENABLE_X64=1"):
        load_potential("cu-morse")


def test_sets_in_an_installed_package_come_first(tmp_path, monkeypatch):
    from mdsens.potentials import parameter_sets

    package = tmp_path / "mdsens"
    (package / "_potentials").mkdir(parents=True)
    (tmp_path / "potentials").mkdir()
    monkeypatch.setattr(parameter_sets, "__file__", str(package / "potentials" / "parameter_sets.py"))
    (tmp_path / "potentials" / "outside.toml").write_text('form = "LennardJones"\nsource = ""')
    (package / "_potentials" / "inside.toml").write_text('form = "LennardJones"\nsource = ""')
    assert [r.name for r in available_potentials()] == ["inside"]
    (package / "_potentials" / "inside.toml").unlink()
    (package / "_potentials").rmdir()
    assert [r.name for r in available_potentials()] == ["outside"]
    (tmp_path / "potentials").rename(tmp_path / "elsewhere")
    with pytest.raises(FileFormatError, match="parameter sets are missing"):
        available_potentials()


def test_existing_file_is_not_overwritten_unasked(tmp_path):
    file = tmp_path / "set.toml"
    save_potential(load_potential("cu-morse"), file)
    with pytest.raises(OutputExistsError, match="overwrite=True"):
        save_potential(load_potential("ar-lennard-jones"), file)
    save_potential(load_potential("ar-lennard-jones"), file, overwrite=True)
    assert isinstance(load_potential(file), ms.LennardJones)


def test_what_is_more_than_numbers_is_not_written(tmp_path):
    from mdsens.potentials.jaxmd import JaxMDPotential

    with pytest.raises(InputError, match="build this potential in Python instead"):
        save_potential(JaxMDPotential(lambda R: 0.0, {}, 1.0), tmp_path / "set.toml")
    with pytest.raises(InputError, match=r"does not end in \.toml"):
        save_potential(load_potential("cu-morse"), tmp_path / "set.json")
    with pytest.raises(InputError, match=r"hold StillingerWeber, and this is a Morse\. Write \.toml"):
        save_potential(load_potential("cu-morse"), tmp_path / "set.sw")
    assert list(tmp_path.iterdir()) == []


# --- some elements of a set
# --------------------------------------------------------------------------------------


def test_elements_wanted_come_with_their_own_numbers_in_the_order_wanted():
    both, turned = load_potential("kob-andersen"), load_potential("kob-andersen", elements=["Kr", "Ar"])
    assert turned.elements == ("Kr", "Ar")
    assert ms.parameter_values(turned)["epsilon[Kr-Ar]"] == ms.parameter_values(both)["epsilon[Ar-Kr]"] == 1.5
    alone = load_potential("kob-andersen", elements=["Kr"])
    assert ms.parameter_values(alone) == {"epsilon": 0.5, "sigma": 0.88}
    tellurium = ms.parameter_values(load_potential("cdte-stillinger-weber-1989", ["Te"]))
    assert (tellurium["A"], tellurium["lambda"]) == (8.1415, 25.0)


def test_element_that_is_not_there_is_named():
    with pytest.raises(InputError, match="nothing for Xe; it has Ar, Kr"):
        load_potential("kob-andersen", elements=["Ar", "Xe"])
    with pytest.raises(InputError, match="name each wanted element once"):
        load_potential("kob-andersen", elements=["Ar", "Ar"])
    with pytest.raises(InputError, match="whatever its element"):
        load_potential("lennard-jones-reduced", elements=["Ar"])


# --- a file with a mistake
# ---------------------------------------------------------------------------------------

GOOD = """
form = "LennardJones"
elements = ["Ni", "Cu"]
cutoff = 6.0
cut = "smooth"
[parameters]
epsilon = 0.4
[parameters.sigma]
"Ni-Ni" = 2.2
"Cu-Ni" = 2.25
"Cu-Cu" = 2.3
"""


def load(text, tmp_path):
    (tmp_path / "set.toml").write_text(text)
    return load_potential(tmp_path / "set.toml")


def test_a_number_stands_for_every_label_and_labels_may_be_turned(tmp_path):
    values = ms.parameter_values(load(GOOD, tmp_path))
    assert values["epsilon[Ni-Cu]"] == 0.4
    assert values["sigma[Ni-Cu]"] == 2.25


def test_settings_of_a_cut(tmp_path):
    potential = load(GOOD.replace('"smooth"', '{ kind = "smooth", onset = 0.9 }'), tmp_path)
    assert potential.cut == ms.Smooth(onset=0.9)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            'form = "LennardJones"',
            'form = "LenardJones"',
            "form = 'LenardJones' is unknown. Did you mean 'LennardJones'",
        ),
        ('form = "LennardJones"', "", "form = None is unknown"),
        ("cutoff = 6.0", "cutof = 6.0", "no setting 'cutof'. Did you mean 'cutoff'"),
        ("cutoff = 6.0", 'cutoff = "far"', "cutoff = 'far': give a number in Å, or inf"),
        ("cutoff = 6.0", "cutoff = -6.0", "must be positive"),
        ('"smooth"', '"smoth"', "cut = 'smoth' is unknown. Did you mean 'smooth'"),
        ('"smooth"', '{ kind = "smooth", start = 0.9 }', "cut 'smooth' has no setting 'start'; it has onset"),
        ('"smooth"', '{ kind = "smooth", onset = 2.0 }', "0 <= onset < 1"),
        ('["Ni", "Cu"]', '["Ni", "Co"]', "parameter sigma has no entry 'Cu-Ni'"),
        ('["Ni", "Cu"]', '["Ni", "Xx"]', "'Xx' is no chemical symbol"),
        ('["Ni", "Cu"]', '["Ni", "Ni"]', "names one twice"),
        ('["Ni", "Cu"]', '"Ni"', "give a list of chemical symbols"),
        ("epsilon = 0.4", "", r"lacks 'epsilon' \(well depth, in units of eV\)"),
        ("epsilon = 0.4", "epsilon = 0.4\ndepth = 1.0", "no parameter 'depth'"),
        ("epsilon = 0.4", "epsilon = -0.4", r"epsilon\[Ni-Ni\] = -0.4 eV lies outside its bounds"),
        ("epsilon = 0.4", 'epsilon = "deep"', "give one number for all, or a table"),
        ("epsilon = 0.4", "epsilon = [0.4, 0.4, 0.4]", r'a table \[parameters.epsilon\] with "Ni-Ni" = '),
        ('"Cu-Cu" = 2.3', "", "parameter sigma lacks a value for Cu-Cu"),
        ('"Cu-Cu" = 2.3', '"Cu-Cu" = 2.3\n"Ni-Cu" = 2.2', "two values for 'Ni-Cu'"),
        ('"Cu-Cu" = 2.3', '"Cu-Cu" = "long"', "entry 'Cu-Cu': 'long' is not a number"),
        ('"Cu-Cu" = 2.3', '"Cu-Cu" = ', "not a TOML file"),
        (
            GOOD[GOOD.index("[parameters]") :],
            "parameters = 3",
            r"\[parameters\] must be a table with epsilon, sigma",
        ),
        ("[parameters]\nepsilon = 0.4\n[parameters.sigma]", "parameters = 3\n[other]", "no setting 'other'"),
    ],
)
def test_mistake_is_said_with_what_to_write_instead(tmp_path, old, new, message):
    assert old in GOOD
    with pytest.raises(FileFormatError, match=message) as caught:
        load(GOOD.replace(old, new), tmp_path)
    assert str(caught.value).count("set.toml") == 1  # says which file, once


def test_table_for_a_parameter_that_has_no_entries(tmp_path):
    with pytest.raises(FileFormatError, match="takes one number"):
        load(
            'form = "LennardJones"\nelements = ["Ni"]\n[parameters]\nsigma = '
            '2.0\n[parameters.epsilon]\n"Ni-Ni" = 1.0',
            tmp_path,
        )


def test_form_of_a_users_own_is_found_once_it_is_defined(tmp_path):
    class OwnForm(ms.LennardJones):
        """A form that mdsens does not know."""

    potential = load(
        'form = "OwnForm"\nelements = ["Ni"]\n[parameters]\nsigma = 2.0\nepsilon = 1.0', tmp_path
    )
    assert type(potential) is OwnForm


# --- the table


def test_table_holds_every_parameter_with_unit_bounds_and_source():
    table = parameter_table(load_potential("kob-andersen"))
    assert [row.name for row in table.rows][:2] == ["epsilon[Ar-Ar]", "epsilon[Ar-Kr]"]
    row = table.rows[4]
    assert (row.name, row.value, row.unit, row.bounds) == ("sigma[Ar-Kr]", 0.8, "Å", (0.0, float("inf")))
    assert "10.1103/PhysRevE.51.4626" in row.source


def test_table_prints_one_line_a_parameter():
    lines = str(parameter_table(load_potential("cu-morse"))).splitlines()
    assert lines[0] == "Morse (Cu)"
    assert [line.split() for line in lines[3:5]] == [
        ["D0", "0.3429", "eV", ">", "0", "well", "depth"],
        ["alpha", "1.3588", "1/Å", ">", "0", "inverse", "width"],
    ]
    assert lines[-1].startswith("source: Girifalco, Weizer")


def test_rich_prints_the_same_content():
    from rich.console import Console

    console = Console(file=io.StringIO(), width=140)
    console.print(parameter_table(load_potential("kob-andersen")))
    text = console.file.getvalue()
    for word in ("LennardJones (Ar, Kr)", "epsilon[Ar-Kr]", "well depth", "source: Kob, Andersen"):
        assert word in text


def test_parts_of_a_potential_show_their_own_sources():
    class Sum(ms.Potential):
        """Two potentials at once."""

        first: ms.Potential
        second: ms.Potential
        elements: tuple[str, ...] = eqx.field(static=True, default=("Cu",))
        source: str = eqx.field(static=True, default="the whole")

        @property
        def cutoff(self):
            return self.first.cutoff

        def energy(self, structure, neighbors):
            return self.first.energy(structure, neighbors) + self.second.energy(structure, neighbors)

    parts = Sum(load_potential("cu-morse"), ms.Morse(1.0, 1.0, 1.0, ("Cu",), 3.0))
    table = parameter_table(parts)
    assert [row.name for row in table.rows] == [
        f"{part}.{name}" for part in ("first", "second") for name in ("D0", "alpha", "r0")
    ]
    assert table.rows[0].source.startswith("Girifalco")
    assert table.rows[3].source == "the whole"
