"""The comparison of cheap derivatives: each is off by what its formula says, and the figure is written."""

import numpy as np
from test_workflows import run


def test_conjugate_gradients_win_and_a_ridge_is_off_in_proportion(tmp_path):
    text = run("approximate_derivatives", "--times", "1", "--output", "cheap.png", folder=tmp_path)
    rows = {}
    for line in text.splitlines()[1:]:
        name, values = line[:20].strip(), line[20:].split("  ")
        pairs = [value.split(":") for value in values if ":" in value]
        rows[name] = {float(at): float(error) for at, error in pairs}
    assert rows["conjugate gradients"][20] < 1e-6 < rows["Neumann"][20]
    errors = list(rows["Neumann"].values())
    assert np.all(np.diff(errors[:7]) < 0)
    # ten times the ridge, ten times the error, while it is small
    assert abs(rows["ridge"][1e-2] / rows["ridge"][1e-3] - 10) < 1
    assert (tmp_path / "cheap.png").stat().st_size > 10_000
