"""A plan: rows of structures with sets of parameters, and every fault of the file said with its place."""

import shutil

import ase.build
import ase.db
import ase.io
import numpy as np
import pytest
from campaign_tasks import SILICON

import mdsens as ms
from mdsens.campaign.plan import plan_of, read_plan
from mdsens.errors import FileFormatError, InputError


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Files of silicon, a database of it, and a file that is none."""
    folder = tmp_path_factory.mktemp("plan")
    atoms = ase.build.bulk("Si", "diamond", a=5.431, cubic=True)
    shaken = [atoms.copy() for _ in range(3)]
    for seed, one in enumerate(shaken):
        one.rattle(0.02, seed=seed)
    (folder / "many").mkdir()
    ase.io.write(folder / "bulk.extxyz", atoms)
    ase.io.write(folder / "many" / "shaken.extxyz", shaken)
    ase.io.write(folder / "many" / "bulk.cif", atoms)
    (folder / "many" / "broken.cif").write_text("no structure")
    with ase.db.connect(folder / "all.db") as database:
        database.write(atoms, family="perfect", rank=1)
        database.write(atoms[1:], family="vacancy", rank=2)
    return folder


def content(**changes):
    plan = {"potential": SILICON, "structures": [{"files": "bulk.extxyz"}]}
    return {**plan, **changes}


def test_files_patterns_and_databases_become_rows_with_names_and_tags(folder):
    tables = [
        {"files": ["bulk.extxyz", "many/*"], "tags": {"family": "files"}},
        {"database": "all.db", "select": "rank<2"},
    ]
    plan = plan_of(content(structures=tables), folder)
    names = ["bulk", "bulk~2", "shaken-0", "shaken-1", "shaken-2", "all-1"]
    assert [row.name for row in plan.rows] == names
    assert plan.rows[0].tags == {"family": "files"} and plan.rows[-1].tags == {"family": "perfect", "rank": 1}
    # what cannot be read is listed, and the rest runs
    (file, reason), *rest = plan.unreadable.items()
    assert file.endswith("broken.cif") and "cannot read" in reason and not rest
    assert len(list(plan)) == len(plan) == 6


def test_sets_grids_and_samples_cross_with_the_structures(folder):
    listed = plan_of(content(sets=[{"name": "soft", "epsilon": 2.0}, {"sigma": 2.1}], set={"A": 7.0}), folder)
    assert [task.name for task in listed] == ["bulk/soft", "bulk/1"]
    assert [dict(task.params) for task in listed] == [{"A": 7.0, "epsilon": 2.0}, {"A": 7.0, "sigma": 2.1}]
    grid = plan_of(content(grid={"epsilon": [2.0, 2.2], "sigma": [2.0, 2.1, 2.2]}), folder)
    assert len({task.key for task in grid}) == 6
    potential = ms.load_potential(SILICON)
    spread = ms.uncertainty.ParameterDistribution.from_errors(potential, {"epsilon": 0.01, "sigma": 0.001})
    ms.uncertainty.write_covariance(spread, folder / "cov.csv", overwrite=True)
    drawn = plan_of(content(samples={"covariance": "cov.csv", "draws": 400, "seed": 1}), folder)
    epsilons = np.array([task.params["epsilon"] for task in drawn])
    assert len(epsilons) == 400 and abs(epsilons.std() / 0.01 - 1) < 0.15  # 3.5 % is one standard error
    again = plan_of(content(samples={"covariance": "cov.csv", "draws": 400, "seed": 1}), folder)
    assert [task.key for task in again] == [task.key for task in drawn]


def test_short_tasks_share_a_bucket_of_similar_sizes(folder):
    tables = [{"database": "all.db"}, {"files": "many/shaken.extxyz"}]
    plan = plan_of(content(structures=tables, batch=2), folder)
    sizes = [[one.n_atoms for one in row.structures.values()] for row in plan.rows]
    assert plan.kind == "relax_batch" and sizes == [[7, 8], [8, 8], [8]]


def test_pairs_are_barriers_and_options_have_the_units_of_the_command_line(folder):
    pairs = [{"start": "bulk.extxyz", "end": "many/bulk.cif", "tags": {"hop": "none"}}]
    plan = plan_of({"kind": "barrier", "potential": SILICON, "pairs": pairs}, folder)
    (task,) = plan
    assert set(task.structure) == {"start", "end"} and task.tags == {"hop": "none"}
    relaxed = plan_of(content(options={"cell": "none", "pressure": 1.0, "solver": "newton"}), folder)
    (task,) = relaxed
    assert task.options["cell"] is None and task.options["pressure"] == 1 / ms.units.GPA


def test_a_potential_beside_the_plan_is_found_there(folder):
    source = next(one.file for one in ms.available_potentials() if one.name == SILICON)
    shutil.copy(source, folder / "mine.toml")
    (folder / "plan.toml").write_text('potential = "mine.toml"\n[[structures]]\nfiles = "bulk.extxyz"\n')
    (task,) = read_plan(folder / "plan.toml")
    assert task.potential.files[0].name == "mine.toml"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"structure": []}, "structure is unknown. Did you mean 'structures'"),
        ({"structures": [{"file": "x"}]}, r"structures\[0\]\.file is unknown. Did you mean 'files'"),
        ({"structures": [{"files": "none/*.cif"}]}, "no file fits 'none/"),
        ({"structures": [{"files": []}]}, r"structures\[0\]\.files = \[\]"),
        ({"structures": {"files": "x"}}, r"write each as \[\[structures\]\]"),
        ({"structures": [{"files": "bulk.extxyz", "tags": {"a": []}}]}, r"structures\[0\]\.tags"),
        ({"pairs": [{"start": "bulk.extxyz"}]}, r"pairs\[0\]\.end is missing"),
        ({"kind": "sensitivty", "observables": ["energy"]}, "Did you mean 'sensitivity'"),
        ({"kind": 3}, "kind = 3: give a text"),
        ({"options": {"fmx": 1}}, "Did you mean 'fmax'"),
        ({"potential": ""}, "potential is missing"),
        ({"potential": "si-stilinger-weber"}, "Did you mean"),
        ({"observables": 3, "kind": "observables"}, "observables = 3"),
        ({"kind": "observables"}, "needs the option 'observables'"),
        ({"set": {"epsilonn": 1.0}}, "Did you mean 'epsilon'"),
        ({"set": {"epsilon": -1.0}}, "outside its bounds"),
        ({"set": {"epsilon": "big"}}, r"set\.epsilon = 'big'"),
        ({"sets": {"epsilon": 1.0}}, r"write each as \[\[sets\]\]"),
        ({"sets": [{"epsilon": 2.0}], "grid": {"sigma": [2.0]}}, "sets and grid are given"),
        ({"grid": {"sigma": 2.0}}, r"grid\.sigma = 2\.0: give a list"),
        ({"samples": {"draws": 3}}, "either covariance or samples"),
        ({"samples": {"covarianc": "x"}}, "Did you mean 'covariance'"),
        ({"batch": 0}, "batch = 0"),
        ({"batch": 2, "kind": "barrier"}, "are not batched"),
    ],
)
def test_faults_of_a_plan_are_said_with_their_place(folder, changes, message):
    with pytest.raises(InputError, match=message):
        plan_of(content(**changes), folder)


def test_plans_without_a_structure_that_can_be_read_and_files_that_are_no_toml_are_refused(folder):
    with pytest.raises(FileFormatError, match=r"no structure that can be read.*broken\.cif"):
        plan_of(content(structures=[{"files": "many/broken.cif"}]), folder)
    with pytest.raises(FileFormatError, match=r"Add \[\[structures\]\]"):
        plan_of({"potential": SILICON}, folder)
    with pytest.raises(FileFormatError, match="no file"):
        plan_of(content(structures=[{"database": "none.db"}]), folder)
    (folder / "no.db").write_text("no database")
    with pytest.raises(FileFormatError, match=r"structures\[0\]\.database: .* cannot be read"):
        plan_of(content(structures=[{"database": "no.db"}]), folder)
    with pytest.raises(InputError, match="'rank>9': no row of"):
        plan_of(content(structures=[{"database": "all.db", "select": "rank>9"}]), folder)
    with pytest.raises(FileFormatError, match="is not TOML"):
        read_plan(folder / "bulk.extxyz")
    with pytest.raises(FileFormatError, match="no plan"):
        read_plan(folder / "none.toml")
