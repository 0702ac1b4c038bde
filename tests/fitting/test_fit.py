"""The loop of fits on terms that cost nothing: optimum, bounds, steps taken back, files, errors."""

import os
import subprocess
import sys

import numpy as np
import pytest
from broken_disks import FAULTS

import mdsens as ms
from mdsens.errors import (
    InputError,
    NonFiniteError,
    NotConvergedError,
    OutputExistsError,
    SaddlePointError,
    WriteError,
)
from mdsens.fitting import FitStatus, ParameterSpace, TermRow, TermValue, fit
from mdsens.fitting.fit import FitProblem

ARGON = ms.LennardJones(0.0104, 3.405, elements=("Ar",), cutoff_radius=8.5)
SPACE = ParameterSpace.of(ARGON)


class Rosenbrock:
    """Residuals 10 (y - x^2) and 1 - x of x = epsilon / 0.01, y = sigma / 3: a curved valley to (1, 1).

    Args:
        lost: raise where x is below this.
        nan: residuals are NaN where x is below this.
    """

    name = "valley"

    def __init__(self, lost=-np.inf, nan=-np.inf, offset=0.0):
        self.lost, self.nan, self.offset = lost, nan, offset
        self.calls = []

    def evaluate(self, potential, parameters, memory):
        assert parameters == ("epsilon", "sigma")
        x, y = float(potential.epsilon) / 0.01, float(potential.sigma) / 3
        self.calls.append(dict(memory))
        if x < self.lost:
            raise SaddlePointError(f"x = {x:.3f} has no minimum")
        r = np.array([10 * (y - x**2), 1 - x, self.offset]) * (np.nan if x < self.nan else 1.0)
        J = np.array([[-20 * x, 10.0], [-1.0, 0.0], [0.0, 0.0]]) / [0.01, 3]
        rows = tuple(TermRow(name, "1", float(v), 0.0, 1.0) for name, v in zip("abc", r, strict=True))
        return TermValue(r, J, rows, {"x": np.array([x])}, None, 1)


def test_a_curved_valley_is_followed_to_its_end():
    result = fit(SPACE, Rosenbrock())
    assert result.status == FitStatus.CONVERGED.value
    assert result.parameters == pytest.approx({"epsilon": 0.01, "sigma": 3.0}, rel=1e-9)
    assert result.loss < 1e-16


def test_the_loss_never_rises_and_every_step_starts_from_the_last_that_was_taken():
    term = Rosenbrock()
    result = fit(SPACE, term)
    losses = [record.loss for record in result.history]
    assert losses == sorted(losses, reverse=True)
    assert term.calls[0] == {}
    assert all("x" in memory for memory in term.calls[1:])


def test_an_optimum_on_a_bound_is_found_there():
    space = ParameterSpace.of(ARGON, bounds={"epsilon": (0.01035, None)})
    result = fit(space, Rosenbrock())
    assert result.parameters["epsilon"] == pytest.approx(0.01035, rel=1e-12)
    assert result.parameters["sigma"] == pytest.approx(3 * 1.035**2, rel=1e-9)


def test_a_state_that_is_lost_on_the_way_is_stepped_back_from():
    # the way to the optimum at x = 1 ends at x = 1.02
    seen = []
    with pytest.raises(
        NotConvergedError, match=r"the states cannot be followed further.*has no minimum"
    ) as e:
        fit(SPACE, Rosenbrock(lost=1.02), progress=seen.append)
    result = e.value.partial
    assert result.parameters["epsilon"] == pytest.approx(0.0102, rel=1e-5)
    assert any("x = " in progress.note and not progress.taken for progress in seen)


def test_a_loss_that_is_not_finite_stops_with_the_last_good_parameters():
    with pytest.raises(NotConvergedError, match="a residual of 'a' is nan") as error:
        fit(SPACE, Rosenbrock(nan=1.02))
    assert np.isfinite(error.value.partial.loss)
    with pytest.raises(NonFiniteError, match="a residual of 'a' is nan"):
        fit(SPACE, Rosenbrock(nan=2.0))


def test_what_is_left_is_the_floor_and_is_named():
    result = fit(SPACE, Rosenbrock(offset=3.0))
    assert [entry.row.name for entry in result.floor] == ["c"]
    assert result.floor[0].residual == 3.0
    assert result.floor_direction == "1.00 c"
    assert "c: off by +3.00 tolerances" in result.markdown()


def test_laplace_errors_are_those_of_the_normal_equations():
    result = fit(SPACE, Rosenbrock())
    J = np.array([[-20.0, 10.0], [-1.0, 0.0]])
    errors = np.sqrt(np.diag(np.linalg.inv(J.T @ J))) * [0.01, 3]
    np.testing.assert_allclose(list(result.errors.values()), errors, rtol=1e-9)


