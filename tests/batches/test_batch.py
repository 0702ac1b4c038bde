"""Batches: the same numbers as one by one, faults that spoil nothing else, and nothing finished is lost."""

import functools

import ase.build
import jax
import numpy as np
import pytest
from compilations import compilations
from numpy.testing import assert_allclose, assert_array_equal

import mdsens as ms
from mdsens.batches.work import BatchProgress
from mdsens.ghosts import with_ghosts
from mdsens.relaxation import memory
from mdsens.relaxation.relax import problem_of
from mdsens.relaxation.walk import Walk

NAMES = ("energy", "volume")
PARAMETERS = ("epsilon", "lambda")


@functools.cache
def silicon():
    return ms.load_potential("si-stillinger-weber-1985")


def crystal(atoms_missing=0, seed=0, repeat=1):
    atoms = ase.build.bulk("Si", "diamond", a=5.431, cubic=True) * (1, 1, repeat)
    del atoms[:atoms_missing]
    atoms.rattle(0.05, seed=seed)
    return ms.Structure.from_ase(atoms)


@functools.cache
def structures():
    """Seven and eight atoms share a size; one has no place, one no parameters, one no minimum nearby."""
    nowhere = crystal(seed=1)
    return {
        "whole": crystal(seed=1),
        "vacancy": crystal(1, seed=2),
        "nowhere": nowhere.at(nowhere.positions * np.nan),
        "copper": ms.Structure.create([[0, 0, 0]], ["Cu"], 5 * np.eye(3), True),
        "other": crystal(seed=3),
    }


@functools.cache
def alone(name):
    return ms.relax(silicon(), structures()[name], fmax=1e-8)


def test_each_state_is_the_one_that_it_is_alone_and_faults_are_named():
    memory.forget()
    batch = ms.relax_batch(silicon(), structures(), fmax=1e-8)
    assert list(batch) == ["whole", "vacancy", "other"] and list(batch.failures) == ["nowhere", "copper"]
    assert "NonFiniteError" in batch.failures["nowhere"] and "Cu" in batch.failures["copper"]
    memory.forget()
    for name, relaxed in batch.items():
        assert int(relaxed.steps) == int(alone(name).steps)
        assert_allclose(relaxed.structure.positions, alone(name).structure.positions, atol=1e-12)
        assert_allclose(relaxed.energy, alone(name).energy, rtol=1e-14)
    with pytest.raises(ms.errors.MDSensError, match=r"'copper' of the batch failed\. InputError"):
        batch["copper"]


def test_derivatives_are_those_of_each_alone():
    found = ms.sensitivity_batch(silicon(), structures(), NAMES, PARAMETERS, fmax=1e-8)
    assert found.systems == tuple(structures()) and found.names == NAMES and found.parameters == PARAMETERS
    for k, name in enumerate(found.systems):
        if name in found.failures:
            assert np.isnan(found.values[k]).all() and np.isnan(found.jacobian[k]).all()
            continue
        values, jacobian = ms.first_order(alone(name), NAMES, PARAMETERS)
        assert_allclose(found.values[k], values, rtol=1e-12)
        assert_allclose(found.jacobian[k], jacobian, rtol=1e-9, atol=1e-9)
    # dL/dtheta of a loss over all systems, those that failed left out
    weights = np.ones((5, 1)) * [1.0, 0.0]
    good = [k for k, name in enumerate(found.systems) if name not in found.failures]
    assert_allclose(found.pull(weights), found.jacobian[good, 0].sum(0), rtol=1e-14)
    assert_array_equal(found.column("energy"), found.values[:, 0])


def test_the_gradient_of_a_sum_over_a_batch_is_the_sum_of_the_gradients():
    pair = {name: structures()[name] for name in ("whole", "vacancy")}

    def total(potential):
        return sum(relaxed.energy for relaxed in ms.relax_batch(potential, pair, fmax=1e-8).values())

    gradient = jax.grad(total, allow_int=True)(silicon())
    each = [ms.first_order(alone(name), "energy", ["epsilon"])[1][0, 0] for name in pair]
    assert_allclose(gradient.epsilon, sum(each), rtol=1e-10)


class Cut(Exception):
    """A run that ends in the middle."""


def test_a_batch_that_was_cut_off_goes_on_where_it_was(tmp_path):
    path = tmp_path / "numbers.h5"
    measure = functools.partial(
        ms.sensitivity_batch, silicon(), structures(), NAMES, PARAMETERS, output=path, fmax=1e-8
    )

    def cut_after_four(progress: BatchProgress):
        if progress.done == 4:
            raise Cut

    with pytest.raises(Cut):
        measure(progress=cut_after_four)
    assert not path.exists() and len(list(path.with_name("numbers.h5.unfinished").iterdir())) == 4
    seen: list[BatchProgress] = []
    found = measure(progress=seen.append)
    assert [p.computed for p in seen] == [0, 0, 0, 0, 1]
    assert seen[-1].failed == 2 and seen[-1].remaining == 0
    assert not path.with_name("numbers.h5.unfinished").exists()
    whole = ms.sensitivity_batch(silicon(), structures(), NAMES, PARAMETERS, fmax=1e-8)
    read = ms.MeasuredBatch.read(path)
    for other in (whole, read):
        assert_array_equal(found.values, other.values)
        assert_array_equal(found.jacobian, other.jacobian)
        assert found.failures == other.failures and found.systems == other.systems
    with pytest.raises(ms.errors.OutputExistsError, match="overwrite"):
        measure()


