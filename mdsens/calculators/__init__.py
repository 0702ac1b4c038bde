"""Calculators for other programs; each is imported when first asked for, because ASE takes most of a second."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mdsens.calculators.ase import MDSens

__all__ = ["MDSens"]


def __getattr__(name: str) -> Any:
    if name == "MDSens":
        from mdsens.calculators.ase import MDSens

        return MDSens
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
