import sys

import awkward
import numpy as np
import pytest

from diffhep.event import (
    awkward_from_padded,
    flatten_padded,
    pad_awkward,
    pad_jagged,
)


_COUNTS = np.array([2, 0, 3])


def test_round_trip():
    values = np.arange(10.0).reshape(5, 2)
    padded, mask = pad_jagged(values, _COUNTS, capacity=4)
    assert padded.shape == (3, 4, 2)
    np.testing.assert_array_equal(mask.sum(axis=1), _COUNTS)
    np.testing.assert_array_equal(padded[2, :3], values[2:])
    assert np.all(padded[~mask] == 0)
    back, counts = flatten_padded(padded, mask)
    np.testing.assert_array_equal(back, values)
    np.testing.assert_array_equal(counts, _COUNTS)


def test_overflow_keeps_the_first():
    padded, mask = pad_jagged(np.arange(5), _COUNTS, capacity=2)
    np.testing.assert_array_equal(padded, [[0, 1], [0, 0], [2, 3]])
    np.testing.assert_array_equal(mask.sum(axis=1), [2, 0, 2])


def test_no_events():
    padded, mask = pad_jagged(np.zeros((0, 3)), np.zeros(0, int), capacity=2)
    assert padded.shape == (0, 2, 3)
    assert mask.shape == (0, 2)


def test_awkward_round_trip():
    array = awkward.Array([[1.0, 2.0], [], [3.0, 4.0, 5.0]])
    padded, mask = pad_awkward(array, capacity=3)
    np.testing.assert_array_equal(padded, [[1, 2, 0], [0, 0, 0], [3, 4, 5]])
    assert awkward_from_padded(padded, mask).to_list() == array.to_list()


def test_errors(monkeypatch):
    with pytest.raises(ValueError, match=r"`capacity` must be positive, but is 0"):
        pad_jagged(np.arange(5), _COUNTS, capacity=0)
    with pytest.raises(ValueError, match=r"add up to 5, but there are 4 values"):
        pad_jagged(np.arange(4), _COUNTS, capacity=3)
    monkeypatch.setitem(sys.modules, "awkward", None)
    with pytest.raises(ImportError, match=r"run pip install awkward"):
        pad_awkward([[1]], capacity=3)
