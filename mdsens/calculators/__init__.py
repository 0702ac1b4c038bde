"""Calculators for other programs; each is imported when first asked for, because ASE takes most of a second."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mdsens.calculators.ase import MDSens
    from mdsens.calculators.flow import FlowCalculator

__all__ = ["FlowCalculator", "MDSens"]


def __getattr__(name: str) -> Any:
    if name == "MDSens":
        from mdsens.calculators.ase import MDSens

        return MDSens
    if name == "FlowCalculator":
        from mdsens.calculators.flow import FlowCalculator

        return FlowCalculator
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
