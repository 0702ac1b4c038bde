"""What cannot be relaxed is refused, with the value, the limit, and what to do."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from states import cluster, copper

import mdsens as ms
from mdsens import errors


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fmax": 0.0}, r"fmax = 0\.0: it must be finite and above 0 \(eV/Å\)"),
        ({"fmax": np.inf}, r"fmax = inf: it must be finite"),
        ({"fmax": "small"}, r"fmax = 'small': give one real number in eV/Å"),
        (
            {"cell": "cubic"},
            r"cell='cubic' is unknown: use None, 'isotropic', 'full', or six bools in the order xx yy zz yz",
        ),
        ({"cell": (True, False)}, r"no mask of free strains: give six bools in the order xx yy zz yz xz xy"),
        ({"pressure": 0.1}, r"needs a cell that can move: add cell='isotropic', 'full' or a Voigt mask"),
        ({"stress": [0.0, 0.0, 0.0, 0.1, 0.0, 0.0]}, r"needs a cell that can move"),
        ({"cell": "full", "pressure": np.nan}, r"pressure = nan: it must be finite"),
        ({"cell": "full", "pressure": "1 GPa"}, r"pressure = '1 GPa': give one real number in eV/Å³"),
        ({"cell": "full", "pressure": [0.1, 0.2, 0.3]}, r"give one real number"),
        ({"cell": "full", "stress": [0.1] * 3}, r"give six finite numbers, xx yy zz yz xz xy"),
        ({"cell": "full", "stress": [np.nan] * 6}, r"give six finite numbers"),
        ({"cell": "full", "pressure": 0.1, "stress": [0.0] * 6}, r"both given: a stress holds the pressure"),
        ({"max_steps": 1.9}, r"max_steps = 1\.9: give a whole number, 1 or more"),
        ({"max_steps": -5}, r"max_steps = -5: give a whole number"),
        ({"skin": -0.1}, r"skin = -0\.1: it must be finite and at least 0"),
        ({"solver": "fire"}, r"solver must be .*not str \('fire'\).*FIRE\(\)"),
        ({"solver": ms.FIRE}, r"not the class FIRE itself"),
        ({"linear_solver": "dense"}, r"linear_solver must be .*Dense\(\)"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_options_that_contradict_are_refused(options, message):
    potential, start = copper()
    with pytest.raises(errors.InputError, match=message):
        ms.relax(potential, start, **options)


@pytest.mark.parametrize("cell", ["isotropic", "full", (False, False, True, False, False, False)])
def test_a_cluster_has_no_cell_to_relax(cell):
    potential, start = cluster()
    with pytest.raises(
        errors.InputError,
        match=r"without periodic boundaries \(pbc = \(False, False, False\)\).*relax with cell=None",
    ):
        ms.relax(potential, start, cell=cell)


def test_a_slab_relaxes_in_its_plane_only():
    potential, start = copper()
    slab = ms.Structure.create(
        start.positions, start.symbols, np.diag([2.7, 4.7, 20.0]), pbc=(True, True, False)
    )
    with pytest.raises(
        errors.InputError,
        match=r"pbc = \(True, True, False\).*free only the periodic strains with a Voigt mask",
    ):
        ms.relax(potential, slab, cell="full")


def test_atoms_at_one_place_are_named():
    potential, start = cluster()
    twins = start.at(start.positions.at[7].set(start.positions[2]))
    with pytest.raises(
        errors.NonFiniteError, match=r"atoms 2 \(\w+\) and 7 \(\w+\) are 0\.00e\+00 Å apart.*move them apart"
    ):
        ms.relax(potential, twins)


@pytest.mark.parametrize("where", ["positions", "cell"])
def test_nan_is_caught_before_it_spreads(where):
    potential, start = copper()
    broken = eqx.tree_at(lambda s: getattr(s, where), start, getattr(start, where).at[1, 2].set(jnp.nan))
    with pytest.raises(
        errors.NonFiniteError, match="atom 1 is at" if where == "positions" else "the cell is not finite"
    ):
        ms.relax(potential, broken)


def test_elements_and_parameters_are_checked():
    potential, start = cluster()
    argon_only = ms.LennardJones(1.0, 1.0, elements=("Ar",))
    with pytest.raises(errors.InputError, match=r"no parameters for Kr; it knows Ar"):
        ms.relax(argon_only, start)
    shrunk = eqx.tree_at(lambda p: p.sigma, potential, potential.sigma.at[1].set(-0.9))
    with pytest.raises(
        errors.InputError, match=r"sigma\[Ar-Kr\] = -0\.9 Å lies outside its bounds \(0, inf\)"
    ):
        ms.relax(shrunk, start)


@pytest.mark.parametrize(
    "transform",
    [
        lambda f, p: eqx.filter_jit(f)(p),
        lambda f, p: eqx.filter_jit(jax.grad(f))(p),
        lambda f, p: jax.vmap(f)(jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), p)),
    ],
    ids=["jit", "jit of grad", "vmap"],
)
def test_under_jit_the_error_says_to_jit_what_comes_after(transform):
    potential, start = cluster()
    with pytest.raises(
        errors.TracedError,
        match=r"jit what comes after: jax\.grad, jacfwd, jacrev and hessian work without jit",
    ):
        transform(lambda p: ms.relax(p, start).energy, potential)


def test_float32_is_refused():
    potential, start = cluster()
    with (
        jax.enable_x64(False),
        pytest.raises(errors.PrecisionError, match=r'jax_enable_x64", True\).*JAX_ENABLE_X64=1'),
    ):
        ms.relax(potential, start)
