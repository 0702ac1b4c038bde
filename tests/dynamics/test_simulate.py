"""Molecular dynamics: exact solutions of the integrators, conservation laws, and averages in a bath."""

import re

import ase
import ase.units
import equinox as eqx
import jax.numpy as jnp
import numpy as np
import peroxide
import pytest
from ase.data import atomic_masses
from ase.md.verlet import VelocityVerlet
from jaxtyping import Array
from numpy.testing import assert_allclose

from mdsens.calculators import FlowCalculator
from mdsens.dynamics import Movable, Trajectory, langevin, nve
from mdsens.errors import InputError, NonFiniteError, OutputExistsError
from mdsens.units import ACCELERATION, BOLTZMANN

pytest.importorskip("jax_md", reason="jax-md is not installed")

START = peroxide.positions()


@pytest.fixture(scope="module")
def generator():
    return peroxide.generator()


class Springs(eqx.Module):
    """Each atom on a spring to the origin."""

    stiffness: Array  # kT / nm²

    def __call__(self, positions):
        return 0.5 * self.stiffness * jnp.sum(positions**2)


def springs(stiffness: float = 20_000.0) -> Movable:
    return Movable(Springs(jnp.asarray(stiffness)), peroxide.SPECIES, peroxide.TEMPERATURE)


# one program for both
SPRING, FREE = springs(), springs(0.0)
MANY = 1000


def test_springs_swing_as_the_difference_equation_of_verlet_says():
    run = nve(SPRING, START, velocities=np.zeros((4, 3)), steps=300, record_every=3, timestep=0.7)
    # x'' = -w² x,  w² = k / m. From rest, Verlet gives x_n = x_0 cos(n a) with cos a = 1 - (w dt)² / 2, for
    # any dt.
    # Here in SI, k = 20 000 kT / nm².
    k = 20_000 * 1.380649e-23 * peroxide.TEMPERATURE / 1e-18
    w = np.sqrt(k / (atomic_masses[list(peroxide.SPECIES)] * 1.66053906660e-27)) * 1e-15  # 1/fs
    phase = np.arccos(1 - (w * 0.7) ** 2 / 2)
    exact = START * np.cos(3 * np.arange(101)[:, None] * phase)[..., None]
    # constants of ten digits, over 300 steps of phase ~ 0.3: 1e-10 * 100 rad * 2 Å
    assert_allclose(run.positions, exact, atol=3e-8)
    assert_allclose(run.time, np.arange(101) * 2.1)
    assert_allclose(run.potential, 0.5 * k * 1e-20 / 1.602176634e-19 * (exact**2).sum((1, 2)), atol=1e-6)


def test_friction_alone_slows_exponentially():
    many = np.tile(START, (MANY, 1, 1))
    v = 0.01 * np.random.default_rng(0).normal(size=many.shape)
    run = langevin(
        FREE, many, velocities=v, temperature=0.0, friction=0.03, timestep=0.5, steps=200, record_every=20
    )
    # without force and noise BAOAB multiplies velocities by exp(-friction dt): 200 roundings of 1e-16
    assert_allclose(run.velocities, v * np.exp(-0.03 * run.time)[:, None, None, None], rtol=1e-12)


def test_energy_of_a_smooth_flow_is_conserved_to_the_square_of_the_timestep(generator):
    coarse, fine = (
        nve(generator, START, steps=round(200 / dt), record_every=round(0.8 / dt), timestep=dt, seed=1)
        for dt in (0.4, 0.2)
    )
    assert_allclose(coarse.time, fine.time)
    # The next order is (w dt)² / 12 ~ 1 % for the bonds' w = 0.65 / fs.
    assert_allclose(coarse.drift().fluctuation / fine.drift().fluctuation, 4, rtol=0.03)
    # The shadow Hamiltonian differs by (w dt)² / 24 of the bonds' energy, each about kT: 2.5 kJ/mol * 0.07 /
    # 24 = 7e-3 kJ/mol per bond; and there is no drift.
    assert coarse.drift().fluctuation < 7e-3
    assert abs(coarse.total[-50:].mean() - coarse.total[:50].mean()) < 0.3 * coarse.total.std()


def test_momentum_and_angular_momentum_are_conserved(generator):
    run = nve(generator, START, steps=500, record_every=1, timestep=0.4, seed=1)
    p = run.masses[:, None] * run.velocities
    spin = np.cross(run.positions, p).sum(1)
    assert np.abs(spin[0]).max() > 0.01
    # Verlet conserves both exactly: 500 roundings of 1e-16 * 0.1 u Å/fs, times 3 Å
    assert_allclose(p.sum(1), 0, atol=1e-13)
    assert_allclose(spin, np.tile(spin[0], (501, 1)), atol=1e-13)


