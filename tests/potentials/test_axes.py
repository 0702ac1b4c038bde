"""Parameters with axes of their own, such as the knots of a spline: shapes, names, files, tables."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array, Float
from numpy.testing import assert_array_equal

import mdsens as ms
from mdsens.errors import FileFormatError, InputError


class Splines(ms.Potential):
    """Densities as values at knots; of no physics, as only the parameters matter here."""

    rho: Float[Array, "..."] = ms.parameter("1", lower=-1.0, per="species", axes=("knot",), text="density")
    slope: Float[Array, "..."] = ms.parameter("1", per="pair", axes=("knot",), text="slope")
    weight: Float[Array, "..."] = ms.parameter("1", per=None, axes=("n_layers", "unit"), text="weight")
    scale: Float[Array, "..."] = ms.parameter("eV", per=None, text="scale")
    elements: tuple[str, ...] = eqx.field(static=True)
    n_layers: int = eqx.field(static=True, default=2)
    source: str = eqx.field(static=True, default="nowhere")

    def __check_init__(self):
        self.check_shapes()

    @property
    def cutoff(self):
        return jnp.asarray(3.0)

    def energy(self, structure, neighbors):
        return self.scale * jnp.sum(self.rho)


def two(knots=12):
    count = np.arange(3.0 * knots)
    return Splines(
        0.1 * count[: 2 * knots].reshape(2, knots),
        count.reshape(3, knots),
        [[0.5], [0.25]],
        1.5,
        ("Cu", "Ni"),
    )


def one(knots=12):
    return Splines(np.ones(knots), np.arange(knots), [[0.5], [0.25]], 1.5, ("Cu",))


def test_numbers_are_named_by_label_and_place():
    names = list(ms.parameter_values(two(2)))
    assert names == [
        *["rho[Cu][0]", "rho[Cu][1]", "rho[Ni][0]", "rho[Ni][1]"],
        *[f"slope[{pair}][{k}]" for pair in ("Cu-Cu", "Cu-Ni", "Ni-Ni") for k in (0, 1)],
        *["weight[0][0]", "weight[1][0]", "scale"],
    ]
    assert list(ms.parameter_values(one(2)))[:2] == ["rho[0]", "rho[1]"]
    new = ms.replace_parameters(two(), {"rho[Ni][3]": 7.0, "rho[Cu][0]": 8.0, "scale": 2.0})
    assert (new.rho[1, 3], new.rho[0, 0], new.scale) == (7.0, 8.0, 2.0)
    with pytest.raises(InputError, match=r"no parameter 'rho\[Cu\]\[12\]'.* Its parameters: .* and 23 more"):
        ms.replace_parameters(two(), {"rho[Cu][12]": 0.0})


def test_bounds_hold_for_every_number():
    with pytest.raises(InputError, match=r"rho\[Ni\]\[3\] = -2 1 lies outside its bounds \(-1, inf\)"):
        ms.replace_parameters(two(), {"rho[Ni][3]": -2.0})
    bad = eqx.tree_at(lambda p: p.rho, two(), two().rho.at[1, 11].set(np.nan))
    with pytest.raises(InputError, match=r"rho\[Ni\]\[11\] = nan"):
        ms.check_parameters(bad)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([1.0, 2.0], np.ones((3, 2))),
         r"rho has shape \(2,\); species Cu, Ni need an array \(2, knot\), in the order Cu, Ni"),
        ((np.ones((3, 2)), np.ones((3, 2))),
         r"rho has shape \(3, 2\); species Cu, Ni need an array \(2, knot\)"),
        ((np.ones((2, 4)), np.ones((3, 5))),
         r"slope has shape \(3, 5\): its axis 'knot' has the length 5 and must have 4, as another"),
        ((np.ones((2, 4)), np.ones((3, 4)), np.ones((3, 1))),
         r"weight has .* length 3 and must have 2, as the field n_layers says"),
        ((np.ones((2, 4)), np.ones((3, 4)), 1.0),
         r"weight has shape \(\); species Cu, Ni need an array \(n_layers, unit\)\."),
    ],
)  # fmt: skip
def test_wrong_shape_says_the_shape_expected(arguments, message):
    rest = (np.ones((2, 1)), 1.0)[len(arguments) - 2 :]
    with pytest.raises(InputError, match=message):
        Splines(*arguments, *rest, ("Cu", "Ni"))


@pytest.mark.parametrize("potential", [one(), two()], ids=["one species", "two species"])
def test_arrays_survive_being_written(tmp_path, potential):
    ms.save_potential(potential, tmp_path / "set.toml")
    copy = ms.load_potential(tmp_path / "set.toml")
    assert type(copy) is Splines and copy.elements == potential.elements
    assert ms.parameter_values(copy) == ms.parameter_values(potential)


def test_elements_wanted_come_with_their_own_arrays(tmp_path):
    ms.save_potential(two(), tmp_path / "set.toml")
    nickel = ms.load_potential(tmp_path / "set.toml", ["Ni"])
    assert_array_equal(nickel.rho, two().rho[1])
    assert_array_equal(nickel.slope, two().slope[2])
    turned = ms.load_potential(tmp_path / "set.toml", ["Ni", "Cu"])
    assert_array_equal(turned.slope, two().slope[::-1])


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"Ni" = [3.0, 4.0]', '"Ni" = [3.0]',
         r"parameter rho: all entries must have one shape; they have Cu \(2,\), Ni \(1,\)"),
        ('"Ni" = [3.0, 4.0]', '"Ni" = 3.0', r"parameter rho, entry 'Ni' = 3.0: give an array \(knot\)"),
        ('"Ni" = [3.0, 4.0]', '"Ni" = [3.0, "x"]', r"parameter rho, entry 'Ni' = .*: give an array \(knot\)"),
        ("weight = [[0.5], [0.25]]", "weight = [[0.5], [0.25, 1.0]]",
         r"parameter weight = .*: give an array \(n_layers, unit\)"),
        ("slope = [1.0, 2.0]", "slope = 1.0",
         r'parameter slope = 1.0: give one array \(knot\) for all, or a table'),
        ("slope = [1.0, 2.0]", "slope = [1.0, 2.0, 3.0]", "its axis 'knot' has the length 3 and must have 2"),
    ],
)  # fmt: skip
def test_mistake_in_a_file_is_said(tmp_path, old, new, message):
    text = """
