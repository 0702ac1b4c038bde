"""Files for LAMMPS: what is written is read back, and what a format cannot hold is said."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import mdsens as ms
from mdsens.errors import InputError, OutputExistsError
from mdsens.potentials.tersoff_variants import TersoffMod

rng = np.random.default_rng(0)


def eam(finnis_sinclair: bool, first_density: float = 0.0) -> ms.EAM:
    """Two species, with tables of noise: only their places count."""
    densities = 4 if finnis_sinclair else 2
    return ms.EAM(
        F=rng.normal(size=(2, 12)),
        rho=rng.normal(size=(densities, 13)),
        rphi=rng.normal(size=(3, 13)),
        elements=("Ni", "Al"),
        drho=0.1,
        dr=0.4,
        cutoff_radius=4.9,
        finnis_sinclair=finnis_sinclair,
        source="noise",
        first_density=first_density,
    )


def snap() -> ms.SNAP:
    """Without the repulsion that comes with it."""
    return next(p for p in ms.load_potential("w-snap-2017").parts if isinstance(p, ms.SNAP))


CASES = {
    "si.sw": lambda: ms.load_potential("si-stillinger-weber-1985"),
    "cdte.sw": lambda: ms.load_potential("cdte-stillinger-weber-1989"),
    "si.tersoff": lambda: ms.load_potential("si-tersoff-1988-t3"),
    "sic.tersoff": lambda: ms.load_potential("sic-tersoff-1989"),
    "nial.eam.alloy": lambda: eam(False),
    "nial.eam.fs": lambda: eam(True),
    "nial.eam.he": lambda: eam(True, -0.5),
    "w.snapcoeff": snap,
}


@pytest.mark.parametrize("name", CASES)
def test_what_is_written_is_read_back_to_the_last_bit(name, tmp_path):
    potential = CASES[name]()
    ms.save_potential(potential, tmp_path / name)
    back = ms.load_potential(tmp_path / name)
    assert type(back) is type(potential) and back.elements == potential.elements
    assert back.source == " ".join(potential.source.split())
    if name == "sic.tersoff":  # the file tells fewer parameters of pairs apart than its form may have
        tables = [
            (getattr(p, field), p._table(field)) for field in ("B", "n", "R") for p in (potential, back)
        ]
        for (values, table), (others, other) in zip(tables[::2], tables[1::2], strict=True):
            assert_array_equal(np.asarray(values)[table], np.asarray(others)[other])
        return
    for field in potential.parameter_fields():
        # an angle of two kinds of neighbors has lambda times a root, divided by it again: a rounding
        assert_allclose(getattr(back, field), getattr(potential, field), rtol=1e-15 * (name == "cdte.sw"))


def test_settings_of_snap_stand_beside_its_coefficients(tmp_path):
    ms.save_potential(snap(), tmp_path / "w.snapcoeff")
    assert {file.name for file in tmp_path.iterdir()} == {"w.snapcoeff", "w.snapparam"}
    back = ms.load_potential(tmp_path / "w.snapcoeff")
    for field in ("twojmax", "rcutfac", "rfac0", "rmin0", "radii", "weights", "bzero", "quadratic", "switch"):
        assert getattr(back, field) == getattr(snap(), field)


def test_negative_densities_need_a_file_that_has_them(tmp_path):
    ms.save_potential(eam(True, -0.5), tmp_path / "nial.eam.he")
    assert ms.load_potential(tmp_path / "nial.eam.he").first_density == pytest.approx(-0.5, abs=1e-15)
    with pytest.raises(InputError, match=r"densities begin at -0\.5 here.*Write \.eam\.he"):
        ms.save_potential(eam(True, -0.5), tmp_path / "nial.eam.fs")


def test_another_form_than_the_ending_says_is_refused_with_the_right_name(tmp_path):
    silicon = CASES["si.sw"]()
    with pytest.raises(
        InputError, match=r"\.tersoff files hold Tersoff.*a StillingerWeber\. Name it NAME\.sw"
    ):
        ms.save_potential(silicon, tmp_path / "si.tersoff")
    with pytest.raises(InputError, match=r"hold StillingerWeber, and this is a Gupta\. Write \.toml"):
        ms.save_potential(ms.load_potential("cu-gupta-1993"), tmp_path / "cu.sw")
    with pytest.raises(InputError, match=r"depends on both species, which is what \.eam\.fs files are for"):
        ms.save_potential(eam(True), tmp_path / "nial.eam.alloy")
    with pytest.raises(InputError, match=r"what \.eam\.alloy files are for"):
        ms.save_potential(eam(False), tmp_path / "nial.eam.fs")
    with pytest.raises(InputError, match=r"does not end in \.toml or one of \.sw"):
        ms.save_potential(silicon, tmp_path / "si.txt")
    with pytest.raises(InputError, match=r"Write ms\.load_potential"):
        ms.save_potential("si.sw", tmp_path / "si.sw")
    assert not list(tmp_path.iterdir())


def test_a_constant_that_a_format_lacks_is_not_dropped(tmp_path):
    numbers = dict.fromkeys(TersoffMod.parameter_fields(), 1.0)
    potential = TersoffMod(**numbers, elements=("Si",), m=3, source="")
    with pytest.raises(InputError, match=r"c0 is not zero, and only \.tersoff\.modc files have it"):
        ms.save_potential(potential, tmp_path / "si.tersoff.mod")
    ms.save_potential(potential, tmp_path / "si.tersoff.modc")
    assert ms.parameter_values(ms.load_potential(tmp_path / "si.tersoff.modc"))["c0"] == 1.0


def test_files_are_not_overwritten_unasked(tmp_path):
    ms.save_potential(CASES["si.sw"](), tmp_path / "si.sw")
    with pytest.raises(OutputExistsError):
        ms.save_potential(CASES["si.sw"](), tmp_path / "si.sw")
    ms.save_potential(CASES["si.sw"](), tmp_path / "si.sw", overwrite=True)
