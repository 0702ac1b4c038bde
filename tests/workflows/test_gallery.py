"""The pictures of the gallery: what they show is what differences give, and the script as a user runs it."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose
from test_workflows import run

import mdsens as ms

SCRIPT = Path(__file__).parents[2] / "workflows" / "gallery.py"


@pytest.fixture(scope="module")
def gallery():
    spec = importlib.util.spec_from_file_location("gallery", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_torsions_have_the_sign_and_size_of_geometry(gallery):
    chain = np.array([[1.0, 0, 0], [0, 0, 0], [0, 0, 1.0], [0, 1.0, 1.0]])
    assert_allclose(gallery.torsion(chain), 90.0)
    flat = np.array([[1.0, 0, 0], [0, 0, 0], [0, 0, 1.0], [-1.0, 0, 1.0]])
    assert_allclose(np.abs(gallery.torsion(flat)), 180.0)


def test_layers_of_a_gradient_are_drawn_with_its_value(gallery):
    weights = {"a": [np.array([3.0, 0.0]), np.array([4.0])], "b": np.array([1.0])}
    figure = gallery.draw_layers(ms.GraphPotential(print, weights, 3.0, ()), 5.5)
    (axes,) = figure.axes
    assert [text.get_text() for text in axes.get_yticklabels()] == ["a.0", "a.1", "b"]
    assert "a = 5.5000" in axes.get_title() and "4 weights" in axes.get_title()


def test_the_force_field_of_the_molecule_is_that_of_its_formula(gallery):
    potential, structure = gallery.peroxide()
    x = np.asarray(structure.positions)
    lengths = np.linalg.norm(np.diff(x, axis=0), axis=1)
    stretched = 15.0 * ((lengths[[0, 2]] - 0.97) ** 2).sum() + 10.0 * (lengths[1] - 1.45) ** 2
    unit = lambda v: v / np.linalg.norm(v)
    corners = [np.arccos(unit(x[k - 1] - x[k]) @ unit(x[k + 1] - x[k])) for k in (1, 2)]
    bent = 2.5 * sum((corner - 1.75) ** 2 for corner in corners)
    phi = np.radians(float(gallery.torsion(x)))
    turned = 0.05 * (1 + np.cos(phi)) + 0.06 * (1 + np.cos(2 * phi))
    pushed = ms.units.COULOMB * 0.16 / np.linalg.norm(x[3] - x[0])
    assert_allclose(ms.energy(potential, structure), stretched + bent + turned + pushed, rtol=1e-12)


@pytest.mark.validation
def test_script_draws_the_molecule(tmp_path):
    run("gallery", "molecule", "--output", ".", folder=tmp_path)
    assert 5e3 < (tmp_path / "gallery_molecule.png").stat().st_size < 1.5e5