def test_a_half_written_or_changed_system_is_done_anew(tmp_path):
    path = tmp_path / "states.h5"
    one = {"vacancy": structures()["vacancy"]}
    relax = functools.partial(ms.relax_batch, silicon(), output=path, fmax=1e-8)

    def cut(progress: BatchProgress):
        raise Cut

    for _ in range(2):
        with pytest.raises(Cut):
            relax(one, progress=cut)
    (kept,) = path.with_name("states.h5.unfinished").iterdir()
    kept.write_bytes(kept.read_bytes()[:200])
    seen: list[BatchProgress] = []
    batch = relax(one, progress=seen.append)
    assert seen[-1].computed == 1
    assert_allclose(batch["vacancy"].energy, alone("vacancy").energy, rtol=1e-14)
    content = ms.read_hdf5(path, kind="relaxed batch")["systems"]["vacancy"]
    assert_array_equal(content["structure"].positions, batch["vacancy"].structure.positions)
    seen.clear()
    relax(one, progress=seen.append, overwrite=True)
    assert seen[-1].computed == 1


def test_states_from_disk_are_states_again(tmp_path):
    path = tmp_path / "states.h5"
    pair = {name: structures()[name] for name in ("whole", "vacancy")}

    def cut_at_last(progress: BatchProgress):
        if progress.done == 2:
            raise Cut

    with pytest.raises(Cut):
        ms.relax_batch(silicon(), pair, output=path, progress=cut_at_last, fmax=1e-8)
    batch = ms.relax_batch(silicon(), pair, output=path, fmax=1e-8)
    assert all(int(relaxed.steps) == 0 for relaxed in batch.values())
    assert_allclose(batch["vacancy"].energy, alone("vacancy").energy, rtol=1e-14)


def test_other_numbers_of_atoms_compile_nothing():
    ms.relax_batch(silicon(), [crystal(seed=1), crystal(1, seed=2)], fmax=1e-8)
    memory.forget()
    with compilations() as compiled:
        ms.relax_batch(silicon(), [crystal(2, seed=4), crystal(1, seed=5), crystal(seed=6)], fmax=1e-8)
    assert compiled == []


def test_energies_of_a_state_are_asked_of_the_program_of_its_size():
    few = with_ghosts(crystal(4, seed=1), 8)  # four atoms have a size of their own
    relaxed = ms.relax(silicon(), few, max_steps=1, throw=False, check_minimum=False)
    asked, _ = relaxed._with_ghosts
    assert relaxed.structure.n_atoms == 4 and asked.n_atoms == 8
    assert_allclose(relaxed.energy, ms.energy(silicon(), relaxed.structure), rtol=1e-14)


def test_a_walk_of_many_has_room_for_the_hessians_of_all():
    capacity = ms.find_neighbors(crystal(seed=1), 4.0).capacity
    alone, shared = (Walk.begin(problem_of(silicon(), crystal(seed=1), capacity=c)) for c in (None, capacity))
    width = shared.scene.landscape.neighbors.width
    assert alone._least_row < shared._least_row == 2 * width
    # pairs alone join no neighbors of neighbors
    argon = ms.load_potential("ar-lennard-jones")
    cell = ms.Structure.from_ase(ase.build.bulk("Ar", "fcc", a=5.3, cubic=True))
    capacity = ms.find_neighbors(cell, 9.0).capacity
    pairs = Walk.begin(problem_of(argon, cell, capacity=capacity))
    assert pairs._least_row == pairs.scene.landscape.neighbors.width


def test_numbers_that_depend_on_the_atoms_are_refused_for_the_systems_that_differ():
    each = ms.observables_batch(silicon(), [crystal(seed=1), crystal(seed=3)], "energy", fmax=1e-8)
    assert each.jacobian is None and each.values.shape == (2, 1) and each.systems == ("0", "1")
    with pytest.raises(ms.errors.InputError, match="sensitivity_batch"):
        each.pull(np.ones((2, 1)))
    with pytest.raises(ms.errors.InputError, match="no number 'volum'"):
        each.column("volum")


@pytest.mark.parametrize(
    ("given", "options", "message"),
    [
        ([], {}, "no structures"),
        (None, {}, "several structures"),
        (["Si"], {}, "must be a Structure"),
        ({"a/b": None}, {}, "a/b"),
        ([None], {"fmaxx": 1e-3}, "Did you mean 'fmax'"),
    ],
    ids=["none", "one", "a text", "a slash", "an option"],
)
def test_what_concerns_all_systems_is_refused_at_once(given, options, message):
    one = crystal()
    if given is None:
        given = one
    elif isinstance(given, dict):
        given = dict.fromkeys(given, one)
    elif given == [None]:
        given = [one]
    with pytest.raises(ms.errors.InputError, match=message):
        ms.relax_batch(silicon(), given, **options)
