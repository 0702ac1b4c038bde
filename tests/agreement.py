"""What the tests compare with independent codes, for docs/validation.md (`make validate`)."""

import os
from collections import defaultdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

HEAD = """# Validation

Every number of mdsens that a test compares with an independent code, as of the last `make validate`. A row is one test. Its
difference is the largest of any number in it; the relative one is in units of the largest number of the same quantity. What a test
allows stands in the test: ten times the other code's own error, or a part of the largest number.
"""  # noqa: E501


class Comparison(NamedTuple):
    """One array beside another: what it is, how large, and how far off."""

    quantity: str
    size: int
    largest: float
    difference: float


found: dict[str, list[Comparison]] = defaultdict(list)


def note(quantity: str, mine: Any, reference: Any) -> None:
    """Remember a comparison under the test that runs."""
    ours, theirs = np.asarray(mine, float), np.asarray(reference, float)
    off, largest = float(np.max(np.abs(ours - theirs))), float(np.max(np.abs(theirs)))
    test = os.environ.get("PYTEST_CURRENT_TEST", "").rpartition(" ")[0]
    found[test].append(Comparison(quantity, theirs.size, largest, off))


def write(path: Path) -> None:
    """Write all comparisons, a table for each file of tests."""
    files: dict[str, list[str]] = defaultdict(list)
    for test, comparisons in found.items():
        file, _, name = test.partition("::")
        for quantity, some in _by_quantity(comparisons).items():
            files[file].append(_row(name, quantity, some))
    lines = [HEAD]
    for file in sorted(files):
        lines += [f"\n## {file}\n", "| test | quantity | numbers | largest | difference | relative |"]
        lines += ["|---|---|---:|---:|---:|---:|", *files[file]]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _by_quantity(comparisons: list[Comparison]) -> dict[str, list[Comparison]]:
    # "positions, sigma" and "positions, epsilon" are one quantity
    groups: dict[str, list[Comparison]] = defaultdict(list)
    for one in comparisons:
        groups[one.quantity.split(",")[0].split(" / ")[0]].append(one)
    return groups


def _row(name: str, quantity: str, some: list[Comparison]) -> str:
    largest, off = max(c.largest for c in some), max(c.difference for c in some)
    relative = f"{off / largest:.1e}" if largest > 0 else "-"
    words = name.replace("|", "/").removeprefix("test_").replace("_", " ")
    numbers = sum(c.size for c in some)
    return f"| {words} | {quantity} | {numbers} | {largest:.6g} | {off:.1e} | {relative} |"
