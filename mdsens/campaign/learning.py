"""Tasks that learn: fits over the folds of a data set, flows from different seeds.

Both need files, and both take long: their checkpoints lie in the folder of the task, and a task whose process
died goes on from there.
"""

import dataclasses
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mdsens.campaign.inputs import InputFile, InputSet
from mdsens.campaign.kinds import FLOW, READING, SCHEDULE, SIZES, Content, GivenTask
from mdsens.campaign.task import Task
from mdsens.checks import existing_file, nearest, whole
from mdsens.datasets import Dataset
from mdsens.datasets.split import fold_of
from mdsens.errors import FileFormatError, InputError
from mdsens.fitting.config import FitConfig, fit_config
from mdsens.fitting.fit import fit
from mdsens.fitting.force_matching import ForceMatching
from mdsens.fitting.parity import parity
from mdsens.fitting.result import FitResult
from mdsens.fitting.terms import FitTerm
from mdsens.flows.losses import Loss
from mdsens.flows.molecule import MoleculeArchitecture
from mdsens.flows.prepare import prepare
from mdsens.flows.read_data import read_force_data
from mdsens.flows.train import train
from mdsens.molecules.topology import read_molecule
from mdsens.potentials.base import Potential
from mdsens.potentials.toml_write import toml_text
from mdsens.training.schedule import Schedule

# --- fits


def fit_tasks(config: str | Path, folds: int = 1, *, seed: int = 0, name: str = "") -> list[Task]:
    """Fits of a configuration file (see docs/fitting.md): one with all data, or one for each fold.

    Args:
        config: as for `mdsens fit`. Files that it names travel with the tasks.
        folds: parts of the data, each of which one fit does not see and is judged by; 1: all data.
        seed: another one divides otherwise.
    Raises:
        InputError: more folds than 1 without [data]. FileFormatError: no such file, or not TOML.
    """
    path = existing_file(config, "configuration file")
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise FileFormatError(f"'{path}' is not TOML: {error}.") from error
    fit_config(content, path.parent)  # says what is wrong before anything is sent
    folds = whole("folds", folds, at_least=1)
    if folds > 1 and "data" not in content:
        raise InputError(f"folds = {folds}: '{path}' has no [data] to divide.")
    files = _FilesOf(path.parent)
    placed = _with_files(content, files)
    inputs = {"inputs": files.as_set()} if files.found else {}
    label = name or path.stem
    tasks = []
    for fold in range(folds):
        options: dict[str, Any] = {"config": placed}
        if folds > 1:
            options |= {"fold": fold, "folds": folds, "seed": seed}
        name = f"{label}-{fold}" if folds > 1 else label
        tasks.append(Task(kind="fit", options=options, files=inputs, name=name, tags={"fold": fold}))
    return tasks


