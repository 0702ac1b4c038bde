"""What a task may compute, one function a kind: from structures and a potential to plain content.

The kinds of this package have names; any other is a function in an importable module, `module:function`,
that takes the same (`GivenTask`) and returns what `mdsens.write_hdf5` takes. It is imported on the worker.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from mdsens.batches import observables_batch, relax_batch, sensitivity_batch
from mdsens.batches.work import of_relaxed
from mdsens.campaign.functions import imported, names_function
from mdsens.checks import nearest
from mdsens.errors import InputError
from mdsens.io.hdf5 import read_hdf5
from mdsens.potentials.base import Potential
from mdsens.quantities import concrete
from mdsens.relaxation.relax import Relaxed, relax
from mdsens.relaxation.solvers import solver_named
from mdsens.saddles import barrier
from mdsens.saddles.files import path_content
from mdsens.sensitivity.first_order import jacobian_of
from mdsens.sensitivity.problem import SensitivityProblem
from mdsens.structure import Structure

Content = dict[str, Any]


@dataclass(frozen=True)
class GivenTask:
    """What the function of a kind gets.

    Attributes:
        structures: by name; of a task with one, "structure".
        potential: with the parameters of the task. options: plain data.
        files: further files, by the name that the kind gives them.
        scratch: a folder of this task alone, which stays if the process dies and is removed at the end.
    """

    structures: Mapping[str, Structure]
    potential: Potential | None
    options: Mapping[str, Any]
    files: Mapping[str, Path] = field(default_factory=dict)
    scratch: Path = Path()


class TaskKind(NamedTuple):
    """A kind of task.

    Attributes:
        compute: its function.
        options: names of what may be told.
        structures: names that the structures must have; None: any, one at least.
        needs_potential: whether there is no task without one.
        needs: options without which there is no task.
    """

    compute: Callable[[GivenTask], Content]
    options: tuple[str, ...]
    structures: tuple[str, ...] | None = None
    needs_potential: bool = True
    needs: tuple[str, ...] = ()


RELAX = ("cell", "pressure", "stress", "fmax", "solver", "max_steps", "skin", "check_minimum")
MEASURE = (*RELAX, "observables")
DIFFERENTIATE = (*MEASURE, "parameters", "mode")
BARRIER = (
    *("images", "straight", "spring", "band_fmax", "band_steps", "fmax", "max_steps", "skin", "check_order"),
    *("observables", "derivatives", "parameters"),
)


def relaxed_states(given: GivenTask) -> dict[str, Relaxed]:
    """Every structure at rest."""
    options = relax_options(given.options)
    return {name: relax(_potential(given), one, **options) for name, one in given.structures.items()}


def relax_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """The keywords of `relax` among the options of a task; the solver by its name."""
    chosen = {name: options[name] for name in RELAX if name in options}
    solver = chosen.get("solver")
    if isinstance(solver, str):
        chosen["solver"] = solver_named(solver)
    return chosen


def _potential(given: GivenTask) -> Potential:
    assert given.potential is not None  # checked when the task was made
    return given.potential


# --- one structure, or some that are measured together


def _relax(given: GivenTask) -> Content:
    states = relaxed_states(given)
    return {"states": {name: of_relaxed(state) for name, state in states.items()}}


def _observables(given: GivenTask) -> Content:
    states = relaxed_states(given)
    problem = SensitivityProblem.of(states, given.options["observables"], None)
    return {**_numbers(problem), "states": _structures(states)}


def _sensitivity(given: GivenTask) -> Content:
    states = relaxed_states(given)
    return {**_derivatives(states, given.options), "states": _structures(states)}


def _derivatives(states: Mapping[str, Relaxed], options: Mapping[str, Any]) -> Content:
    names = options.get("parameters")
    problem = SensitivityProblem.of(states, options["observables"], names)
    jacobian = jacobian_of(problem, options.get("mode"))
    return {**_numbers(problem), "parameters": list(problem.selection.names), "jacobian": jacobian}


def _numbers(problem: SensitivityProblem) -> Content:
    return {"names": list(problem.names), "units": list(problem.units), "values": problem.values()}


def _structures(states: Mapping[str, Relaxed]) -> dict[str, Structure]:
    return {name: state.structure for name, state in states.items()}


def _barrier(given: GivenTask) -> Content:
    own = ("observables", "derivatives", "parameters")
    options = {name: value for name, value in given.options.items() if name not in own}
    start, end = given.structures["start"], given.structures["end"]
    found = barrier(_potential(given), start, end, **options)
    names = given.options.get("observables", ["barrier", "backward_barrier"])
    if given.options.get("derivatives") or "parameters" in given.options:
        numbers = _derivatives(found.states, {**given.options, "observables": names})
    else:
        numbers = _numbers(SensitivityProblem.of(found.states, names, None))
    return {**numbers, "states": _structures(found.states), "path": path_content(found.path)}


# --- a bucket of structures, for work that is short: each is a row of its own


def _relax_batch(given: GivenTask) -> Content:
    output = given.scratch / "batch.h5"
    relax_batch(
        _potential(given), given.structures, output=output, overwrite=output.is_file(), **_of_batch(given)
    )
    return read_hdf5(output, kind="relaxed batch")


def _observables_batch(given: GivenTask) -> Content:
    names = given.options["observables"]
    return _measured(given, observables_batch, names)


def _sensitivity_batch(given: GivenTask) -> Content:
    names, parameters = given.options["observables"], given.options.get("parameters")
    return _measured(given, sensitivity_batch, names, parameters, mode=given.options.get("mode"))


def _measured(given: GivenTask, function: Callable[..., Any], *what: Any, **how: Any) -> Content:
    # the folder beside the output keeps what is finished if the process dies
    output = given.scratch / "batch.h5"
    keep = {"output": output, "overwrite": output.is_file()}
    function(_potential(given), given.structures, *what, **keep, **how, **_of_batch(given))
    return read_hdf5(output, kind="measured batch")


def _of_batch(given: GivenTask) -> dict[str, Any]:
    return relax_options(given.options)


# --- Gaussian states, fits and flows: their rooms are imported where they are needed


MEMBERS = ("quantum", "members", "seed", "symmetry", "rtol")
GAUSSIAN_STATE = ("cell", "pressure", *MEMBERS)
GAUSSIAN = (*RELAX, *MEMBERS, "temperature", "derivatives", "parameters")
FIT = ("config", "fold", "folds", "seed")
SCHEDULE = (
    *("steps", "batch", "learning_rate", "final", "warmup", "clip", "evaluate_every", "held_out"),
    *("seed", "patience"),
)
SIZES = ("hidden", "harmonics", "soft_layers", "stiff_layers")
READING = ("temperature", "length_unit", "energy_unit", "stride", "drop_outliers")
FLOW = (*SCHEDULE, *SIZES, *READING, "transforms", "likelihood", "force")


def _gaussian(given: GivenTask) -> Content:
    from mdsens.campaign.gaussian import compute_gaussian

    return compute_gaussian(given)


def _fit(given: GivenTask) -> Content:
    from mdsens.campaign.learning import compute_fit

    return compute_fit(given)


def _flow(given: GivenTask) -> Content:
    from mdsens.campaign.learning import compute_flow

    return compute_flow(given)


KINDS: dict[str, TaskKind] = {
    "relax": TaskKind(_relax, RELAX),
    "observables": TaskKind(_observables, MEASURE, needs=("observables",)),
    "sensitivity": TaskKind(_sensitivity, DIFFERENTIATE, needs=("observables",)),
    "barrier": TaskKind(_barrier, BARRIER, structures=("start", "end")),
    "gaussian": TaskKind(_gaussian, GAUSSIAN, structures=("structure",), needs=("temperature",)),
    "fit": TaskKind(_fit, FIT, structures=(), needs_potential=False, needs=("config",)),
    "flow": TaskKind(_flow, FLOW, structures=(), needs_potential=False),
    "relax_batch": TaskKind(_relax_batch, RELAX),
    "observables_batch": TaskKind(_observables_batch, MEASURE, needs=("observables",)),
    "sensitivity_batch": TaskKind(_sensitivity_batch, DIFFERENTIATE, needs=("observables",)),
}


def kind_named(name: str) -> TaskKind | None:
    """The kind of this name; None for `module:function`, which only a worker has to import.

    Raises:
        InputError: an unknown one; the nearest is suggested.
    """
    if name in KINDS:
        return KINDS[name]
    if names_function(name):
        return None
    raise InputError(
        f"there are no tasks of the kind '{name}'.{nearest(name, KINDS)} There are {', '.join(KINDS)}, and "
        "functions of your own as 'module:function'."
    )


def function_of(name: str) -> Callable[[GivenTask], Content]:
    """The function of a kind.

    Raises:
        InputError: unknown, or a module or function that this process cannot import.
    """
    kind = kind_named(name)
    if kind is not None:
        return kind.compute
    return imported(name)


def content_of(kind: str, given: GivenTask) -> Content:
    """Compute a task; plain numbers, without traces of JAX."""
    return concrete(dict(function_of(kind)(given)))
