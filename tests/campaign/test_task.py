"""What a task is: plain data with a name that holds all that decides about its result, and nothing else."""

import pickle
import shutil
from dataclasses import replace

import numpy as np
import pytest
import springs_to_origin
from campaign_tasks import SILICON, silicon

import mdsens as ms
from mdsens.campaign import Task, potentials
from mdsens.campaign.potentials import load_placed, potential_files
from mdsens.errors import CampaignError, FileFormatError, InputError

FOLDER = ms.available_potentials()[0].file.parent


def task(**changes) -> Task:
    given = {"potential": SILICON, "params": {"epsilon": 2.2}, "options": {"fmax": 1e-6}, **changes}
    return Task(given.pop("structure", silicon()), **given)


def test_name_and_tags_are_no_part_of_the_key_and_all_else_is():
    key = task().key
    assert task(name="a", tags={"family": "bulk"}).key == key
    moved = silicon().at(silicon().positions + 1e-9)
    others = [
        task(params={"epsilon": 2.3}),
        task(params={}),
        task(options={"fmax": 1e-7}),
        task(potential="si-tersoff-1988-t3", params={}),
        task(structure=moved),
        task(structure={"bulk": silicon()}),
        task(kind="observables", options={"fmax": 1e-6, "observables": ["energy"]}),
    ]
    assert len({key, *(other.key for other in others)}) == len(others) + 1


def test_a_task_holds_no_array_of_jax_and_comes_through_a_pickle():
    one = task()
    arrays = [value for value in one.structure["structure"].values() if not isinstance(value, tuple)]
    assert all(type(array) is np.ndarray for array in arrays)
    again = pickle.loads(pickle.dumps(one))
    assert again.key == one.key and again.structures()["structure"].n_atoms == 8


def test_a_changed_potential_file_changes_the_key_and_a_moved_one_does_not(tmp_path):
    source, there = FOLDER / f"{SILICON}.toml", tmp_path / "mine.toml"
    shutil.copy(source, there)
    first = task(potential=there).key
    (tmp_path / "elsewhere").mkdir()
    moved = tmp_path / "elsewhere" / "mine.toml"
    shutil.copy(there, moved)
    assert task(potential=moved).key == first
    text = there.read_text()
    changed = text.replace("epsilon =", "epsilon = 9.0 #", 1)
    assert changed != text
    there.write_text(changed)
    assert task(potential=there).key != first


def test_a_file_that_changes_between_task_and_run_is_refused(tmp_path):
    there = tmp_path / "mine.toml"
    shutil.copy(FOLDER / f"{SILICON}.toml", there)
    one = task(potential=there)
    there.write_text(there.read_text() + "\n# more\n")
    with pytest.raises(InputError, match="has changed since its tasks were made"):
        one.placed(tmp_path / "out")
    there.unlink()
    with pytest.raises(CampaignError, match="neither in the folder of the campaign nor at"):
        one.placed(tmp_path / "out")


def test_objects_travel_as_files_with_every_digit(tmp_path):
    potential = ms.replace_parameters(ms.load_potential(SILICON), {"epsilon": 2.1234567890123456})
    placed = task(potential=potential, params={}).placed(tmp_path)
    loaded = load_placed(placed.potential, tmp_path)
    assert ms.parameter_values(loaded) == ms.parameter_values(potential)
    assert placed.potential.files[0].content is None  # light to send


def test_a_potential_without_a_file_is_built_by_a_function_on_each_worker(tmp_path, monkeypatch):
    built = task(potential="springs_to_origin:springs", params={"k": 2.0})
    assert built.key == task(potential="springs_to_origin:springs", params={"k": 2.0}).key
    placed = built.placed(tmp_path)
    assert float(load_placed(placed.potential, tmp_path).k) == 3.0
    kept = list(tmp_path.glob("inputs/*/*"))
    assert [file.name for file in kept] == ["potential.json"]  # nothing that is executed
    # another worker, with other numbers in its module
    monkeypatch.setattr(springs_to_origin, "springs", lambda: springs_to_origin.Einstein(4.0))
    potentials._loaded.cache_clear()
    with pytest.raises(CampaignError, match="builds another potential on this worker"):
        load_placed(placed.potential, tmp_path)


def test_other_numbers_of_a_built_potential_are_another_task(monkeypatch):
    keys = []
    for k in (1.0, 1.0, 2.0):
        monkeypatch.setattr(springs_to_origin, "springs", lambda k=k: springs_to_origin.Einstein(k))
        potentials._built.cache_clear()
        keys.append(task(potential="springs_to_origin:springs", params={}).key)
    potentials._built.cache_clear()
    assert keys[0] == keys[1] != keys[2]


def test_companions_of_a_file_count_and_travel_along(tmp_path):
    parts = ms.load_potential("w-snap-2017").parts
    snap = next(part for part in parts if isinstance(part, ms.SNAP))
    ms.save_potential(snap, tmp_path / "w.snapcoeff")
    files = potential_files(tmp_path / "w.snapcoeff")
    assert [file.name for file in files.files] == ["w.snapcoeff", "w.snapparam"]
    settings = tmp_path / "w.snapparam"
    settings.write_text(settings.read_text() + "\n# another\n")
    assert potential_files(tmp_path / "w.snapcoeff").digest != files.digest


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kind": "relaxx"}, "no tasks of the kind 'relaxx'. Did you mean 'relax'"),
        ({"kind": "sensitivity", "options": {"observable": []}}, "Did you mean 'observables'"),
        ({"kind": "observables", "options": {}}, "needs the option 'observables'"),
        ({"kind": "barrier", "options": {}}, "structures called start and end, and structure were given"),
        ({"options": {"solver": ms.FIRE()}}, r"options\.solver is of type FIRE"),
        ({"params": {"epsilon": "big"}}, r"params\.epsilon = 'big'"),
        ({"potential": None}, "needs a potential"),
        ({"potential": "si-stilinger"}, "Did you mean 'si-stillinger"),
        ({"potential": 3}, "Potential"),
        ({"potential": springs_to_origin.Einstein(1.5)}, "potential='my_module:my_function'"),
        ({"potential": "springs_to_origin:spring"}, "cannot import 'springs_to_origin:spring'"),
        ({"potential": "springs_to_origin:nothing"}, "Potential"),
        ({"structure": None}, "needs a structure"),
        ({"structure": "si.cif"}, "Read the file"),
        ({"tags": {"x": object()}}, r"tags\.x"),
    ],
)
def test_what_is_wrong_with_a_task_is_said_when_it_is_made(changes, message):
    with pytest.raises(InputError, match=message):
        task(**changes)


def test_a_potential_file_that_is_missing_is_said(tmp_path):
    with pytest.raises(FileFormatError, match="no potential file"):
        task(potential=tmp_path / "none.sw")


def test_equal_tasks_share_their_files_and_replacing_the_name_keeps_the_key():
    one = task(name="a")
    assert replace(one, name="b").key == one.key
