"""Force matching: parameters come back from the data they made, and missing labels pull at nothing."""

import ase.build
import numpy as np
import pytest
from numpy.testing import assert_allclose

import mdsens as ms
from mdsens.datasets import Dataset, Heat, LabelWeights, Rattle, generate, label, labelled
from mdsens.errors import InputError
from mdsens.fitting import ForceMatching, LabelTolerances, ParameterSpace, fit, parity

SILICON = ms.load_potential("si-stillinger-weber-1985")
FREE = ("lambda", "gamma", "costheta0", "A", "B", "p")


def diamond() -> ms.Structure:
    return ms.Structure.from_ase(ase.build.bulk("Si", cubic=True))


def off(potential: ms.Potential, names, seed: int = 0) -> ms.Potential:
    """With parameters that are 10 to 20 % off."""
    rng = np.random.default_rng(seed)
    values = ms.parameter_values(potential)
    changes = {n: values[n] * (1 + rng.choice([-1, 1]) * rng.uniform(0.1, 0.2)) for n in names}
    return ms.replace_parameters(potential, changes)


@pytest.fixture(scope="module")
def data() -> Dataset:
    """Eight atoms, and seven in the same shape."""
    whole = generate(SILICON, diamond(), [Rattle(0.1, 0.02), Rattle(0.2, 0.02)], count=2)
    cut = [ms.Structure.create(s.positions[1:], s.species[1:], s.cell) for s in whole.structures[:2]]
    return whole + label(SILICON, Dataset.create(cut))


def test_parameters_come_back_from_the_data_they_made(data):
    space = ParameterSpace.of(off(SILICON, FREE), FREE)
    result = fit(space, ForceMatching(data), max_steps=100)
    for name, value in ms.parameter_values(SILICON).items():
        assert_allclose(ms.parameter_values(result.potential)[name], value, rtol=1e-6, err_msg=name)
    after = parity(result.potential, data)
    assert max(points.rmse for points in after.kinds().values()) < 1e-6
    assert [row.name for row in result.rows] == ["energy rmse", "force rmse", "stress rmse"]
    assert [row.count for row in result.rows] == [6, 3 * (4 * 8 + 2 * 7), 36]


def test_derivatives_of_residuals_are_those_of_differences(data):
    start = off(SILICON, FREE)
    term = ForceMatching(data, huber=3.0, shift_energies=True)
    found = term.evaluate(start, FREE, {})
    assert np.abs(found.residuals).max() > 3  # beyond where they count less
    step = 1e-5
    for k, name in enumerate(FREE):
        ends = []
        for sign in (1, -1):
            value = ms.parameter_values(start)[name] + sign * step
            ends.append(term.evaluate(ms.replace_parameters(start, {name: value}), FREE, {}).residuals)
        twin = (ends[0] - ends[1]) / (2 * step)
        scale = np.abs(found.jacobian[:, k]).max()
        # step² / 6 of third derivatives, and residuals of 1e3 rounded at 1e-16 over a step of 1e-5
        assert_allclose(found.jacobian[:, k], twin, atol=1e-7 * scale)


def test_a_shift_of_the_energy_zero_changes_nothing_if_it_is_fitted_along(data):
    shifted = Dataset(tuple(e._replace(energy=e.energy + 3.7 * e.structure.n_atoms) for e in data))
    start = off(SILICON, FREE)
    plain, moved = (ForceMatching(d, shift_energies=True).evaluate(start, FREE, {}) for d in (data, shifted))
    assert_allclose(plain.residuals, moved.residuals, atol=1e-9)
    found = parity(SILICON, shifted, shift_energies=True)
    assert_allclose(found.shift["Si"], -3.7)
    assert found.energy.rmse < 1e-9 < parity(SILICON, shifted).energy.rmse


def test_missing_labels_and_zero_weights_have_no_residual(data):
    known = np.arange(8) < 5
    entries = [
        labelled(data[0].structure, data[0].energy),
        labelled(data[1].structure, None, data[1].forces, known=known, weights=(1.0, 4.0, 1.0)),
        data[2]._replace(weights=LabelWeights(0.0, 0.0, 0.0)),
    ]
    value = ForceMatching(Dataset(tuple(entries))).evaluate(off(SILICON, FREE), FREE, {})
    assert [row.count for row in value.rows] == [1, 15]
    assert value.residuals.shape == (16,) and value.jacobian.shape == (16, 6)
    alone = ForceMatching(Dataset((entries[1]._replace(weights=LabelWeights()),)))
    # a weight of four doubles a residual, and counts four times in the loss
    single = alone.evaluate(off(SILICON, FREE), FREE, {}).residuals
    assert_allclose(value.residuals[1:], 2 * single, rtol=1e-9)


