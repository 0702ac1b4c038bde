"""From frames to a flow: nothing is chosen from held-out frames, and frames that do not belong are named."""

import ase
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ase.build import molecule
from numpy.testing import assert_array_equal

from mdsens.errors import InputError
from mdsens.flows.boltzmann import BoltzmannGenerator
from mdsens.flows.data import ForceData, known_again
from mdsens.flows.evaluate import evaluate_on_data
from mdsens.flows.files import read_record
from mdsens.flows.molecule import MoleculeArchitecture
from mdsens.flows.outliers import check_bonds_move, check_handedness, inverted_frames
from mdsens.flows.prepare import prepare
from mdsens.flows.reference_block import MixedCoordinates
from mdsens.flows.train import Schedule, train
from mdsens.flows.transforms import AffineFamily, CircleMixture
from mdsens.molecules.topology import Molecule

SMALL = MoleculeArchitecture(
    CircleMixture(2), AffineFamily(), soft_layers=0, stiff_layers=0, hidden=(4,), harmonics=1
)
MIRROR = np.array([-1.0, 1.0, 1.0])


def frames_of(atoms: ase.Atoms, n: int = 200) -> ForceData:
    rng = np.random.default_rng(5)
    shape = (n, len(atoms), 3)
    positions = 0.1 * atoms.positions + 0.003 * rng.normal(size=shape)  # bonds of 1 Å that move by 0.04
    return ForceData(positions, rng.normal(size=shape), rng.normal(size=n), 300.0)


def known(atoms: ase.Atoms) -> Molecule:
    return Molecule(atoms, tuple(int(z) for z in atoms.numbers), "")


METHANOL, PYRROLE = molecule("CH3OH"), molecule("C4H4NH")


@pytest.fixture(scope="module")
def methanol() -> ForceData:
    return frames_of(METHANOL)


def same(one: BoltzmannGenerator, other: BoltzmannGenerator) -> bool:
    if jax.tree.structure(one) != jax.tree.structure(other):  # static fields: reference and widths of rings
        return False
    return all(
        bool(jnp.all(a == b)) for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    )


@pytest.mark.parametrize("atoms", [METHANOL, PYRROLE], ids=["whitening", "widths of a ring"])
def test_nothing_is_chosen_from_held_out_frames(atoms):
    data = frames_of(atoms)
    moved = data.positions.copy()
    moved[180:] = 1.02 * moved[180:]
    options = {"architecture": SMALL, "held_out": 0.1}
    first = prepare(data, known(atoms), **options)
    second = prepare(data._replace(positions=moved), known(atoms), **options)
    assert same(first.generator, second.generator)
    seen = moved.copy()
    seen[:20] = 1.02 * seen[:20]
    third = prepare(data._replace(positions=seen), known(atoms), **options)
    assert not same(first.generator, third.generator)
    assert_array_equal(second.data.held_out.positions, moved[180:])
    assert isinstance(first.generator.coordinates, MixedCoordinates) == (atoms is PYRROLE)


def test_choices_are_said(methanol):
    done = prepare(methanol, known(METHANOL), architecture=SMALL)
    assert done.choices[0] == "coordinates: ZMatrix of 6 atoms"
    assert done.choices[1] == "0 soft torsions: none"  # noise of 0.03 Å turns nothing around
    assert done.choices[2] == "12 stiff coordinates"
    assert done.generator.flow.dtype == np.float32
    ring = prepare(methanol, known(METHANOL), architecture=SMALL, block=(0, 1, 2))
    assert "stiff block: C0, O1, H2" in ring.choices


def test_a_mirror_image_is_named_and_refused_or_left_out(methanol):
    one = methanol.positions.copy()
    one[17] *= MIRROR
    data = methanol._replace(positions=one)
    assert_array_equal(np.flatnonzero(inverted_frames(METHANOL, one)), [17])
    with pytest.raises(
        InputError, match=r"1 of 200 frames have a tetrahedral atom .* frame 17: .*--drop-out"
    ):
        prepare(data, known(METHANOL), architecture=SMALL)
    said = []
    done = prepare(
        data, known(METHANOL), architecture=SMALL, drop_outliers=True, notice=said.append, held_out=0.1
    )
    assert said == ["1 of 200 frames are mirror images: they are left out."]
    assert done.data.training.n_frames + done.data.held_out.n_frames == 199
    # hydrogens that trade places are one as well, and a turned molecule is none
    swapped = methanol.positions.copy()
    swapped[3] = swapped[3][[0, 1, 2, 3, 5, 4]]
    turned = methanol.positions @ np.array([[0, 1, 0], [-1, 0, 0], [0, 0, 1.0]])
    hydrogens = [i for i in range(6) if METHANOL.numbers[i] == 1]
    at_carbon = [i for i in hydrogens if METHANOL.get_distance(0, i) < 1.3]
    swapped[3] = methanol.positions[3]
    swapped[3][at_carbon[:2]] = methanol.positions[3][at_carbon[1::-1]]
    assert_array_equal(np.flatnonzero(inverted_frames(METHANOL, swapped)), [3])
    assert not inverted_frames(METHANOL, turned).any()
    with pytest.raises(InputError, match="200 of 200 frames"):
        check_handedness(METHANOL, MIRROR * methanol.positions, like=methanol.positions)


