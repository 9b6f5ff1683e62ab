import sys

import numpy as np
import pytest
import scipy.sparse
from sklearn.neighbors import kneighbors_graph
from threadpoolctl import threadpool_limits

from kgat.datasets.nearest import nearest

pytestmark = pytest.mark.quick

FORMS = {"dense": np.asarray, "csr": scipy.sparse.csr_matrix, "csr_array": scipy.sparse.csr_array}


def oracle(x, k, metric):
    r"""By all distances, in exact arithmetic as far as points are whole numbers."""
    x = np.asarray(x, dtype=np.float64)
    if metric == "euclidean":
        far = np.square(x[:, None] - x[None]).sum(axis=-1)
    else:
        squares = np.square(x).sum(axis=1)
        lengths = np.sqrt(squares[:, None] * squares[None])
        far = np.round(1 - (x @ x.T) / np.where(lengths > 0, lengths, 1.0), 12)
    np.fill_diagonal(far, np.inf)
    return np.argsort(far, axis=1, kind="stable")[:, :k]


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
@pytest.mark.parametrize(
    ("points", "channels", "values", "k"),
    [(60, 2, 3, 4), (60, 2, 3, 59), (40, 20, 2, 8), (30, 1, 1, 5), (2, 3, 4, 1), (200, 3, 5, 8)],
)
def test_of_points_equally_far_the_first_are_taken(metric, form, points, channels, values, k, monkeypatch):
    x = np.random.default_rng(points).integers(values, size=(points, channels)).astype(np.float64)
    expected = oracle(x, k, metric)
    for at_once in (1, 1 << 22):
        monkeypatch.setattr(sys.modules[nearest.__module__], "AT_ONCE", at_once)
        found = nearest(form(x), k, metric)
        assert found.shape == (points, k)
        assert (np.sort(found) == np.sort(expected)).all()


def test_points_that_differ_are_those_of_sklearn():
    x = np.random.default_rng(0).standard_normal((300, 5))
    for metric in ("euclidean", "cosine"):
        same = kneighbors_graph(x, 7, metric=metric).indices.reshape(300, 7)
        assert (np.sort(nearest(x, 7, metric)) == np.sort(same)).all()


def test_threads_scale_and_places_far_off_change_nothing():
    rng = np.random.default_rng(0)
    x = rng.integers(3, size=(500, 30)).astype(np.float64)
    x = (x - x.mean(axis=0)) / x.std(axis=0)  # whole numbers no more
    expected = np.sort(nearest(x, 8))
    with threadpool_limits(1):
        assert (np.sort(nearest(x, 8)) == expected).all()
    for scale in (1e-3, 1e4):
        assert (np.sort(nearest(scale * x, 8)) == expected).all()
    assert (np.sort(nearest(x[:, rng.permutation(30)], 8)) == expected).all()


def far_off(value):
    x = np.random.default_rng(0).standard_normal((400, 3))
    x[7, 1] = value
    return (x - x.mean(axis=0)) / x.std(axis=0)


def two_places():
    x = 1e-3 * np.random.default_rng(0).standard_normal((300, 4))
    x[150:] += 1e6
    return x


CASES = {
    "one coded missing value": far_off(-99999),
    "one very far off": far_off(999_999_999),
    "metres on a map": np.random.default_rng(0).uniform(0, 2000, (300, 2)) + np.array([5e5, 5.3e6]),
    "seconds of a week": np.random.default_rng(0).uniform(0, 6e5, (300, 1)) + 1.7e9,
    "many columns with an offset": np.random.default_rng(0).standard_normal((200, 40)) + 1e4,
    "two places": two_places(),
    "single precision": np.random.default_rng(0).standard_normal((200, 5)).astype(np.float32),
    "tiny": 1e-150 * np.random.default_rng(0).standard_normal((100, 5)),
    "one of each": np.eye(60),
    "all equal": np.zeros((50, 3)),
    "a grid": np.stack(np.meshgrid(range(15), range(15)), -1).reshape(-1, 2),
}


@pytest.mark.parametrize("x", CASES.values(), ids=CASES)
def test_no_point_however_far_makes_others_equal(x):
    exact = x.astype(np.longdouble)
    far = np.square(exact[:, None] - exact[None]).sum(axis=-1)
    np.fill_diagonal(far, np.inf)
    for k in (1, 8):
        expected = np.sort(np.argsort(far, axis=1, kind="stable")[:, :k])
        assert (np.sort(nearest(x, k)) == expected).all()


def test_as_many_neighbours_as_points_are_refused():
    with pytest.raises(ValueError, match=r"more points than neighbours, 8 of each \(got 5\)"):
        nearest(np.zeros((5, 2)), 8)
