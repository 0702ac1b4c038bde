"""The loop on a model that is no flow: a straight line, whose best fit is known; looks written by hand."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from mdsens.errors import InputError, NonFiniteError
from mdsens.io.modules import open_modules, read_module
from mdsens.training import Checkpoint, Schedule, read_history, train
from mdsens.training.checkpoint import MODEL_FORMAT

RNG = np.random.default_rng(0)
X = RNG.normal(size=(64, 2))
Y = X @ [1.5, -0.5] + 0.25 + 0.1 * RNG.normal(size=64)
SCHEDULE = Schedule(steps=40, batch=16, evaluate_every=10, learning_rate=0.1, warmup=2)


class Line(eqx.Module):
    """y = x . slopes + offset."""

    slopes: jax.Array
    offset: jax.Array
    name: str = "line"


def start() -> Line:
    return Line(jnp.zeros(2), jnp.zeros(()))


def squares(model, rows, key):
    """Mean squared error, with a little noise that depends on the step."""
    x, y = rows
    noise = 1e-3 * jax.random.normal(key, y.shape)
    error = jnp.mean((x @ model.slopes + model.offset - y + noise) ** 2)
    return error, {"mse": error}


def run(schedule=SCHEDULE, **options):
    return train(start(), squares, (X, Y), (X, Y), schedule=schedule, **options)


def same(one, other):
    jax.tree.map(assert_array_equal, eqx.filter(one, eqx.is_array), eqx.filter(other, eqx.is_array))


def test_the_least_squares_fit_is_reached_with_any_optimizer():
    design = np.column_stack([X, np.ones(len(X))])
    exact = np.linalg.lstsq(design, Y, rcond=None)[0]
    whole = Schedule(steps=60, batch=64, evaluate_every=20)
    done = run(whole, optimizer=optax.sgd(0.3))
    # 60 steps contract the error by 0.4^60; the noise of 1e-3 in 64 targets moves the fit by 1e-3 / 8
    assert_allclose([*done.last.slopes, done.last.offset], exact, atol=1e-3)
    assert "learning_rate" not in done.history  # only the default optimizer's is known
    assert_array_equal(done.history["step"], [20, 40, 60])


def test_a_tree_of_arrays_is_trained_as_well():
    def loss(model, rows, key):
        line = Line(model["slopes"], model["offset"])
        return squares(line, rows, key)

    tree = {"slopes": jnp.zeros(2), "offset": jnp.zeros(())}
    done = train(tree, loss, (X, Y), (X, Y), schedule=SCHEDULE)
    same(Line(**done.last), run().last)
    with pytest.raises(InputError, match=r"model must be a Module, not dict .*kept in a checkpoint"):
        train(tree, loss, (X, Y), (X, Y), schedule=SCHEDULE, checkpoint=Checkpoint("never.h5"))


def test_a_run_that_was_cut_off_ends_with_the_same_bits(tmp_path):
    whole, kept = run(), Checkpoint(tmp_path / "line.h5", settings={"data": "line"})
    run(checkpoint=kept, stop_after=17)
    again = run(checkpoint=kept, resume=True)
    same(again.model, whole.model)
    same(again.last, whole.last)
    assert again.best_step == whole.best_step
    for name in ("held_out/loss", "held_out/mse"):
        assert again.history[name][-1] == whole.history[name][-1]
    with open_modules(tmp_path / "line.h5", MODEL_FORMAT) as file:
        same(read_module(file, MODEL_FORMAT, [Line]), whole.model)
    other = Checkpoint(tmp_path / "line.h5", settings={"data": "curve"})
    with pytest.raises(InputError, match="another training: its data is line, and here curve"):
        run(checkpoint=other, resume=True)


def scripted(*losses):
    """A look that says these, one after the other."""
    left = list(losses)
    return lambda model, rows: (left.pop(0), {"mse": 1.0})


def test_the_model_of_the_lowest_held_out_loss_is_kept(tmp_path):
    seen, path = [], tmp_path / "line.h5"
    look = scripted(3.0, 1.0, 2.0, 1.0)
    done = run(look=look, progress=seen.append, checkpoint=Checkpoint(path))
    assert done.best_step == 20  # of two equal ones the first
    assert [(now.step, now.loss, now.best_step) for now in seen] == [
        (10, 3.0, 10),
        (20, 1.0, 20),
        (30, 2.0, 20),
        (40, 1.0, 20),
    ]
    same(done.model, run(stop_after=20).last)
    same(done.last, run().last)
    assert_array_equal(read_history(path)["held_out/loss"], [3, 1, 2, 1])
    with open_modules(path, MODEL_FORMAT) as file:
        same(read_module(file, MODEL_FORMAT, [Line]), done.model)
        assert file["notes"].attrs["step"] == 20


def test_the_look_where_a_run_was_cut_off_does_not_count(tmp_path):
    kept = Checkpoint(tmp_path / "line.h5")
    cut = run(look=scripted(3.0, 1.0), checkpoint=kept, stop_after=13)
    assert cut.best_step == 10  # 13 is no look of the schedule
    done = run(look=scripted(2.0, 2.5, 2.5), checkpoint=kept, resume=True)
    assert done.best_step == 20
    same(done.model, run(stop_after=20).last)
    first = run(look=scripted(1.0), checkpoint=Checkpoint(tmp_path / "first.h5"), stop_after=3)
    assert first.best_step == 3  # better than none
    later = run(look=scripted(5.0), checkpoint=Checkpoint(tmp_path / "first.h5"), resume=True, stop_after=10)
    assert later.best_step == 10


def test_patience_ends_a_training_whose_held_out_loss_does_not_fall(tmp_path):
    patient = Schedule(steps=40, batch=16, evaluate_every=5, learning_rate=0.1, warmup=2, patience=2)
    kept = Checkpoint(tmp_path / "line.h5")
    done = run(patient, look=scripted(3.0, 1.0, 2.0, 1.5), checkpoint=kept)
    assert done.history["step"][-1] == 20 and done.best_step == 10
    # it stays ended when it is resumed, and goes on with more patience
    again = run(patient, look=scripted(), checkpoint=kept, resume=True)
    same(again.model, done.model)
    longer = Schedule(steps=40, batch=16, evaluate_every=5, learning_rate=0.1, warmup=2, patience=3)
    assert run(longer, look=scripted(1.2), checkpoint=kept, resume=True).history["step"][-1] == 25


def test_a_loss_that_is_not_finite_leaves_the_state_of_the_last_look(tmp_path):
    kept = Checkpoint(tmp_path / "line.h5")
    with pytest.raises(NonFiniteError, match=r"before step 30: held-out loss .* step 10 is good") as e:
        run(look=scripted(1.0, 2.0, np.inf), checkpoint=kept)
    good = e.value.partial
    assert good.best_step == 10 and list(good.history["step"]) == [10, 20]
    same(good.model, run(stop_after=10).last)
    same(good.last, run(stop_after=20).last)
    again = run(look=scripted(0.5, 0.5), checkpoint=kept, resume=True)
    assert again.best_step == 30


def test_each_step_is_counted():
    steps = []
    run(each_step=steps.append, stop_after=12)
    assert steps == list(range(1, 13))


def test_arrays_that_do_not_belong_together_are_refused():
    with pytest.raises(InputError, match=r"arrays of \[63, 64\] rows"):
        train(start(), squares, (X[1:], Y), (X, Y), schedule=SCHEDULE)
    for wrong in ({"patience": 0}, {"warmup": -1}, {"batch": 2.5}):
        with pytest.raises(InputError, match=next(iter(wrong))):
            Schedule(**wrong)