def test_a_parameter_that_no_target_knows_has_no_error_bar():
    class One(Rosenbrock):
        def evaluate(self, potential, parameters, memory):
            value = super().evaluate(potential, parameters, memory)
            return value._replace(
                residuals=value.residuals[1:2], jacobian=value.jacobian[1:2], rows=value.rows[1:2]
            )

    result = fit(SPACE, One())
    assert result.errors["sigma"] == np.inf
    assert result.errors["epsilon"] == pytest.approx(0.01)
    assert result.identifiability.sloppy == [(0.0, "1.00 sigma")]
    assert "not determined" in result.markdown()


def test_a_prior_is_a_term_by_itself():
    space = ParameterSpace.of(ARGON, priors={"epsilon": (0.02, 1e-6)})
    assert fit(space, Rosenbrock()).parameters["epsilon"] == pytest.approx(0.02, rel=1e-4)


def test_a_fit_that_was_cut_off_ends_with_the_same_bits(tmp_path):
    whole = fit(SPACE, Rosenbrock(), checkpoint=tmp_path / "whole.h5")
    part = tmp_path / "part.h5"
    with pytest.raises(NotConvergedError, match="stopped after max_steps, after 2 steps"):
        fit(SPACE, Rosenbrock(), max_steps=2, checkpoint=part)
    resumed = fit(SPACE, Rosenbrock(), checkpoint=part, resume=True)
    assert np.array_equal(resumed.z, whole.z)
    assert resumed.history == whole.history


KILLED = """
import os, sys
sys.path.insert(0, sys.argv[1])
from fitting.test_fit import SPACE, Rosenbrock
from mdsens.fitting import fit

class Killed(Rosenbrock):
    def evaluate(self, *arguments):
        if len(self.calls) == 3:
            os.kill(os.getpid(), 9)
        return super().evaluate(*arguments)

fit(SPACE, Killed(), checkpoint=sys.argv[2])
"""


def test_a_fit_that_is_killed_loses_at_most_the_step_it_was_in(tmp_path, request):
    file = tmp_path / "fit.h5"
    tests = str(request.config.rootpath / "tests")
    command = [sys.executable, "-c", KILLED, tests, str(file)]
    done = subprocess.run(command, check=False, env=os.environ | {"JAX_ENABLE_X64": "1"})
    assert done.returncode == -9
    assert [path.name for path in tmp_path.iterdir()] == ["fit.h5"]
    assert FitProblem.of(SPACE, Rosenbrock()).begin(0.3, _file(file), True, False).step == 2
    resumed, whole = fit(SPACE, Rosenbrock(), checkpoint=file, resume=True), fit(SPACE, Rosenbrock())
    assert np.array_equal(resumed.z, whole.z)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_checkpoint_that_cannot_be_written_is_said_and_leaves_the_last_good_one(fault, tmp_path):
    file = tmp_path / "fit.h5"
    fit(SPACE, Rosenbrock(), max_steps=2, checkpoint=file, throw=False)
    before = file.read_bytes()
    with fault(), pytest.raises(WriteError, match=r"fit\.h5' cannot be written, and what stood there stays"):
        fit(SPACE, Rosenbrock(), checkpoint=file, resume=True)
    assert file.read_bytes() == before
    assert list(tmp_path.iterdir()) == [file]
    resumed = fit(SPACE, Rosenbrock(), checkpoint=file, resume=True)
    assert np.array_equal(resumed.z, fit(SPACE, Rosenbrock()).z)


def _file(path):
    from mdsens.fitting.state import FitFile

    return FitFile(path, FitProblem.of(SPACE, Rosenbrock()).settings)


def test_a_file_of_another_fit_is_refused(tmp_path):
    file = tmp_path / "fit.h5"
    fit(SPACE, Rosenbrock(), checkpoint=file)
    with pytest.raises(OutputExistsError, match="exists"):
        fit(SPACE, Rosenbrock(), checkpoint=file)
    other = ParameterSpace.of(ARGON, bounds={"sigma": (1.0, 9.0)})
    with pytest.raises(InputError, match="is the file of another fit: its variables are"):
        fit(other, Rosenbrock(), checkpoint=file, resume=True)
    with pytest.raises(InputError, match=r"end the name in \.h5"):
        fit(SPACE, Rosenbrock(), checkpoint=tmp_path / "fit.toml")


@pytest.mark.parametrize(
    ("terms", "message"),
    [
        ([], "there is nothing to fit to"),
        ([3], "a term of a fit is 3: give RelaxedTargets"),
        ([Rosenbrock(), Rosenbrock()], "two terms have the name 'valley'"),
    ],
)
def test_terms_that_are_none_are_refused(terms, message):
    with pytest.raises(InputError, match=message):
        fit(SPACE, terms)


def test_the_report_is_kept_as_a_file(tmp_path):
    result = fit(SPACE, Rosenbrock(offset=3.0))
    result.to_hdf5(tmp_path / "fit.h5")
    result.to_markdown(tmp_path / "fit.md")
    result.plot(tmp_path / "fit.png")
    content = ms.read_hdf5(tmp_path / "fit.h5", kind="fit result")
    assert list(content["rows"]["name"]) == ["a", "b", "c"]
    np.testing.assert_array_equal(content["parameters"]["value"], list(result.parameters.values()))
    assert (tmp_path / "fit.md").read_text().startswith("# Fit")
