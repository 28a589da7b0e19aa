import pytest
from scipy import stats

from diffhep.demo import FreeRow


@pytest.mark.parametrize("pairs", [2, 3, 30, 5000])
@pytest.mark.parametrize("share", [-12.0, -1.0, 0.3, 3.0])
def test_pull_is_as_far_out_as_students_t(pairs, share):
    row = FreeRow("pitch", "pitch", "mm", 0.05, 1.0, 0.1, 1.0, 0.1, share, 1.0, pairs)
    expected = -stats.norm.ppf(stats.t.sf(abs(share), pairs - 1))
    assert abs(row.pull) == pytest.approx(expected, rel=1e-6)
    assert row.pull * share > 0


def test_without_a_difference_there_is_no_pull():
    row = FreeRow("pitch", "pitch", "mm", 0.05, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 3)
    assert row.pull == 0.0
