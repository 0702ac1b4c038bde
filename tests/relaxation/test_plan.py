"""Which stepper comes next: robust far away, quadratic near the minimum, and robust again after failures."""

import pytest

import mdsens as ms
from mdsens.errors import InputError
from mdsens.relaxation.plan import Always, AutoRelaxer, plan_of

PLAN = AutoRelaxer(switch=0.1)


@pytest.mark.parametrize(
    ("residual", "fmax", "stepper", "goal"),
    [
        (5.0, 1e-8, "robust", 0.1),
        (0.1, 1e-8, "finish", 1e-10),
        (1e-3, 1e-8, "finish", 1e-10),
        (5.0, 1.0, "robust", 1.0),  # a coarse tolerance is met by the robust one alone
        (0.5, 1.0, "finish", 0.01),
    ],
)
def test_the_robust_one_goes_to_the_switch_and_the_quadratic_one_to_the_end(residual, fmax, stepper, goal):
    phase = PLAN.phase(residual, fmax, 0)
    assert phase.stepper is getattr(PLAN, stepper)
    assert phase.goal == pytest.approx(goal)  # the last steps go beyond what is asked for, as they are cheap


def test_after_failures_the_robust_one_gets_more_steps_each_time_and_a_goal_within_reach():
    steps = []
    for failures in (1, 2, 3):
        phase = PLAN.phase(1e-3, 1e-8, failures)
        assert phase.stepper is PLAN.robust
        assert phase.goal == pytest.approx(1e-4)
        steps.append(phase.steps)
    assert steps == sorted(set(steps))
    # never a goal below what is asked for
    assert PLAN.phase(1e-8, 1e-8, 1).goal == 1e-8


def test_a_stepper_alone_is_taken_from_beginning_to_end_and_a_plan_as_it_is():
    fire = ms.FIRE()
    plan = plan_of(fire)
    assert isinstance(plan, Always)
    assert plan.steppers == (fire,)
    for residual in (10.0, 1e-6):
        assert plan.phase(residual, 1e-8, 0).stepper is fire
    assert plan_of(PLAN) is PLAN
    assert isinstance(plan_of(None), AutoRelaxer)
    assert PLAN.steppers == (PLAN.robust, PLAN.finish)


@pytest.mark.parametrize("solver", ["FIRE", ms.FIRE, 3])
def test_what_is_no_relaxer_is_refused_with_those_there_are(solver):
    with pytest.raises(InputError, match=r"Give one of AutoRelaxer\(\), FIRE\(\), LBFGS\(\)"):
        plan_of(solver)


@pytest.mark.parametrize("switch", [0.0, -1.0, float("nan")])
def test_the_switch_is_a_force(switch):
    with pytest.raises(InputError, match=r"switch = .* above 0"):
        AutoRelaxer(switch=switch)
