"""Programs outside JAX: second derivatives by differences, exact products where a program has them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.calculator import Calculator, PropertyNotImplementedError, all_changes
from ase.calculators.emt import EMT
from ase.calculators.lj import LennardJones
from numpy.testing import assert_allclose

import mdsens as ms
from mdsens.errors import InputError, NonFiniteError
from mdsens.potentials.programs.differences import difference

NEWTON = ms.NewtonCG()


def test_the_error_of_a_difference_bounds_it():
    value, error = difference(lambda t: np.sin([1 + t, 3 * t]), 0.1)
    exact = np.array([np.cos(1.0), 3.0])
    assert np.all(np.abs(value - exact) <= error + 1e-14) and error.max() < 1e-8


@pytest.fixture(scope="module")
def copper():
    potential = ms.from_ase(EMT(), elements=("Cu",))
    start = ms.Structure.from_ase(bulk("Cu", a=3.7, cubic=True))
    return ms.relax(potential, start, cell="isotropic", solver=NEWTON)


def stress_of(calculator, atoms, strain):
    strained = atoms.copy()
    strained.set_cell(atoms.cell @ (np.eye(3) + strain), scale_atoms=True)
    strained.calc = calculator
    return strained.get_stress()


def test_a_calculator_relaxes_to_its_own_lattice_and_has_its_own_elastic_constants(copper):
    atoms = copper.structure.to_ase()
    assert_allclose(stress_of(EMT(), atoms, np.zeros((3, 3))), 0.0, atol=1e-9)

    h, stretch, shear = 1e-4, np.diag([1.0, 0, 0]), np.zeros((3, 3))
    shear[1, 2] = shear[2, 1] = 0.5
    slope = lambda e: (stress_of(EMT(), atoms, h * e) - stress_of(EMT(), atoms, -h * e)) / (2 * h)
    C = ms.observables.elastic_constants(copper.potential, copper)
    # the strained stresses differ from straight lines by the square of the strain, some 1e-7 of the slope
    assert_allclose(C[:3, 0], slope(stretch)[:3], rtol=1e-6)
    assert_allclose(C[3, 3], slope(shear)[3], rtol=1e-6)


def test_the_certificate_says_by_differences_and_how_good_they_are(copper):
    certificate = ms.certify(copper)
    assert certificate.is_minimum and 0 < certificate.difference_error < 1e-8
    assert ("second derivatives", f"by differences, ± {certificate.difference_error:.0e} eV/Å²") in (
        certificate.rows()
    )


def test_third_derivatives_are_refused(copper):
    vectors = jnp.ones((4, 3))
    energy = lambda x: copper.potential.energy(copper.structure.at(x), copper.neighbors)
    curvature = lambda x: jnp.vdot(jax.jvp(jax.grad(energy), (x,), (vectors,))[1], vectors)
    with pytest.raises(InputError, match="third derivatives"):
        jax.grad(curvature)(copper.structure.positions)


def set_lengths(calculator, values):
    """All lengths follow sigma."""
    sigma = values["sigma"]
    calculator.parameters.update(epsilon=values["epsilon"], sigma=sigma, rc=2.0 * sigma, ro=1.6 * sigma)


def test_derivatives_by_the_parameters_of_a_calculator_are_those_of_dimensions():
    argon = ms.Structure.from_ase(bulk("Ar", a=5.3))
    potential = ms.from_ase(
        LennardJones(smooth=True),
        elements=("Ar",),
        parameters={"sigma": 3.4, "epsilon": 0.0104},
        set_parameters=set_lengths,
    )

    def volume(p):
        return ms.volume(ms.relax(p, argon, cell="isotropic", solver=NEWTON).structure)

    value, slope = jax.value_and_grad(volume)(potential)
    # sigma is the only length, and epsilon the only energy: V = c sigma^3
    assert_allclose(slope.parameters["sigma"], 3 * value / 3.4, rtol=1e-7)
    assert_allclose(slope.parameters["epsilon"] * 0.0104, 0.0, atol=1e-6 * value)
    one = jax.tree.map(jnp.zeros_like, potential)
    one = ms.replace_parameters(one, {"sigma": 1.0})
    assert_allclose(jax.jvp(volume, (potential,), (one,))[1], slope.parameters["sigma"], rtol=1e-7)
    assert_allclose(
        jax.grad(ms.energy)(potential, argon).parameters["epsilon"] * 0.0104,
        ms.energy(potential, argon),
        rtol=1e-8,
    )


class Spring:
    """k/2 (r - L)^2 between two atoms, with every derivative that a program can bring."""

    def energy_and_gradient(self, situation):
        k, L = (situation.parameters[name] for name in ("k", "L"))
        d = situation.positions[1] - situation.positions[0]
        r = np.linalg.norm(d)
        pull = k * (r - L) * d / r
        return 0.5 * k * (r - L) ** 2, np.array([-pull, pull]), None


class ExactSpring(Spring):
    def hessian_product(self, situation, dx, dcell):
        k, L = (situation.parameters[name] for name in ("k", "L"))
        d = situation.positions[1] - situation.positions[0]
        r = np.linalg.norm(d)
        e = np.outer(d, d) / r**2
        change = k * (e + (1 - L / r) * (np.eye(3) - e)) @ (dx[1] - dx[0])
        return np.array([-change, change]), np.zeros((3, 3))

    def parameter_gradient(self, situation):
        k, L = (situation.parameters[name] for name in ("k", "L"))
        r = np.linalg.norm(situation.positions[1] - situation.positions[0])
        return {"k": 0.5 * (r - L) ** 2, "L": -k * (r - L)}

    def parameter_pullback(self, situation, dx, dcell):
        k, L = (situation.parameters[name] for name in ("k", "L"))
        d = situation.positions[1] - situation.positions[0]
        r = np.linalg.norm(d)
        along = d @ (dx[1] - dx[0]) / r
        return {"k": (r - L) * along, "L": -k * along}


def test_exact_products_of_a_program_are_used_and_agree_with_differences():
    dimer = ms.Structure.create([[0, 0, 0], [1.2, 0.4, 0.3]], ["Ar", "Ar"])
    exact, rough = (ms.from_program(p, parameters={"k": 2.0, "L": 1.1}) for p in (ExactSpring(), Spring()))
    neighbors = ms.neighbors_of(exact, dimer)
    rng = np.random.default_rng(0)
    v, w = jnp.asarray(rng.normal(size=(2, 2, 3)))

    def all_of(potential):
        forces = lambda p, x: jax.grad(lambda x: p.energy(dimer.at(x), neighbors))(x)
        x = dimer.positions
        product = jax.jit(lambda x: jax.jvp(lambda x: forces(potential, x), (x,), (v,))[1])(x)
        back = jax.vjp(lambda x: forces(potential, x), x)[1](v)[0]
        by_parameters = jax.vjp(lambda p: forces(p, x), potential)[1](w)[0].parameters
        unit = ms.replace_parameters(potential, {"k": 1.0, "L": 1.0})
        pushed = jax.jvp(lambda p: forces(p, x), (potential,), (unit,))[1]
        rows = jax.vmap(lambda v: jax.jvp(lambda x: forces(potential, x), (x,), (v,))[1])(jnp.stack([v, w]))
        twice = jax.hessian(lambda L: ms.replace_parameters(potential, {"L": L}).energy(dimer, neighbors))(
            1.1
        )
        return product, back, *by_parameters.values(), pushed, rows, twice

    for a, b in zip(all_of(exact), all_of(rough), strict=True):
        assert_allclose(a, b, rtol=1e-7, atol=1e-9)
    length = lambda p: jnp.linalg.norm(
        jnp.diff(ms.relax(p, dimer, solver=NEWTON).structure.positions, axis=0)
    )
    slope = jax.grad(length)(exact).parameters
    assert_allclose([slope["L"], slope["k"]], [1.0, 0.0], atol=1e-7)
    assert np.isnan(ms.certify(ms.relax(exact, dimer, solver=NEWTON)).difference_error)


def test_a_report_on_a_program_has_its_parameters_and_says_how_they_were_found():
    dimer = ms.Structure.create([[0, 0, 0], [1.2, 0.4, 0.3]], ["Ar", "Ar"])
    potential = ms.from_program(Spring(), parameters={"k": 2.0, "L": 1.1})
    length = lambda _, states: (jnp.linalg.norm(jnp.diff(states["structure"].structure.positions, axis=0)),)
    apart = ms.Observable(names=("length",), units=("Å",), function=length)
    report = ms.sensitivities([apart], potential, dimer, second_order=False)
    order = [report.parameters.index(name) for name in ("k", "L")]
    assert_allclose(report.values, [1.1], rtol=1e-8)
    # the spring at rest is as long as L, however stiff; a stretched one would not be at rest
    assert_allclose((report.clamped + report.relaxation)[0, order], [0.0, 1.0], atol=1e-6)
    assert report.certificate["structure"].difference_error < 1e-6


class Fake(Calculator):
    """Springs to fixed places, with faults."""

    implemented_properties = ("energy", "forces")

    def __init__(self, *, forces=True, scale=1.0, extra=0, dtype=float):
        super().__init__()
        self.faults = forces, scale, extra, dtype

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        forces, scale, extra, dtype = self.faults
        if "stress" in properties or ("forces" in properties and not forces):
            raise PropertyNotImplementedError
        x = np.sin(self.atoms.positions)
        self.results = {"energy": scale * np.sum(x**2) / 2}
        gradient = scale * x * np.cos(self.atoms.positions)
        self.results["forces"] = np.concatenate([-gradient, np.zeros((extra, 3))]).astype(dtype)


@pytest.mark.parametrize(
    ("faults", "error", "message"),
    [
        ({"forces": False}, InputError, "gives no forces"),
        ({"scale": np.nan}, NonFiniteError, "from the calculator Fake is not finite"),
        ({"extra": 1}, InputError, r"shape \(3, 3\) for 2 atoms"),
        ({"dtype": np.float32}, InputError, "forces in float32"),
    ],
)
def test_what_a_calculator_cannot_do_is_said_before_anything_runs(faults, error, message):
    dimer = ms.Structure.create([[0, 0, 0.1], [0.2, 0, 1.0]], ["Ar", "Ar"])
    with pytest.raises(error, match=message):
        ms.relax(ms.from_ase(Fake(**faults)), dimer)


def test_without_a_stress_the_cell_is_held_or_differences_are_asked_for():
    crystal = ms.Structure.create([[0, 0, 0.1], [0.2, 0, 1.0]], ["Ar", "Ar"], np.eye(3) * 4)
    with pytest.raises(InputError, match="stress='by differences'"):
        ms.energy_forces_stress(ms.from_ase(Fake()), crystal)
    with pytest.raises(InputError, match="gives no stress"):
        ms.relax(ms.from_ase(Fake()), crystal, cell="full", solver=NEWTON)
    forces = jax.grad(lambda x: ms.energy(ms.from_ase(Fake()), crystal.at(x)))(crystal.positions)
    assert_allclose(forces, np.sin(crystal.positions) * np.cos(crystal.positions), atol=1e-15)


def test_stress_by_differences_is_that_of_the_calculator():
    atoms = bulk("Cu", a=3.65, cubic=True)
    atoms.rattle(0.05, seed=1)
    structure = ms.Structure.from_ase(atoms)
    rough = ms.energy_forces_stress(ms.from_ase(EMT(), stress="by differences"), structure)
    assert_allclose(rough.stress, ms.energy_forces_stress(ms.from_ase(EMT()), structure).stress, atol=1e-9)


def test_a_noisy_calculator_is_taken_with_its_noise():
    dimer = ms.Structure.create([[0, 0, 0.1], [0.2, 0, 1.0]], ["Ar", "Ar"])
    potential = ms.from_ase(Fake(dtype=np.float32), noise=1e-7)
    x = dimer.positions
    forces = jax.grad(lambda x: ms.energy(potential, dimer.at(x)))
    product = jax.jvp(forces, (x,), (jnp.ones_like(x),))[1]
    assert_allclose(product, np.cos(2 * x), atol=1e-4)


def test_a_slab_without_a_vector_and_arguments_that_make_no_sense_are_refused():
    sheet = ms.Structure.create(
        np.zeros((1, 3)), ["Cu"], [[2.5, 0, 0], [0, 2.5, 0], [0, 0, 0]], pbc=[1, 1, 0]
    )
    with pytest.raises(InputError, match="cell vector of length zero"):
        ms.energy(ms.from_ase(EMT()), sheet)
    cases = [
        (lambda: ms.from_ase(EMT), "no ASE calculator"),
        (lambda: ms.from_ase(EMT(), parameters={"E0": 1.0}), "belong together"),
        (lambda: ms.from_ase(EMT(), stress="none"), "stress = 'none'"),
        (lambda: ms.from_ase(EMT(), noise=-1.0), "noise = -1.0"),
        (lambda: ms.from_program(EMT()), "ms.from_ase"),
        (lambda: ms.from_program(Spring(), parameters={"k": "stiff"}), "give a number"),
    ]
    for build, message in cases:
        with pytest.raises(InputError, match=message):
            build()
