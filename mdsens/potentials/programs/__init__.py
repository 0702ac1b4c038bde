"""Programs outside JAX as potentials: any ASE calculator, a model of another library.

Such a program knows energies, forces and perhaps the stress. With z = (positions x, cell h, parameters theta)
mdsens needs of it

    E(z),    dE/dz,    and products with the matrix of second derivatives  d2E/dz2.

What the program does not have exactly is made of central differences of what it has (`differences`), and
certificates show their error. `evaluator` asks the program, `rules` tells JAX, `potential` and `ase` are what
a user builds.
"""

from mdsens.potentials.programs.ase import from_ase
from mdsens.potentials.programs.evaluator import Program, Situation
from mdsens.potentials.programs.potential import ProgramPotential, from_program

__all__ = ["Program", "ProgramPotential", "Situation", "from_ase", "from_program"]
