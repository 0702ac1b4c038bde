"""Tasks that tests share."""

import ase.build

import mdsens as ms
from mdsens.campaign import Task

SILICON = "si-stillinger-weber-1985"


def silicon(rattled: int | None = None) -> ms.Structure:
    """Eight atoms."""
    atoms = ase.build.bulk("Si", "diamond", a=5.431, cubic=True)
    if rattled is not None:
        atoms.rattle(0.05, seed=rattled)
    return ms.Structure.from_ase(atoms)


def number_task(x: float, kind: str = "square", **options) -> Task:
    """A task that costs nothing."""
    return Task(kind=f"campaign_kinds:{kind}", options={"x": x, **options}, name=f"x{x:g}", tags={"x": x})
