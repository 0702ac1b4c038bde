"""Atomic cluster expansions by ace-jax: the formula of the paper with all images, linear coefficients."""

import importlib
from importlib.util import find_spec

import equinox as eqx
import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose

import mdsens as ms
from mdsens.errors import FileFormatError, InputError

CUTOFF = 4.0
# one pair function, and two of three bodies: n = 1, l = 1 and n = 2, l = 2
FILE = """
elements: [Si]
E0: [-0.5]
deltaSplineBins: 0.001
embeddings:
  0: {ndensity: 1, FS_parameters: [1.0, 1.0], npoti: FinnisSinclair, rho_core_cutoff: 100000,
    drho_core_cutoff: 250}
bonds:
  [0, 0]: {nradmax: 2, lmax: 2, nradbasemax: 2, radbasename: ChebExpCos, radparameters: [5.3],
    radcoefficients: [[[1, 0], [1, 0], [1, 0]], [[0, 1], [0, 1], [0, 1]]],
    prehc: 0, lambdahc: 1, rcut: 4.0, dcut: 0.01, rcut_in: 0.1, dcut_in: 0.01, inner_cutoff_type: distance}
functions:
  0:
    - {mu0: 0, rank: 1, ndensity: 1, num_ms_combs: 1, mus: [0], ns: [1], ls: [0], ms_combs: [0],
       ctildes: [-0.4]}
    - {mu0: 0, rank: 2, ndensity: 1, num_ms_combs: 3, mus: [0, 0], ns: [1, 1], ls: [1, 1],
       ms_combs: [-1, 1, 0, 0, 1, -1], ctildes: [-0.02, 0.02, -0.02]}
    - {mu0: 0, rank: 2, ndensity: 1, num_ms_combs: 5, mus: [0, 0], ns: [2, 2], ls: [2, 2],
       ms_combs: [-2, 2, -1, 1, 0, 0, 1, -1, 2, -2], ctildes: [0.03, -0.03, 0.03, -0.03, 0.03]}
"""
CRYSTAL = ms.Structure.create(
    [[0.1, 0.0, -0.05], [1.35, 1.37, 1.35]],
    ["Si", "Si"],
    [[0, 2.7, 2.7], [2.7, 0, 2.7], [2.7, 2.7, 0]],
)


@pytest.fixture(scope="module")
def potential(tmp_path_factory):
    pytest.importorskip("ace_jax")
    path = tmp_path_factory.mktemp("ace") / "Si.yace"
    path.write_text(FILE)
    return ms.load_potential(path)


def radial(r):
    """g_1 and g_2 of ChebExpCos: Chebyshev polynomials of a stretched distance, ended by a cosine."""
    x = 1 - 2 * (np.exp(-5.3 * (r / CUTOFF - 1)) - 1) / (np.exp(5.3) - 1)
    end = 0.5 * (1 + np.cos(np.pi * r / CUTOFF))
    return end, 0.5 * (1 - x) * end


def by_legendre_polynomials(structure):
    """The same energy, as sums over pairs and triples by the addition theorem."""
    neighbors = ms.find_neighbors(structure, CUTOFF)
    table = neighbors.table()
    vectors, valid = np.asarray(table.vectors(structure)), np.asarray(table.valid)
    total = 0.0
    for d in (v[there] for v, there in zip(vectors, valid, strict=True)):
        r = np.linalg.norm(d, axis=1)
        d, r = d[r < CUTOFF], r[r < CUTOFF]
        g1, g2 = radial(r)
        cosine = (d / r[:, None]) @ (d / r[:, None]).T
        total += -0.5 - 0.4 * g1.sum()
        # sum over m of (-1)^m Y_lm Y_l-m = (2 l + 1) P_l, in pacemaker's norm Y_00 = 1
        total += 0.02 * 3 * np.sum(np.outer(g1, g1) * cosine)
        total += 0.03 * 5 * np.sum(np.outer(g2, g2) * (1.5 * cosine**2 - 0.5))
    return total


def test_energy_is_the_sum_over_pairs_and_triples_with_all_images(potential):
    assert float(potential.cutoff) == CUTOFF
    assert_allclose(float(ms.energy(potential, CRYSTAL)), by_legendre_polynomials(CRYSTAL), rtol=1e-12)


def gradient(potential, structure, neighbors):
    """The energy, and its derivatives by the weights."""
    return eqx.filter_value_and_grad(lambda p: p.energy(structure, neighbors))(potential)


JITTED = eqx.filter_jit(gradient)


def test_energy_is_linear_in_the_coefficients(potential):
    value, slopes = JITTED(potential, CRYSTAL, ms.neighbors_of(potential, CRYSTAL))
    terms = sum(float(jnp.vdot(potential.weights[k], slopes.weights[k])) for k in ("ctilde_complex", "E0"))
    assert_allclose(terms, value, rtol=1e-12)


def test_model_of_ace_jax_is_fitted_by_its_own_derivatives(tmp_path):
    basis, export = (pytest.importorskip(f"ace_jax.basis.{name}") for name in ("model", "export"))
    export.save_npz(tmp_path / "si.npz", basis.build_model(["Si"], 2, 5, rcut=CUTOFF))
    model = ms.from_ace_jax(tmp_path / "si.npz")
    assert set(model.weights) == {"WB", "Wpair", "E0"}
    # energies of another model of the same family, by rows of derivatives and least squares
    rng = np.random.default_rng(1)
    true = {name: jnp.asarray(rng.normal(size=w.shape)) for name, w in model.weights.items()}
    other = eqx.tree_at(lambda p: p.weights, model, true)
    neighbors = ms.neighbors_of(model, CRYSTAL, 1.0)
    rows, energies = [], []
    for _ in range(24):
        moved = CRYSTAL.at(CRYSTAL.positions + 0.1 * rng.normal(size=(2, 3)))
        rows.append(
            np.concatenate([w.ravel() for w in jax.tree.leaves(JITTED(model, moved, neighbors)[1].weights)])
        )
        energies.append(float(ms.energy(other, moved, neighbors)))
    c = np.linalg.lstsq(np.array(rows), np.array(energies), rcond=None)[0]
    flat, unravel = jax.flatten_util.ravel_pytree(model.weights)
    fitted = eqx.tree_at(lambda p: p.weights, model, unravel(jnp.asarray(c)))
    assert flat.shape == c.shape
    test = CRYSTAL.at(CRYSTAL.positions + 0.05)
    assert_allclose(float(ms.energy(fitted, test)), float(ms.energy(other, test)), rtol=1e-6)


def test_without_the_package_or_a_file_of_its_kind_the_error_says_so(tmp_path, monkeypatch):
    path = tmp_path / "Si.yace"
    path.write_text("elements: [Si")
    with pytest.raises(InputError, match=r"elements = \['Si'\]: a .yace file is read with all"):
        ms.load_potential(path, ["Si"])
    if find_spec("ace_jax"):
        with pytest.raises(FileFormatError, match="cannot be read by ace-jax: "):
            ms.load_potential(path)

    def lacking(name):
        raise ImportError(f"no {name}")

    from_ace_jax = ms.from_ace_jax  # before nothing can be imported any more
    monkeypatch.setattr(importlib, "import_module", lacking)
    with pytest.raises(InputError, match=r"needs the package ace-jax.*pip install ace-jax"):
        from_ace_jax(path)
