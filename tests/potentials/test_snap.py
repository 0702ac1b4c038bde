"""SNAP: the bispectrum of papers, LAMMPS' numbers, and coefficients that energies are linear in."""

import dataclasses
import math

import numpy as np
import pytest
import references
from numpy.testing import assert_allclose

import mdsens as ms
from mdsens.potentials.shells import ShellPotential
from mdsens.potentials.snap import count_coefficients, triples
from mdsens.strain import to_voigt


def small(elements=("W",), twojmax=2, **settings):
    """A SNAP with few components and coefficients at random."""
    densities = len(elements) if settings.get("chem") else 1
    n = count_coefficients(densities, twojmax, settings.get("quadratic", False))
    beta = np.random.default_rng(4).normal(size=(len(elements), n))
    return ms.SNAP(
        beta[0] if len(elements) == 1 else beta,
        elements=elements,
        twojmax=twojmax,
        rcutfac=3.0,
        radii=(0.5, 0.4)[: len(elements)],
        weights=(1.0, 0.7)[: len(elements)],
        **settings,
    )


def cluster(symbols=("W",) * 5):
    positions = np.random.default_rng(1).normal(scale=1.1, size=(len(symbols), 3))
    return ms.Structure.create(positions, list(symbols))


# --- the formula of the papers, in plain numpy


