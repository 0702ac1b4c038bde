"""Free energies and averages of a target system out of samples of a reference, and their derivatives.

The reference has a normalized density p(x): a flow, for one. The target has the reduced energy u(x; theta),
in kT, and parameters theta. With the weights

    w(x) = exp(-u(x; theta)) / p(x)

the free energy of the target, relative to the reference whose partition function is 1, and its averages are
means over samples of the reference:

    F = -log ∫ exp(-u) dx = -log <w>_p,        <A> = <w A>_p / <w>_p.

The derivatives by the parameters are averages of the target themselves, over the same samples:

    dF/dtheta   = <du/dtheta>,
    d<A>/dtheta = <dA/dtheta> - <A du/dtheta> + <A> <du/dtheta>.

Automatic differentiation of the functions here gives just these, at fixed samples x and fixed log p. Where x
and log p are themselves functions of parameters (of a flow: `flow.draw`), derivatives pass through them too.

For a molecule p and the target's partition function may be those of the shape (those of a `Flow` are): place
and orientation, which contribute -log(8 pi² V) to the free energy of any molecule, are left out of both.

Source: Zwanzig, J. Chem. Phys. 22, 1420 (1954); with a map, Jarzynski, Phys. Rev. E 65, 046122 (2002); with a
    flow, Wirnsberger et al., J. Chem. Phys. 153, 144112 (2020).
"""

from mdsens.ensembles.averages import Average, reweighted_average
from mdsens.ensembles.free_energies import FreeEnergy, bennett, free_energy_difference, joint_log_weights
from mdsens.ensembles.sensitivities import EnsembleSensitivity, average_sensitivity, free_energy_sensitivity
from mdsens.ensembles.weights import MIN_EFFECTIVE, effective_sample_size, log_weights

__all__ = [
    "MIN_EFFECTIVE",
    "Average",
    "EnsembleSensitivity",
    "FreeEnergy",
    "average_sensitivity",
    "bennett",
    "effective_sample_size",
    "free_energy_difference",
    "free_energy_sensitivity",
    "joint_log_weights",
    "log_weights",
    "reweighted_average",
]
