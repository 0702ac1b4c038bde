"""The functional forms that a file may name, and what each of them takes: settings and parameters by key."""

import dataclasses
import inspect
from typing import Any

from mdsens.potentials.base import USER_FORMS, Potential
from mdsens.potentials.bonded import HarmonicAngles, HarmonicBonds, PeriodicDihedrals
from mdsens.potentials.damped import DampedShiftedForce, Wolf
from mdsens.potentials.dipoles import InducedDipoles
from mdsens.potentials.eam import EAM
from mdsens.potentials.edip import EDIP
from mdsens.potentials.equilibration import ChargeEquilibration
from mdsens.potentials.ewald import Ewald
from mdsens.potentials.gupta import Gupta
from mdsens.potentials.ionic import BornMayerHuggins, Buckingham
from mdsens.potentials.johnson import Johnson
from mdsens.potentials.nonbonded import MolecularCharges, MolecularLennardJones
from mdsens.potentials.pair import LennardJones, Morse, SoftSphere
from mdsens.potentials.particle_mesh import ParticleMeshEwald
from mdsens.potentials.snap import SNAP
from mdsens.potentials.stillinger_weber import StillingerWeber
from mdsens.potentials.sums import SumPotential
from mdsens.potentials.tersoff import Tersoff
from mdsens.potentials.tersoff_variants import TersoffMod, TersoffZBL
from mdsens.potentials.vashishta import Vashishta
from mdsens.potentials.zbl import ZBL

# The forms of mdsens that a file may name; those of a user's own are in USER_FORMS once they are defined.
OWN_FORMS: dict[str, type[Potential]] = {
    form.__name__: form
    for form in (
        EAM,
        EDIP,
        Gupta,
        InducedDipoles,
        ChargeEquilibration,
        Johnson,
        LennardJones,
        Morse,
        SNAP,
        SoftSphere,
        StillingerWeber,
        Buckingham,
        BornMayerHuggins,
        Ewald,
        ParticleMeshEwald,
        HarmonicAngles,
        HarmonicBonds,
        MolecularCharges,
        MolecularLennardJones,
        PeriodicDihedrals,
        DampedShiftedForce,
        Wolf,
        Tersoff,
        TersoffMod,
        TersoffZBL,
        Vashishta,
        ZBL,
    )
}
SUM = SumPotential.__name__


def known_forms() -> dict[str, type[Potential]]:
    """Forms that a file may name: those of mdsens, and those of a user's own that have been defined."""
    is_whole = lambda form: not inspect.isabstract(form) and form.parameter_fields()
    usable = {name: form for name, form in USER_FORMS.items() if is_whole(form)}
    return {**usable, **OWN_FORMS}


def _key(field: str) -> str:
    return "cutoff" if field == "cutoff_radius" else field.rstrip("_")


def settings_of(form: type[Potential]) -> dict[str, Any]:
    """What a form takes besides its parameters: key in the file -> dataclass field."""
    fields = [f for f in dataclasses.fields(form) if f.init and f.metadata.get("in_files", True)]
    return {_key(f.name): f for f in fields if "unit" not in f.metadata}


def parameters_of(form: type[Potential]) -> dict[str, Any]:
    """The parameters of a form: key in the file -> dataclass field."""
    return {_key(f.name): f for f in dataclasses.fields(form) if "unit" in f.metadata}


def is_required(field: Any) -> bool:
    """Whether a file must give it."""
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