def test_time_runs_backwards_with_velocities_reversed(generator):
    there = nve(generator, START, steps=250, record_every=1, timestep=0.4, seed=1)
    back = nve(
        generator,
        there.positions[-1],
        velocities=-there.velocities[-1],
        steps=250,
        record_every=1,
        timestep=0.4,
    )
    # rounding grows with the distance of neighboring trajectories, a thousandfold at most in 100 fs
    assert_allclose(back.positions[::-1], there.positions, atol=1e-10)
    assert_allclose(back.velocities[::-1], -there.velocities, atol=1e-11)


def test_ase_takes_the_same_steps(generator):
    run = nve(generator, START, steps=50, record_every=1, timestep=0.5, seed=2)
    atoms = ase.Atoms(peroxide.SPECIES, START, calculator=FlowCalculator(generator))
    fs = np.sqrt(ACCELERATION)  # ase.units.fs is of an older CODATA: 1e-8 off
    assert_allclose(fs, ase.units.fs, rtol=3e-8)
    atoms.set_velocities(run.velocities[0] / fs)
    positions, energies = [], []
    dynamics = VelocityVerlet(atoms, 0.5 * fs)
    dynamics.attach(
        lambda: (positions.append(atoms.get_positions()), energies.append(atoms.get_total_energy()))
    )
    dynamics.run(50)
    # the same formulas in other units: rounding
    assert_allclose(run.positions, positions, atol=1e-11)
    assert_allclose(run.total, energies, rtol=1e-10)


def test_a_bath_shares_energy_equally():
    start = np.tile(START, (MANY, 1, 1))
    run = langevin(
        SPRING,
        start,
        velocities=0 * start,
        temperature=400.0,
        friction=0.05,
        timestep=0.5,
        steps=1200,
        record_every=200,
    )
    assert run.kinetic[0].max() == 0
    # What was put in at the start is gone as exp(-0.05 * 300) after 300 fs; the four records since are 100 fs
    # apart, independent. kT / 2 for each coordinate and each velocity, all of the relative variance 2; in
    # positions BAOAB of springs is exact, in velocities it is off by (w dt)² / 4 < 0.4 % with w < 0.23 / fs.
    kT, error = BOLTZMANN * 400.0, 4 * np.sqrt(2 / (4 * 3 * MANY))
    squares = (run.positions[3:] ** 2).mean((0, 1, 3))
    k = 20_000 * BOLTZMANN * peroxide.TEMPERATURE / 10**2  # eV/Å²
    assert_allclose(k * squares, kT, rtol=error)
    assert_allclose(
        run.masses * (run.velocities[3:] ** 2).mean((0, 1, 3)) / ACCELERATION, kT, rtol=error + 4e-3
    )
    assert_allclose(run.temperatures[3:].mean(), 400.0, rtol=error / 2 + 4e-3)
    assert_allclose(run.temperatures[3:].std() / 400.0, np.sqrt(2 / 12), rtol=0.1)


@pytest.mark.validation
def test_a_bath_gives_the_molecule_the_distribution_of_the_flow(generator):
    replicas, freedom = 100, 12
    # all start from one arrangement, at rest; 300 fs are six times the time of the friction
    start = np.tile(START, (replicas, 1, 1))
    run = langevin(
        generator, start, velocities=0 * start, friction=0.02, timestep=0.4, steps=2250, record_every=75
    )
    assert run.kinetic[0].max() == 0
    # 21 records, 30 fs apart: correlated over about 50 fs, as good as 10 independent ones
    samples = 10 * replicas
    settled = run.temperatures[10:]
    # the relative variance of a temperature is 2 / freedom; BAOAB's own error is (w dt)² / 4 = 2 % in the
    # bonds' 3 of 12
    assert_allclose(
        settled.mean(), peroxide.TEMPERATURE, rtol=4 * np.sqrt(2 / freedom / samples) + 0.25 * 0.02
    )
    assert_allclose(settled.std() / peroxide.TEMPERATURE, np.sqrt(2 / freedom), rtol=0.1)
    # In positions BAOAB of springs is exact. The flow's distribution, from normal numbers and the volume
    # element:
    z = np.random.default_rng(1).normal(size=(200_000, 5))
    width = np.array([peroxide.BOND_WIDTH] * 3 + [peroxide.ANGLE_WIDTH] * 2)
    x = np.array([peroxide.OH, peroxide.OO, peroxide.OH] + [peroxide.ANGLE] * 2) + width * z
    exact = (0.5 * z**2 + np.log(np.sqrt(2 * np.pi) * width)).sum(1) + np.log(2 * np.pi)
    exact += 2 * np.log(x[:, :3]).sum(1) + np.log(np.sin(x[:, 3:])).sum(1)
    reduced = run.potential[10:] / (BOLTZMANN * peroxide.TEMPERATURE)
    assert_allclose(reduced.mean(), exact.mean(), atol=4 * exact.std() / np.sqrt(samples))
    assert_allclose(reduced.std(), exact.std(), rtol=0.1)