def test_data_without_what_is_asked_for_are_refused(data):
    bare = Dataset.create([diamond()])
    with pytest.raises(InputError, match="no energy or forces or stress: there is nothing to fit to"):
        ForceMatching(bare)
    with pytest.raises(InputError, match="no stress: there is nothing to fit to"):
        ForceMatching(Dataset.create([diamond()], [-34.0]), tolerances=LabelTolerances(None, None, 0.01))
    with pytest.raises(InputError, match="tolerance of the forces = 0"):
        ForceMatching(data, tolerances=LabelTolerances(forces=0.0))
    with pytest.raises(InputError, match=r"Read one with ms.read_dataset"):
        ForceMatching([diamond()])


def test_parity_shows_its_points(data, tmp_path):
    from matplotlib.image import imread

    found = parity(off(SILICON, FREE), data)
    assert "| forces | 138 |" in found.markdown()
    found.plot(tmp_path / "parity.png")
    assert np.ptp(imread(tmp_path / "parity.png")) > 0.5
    found.to_hdf5(tmp_path / "parity.h5")
    back = ms.read_hdf5(tmp_path / "parity.h5", kind="parity")
    assert_allclose(back["forces"]["found"].value, found.forces.found)


# --- all parameters, other forms, noise


@pytest.mark.validation
def test_stillinger_weber_comes_back_with_its_cutoff():
    free = ("sigma", "a", *FREE, "q")
    start = off(SILICON, free[:-1], seed=1)  # q is zero: it is free, and not off
    moves = [Rattle(0.1, 0.02), Rattle(0.2, 0.03)]
    made = generate(SILICON, diamond(), moves, count=10)
    result = fit(ParameterSpace.of(start, free), ForceMatching(made), max_steps=200)
    for name, value in ms.parameter_values(SILICON).items():
        assert_allclose(result.potential and ms.parameter_values(result.potential)[name], value, atol=1e-6)


@pytest.mark.validation
def test_tersoff_comes_back_from_simulations_at_300_and_1000_kelvin():
    potential = ms.load_potential("si-tersoff-1988-t3")
    # c and d count in the angle as c²/d² and d², gamma and beta as their product
    free = ("A", "lambda1", "B", "lambda2", "n", "beta", "d", "costheta0")
    heat = [Heat(t, every=50, equilibrate=200) for t in (300.0, 1000.0)]
    # bonds and angles of one simulation are too alike: strained cells tell A and B from their decays
    made = generate(potential, diamond(), heat, count=10)
    made += generate(potential, diamond(), [Rattle(0.1, 0.04), Rattle(0.2, 0.04)], count=5)
    start = off(potential, free, seed=1)
    result = fit(ParameterSpace.of(start, free), ForceMatching(made), max_steps=300)
    for name in free:
        value = ms.parameter_values(potential)[name]
        assert_allclose(result.parameters[name], value, rtol=1e-6, err_msg=name)


@pytest.mark.validation
def test_embedded_atoms_come_back():
    potential = ms.Johnson(
        E_c=3.54, r_e=2.556, alpha=5.09, f_e=1.0, beta=5.85, phi_e=0.59, gamma=8.0, elements=("Cu",),
        cutoff_radius=4.3,
    )  # fmt: skip
    copper = ms.Structure.from_ase(ase.build.bulk("Cu", cubic=True))
    # only ratios of f_e between species count
    free = ("E_c", "r_e", "alpha", "beta", "phi_e", "gamma")
    made = generate(potential, copper, [Rattle(0.1, 0.02), Rattle(0.2, 0.04)], count=10)
    result = fit(ParameterSpace.of(off(potential, free), free), ForceMatching(made), max_steps=200)
    for name in free:
        value = ms.parameter_values(potential)[name]
        assert_allclose(result.parameters[name], value, rtol=1e-6, err_msg=name)


@pytest.mark.validation
def test_with_noise_the_errors_are_the_scatter_over_repeats(data):
    free, width = ("lambda", "costheta0", "A", "B"), 0.05
    exact = {name: ms.parameter_values(SILICON)[name] for name in free}
    tolerances = LabelTolerances(energy=None, forces=width, stress=None)
    found, said = [], []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        noisy = [e._replace(forces=e.forces + width * rng.normal(size=e.forces.shape)) for e in data]
        term = ForceMatching(Dataset(tuple(noisy)), tolerances=tolerances)
        result = fit(ParameterSpace.of(SILICON, free), term)
        found.append([result.parameters[name] - exact[name] for name in free])
        said.append([result.errors[name] for name in free])
    # 60 repeats tell a standard deviation to 9 %, of four numbers
    assert_allclose(np.std(found, axis=0), np.mean(said, axis=0), rtol=0.3)
    assert np.all(np.abs(np.mean(found, axis=0)) < 4 * np.mean(said, axis=0) / np.sqrt(60))
