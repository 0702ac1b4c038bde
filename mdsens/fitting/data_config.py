"""The table of a configuration file that says which data a fit sees, and how.

    [data]
    file = "mine.extxyz"                     # or several: ["bulk.extxyz", "surface.h5"]
    energy = "REF_energy"                    # what the file calls its labels, if not as usual
    stress_unit = "GPa"
    test = 0.1                               # share that the fit does not see
    huber = 3.0
    shift_energies = true
    tolerances = { energy = 0.005, forces = 0.05, stress = false }
    weights = { surface = 2.0, bulk = [1.0, 0.5, 0.0] }        # by group: all labels, or energy, forces,
    stress references = { Si = -158.2 }             # eV, taken off the energies

Paths are relative to the folder of the file.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from mdsens.checks import nearest
from mdsens.datasets.dataset import Dataset
from mdsens.datasets.read import read_dataset
from mdsens.datasets.references import subtract_references
from mdsens.datasets.split import split
from mdsens.errors import InputError
from mdsens.fitting.force_matching import ForceMatching, LabelTolerances

# keys that `read_dataset` takes, with what they must be
READING: dict[str, tuple[type, ...]] = {
    "energy": (str,),
    "forces": (str,),
    "stress": (str,),
    "energy_unit": (str,),
    "length_unit": (str,),
    "stress_unit": (str,),
    "positive_in_compression": (bool,),
    "nan": (str,),
    "topology": (str,),
    "group": (str,),
}
KEYS: dict[str, tuple[type, ...]] = {
    "file": (str, list),
    **READING,
    "test": (float, int),
    "seed": (int,),
    "huber": (float, int),
    "shift_energies": (bool,),
    "tolerances": (dict,),
    "weights": (dict,),
    "references": (dict,),
}
WORDS = {
    str: "a text",
    list: "a list",
    bool: "true or false",
    float: "a number",
    int: "a number",
    dict: "a table",
}


class ConfiguredData(NamedTuple):
    """What a table of data comes to.

    Attributes:
        term: of the fit. test: what the fit does not see; may be empty.
    """

    term: ForceMatching
    test: Dataset


def configured_data(
    table: Mapping[str, Any],
    where: str = "data",
    folder: str | Path = ".",
    notice: Callable[[str], None] | None = None,
) -> ConfiguredData:
    """The data of a table; see the module.

    Args:
        where: path of the table in its file, for messages, and the name of the term.
        folder: that paths are relative to.
        notice: called with a sentence on labels that are missing; by default a warning.
    Raises:
        InputError: with the path of the key: unknown, of another kind, or missing.
        FileFormatError: no such file, or nothing that is read as data.
    """
    check_keys(table, KEYS, where)
    if "file" not in table:
        raise InputError(f"{where}.file is missing: name the file of the data.")
    data = _weighted(_read(table, Path(folder), notice), table.get("weights", {}), where)
    if "references" in table:
        data = subtract_references(data, table["references"])
    seen, test = data, Dataset(())
    if table.get("test"):
        parts = split(data, validation=0.0, test=table["test"], seed=table.get("seed", 0))
        seen, test = parts.train, parts.test
    term = ForceMatching(
        seen,
        tolerances=_tolerances(table.get("tolerances", {}), f"{where}.tolerances"),
        huber=table.get("huber"),
        shift_energies=table.get("shift_energies", False),
        name=where,
    )
    return ConfiguredData(term, test)


def check_keys(table: Mapping[str, Any], known: Mapping[str, tuple[type, ...]], where: str) -> None:
    """Raise if a key is unknown, or its value of another kind.

    Raises:
        InputError: names the path of the key, and the nearest one.
    """
    for key, value in table.items():
        path = f"{where}.{key}" if where else key
        if key not in known:
            raise InputError(f"{path} is unknown.{nearest(key, known, 0.5)} There are {', '.join(known)}.")
        kinds = known[key]
        # in Python true is a number
        if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
            words = " or ".join(dict.fromkeys(WORDS[kind] for kind in kinds))
            raise InputError(f"{path} = {value!r}: give {words}.")


def _read(table: Mapping[str, Any], folder: Path, notice: Callable[[str], None] | None) -> Dataset:
    files = table["file"] if isinstance(table["file"], list) else [table["file"]]
    options = {key: table[key] for key in READING if key in table}
    if "topology" in options:
        options["topology"] = folder / options["topology"]
    data = Dataset(())
    for file in files:
        data = data + read_dataset(folder / str(file), notice=notice, **options)
    return data


def _weighted(data: Dataset, weights: Mapping[str, Any], where: str) -> Dataset:
    try:
        return data.weighted(weights)
    except InputError as error:
        raise InputError(f"{where}.weights: {error}") from error


def _tolerances(table: Mapping[str, Any], where: str) -> LabelTolerances:
    check_keys(table, dict.fromkeys(LabelTolerances._fields, (float, int, bool)), where)
    values: dict[str, Any] = {}
    for key, value in table.items():
        if value is True:
            raise InputError(f"{where}.{key} = true: give a number, or false to leave these labels out.")
        values[key] = None if value is False else value
    return LabelTolerances(**values)
