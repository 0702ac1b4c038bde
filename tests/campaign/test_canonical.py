"""Equal values have equal bytes, whatever made them; other values have others."""

import json
import subprocess
import sys

import numpy as np
import pytest

from mdsens.campaign.canonical import canonical, digest_of
from mdsens.errors import InputError

VALUES = {"b": [1, 2.5, None, True, "Å", b"x"], "a": np.arange(6.0).reshape(2, 3), "c": {"z": 1, "y": -0.5}}


def test_order_memory_and_width_of_numbers_do_not_matter():
    turned = {key: VALUES[key] for key in ("c", "a", "b")}
    assert digest_of(VALUES) == digest_of(turned)
    x = np.arange(6.0).reshape(2, 3)
    for other in (np.asfortranarray(x), x.astype(">f8"), x.astype("float32"), x[:, ::-1][:, ::-1], x - 0.0):
        assert canonical(x) == canonical(other)
    assert canonical(np.array([0.0])) == canonical(np.array([-0.0])) and canonical(0.0) == canonical(-0.0)
    assert canonical(np.int32(3)) == canonical(3) and canonical(np.float64(0.1)) == canonical(0.1)
    assert canonical((1, 2)) == canonical([1, 2])


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (1, 1.0),
        (1, True),
        (0, None),
        ("1", 1),
        ("ab", b"ab"),
        (["a", "b"], ["ab"]),
        ([[1], [2]], [[1, 2]]),
        ({"a": 1}, {"a": 2}),
        ({"a": {"b": 1}}, {"a": 1, "b": 1}),
        (np.zeros((2, 3)), np.zeros((3, 2))),
        (np.zeros(2), np.zeros(2, int)),
        (np.array([1.0]), np.array([np.nextafter(1.0, 2.0)])),
    ],
    ids=str,
)
def test_other_values_have_other_bytes(one, other):
    assert canonical(one) != canonical(other)


def test_the_hash_is_that_of_every_process():
    value = {"x": 0.1, "names": ["a", "b"], "set": {"sigma": 2.0951}}
    program = (
        "import json,sys; from mdsens.campaign.canonical import digest_of;"
        "print(digest_of(json.loads(sys.argv[1])))"
    )
    environment = {"PYTHONHASHSEED": "7", "PYTHONPATH": ":".join(p for p in sys.path if p)}
    command = [sys.executable, "-c", program, json.dumps(value)]
    printed = subprocess.run(command, capture_output=True, text=True, env=environment, check=True).stdout
    assert printed.strip() == digest_of(value)


def test_what_is_no_plain_data_is_named_with_its_place():
    with pytest.raises(InputError, match=r"options\.solver is of type object .* plain data"):
        canonical({"solver": object()}, "options")
    with pytest.raises(InputError, match=r"x\[1\] has the type complex128"):
        canonical([1, np.array([1j])], "x")
