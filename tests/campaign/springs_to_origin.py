"""A form that no file of mdsens names, and functions that build potentials of it: workers import them."""

import equinox as eqx

import mdsens as ms


class Einstein(ms.Potential):
    """A spring to the origin for each atom; of a form that no file of mdsens names."""

    k: ms.potentials.base.Array = ms.parameter("eV/Å²")
    elements: tuple[str, ...] = eqx.field(static=True, default=("Si",))
    source: str = eqx.field(static=True, default="a test")

    @property
    def cutoff(self):
        return 1.0

    def energy(self, structure, neighbors):
        return self.k * (structure.positions**2).sum() / 2


def springs():
    """What a user names: "springs_to_origin:springs"."""
    return Einstein(3.0)


def nothing():
    """No potential."""