def clebsch_gordan(a, b, c):
    """C^{c m}_{a m1 b m2} for doubled spins, as {(m1, m2): value} of doubled projections (Racah)."""
    f = lambda doubled: math.factorial(doubled // 2)
    triangle = f(a + b - c) * f(a - b + c) * f(-a + b + c) / f(a + b + c + 2)
    found = {}
    for m1 in range(-a, a + 1, 2):
        for m2 in range(-b, b + 1, 2):
            m = m1 + m2
            if abs(m) > c:
                continue
            outer = (c + 1) * f(a + m1) * f(a - m1) * f(b + m2) * f(b - m2) * f(c + m) * f(c - m)
            total = 0.0
            for k in range(0, a + b + c + 1, 2):
                below = (k, a + b - c - k, a - m1 - k, b + m2 - k, c - b + m1 + k, c - a - m2 + k)
                if min(below) >= 0:
                    total += (-1) ** (k // 2) / math.prod(map(f, below))
            found[m1, m2] = math.sqrt(triangle * outer) * total
    return found


def wigner(twoj, z, w):
    """The matrix of the rotation with Cayley-Klein parameters (z, w) on homogeneous polynomials."""
    size = twoj + 1
    matrix = np.zeros((size, size), complex)
    norm = [math.sqrt(math.comb(twoj, k)) for k in range(size)]
    for k in range(size):  # (z u + w v)^k (-w* u + z* v)^(2j - k), a polynomial in u
        powers = np.poly1d([1.0])
        for factor, count in ((np.poly1d([z, w]), k), (np.poly1d([-np.conj(w), np.conj(z)]), twoj - k)):
            powers = powers * factor**count
        coefficients = np.zeros(size, complex)
        coefficients[size - len(powers.coeffs) :] = powers.coeffs
        matrix[k] = coefficients[::-1] * norm[k] / norm
    return matrix


def bispectrum_of_papers(potential, vectors):
    """Components of an atom: sums of U U U* with Clebsch-Gordan coefficients (Thompson et al., eq. 8)."""
    U = [np.eye(degree + 1, dtype=complex) for degree in range(potential.twojmax + 1)]
    for x, y, z in vectors:
        r, reach = np.linalg.norm((x, y, z)), float(potential.cutoff)
        t = potential.rfac0 * np.pi * r / reach
        weight = 0.5 * (1 + np.cos(np.pi * r / reach))
        point = np.array([x, y, z]) * np.sin(t) / r
        for degree, matrix in enumerate(U):
            matrix += weight * wigner(degree, np.cos(t) + 1j * point[2], point[1] + 1j * point[0])
    found = []
    for a, b, c in triples(potential.twojmax):
        C = clebsch_gordan(a, b, c)
        place = lambda m, degree: (m + degree) // 2
        found.append(
            sum(
                v * v2 * U[a][place(m1, a), place(n1, a)] * U[b][place(m2, b), place(n2, b)]
                * np.conj(U[c][place(m1 + m2, c), place(n1 + n2, c)])
                for (m1, m2), v in C.items()
                for (n1, n2), v2 in C.items()
            ).real
        )  # fmt: skip
    return found


def test_integral_over_the_sphere_is_the_sum_over_clebsch_gordan_coefficients():
    potential, structure = small(twojmax=5, bzero=False), cluster()
    vectors = np.asarray(structure.positions)[1:] - np.asarray(structure.positions)[0]
    near = vectors[np.linalg.norm(vectors, axis=1) < float(potential.cutoff)]
    assert len(near) >= 3
    mine = potential.bispectrum(structure, ms.neighbors_of(potential, structure))[0]
    assert_allclose(mine, bispectrum_of_papers(potential, near), rtol=1e-11, atol=1e-11)


# --- numbers of LAMMPS


@pytest.fixture(scope="module")
def tungsten():
    return ms.load_potential("w-snap-2017")


def test_energy_forces_and_stress_of_tungsten_are_those_of_lammps(tungsten):
    case = references.table("snap")["snap-w-rattled-54"]
    mine = ms.energy_forces_stress(tungsten, references.structure(case))
    values = {name: np.asarray(record["value"]) for name, record in case["values"].items()}
    # a thousandth of what the two codes' sums differ by otherwise
    assert_allclose(mine.energy, values["energy"], rtol=1e-12)
    assert_allclose(mine.forces, values["forces"], atol=1e-11 * np.abs(values["forces"]).max())
    assert_allclose(to_voigt(mine.stress), values["stress"], atol=1e-11 * np.abs(values["stress"]).max())


def test_energy_is_linear_in_all_coefficients_with_the_slopes_of_lammps(tungsten):
    case = references.table("snap")["snap-w-rattled-54"]
    structure = references.structure(case)
    snap = tungsten.parts[1]
    descriptors = snap.bispectrum(structure, ms.neighbors_of(snap, structure))
    sums = np.concatenate([[structure.n_atoms], np.sum(descriptors, axis=0)])
    for k, beta in enumerate(np.asarray(snap.beta)):
        references.assert_agrees(beta * sums[k], case["sensitivities"]["energy"][f"c{k}"], f"c{k}")


# --- second derivatives


SLOW_TO_COMPILE = pytest.param(("W",), 3, marks=pytest.mark.validation)


@pytest.mark.parametrize(("elements", "twojmax"), [SLOW_TO_COMPILE, (("W", "Be"), 2)])
def test_curvatures_of_a_shell_by_harmonics_are_those_along_each_direction(elements, twojmax):
    potential = small(elements, twojmax)
    structure = cluster((elements * 5)[:5])
    around = potential._surroundings(structure, ms.neighbors_of(potential, structure))
    rows = around.all_rows(structure.positions)
    mine = potential.shell_curvatures(structure, around, rows)
    assert_allclose(mine, ShellPotential.shell_curvatures(potential, structure, around, rows), atol=1e-11)


# --- what the settings mean


def test_atom_alone_has_the_constant_as_its_energy_with_bzero():
    alone = ms.Structure.create([[0.0, 0.0, 0.0]], ["W"])
    assert ms.energy(small(), alone) == pytest.approx(float(small().beta[0]), abs=1e-13)
    kept = small(bzero=False)
    factors = np.array([c + 1 for *_, c in triples(2)])  # of an atom alone, whose integrals are all 1
    expected = float(kept.beta[0] + kept.beta[1:] @ factors)
    assert ms.energy(kept, alone) == pytest.approx(expected, rel=1e-13)


def test_one_density_for_all_elements_is_the_sum_of_their_densities():
    # In sums over all triples of densities each counts alike, if the coefficients do not depend on them.
    structure = cluster(("W", "Be", "W", "Be", "W"))
    both = small(("W", "Be"), bzero=False)
    apart = small(("W", "Be"), bzero=False, chem=True)
    beta = np.concatenate([both.beta[:, :1], np.tile(both.beta[:, 1:], (1, 8))], axis=1)
    apart = dataclasses.replace(apart, beta=beta)
    assert ms.energy(apart, structure) == pytest.approx(float(ms.energy(both, structure)), rel=1e-12)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"radii": (0.5, 0.5)}, "radii .* give one for each of W"),
        ({"radii": (0.0,)}, "the radius of W = 0.0: it must be .*above 0"),
        ({"rmin0": 4.0}, "rmin0 = 4.0: .*at most 3"),
        ({"twojmax": 3}, "beta has 6 coefficients an element; linear SNAP with twojmax = 3 has 9"),
        ({"quadratic": True}, "beta has 6 coefficients .*quadratic SNAP with twojmax = 2 has 21"),
        ({"elements": ()}, "SNAP needs elements"),
    ],
)
def test_settings_that_have_no_meaning_are_refused(changes, message):
    with pytest.raises(ms.errors.InputError, match=message):
        dataclasses.replace(small(), **changes)


# --- files