def test_velocities_are_drawn_from_maxwell_with_the_center_of_mass_at_rest():
    many = np.tile(START, (MANY, 1, 1))
    run = nve(FREE, many, steps=1, record_every=1, temperature=500.0)
    v, m = run.velocities[0], run.masses
    assert_allclose((m[:, None] * v).sum(1), 0, atol=1e-14)
    # m <v²> = kT (1 - m / M) for each component: what the center of mass takes, each atom loses in proportion
    kT = BOLTZMANN * 500.0 * ACCELERATION
    assert_allclose(m * (v**2).mean((0, 2)), kT * (1 - m / m.sum()), rtol=4 * np.sqrt(2 / (3 * MANY)))
    assert_allclose(run.temperatures[0].mean(), 500.0, rtol=4 * np.sqrt(2 / (9 * MANY)))
    assert_allclose(run.positions[1] - run.positions[0], v, atol=1e-14)  # 1 fs of free flight
    # with a bath, the center of mass moves as well
    bath = langevin(FREE, many, steps=1, record_every=1, temperature=500.0)
    assert_allclose(m * (bath.velocities[0] ** 2).mean((0, 2)), kT, rtol=4 * np.sqrt(2 / (3 * MANY)))


@pytest.mark.parametrize("run", [nve, langevin])
def test_a_seed_gives_the_same_run_bit_for_bit_and_replicas_do_not_depend_on_each_other(run):
    many = np.tile(START, (MANY, 1, 1))
    first, second, other = (run(SPRING, many, steps=60, record_every=4, seed=seed) for seed in (5, 5, 6))
    for name in ("positions", "velocities", "potential", "kinetic"):
        assert np.array_equal(getattr(first, name), getattr(second, name))
        assert not np.array_equal(getattr(first, name)[-1], getattr(other, name)[-1])
    assert first.positions.shape == (16, MANY, 4, 3) and first.total.shape == (16, MANY)
    assert not np.allclose(first.positions[-1, 0], first.positions[-1, 1])
    many[1:] *= 1.1
    among_others = run(SPRING, many, steps=60, record_every=4, seed=5)
    assert np.array_equal(among_others.positions[:, 0], first.positions[:, 0])
    assert not np.array_equal(among_others.positions[:, 1], first.positions[:, 1])


def test_a_run_alone_is_the_first_of_many():
    alone, many = (
        nve(SPRING, start, steps=60, record_every=4, seed=5)
        for start in (START, np.tile(START, (MANY, 1, 1)))
    )
    assert alone.positions.shape == (16, 4, 3) and alone.total.shape == (16,)
    # compiled for another number of replicas: rounding
    assert_allclose(alone.positions, many.positions[:, 0], atol=1e-12)


def test_a_run_goes_on_from_its_last_record_and_reports_on_the_way():
    seen = []
    whole = nve(SPRING, START, steps=600, record_every=2, seed=1, progress=seen.append)
    half = nve(SPRING, START, steps=300, record_every=2, seed=1)
    rest = nve(SPRING, half.positions[-1], velocities=half.velocities[-1], steps=300, record_every=2)
    assert_allclose(rest.positions, whole.positions[150:], atol=1e-11)
    steps = [report.step for report in seen]
    assert steps == sorted(set(steps)) and steps[-1] == 600 == seen[-1].steps
    last = seen[-1]
    assert (last.time, last.potential, last.total) == pytest.approx(
        (600.0, whole.potential[-1], whole.total[-1]), rel=1e-14
    )
    assert last.temperature == pytest.approx(whole.temperatures[-1], rel=1e-14)


def test_a_run_that_leaves_the_range_of_the_energy_stops_there_and_keeps_what_it_had():
    wall = Movable(lambda x: jnp.sum(jnp.where(x[:, 0] > 0.5, jnp.nan, 0.0) * x[:, 0]), (18, 18), 300.0)
    x = np.array([[[0.0, 0, 0], [0, 3.0, 0]], [[1.999, 0, 0], [0, 3.0, 0]]])
    v = np.zeros_like(x)
    v[:, 0, 0] = 0.1
    # replica 1 goes 0.1 Å a step: after 30 steps it is at 4.999 Å, after 31 behind the wall
    with pytest.raises(
        NonFiniteError, match=re.escape("atom 0 of replica 1 is not finite at step 31 (31 fs)")
    ) as caught:
        nve(wall, x, velocities=v, steps=100, record_every=4)
    partial = caught.value.partial
    assert isinstance(partial, Trajectory)
    assert_allclose(partial.time, np.arange(0, 29, 4))
    assert_allclose(partial.positions[-1, 1, 0, 0], 1.999 + 2.8, rtol=1e-12)
    assert np.isfinite(partial.total).all()
    x[0, 0, 0] = 6.0
    with pytest.raises(NonFiniteError, match=r"atom 0 of replica 0 is not finite at the start"):
        nve(wall, x, velocities=v, steps=100)


