"""Units: eV, Å, u, eV/Å³ inside; these factors turn them into what people print.

Source: CODATA 2018 (the values ASE and LAMMPS `units metal` use to all digits that matter here).
"""

GPA = 160.2176634  # GPa per eV/Å³
THZ = 15.633302299  # sqrt(eV / Å² / u) / (2 pi) in THz
BOLTZMANN = 8.617333262e-5  # eV / K
KJ_PER_MOL = 1 / 96.48533212331  # eV
KCAL_PER_MOL = 4.184 * KJ_PER_MOL  # eV
COULOMB = 14.3996454784936  # e² / (4 pi epsilon_0) in eV Å
ACCELERATION = 9.648533215665e-3  # Å/fs² per eV/Å/u; and u Å²/fs² per eV
NM = 10.0  # Å