form = "Splines"
elements = ["Cu", "Ni"]
[parameters]
slope = [1.0, 2.0]
weight = [[0.5], [0.25]]
scale = 1.5
[parameters.rho]
"Cu" = [1.0, 2.0]
"Ni" = [3.0, 4.0]
"""
    assert old in text
    (tmp_path / "set.toml").write_text(text.replace(old, new))
    with pytest.raises(FileFormatError, match=message):
        ms.load_potential(tmp_path / "set.toml")


def test_long_arrays_are_shown_by_their_ends_and_reached_by_name():
    table = ms.parameter_table(two())
    assert {row.name: row.value for row in table.rows} == ms.parameter_values(two())
    lines = str(table).splitlines()
    assert [line.split()[:2] for line in lines[3:6]] == [
        ["rho[Cu][0]", "0"],
        ["...", "10"],
        ["rho[Cu][11]", "1.1"],
    ]
    assert len(str(ms.parameter_table(two(4))).splitlines()) == 3 + 5 * 4 + 3 + 1


@pytest.mark.parametrize("value", [None, "deep", 1 + 2j, [1.0, [2.0]], True, object()])
def test_a_value_that_is_no_number_is_refused_with_the_value(value):
    with pytest.raises(InputError, match=r"well depth = .*: give a real number.* in the unit eV"):
        ms.LennardJones(value, 3.4, ("Ar",))
    with pytest.raises(InputError, match=r"parameter epsilon = .*: give one real number in eV"):
        ms.replace_parameters(ms.LennardJones(1.0, 3.4, ("Ar",)), {"epsilon": value})


@pytest.mark.parametrize(
    ("elements", "message"),
    [
        (("Ar", "Ar"), r"elements = \('Ar', 'Ar'\) names one twice"),
        (("Ar", "Kx"), "'Kx' is no chemical symbol"),
        ("Ar", r"elements = 'Ar': give a tuple of chemical symbols"),
        (["Ar"], r"elements = \['Ar'\]: give a tuple"),
        ((18,), r"elements = \(18,\): give a tuple"),
        (None, "elements = None: give a tuple"),
    ],
)
def test_elements_that_are_none_are_refused(elements, message):
    with pytest.raises(InputError, match=message):
        ms.LennardJones(1.0, 3.4, elements)