SETTINGS = "# ours\nrcutfac 3.0\ntwojmax 2\nbzeroflag 0\n"
HEAD = "# DATE: today UNITS: metal CITATION: us\n\n"


def files(folder, coefficients=None, settings=SETTINGS):
    numbers = "".join(f"{k / 10}  # B[{k}]\n" for k in range(6))
    written = HEAD + f"1 6\nW 0.5 1\n{numbers}" if coefficients is None else coefficients
    (folder / "W.snapcoeff").write_text(written)
    (folder / "W.snapparam").write_text(settings)
    return folder / "W.snapcoeff"


def test_settings_stand_beside_the_coefficients(tmp_path):
    potential = ms.load_potential(files(tmp_path))
    assert (potential.source, potential.bzero, potential.twojmax) == ("us", False, 2)
    assert_allclose(potential.beta, np.arange(6) / 10)
    (tmp_path / "W.snapparam").rename(tmp_path / "other.snapparam")
    with pytest.raises(ms.errors.FileFormatError, match=r"'W.snapparam', is not beside it\. Name it"):
        ms.load_potential(tmp_path / "W.snapcoeff")
    named = ms.read_snap(tmp_path / "W.snapcoeff", settings=tmp_path / "other.snapparam")
    assert_allclose(named.beta, potential.beta)


@pytest.mark.parametrize(
    ("coefficients", "settings", "message"),
    [
        ("", SETTINGS, "the file is empty"),
        ("1\nW 0.5 1\n1\n", SETTINGS, "line 1: 1 columns; it must be 2: number of elements, coeff"),
        ("1 6\nW 0.5 1\n1\n2\n", SETTINGS, "line 1: 1 elements with 6 coefficients .* 7 lines, and 3"),
        ("1 2\nW 0.5 1\n1\nx\n", SETTINGS, "line 4, column 1: 'x' stands where coefficient 1 of W"),
        ("1 2\nW 0.5 1\n1\nnan\n", SETTINGS, "line 4, column 1: coefficient 1 of W is nan"),
        ("1 2\nW 0.5 1\n1 2\n3\n", SETTINGS, "line 3: 2 columns; it must be 1: coefficient 0 of W"),
        ("1 1\nW 0.5\n1\n", SETTINGS, "line 2: 2 columns; it must be 3: element, radius, weight"),
        ("1 1\nWo 0.5 1\n1\n", SETTINGS, "line 2, column 1: 'Wo' is no chemical symbol"),
        ("2 1\nW 0.5 1\n1\nW 0.5 1\n1\n", SETTINGS, "line 4, column 1: the element W stands twice"),
        ("1.5 1\nW 0.5 1\n1\n", SETTINGS, "line 1, column 1: the number of elements is 1.5"),
        ("1 2\nW 0.5 1\n1\n2\n", SETTINGS, "beta has 2 coefficients an element; .* has 6"),
        (None, "rcutfac 3.0\n", "the setting twojmax is missing"),
        (None, SETTINGS + "rfac 1\n", "line 5, column 1: unknown setting 'rfac'. Did you mean 'rfac0'"),
        (None, SETTINGS + "chemflag 2\n", "line 5, column 2: chemflag is 2; it must be 0 or 1"),
        (None, SETTINGS + "switchinnerflag 1\n", "line 5, column 1: switchinnerflag 1 .* not supported"),
        (None, SETTINGS + "rmin0 x\n", "line 5, column 2: 'x' stands where rmin0 belongs"),
        (None, SETTINGS + "rmin0\n", "line 5: 1 columns; it must be 2: name of a setting, value"),
    ],
)
def test_bad_file_is_refused_with_line_and_column(tmp_path, coefficients, settings, message):
    with pytest.raises(ms.errors.FileFormatError, match=message):
        ms.load_potential(files(tmp_path, coefficients, settings))


def test_components_of_triples_of_elements_need_the_elements_of_the_file(tmp_path):
    rows = "".join(f"{e} 0.5 1\n" + "0.1\n" * 41 for e in ("In", "P"))
    file = files(tmp_path, "2 41\n" + rows, SETTINGS + "chemflag 1\n")
    assert ms.load_potential(file).elements == ("In", "P")
    with pytest.raises(ms.errors.InputError, match="must be those of the file in its order: In, P"):
        ms.load_potential(file, ["P", "In"])


def test_written_and_read_again_it_is_the_same(tmp_path):
    potential = small(("W", "Be"), chem=True)
    ms.save_potential(potential, tmp_path / "snap.toml")
    again = ms.load_potential(tmp_path / "snap.toml")
    for field in dataclasses.fields(potential):
        assert np.array_equal(getattr(again, field.name), getattr(potential, field.name)), field.name
