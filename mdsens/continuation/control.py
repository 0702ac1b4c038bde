"""What is turned while a state is followed: a parameter, the pressure, or a strain of the cell.

A control turns a number s into a landscape. All derivatives by s are derivatives of `place`.
"""

import dataclasses
from abc import abstractmethod

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from mdsens.checks import nearest
from mdsens.errors import InputError
from mdsens.potentials.parameters import (
    find_entries,
    parameter_entries,
    parameter_values,
    replace_by_vector,
)
from mdsens.relaxation.landscape import Landscape
from mdsens.strain import UNIT_STRAINS, VOIGT_NAMES, volume_of


class AbstractControl(eqx.Module):
    """One number that a landscape depends on."""

    @property
    @abstractmethod
    def name(self) -> str:
        """For tables and figures."""

    @property
    @abstractmethod
    def unit(self) -> str:
        """Of the number."""

    @abstractmethod
    def value(self, landscape: Landscape) -> float:
        """The number at a landscape that nothing was turned at yet.

        Raises:
            InputError: the landscape has no such number.
        """

    @abstractmethod
    def place(self, landscape: Landscape, s: Float[Array, ""]) -> Landscape:
        """The landscape with the number s; traceable."""


class AlongParameter(AbstractControl):
    """A parameter of the potential, by its flat name."""

    parameter: str = eqx.field(static=True)

    @property
    def name(self) -> str:
        return self.parameter

    @property
    def unit(self) -> str:
        return ""

    def value(self, landscape: Landscape) -> float:
        entries = [entry.name for entry in parameter_entries(landscape.potential)]
        if self.parameter not in entries:
            raise InputError(
                f"no parameter '{self.parameter}' to follow along.{nearest(self.parameter, entries)} There "
                f"are: {', '.join(entries[:30])}."
            )
        find_entries(landscape.potential, (self.parameter,))
        return float(parameter_values(landscape.potential)[self.parameter])

    def place(self, landscape: Landscape, s: Float[Array, ""]) -> Landscape:
        potential = replace_by_vector(landscape.potential, (self.parameter,), jnp.reshape(s, (1,)))
        return dataclasses.replace(landscape, potential=potential)


class AlongPressure(AbstractControl):
    """The target pressure, eV/Å³; positive compresses. Needs strains that are free."""

    @property
    def name(self) -> str:
        return "pressure"

    @property
    def unit(self) -> str:
        return "eV/Å³"

    def value(self, landscape: Landscape) -> float:
        if landscape.n_strains == 0:
            raise InputError(
                "a pressure moves nothing while the cell is held: relax with cell='isotropic' or 'full'."
            )
        return 0.0 - float(jnp.trace(landscape.target)) / 3

    def place(self, landscape: Landscape, s: Float[Array, ""]) -> Landscape:
        shear = landscape.target - jnp.trace(landscape.target) / 3 * jnp.eye(3)
        return dataclasses.replace(landscape, target=shear - s * jnp.eye(3))


class AlongStrain(AbstractControl):
    """A strain of the held cell, from where it is: one of xx, yy, zz, yz, xz, xy, or isotropic.

    The atoms follow the strain, and relax. A shear component is the symmetric one, both halves together.
    """

    component: str = eqx.field(static=True, default="isotropic")

    def __check_init__(self) -> None:
        known = ("isotropic", *VOIGT_NAMES)
        if self.component not in known:
            raise InputError(
                f"strain component '{self.component}' is unknown: use one of {', '.join(known)}."
            )

    @property
    def name(self) -> str:
        return f"strain_{self.component}"

    @property
    def unit(self) -> str:
        return ""

    @property
    def tensor(self) -> np.ndarray:
        """The unit strain."""
        if self.component == "isotropic":
            return np.eye(3)
        return np.asarray(UNIT_STRAINS[VOIGT_NAMES.index(self.component)])

    def value(self, landscape: Landscape) -> float:
        if landscape.n_strains:
            raise InputError(
                "a strain is followed in a cell that is held, and here strains are free: relax with "
                "cell=None, or follow along the pressure."
            )
        if not float(volume_of(landscape.coordinates.reference.cell)) > 0:
            raise InputError("a strain needs a cell, and this structure has none.")
        return 0.0

    def place(self, landscape: Landscape, s: Float[Array, ""]) -> Landscape:
        coordinates = landscape.coordinates
        reference = coordinates.reference.deformed(jnp.eye(3) + s * self.tensor)
        return dataclasses.replace(
            landscape, coordinates=dataclasses.replace(coordinates, reference=reference)
        )


def control_of(along: "str | AbstractControl") -> AbstractControl:
    """A control by its name: "pressure", "strain", "strain_xx", ..., or the flat name of a parameter.

    Raises:
        InputError: neither a name nor a control.
    """
    if isinstance(along, AbstractControl):
        return along
    if not isinstance(along, str):
        raise InputError(
            f"along = {along!r}: give the name of a parameter, 'pressure', 'strain_xx', or a control such as "
            "AlongParameter('sigma')."
        )
    if along == "pressure":
        return AlongPressure()
    if along == "strain" or along.startswith("strain_"):
        return AlongStrain(along.removeprefix("strain").removeprefix("_") or "isotropic")
    return AlongParameter(along)
