"""Many structures of different sizes: relaxed, measured and differentiated, with few compilations.

Every system is one for itself: the same minimum, steps and numbers as `mdsens.relax` and `mdsens.first_order`
give for it alone. One that fails is named with its reason, and the others go on.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Unpack

from mdsens.batches.finished import Finished
from mdsens.batches.options import RelaxOptions
from mdsens.batches.results import MeasuredBatch, RelaxedBatch, failures_of
from mdsens.batches.work import Batch, BatchProgress, Measure, Structures
from mdsens.observables.observable import Observable
from mdsens.potentials.base import Potential
from mdsens.quantities import concrete
from mdsens.relaxation.relax import Relaxed, relax
from mdsens.sensitivity.first_order import jacobian_of
from mdsens.sensitivity.problem import SensitivityProblem

Observables = Sequence[Observable | str] | Observable | str
Watch = Callable[[BatchProgress], None]


def relax_batch(
    potential: Potential,
    structures: Structures,
    *,
    output: str | Path | None = None,
    overwrite: bool = False,
    progress: Watch | None = None,
    lanes: int | None = None,
    **options: Unpack[RelaxOptions],
) -> RelaxedBatch:
    """Relax many structures.

    Differentiable like `relax`, each state by an adjoint of its own: the gradient of a sum over states is the
    sum of dL/dtheta = sum_k lambda_k . dF_k/dtheta over independent solves.

    Args:
        structures: a list of them, or names to structures; of any sizes, cells and species that the potential
            knows.
        output: HDF5 file of all states. While the batch runs, each finished system is a file in a folder
            beside it (`output.unfinished`), from which a batch that was cut off goes on.
        overwrite: begin anew, and replace `output`.
        progress: called after each system with `BatchProgress`.
        lanes: systems that are relaxed side by side, in one compiled program whose lanes are shared among all
            devices; a lane that is done takes the next system. By default one on a CPU, where that is faster,
            and 64 for each accelerator.
        options: keywords of `relax`: cell, pressure, stress, fmax, solver, max_steps, skin, linear_solver,
            check_minimum.
    Returns:
        states by name (those of a list are named "0", "1", ...), and the reasons of those that failed.
    Raises:
        InputError: no structures, or an unknown option. OutputExistsError: `output` exists.
    Source:
        Independent solves that share parameters: Chalapathi, Du, Krishnapriyan, ICLR 2024, arXiv:2402.13412.
    """
    finished = None if output is None else Finished(output, overwrite)
    batch = Batch.of(potential, structures, options, lambda relaxed: {}, finished, (), lanes)
    relaxed: dict[str, Relaxed] = {}
    contents: dict[str, Any] = {}
    for outcome in batch.run(progress):
        contents[outcome.name] = outcome.content
        if outcome.reason is None:
            relaxed[outcome.name] = outcome.relaxed or _again(potential, outcome.content, options)
    kept = {name: contents[name] for name in batch.structures}
    _gather(finished, "relaxed batch", kept)
    return RelaxedBatch({name: relaxed[name] for name in kept if name in relaxed}, failures_of(kept))


def observables_batch(
    potential: Potential,
    structures: Structures,
    observables: Observables,
    *,
    output: str | Path | None = None,
    overwrite: bool = False,
    progress: Watch | None = None,
    lanes: int | None = None,
    **options: Unpack[RelaxOptions],
) -> MeasuredBatch:
    """Relax many structures, and measure observables on each.

    Args:
        observables: `Observable` objects or names, as for `first_order`; the state is called "structure".
        structures, output, overwrite, progress, lanes, options: as for `relax_batch`.
    Returns:
        a row of numbers for each system.
    Raises:
        InputError: no structures, or an unknown option. OutputExistsError: `output` exists.
    """

    def measure(relaxed: Relaxed) -> dict[str, Any]:
        problem = SensitivityProblem.of(relaxed, observables, None, options.get("linear_solver"))
        return _numbers(problem)

    settings = ("observables", str(observables))
    return _measured(potential, structures, measure, settings, output, overwrite, progress, lanes, options)


def sensitivity_batch(
    potential: Potential,
    structures: Structures,
    observables: Observables,
    parameters: Sequence[str] | None = None,
    *,
    mode: str | None = None,
    output: str | Path | None = None,
    overwrite: bool = False,
    progress: Watch | None = None,
    lanes: int | None = None,
    **options: Unpack[RelaxOptions],
) -> MeasuredBatch:
    """Relax many structures, and differentiate observables of each by the parameters of the potential.

    Args:
        observables, parameters, mode: as for `first_order`.
        structures, output, overwrite, progress, lanes, options: as for `relax_batch`.
    Returns:
        a row of numbers and a Jacobian for each system.
    Raises:
        InputError: no structures, or an unknown option. OutputExistsError: `output` exists.
    """
    solver = options.get("linear_solver")

    def measure(relaxed: Relaxed) -> dict[str, Any]:
        problem = SensitivityProblem.of(relaxed, observables, parameters, solver)
        derivatives = {
            "parameters": list(problem.selection.names),
            "jacobian": jacobian_of(problem, mode),
        }
        return {**_numbers(problem), **derivatives}

    settings = ("sensitivities", str(observables), str(parameters), mode)
    return _measured(potential, structures, measure, settings, output, overwrite, progress, lanes, options)


def _measured(
    potential: Potential,
    structures: Structures,
    measure: Measure,
    settings: tuple[Any, ...],
    output: str | Path | None,
    overwrite: bool,
    progress: Watch | None,
    lanes: int | None,
    options: RelaxOptions,
) -> MeasuredBatch:
    finished = None if output is None else Finished(output, overwrite)
    batch = Batch.of(concrete(potential), structures, options, measure, finished, settings, lanes)
    contents = {outcome.name: outcome.content for outcome in batch.run(progress)}
    kept = {name: contents[name] for name in batch.structures}
    _gather(finished, "measured batch", kept)
    return MeasuredBatch.gathered(kept)


def _numbers(problem: SensitivityProblem) -> dict[str, Any]:
    names, units = list(problem.names), list(problem.units)
    return {"names": names, "units": units, "parameters": [], "values": problem.values()}


def _again(potential: Potential, content: Any, options: RelaxOptions) -> Relaxed:
    # a state from disk is at rest: no step is needed
    return relax(potential, content["structure"], **options)


def _gather(finished: Finished | None, kind: str, kept: dict[str, Any]) -> None:
    if finished is not None:
        systems = {name: concrete(dict(content)) for name, content in kept.items()}
        finished.gather(kind, {"order": list(kept), "systems": systems})