def test_evaluate_names_a_mirror_image_instead_of_dropping_numbers(methanol):
    generator = prepare(methanol, known(METHANOL), architecture=SMALL).generator
    one = methanol.positions.copy()
    one[17] *= MIRROR
    with pytest.raises(InputError, match=r"1 of 200 frames have a tetrahedral atom .* first frame 17"):
        evaluate_on_data(generator, methanol._replace(positions=one))
    far = methanol.positions.copy()
    far[5] = np.nan
    with pytest.raises(InputError, match="gives 1 of 200 frames no finite energy or force, first frame 5"):
        evaluate_on_data(generator, methanol._replace(positions=far))


def test_rigid_bonds_are_refused_rounded_or_not(methanol):
    check_bonds_move(METHANOL, methanol.positions, 300.0)
    rigid = methanol.positions.copy()
    bond = rigid[:, 1] - rigid[:, 0]  # C-O
    rigid[:, 1] = rigid[:, 0] + 0.143 * bond / np.linalg.norm(bond, axis=1, keepdims=True)
    for positions in (rigid, rigid.round(3)):  # nm: .xtc
        with pytest.raises(InputError, match=r"1 of 5 bonds are rigid: that of C0 .* O1 .*constraints=None"):
            prepare(methanol._replace(positions=positions), known(METHANOL), architecture=SMALL)
    check_bonds_move(METHANOL, methanol.positions.round(3), 300.0)  # rounding alone is no constraint


def test_frames_of_another_molecule_are_refused(methanol):
    with pytest.raises(InputError, match="positions of 6 atoms, and the topology has 10"):
        prepare(methanol, known(PYRROLE), architecture=SMALL)
    missing = methanol.positions.copy()
    missing[9, 2] = np.nan
    with pytest.raises(InputError, match="1 frames are not finite, first in frame 9"):
        prepare(methanol._replace(positions=missing), known(METHANOL), architecture=SMALL)
    far = methanol.positions.copy()
    far[190, 5] += 1.0
    with pytest.raises(InputError, match=r"among the 20 held-out frames, counted from 0: .* in frame 10"):
        prepare(methanol._replace(positions=far), known(METHANOL), architecture=SMALL)


def test_a_model_file_knows_its_frames(methanol, tmp_path):
    prepared = prepare(methanol, known(METHANOL), architecture=SMALL, source="methanol.h5")
    path = tmp_path / "model.h5"
    schedule = Schedule(steps=2, batch=8, evaluate_every=2)
    train(prepared.generator, prepared.data, schedule=schedule, checkpoint=path)
    record = read_record(path)
    assert record.source == "methanol.h5" and record.n_frames == 200
    assert_array_equal(record.held_out, np.arange(180, 200))
    assert_array_equal(known_again(methanol.signatures(), record.trained_on), np.arange(200) < 180)


def test_frames_of_enhanced_sampling_teach_forces_and_no_frequencies(methanol):
    """Twice the frames with weight zero added: the likelihood terms are the same, the forces are not."""
    enhanced = methanol.rows(slice(0, 100))._replace(forces=methanol.forces[:100] + 1.0)
    joined = methanol.join(enhanced)
    prepared = prepare(methanol, known(METHANOL), architecture=SMALL)
    whole = Schedule(steps=1, batch=180, evaluate_every=1)
    plain = train(prepared.generator, methanol, schedule=whole).history
    more = train(prepared.generator, joined, schedule=Schedule(steps=1, batch=270, evaluate_every=1)).history
    for name in ("train/nll", "held_out/nll"):
        np.testing.assert_allclose(more[name], plain[name], rtol=1e-5)  # float32
    assert abs(more["train/force_rmse"][0] / plain["train/force_rmse"][0] - 1) > 1e-3
    with pytest.raises(InputError, match="weight 0 in the likelihood"):
        train(prepared.generator, joined._replace(weights=np.zeros(300)), schedule=whole)
