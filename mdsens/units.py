"""Units: eV, Å, u, eV/Å³ inside; these factors turn them into what people print.

Source: CODATA 2018 (the values ASE and LAMMPS `units metal` use to all digits that matter here).
"""

GPA = 160.2176634  # GPa per eV/Å³
THZ = 15.633302299  # sqrt(eV / Å² / u) / (2 pi) in THz
BOLTZMANN = 8.617333262e-5  # eV / K
COULOMB = 14.3996454784936  # e² / (4 pi epsilon_0) in eV Å
