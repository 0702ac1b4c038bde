"""Which rows a step sees, how fast it goes, and when it looks: all of it known from seed and step alone."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from mdsens.errors import InputError
from mdsens.training.schedule import Schedule

SIZES = st.integers(1, 40)


@given(SIZES, SIZES, st.integers(0, 2**20))
def test_each_row_is_seen_once_before_any_is_seen_again(batch, n_rows, seed):
    schedule = Schedule(batch=batch, seed=seed)
    steps = -(-3 * n_rows // batch)
    seen = np.concatenate([schedule.rows(step, n_rows) for step in range(steps)])
    for epoch in range(3):
        assert_array_equal(np.sort(seen[epoch * n_rows : (epoch + 1) * n_rows]), np.arange(n_rows))


@given(SIZES, SIZES, st.integers(0, 200))
def test_a_step_sees_the_same_rows_wherever_a_run_begins(batch, n_rows, step):
    one, other = Schedule(batch=batch, seed=3), Schedule(batch=batch, seed=3, steps=17, patience=4)
    assert_array_equal(one.rows(step, n_rows), other.rows(step, n_rows))
    assert len(one.rows(step, n_rows)) == batch


def test_an_epoch_of_groups_sees_every_row_of_each():
    schedule, lengths = Schedule(batch=4, seed=3), (9, 2, 4)
    steps = 3 + 1 + 1  # batches of 4, of which the last of the first group is filled up
    for epoch in (0, 1):
        seen = {0: [], 1: [], 2: []}
        for step in range(epoch * steps, (epoch + 1) * steps):
            group, rows = schedule.group_rows(step, lengths)
            assert len(rows) == min(4, lengths[group])
            seen[group].extend(rows.tolist())
        assert {group: set(rows) for group, rows in seen.items()} == {
            g: set(range(n)) for g, n in enumerate(lengths)
        }
    assert_array_equal(schedule.group_rows(7, (9,))[1], schedule.rows(7, 9))


def test_another_seed_is_another_order():
    rows = [tuple(Schedule(batch=50, seed=seed).rows(0, 50)) for seed in range(5)]
    assert len(set(rows)) == 5


@given(st.integers(1, 500), st.integers(0, 600), st.floats(1e-6, 1.0), st.floats(1e-3, 1.0))
def test_the_rate_never_exceeds_the_highest_and_ends_at_the_last(steps, warmup, rate, final):
    schedule = Schedule(steps=steps, warmup=warmup, learning_rate=rate, final=final)
    rates = np.array([float(schedule.rate(step)) for step in (0, steps // 2, steps)])
    assert rates.max() <= rate * (1 + 1e-5) and rates.min() > 0
    if steps > 1:
        assert_allclose(rates[-1], final * rate, rtol=1e-4)  # float32


@given(st.integers(1, 300), st.integers(1, 100))
def test_the_last_step_is_always_looked_at(steps, every):
    schedule = Schedule(steps=steps, evaluate_every=every)
    looks = [done for done in range(1, steps + 1) if schedule.is_look(done)]
    assert looks[-1] == steps
    assert looks[:-1] == list(range(every, steps, every))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("steps", 0),
        ("steps", 1.5),
        ("batch", -1),
        ("batch", "128"),
        ("evaluate_every", 0),
        ("warmup", -1),
        ("learning_rate", 0.0),
        ("learning_rate", np.nan),
        ("learning_rate", "1e-3"),
        ("clip", -1.0),
        ("final", 0.0),
        ("final", 1.5),
        ("held_out", 0.0),
        ("held_out", 1.0),
        ("patience", 0),
    ],
)
def test_a_number_that_makes_no_training_is_refused_by_name(name, value):
    with pytest.raises(InputError, match=f"^{name} = "):
        Schedule(**{name: value})


def test_equal_schedules_share_their_compiled_steps():
    assert Schedule(steps=7).optimizer is Schedule(steps=7).optimizer
    assert Schedule(steps=7).optimizer is not Schedule(steps=8).optimizer