def _with(index, value):
    array = START.copy()
    array[index] = value
    return array


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"positions": _with((2, 1), np.nan)}, NonFiniteError, r"positions: atom 2 has"),
        ({"positions": START[:3]}, InputError, r"give \(4, 3\)"),
        ({"positions": START / 10}, InputError, r"multiply them by 10"),
        (
            {"positions": np.stack([START, _with(1, START[0])])},
            InputError,
            r"atoms 0 and 1 of replica 1 are 0 Å apart",
        ),
        ({"velocities": np.zeros((2, 4, 3))}, InputError, r"must be the same"),
        ({"velocities": np.full((4, 3), np.inf)}, NonFiniteError, r"velocities: atom 0"),
        ({"masses": [1.0, 16.0, 16.0, 0.0]}, InputError, r"give 4 positive ones"),
        ({"temperature": -1.0}, InputError, r"temperature = -1.0: it must be finite and at least 0"),
        ({"timestep": 0.0}, InputError, r"timestep = 0.0: it must be"),
        ({"steps": 25}, InputError, r"no multiple of record_every = 10.*Take 30 steps"),
        ({"seed": -1}, InputError, r"seed = -1"),
        ({"record_every": 0}, InputError, r"record_every = 0"),
        ({"system": SPRING.energy_fn}, InputError, r"Movable\(energy_fn, species, temperature\)"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_what_cannot_be_simulated_is_refused_with_advice(arguments, error, message):
    with pytest.raises(error, match=message):
        nve(**({"system": SPRING, "positions": START, "steps": 100} | arguments))


def test_choices_check_themselves():
    with pytest.raises(InputError, match="friction = 0"):
        langevin(SPRING, START, steps=10, friction=0.0)
    with pytest.raises(InputError, match="positive temperature"):
        Movable(jnp.sum, (1, 1), 0.0)


# --- runs that end early, and runs that go on


def stop_after(step: int, error: type[BaseException]):
    def look(now):
        if now.step >= step:
            raise error("stopped")

    return look


@pytest.mark.parametrize("error", [KeyboardInterrupt, ZeroDivisionError])
def test_a_run_ended_by_ctrl_c_or_by_its_callback_is_kept(tmp_path, error):
    file = tmp_path / "run.h5"
    options = dict(steps=3000, record_every=3, timestep=0.7, temperature=300.0)
    with pytest.raises(error, match="stopped") as raised:
        nve(SPRING, START, progress=stop_after(30, error), output=file, **options)
    assert "pass that trajectory as positions to go on" in raised.value.__notes__[0]
    kept = Trajectory.from_hdf5(file)
    assert_allclose(kept.positions, raised.value.partial.positions)
    assert 3 * (len(kept.time) - 1) >= 30
    # what is kept is the beginning of the whole run, and goes on as the whole run does
    whole = nve(SPRING, START, **options)
    assert_allclose(kept.positions, whole.positions[: len(kept.time)], atol=1e-12)
    n = len(kept.time)
    rest = nve(SPRING, kept, steps=3 * 50, record_every=3, timestep=0.7)
    assert_allclose(rest.time, whole.time[n - 1 : n + 50])
    # momenta went through velocities: rounding, over 150 steps
    assert_allclose(rest.positions, whole.positions[n - 1 : n + 50], atol=1e-10)


def test_what_a_run_would_overwrite_is_said_before_it_starts(tmp_path):
    (tmp_path / "run.h5").write_text("mine")
    with pytest.raises(OutputExistsError, match=r"run\.h5"):
        nve(SPRING, START, steps=30, record_every=3, temperature=300.0, output=tmp_path / "run.h5")
    with pytest.raises(InputError, match=r"only \.h5 holds several"):
        langevin(
            FREE, START, steps=30, record_every=3, temperature=300.0, replicas=2, output=tmp_path / "run.dcd"
        )


def test_a_bath_that_goes_on_wants_other_noise():
    first = langevin(FREE, START, steps=3, record_every=3, temperature=300.0, seed=4, friction=0.03)
    with pytest.raises(InputError, match="seed = 4: the run that this one goes on from had the same"):
        langevin(FREE, first, steps=3, record_every=3, seed=4, friction=0.03)
    then = langevin(FREE, first, steps=3, record_every=3, seed=5, friction=0.03)
    assert then.temperature == 300.0 and then.time.tolist() == [3.0, 6.0]