class _FilesOf:
    """Files that a configuration names, under names that are all different."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.found: list[InputFile] = []

    def take(self, name: str) -> str:
        """The name that a file has in the folder of the task."""
        file = InputFile.read(self.folder / name)
        inside = f"{len(self.found)}-{file.name}"
        self.found.append(dataclasses.replace(file, name=inside))
        return inside

    def as_set(self) -> InputSet:
        """All of them."""
        return InputSet.of(self.found)


def _with_files(content: Mapping[str, Any], files: _FilesOf) -> dict[str, Any]:
    """The configuration with the names that files have where the task runs."""
    placed = dict(content)
    if (files.folder / content["potential"]).is_file():
        placed["potential"] = files.take(content["potential"])
    if "structures" in content:
        placed["structures"] = {
            key: _placed_structure(table, files) for key, table in content["structures"].items()
        }
    if "data" in content:
        data = dict(content["data"])
        many = isinstance(data["file"], list)
        names = data["file"] if many else [data["file"]]
        data["file"] = [files.take(name) for name in names]
        if "topology" in data:
            data["topology"] = files.take(data["topology"])
        placed["data"] = data
    return placed


def _placed_structure(table: Mapping[str, Any], files: _FilesOf) -> dict[str, Any]:
    return {**table, "file": files.take(table["file"])}


def compute_fit(given: GivenTask) -> Content:
    """A fit, with or without a fold left out."""
    folder = given.files["inputs"].parent if "inputs" in given.files else Path()
    config = fit_config(given.options["config"], folder, notice=_nothing)
    terms, unseen, shifted = _divided(config, given.options)
    checkpoint = given.scratch / "fit.h5"
    checkpoint.parent.mkdir(parents=True, exist_ok=True)
    options = {**config.options, "checkpoint": checkpoint, "resume": True, "throw": False}
    result = fit(config.space, terms, **options)
    return {**_of_fit(result), **_numbers_of_fit(result, unseen, shifted)}


def _nothing(text: str) -> None:
    """Labels that are missing are said when the tasks are made."""


def _divided(config: FitConfig, options: Mapping[str, Any]) -> tuple[list[FitTerm], Dataset, bool]:
    """Terms that see all folds but one, and what they do not see."""
    terms, unseen, shifted = [], config.test, False
    for term in config.terms:
        if isinstance(term, ForceMatching):
            shifted = term.shift_energies
            if "folds" in options:
                seed = options.get("seed", 0)
                seen, unseen = fold_of(term.data, options["fold"], options["folds"], seed=seed)
                more = {"huber": term.huber, "shift_energies": term.shift_energies, "name": term.name}
                term = ForceMatching(seen, tolerances=term.tolerances, **more)
        terms.append(term)
    return terms, unseen, shifted


def _of_fit(result: FitResult) -> Content:
    content: Content = {"fitted": result.parameters, "errors": result.errors, "status_of_fit": result.status}
    text = _text(result.potential)
    return {**content, "potential": text} if text else content


def _text(potential: Potential) -> str | None:
    try:
        return toml_text(potential)
    except InputError:
        return None  # a network: its parameters are in `fitted`


def _numbers_of_fit(result: FitResult, unseen: Dataset, shifted: bool) -> Content:
    numbers: dict[str, tuple[float, str]] = {"loss": (result.loss, "1")}
    if len(unseen):
        judged = parity(result.potential, unseen, shift_energies=shifted)
        for name, points in judged.kinds().items():
            numbers[f"unseen_{name}_rmse"] = points.rmse, points.unit
    names, values = list(numbers), [value for value, _ in numbers.values()]
    return {"names": names, "units": [unit for _, unit in numbers.values()], "values": values}


# --- flows


def flow_task(
    data: str | Path,
    topology: str | Path,
    *,
    name: str = "",
    tags: Mapping[str, Any] | None = None,
    **options: Any,
) -> Task:
    """The training of a flow; one task for each seed makes an ensemble.

    Args:
        data: frames with forces, as for `mdsens flow train`. topology: the molecule.
        options: of `mdsens.flows.Schedule` (steps, batch, learning_rate, seed, ...), of the architecture
            (hidden, harmonics, soft_layers, stiff_layers, transforms), of reading (temperature, stride, ...),
            and the weights likelihood and force of the loss.
    Raises:
        InputError: an unknown option. FileFormatError: no such file.
    """
    for key in options:
        if key not in FLOW:
            raise InputError(
                f"'{key}' is no option of a flow.{nearest(key, FLOW)} There are {', '.join(FLOW)}."
            )
    read = {"data": data, "topology": topology}
    found = {key: InputFile.read(path) for key, path in read.items()}
    files = {key: InputSet.of([file]) for key, file in found.items()}
    return Task(kind="flow", options=options, files=files, name=name, tags=tags or {})


def compute_flow(given: GivenTask) -> Content:
    """A flow, trained."""
    options = given.options
    chosen = lambda names: {name: options[name] for name in names if name in options}
    schedule = Schedule(**chosen(SCHEDULE))
    molecule = read_molecule(given.files["topology"])
    frames = read_force_data(given.files["data"], molecule=molecule, notice=_nothing, **chosen(READING))
    sizes = chosen(SIZES)
    if "hidden" in sizes:
        sizes["hidden"] = tuple(sizes["hidden"])
    architecture = MoleculeArchitecture.of(options.get("transforms", "smooth"), **sizes)
    prepared = prepare(
        frames,
        molecule,
        architecture=architecture,
        held_out=schedule.held_out,
        seed=schedule.seed,
        drop_outliers=options.get("drop_outliers", False),
        notice=_nothing,
        source=given.files["data"].name,
    )
    checkpoint = given.scratch / "flow.h5"
    checkpoint.parent.mkdir(parents=True, exist_ok=True)
    loss = Loss(**chosen(("likelihood", "force")))
    trained = train(
        prepared.generator,
        prepared.data,
        loss=loss,
        schedule=schedule,
        checkpoint=checkpoint,
        resume=True,
    )
    return _of_flow(trained.history, trained.best_step, checkpoint)


def _of_flow(history: Mapping[str, np.ndarray], best_step: int, checkpoint: Path) -> Content:
    """Held-out terms at the best look, the course, and the file of the model, byte by byte."""
    best = int(np.flatnonzero(np.asarray(history["step"]) == best_step)[0])
    terms = [name for name in history if name.startswith("held_out/")]
    names = [*(name.replace("/", "_") for name in terms), "best_step"]
    values = [*(float(history[name][best]) for name in terms), float(best_step)]
    model = np.frombuffer(checkpoint.read_bytes(), np.uint8)
    course = {name.replace("/", "_"): np.asarray(values) for name, values in history.items()}
    numbers = {"names": names, "units": ["1"] * len(names), "values": values}
    return {**numbers, "history": course, "model": model}
