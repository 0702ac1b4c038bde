"""The figure of a relaxation, of any course."""

import matplotlib.image
import pytest

from mdsens.cli.convergence import plot_convergence
from mdsens.relaxation.walk import RelaxationProgress


@pytest.mark.parametrize("points", [0, 1, 2])
@pytest.mark.parametrize(("fmax", "stress"), [(1e-3, 0.0), (1e-8, 1e-9), (0.0, 0.0)])
def test_a_course_without_a_range_is_drawn_without_a_warning(tmp_path, points, fmax, stress):
    course = [RelaxationProgress(k, -1.0, fmax, stress) for k in range(points)]
    plot_convergence(tmp_path / "a.png", course, 1e-8, with_cell=True)
    assert matplotlib.image.imread(tmp_path / "a.png").shape[0] > 500
