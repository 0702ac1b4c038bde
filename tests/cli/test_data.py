"""`mdsens data`: what is in a file, other formats, and data out of a potential."""

import ase.build
import ase.io
import numpy as np
from command_line import run

import mdsens as ms


def test_generate_info_and_convert(tmp_path):
    ase.io.write(tmp_path / "si.extxyz", ase.build.bulk("Si", cubic=True))
    out = tmp_path / "data.h5"
    words = ["data", "generate", tmp_path / "si.extxyz", "-p", "si-stillinger-weber-1985", "--count", 3]
    code, text = run(*words, "--rattle", "0.05,0.1", "-o", out)
    assert code == 0 and "with forces 6 (48 atoms)" in text and f"wrote {out}" in text
    code, text = run(*words, "--rattle", "0.05,0.1", "-o", out)
    assert code == 5 and "exists" in text
    code, text = run("data", "info", out)
    assert code == 0
    for part in ("structures 6", "elements Si", "periodic along a b c", "duplicates 0", "Si -4.", "GPa"):
        assert part in text
    code, text = run("data", "convert", out, tmp_path / "data.extxyz")
    assert code == 0
    back = ms.read_dataset(tmp_path / "data.extxyz")
    np.testing.assert_allclose(back[5].forces, ms.read_dataset(out)[5].forces, rtol=1e-14)
    code, text = run("data", "info", tmp_path / "data.extxyz", "--energy", "enrgy")
    assert code == 2 and "Did you mean 'energy'" in text


def test_info_names_what_looks_wrong_and_what_is_missing(tmp_path):
    atoms = ase.build.bulk("Si", cubic=True)
    atoms.rattle(0.1)
    labelled = atoms.copy()
    labelled.info["REF"] = -34.0
    ase.io.write(tmp_path / "two.extxyz", [labelled, atoms])
    code, text = run("data", "info", tmp_path / "two.extxyz", "--energy", "REF")
    assert code == 0
    assert "1 of 2 have no energy" in text and "two.extxyz:1 is two.extxyz:0 again" in text


def test_generate_says_what_it_needs(tmp_path):
    ase.io.write(tmp_path / "si.extxyz", ase.build.bulk("Si", cubic=True))
    words = ["data", "generate", tmp_path / "si.extxyz", "-p", "si-stillinger-weber-1985"]
    code, text = run(*words)
    assert code == 2 and "give --temperature 300,600 or --rattle 0.05,0.1" in text
    code, text = run(*words, "--rattle", "a lot")
    assert code == 2 and "give numbers with commas" in text
