"""Calculators for other programs, and of other programs.

Those for ASE are imported when first asked for, because ASE takes most of a second.
"""

from typing import TYPE_CHECKING, Any

from mdsens.calculators.reduced import reduced_ase, reduced_openmm, reduced_potential

if TYPE_CHECKING:
    from mdsens.calculators.ase import MDSens
    from mdsens.calculators.flow import FlowCalculator

__all__ = ["FlowCalculator", "MDSens", "reduced_ase", "reduced_openmm", "reduced_potential"]


def __getattr__(name: str) -> Any:
    if name == "MDSens":
        from mdsens.calculators.ase import MDSens

        return MDSens
    if name == "FlowCalculator":
        from mdsens.calculators.flow import FlowCalculator

        return FlowCalculator
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
