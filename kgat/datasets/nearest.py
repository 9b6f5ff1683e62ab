r"""The nearest points of each point, the same on every machine."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from kgat.extras import require

__all__ = ["nearest"]

Array = NDArray[Any]

# Squared distances are sums, whose last digits depend on the machine. As a share of them, what is this close
# counts as equal; as a share of squared lengths, it may have been equal to the search for candidates.
ALIKE, NOISE = 1e-9, 1e-13
PRODUCTS = 64 * np.finfo(np.float64).eps  # of those that distances are differences of
AT_ONCE = 1 << 22  # numbers


def nearest(x: Any, k: int, metric: str = "euclidean") -> Array:
    r"""Returns the nearest other points of each point. Of points that are equally far, those that come first.

    Sorting distances alone leaves open which of several equal ones come out, as points that occur twice or
    columns of whole numbers have them: another number of threads, another order.

    Args:
        x (numpy.ndarray or scipy.sparse matrix): Points.
        k (int): Number of neighbours, less than that of the points.
        metric (str, optional): :obj:`"euclidean"`, or :obj:`"cosine"`, by which a point of zeros is at 1 from
            all. (default: :obj:`"euclidean"`)

    Raises:
        ValueError: If there are not as many other points.

    Shapes:
        - **x:** :math:`(N, F)`
        - **output:** :math:`(N, k)`, each row in no particular order

    Example:
        >>> near = nearest(np.array([[0.0], [1.0], [1.0], [-1.0], [9.0]]), 2)
        >>> np.sort(near).tolist()
        [[1, 2], [0, 2], [0, 1], [0, 1], [1, 2]]
    """
    require("to find nearest neighbours", "sklearn", "scipy")
    from scipy import sparse
    from sklearn.neighbors import NearestNeighbors

    points = x.shape[0]
    if not 1 <= k < points:
        raise ValueError(
            f"Expected more points than neighbours, {k} of each (got {points}); give more, or ask for fewer"
        )
    if sparse.issparse(x):
        x = sparse.csr_matrix(x, dtype=np.float64)  # which scikit-learn took before arrays
    else:
        x = np.asarray(x, dtype=np.float64)
        if metric == "euclidean":
            x = x - np.median(x, axis=0)  # differences of large numbers lose digits
    if metric == "cosine":
        x = _of_length_one(x)
    squares = _squares(x)
    search = NearestNeighbors(metric=metric).fit(x)
    distance, index = search.kneighbors(n_neighbors=min(k + 1, points - 1))
    if index.shape[1] == k:  # all others
        return index
    index = index[:, :k].copy()
    far = distance if metric == "cosine" else distance**2
    around = squares + far[:, k - 1] if metric == "euclidean" else np.ones(points)
    bound = far[:, k - 1] * (1 + 2 * ALIKE) + 4 * NOISE * around
    tied = np.flatnonzero(far[:, k] <= bound)
    if metric == "euclidean" and isinstance(x, np.ndarray):
        tied = _among_equals(x, tied[far[tied, k] <= 4 * NOISE * around[tied]], tied, k, index)
    wide = 2 * (k + 1)
    while tied.size:
        wide = wide if 2 * wide < points else points
        is_open = np.zeros(points, dtype=bool)
        step = max(1, AT_ONCE // (wide if wide < points and isinstance(x, np.ndarray) else points))
        for rows in (tied[start : start + step] for start in range(0, tied.size, step)):
            if wide < points:
                distance, candidates = search.kneighbors(x[rows], n_neighbors=wide)
                last = distance[:, -1] if metric == "cosine" else distance[:, -1] ** 2
                closed = last > bound[rows]
                is_open[rows[~closed]] = True
                rows, candidates = rows[closed], np.sort(candidates[closed])
            else:
                candidates = np.broadcast_to(np.arange(points), (len(rows), points))
            index[rows] = _first(x, squares, rows, candidates, k, metric)
        tied = np.flatnonzero(is_open)
        wide *= 4
    return index


def _squares(x: Any) -> Array:
    return np.asarray((x * x if isinstance(x, np.ndarray) else x.multiply(x)).sum(axis=1)).ravel()


def _of_length_one(x: Any) -> Any:
    largest = abs(x).max(axis=1)
    largest = np.asarray(largest.toarray() if hasattr(largest, "toarray") else largest).ravel()
    scale = 1 / np.where(largest > 0, largest, 1.0)
    x = x * scale[:, None] if isinstance(x, np.ndarray) else x.multiply(scale[:, None]).tocsr()
    lengths = np.sqrt(_squares(x))
    scale = 1 / np.where(lengths > 0, lengths, 1.0)
    return x * scale[:, None] if isinstance(x, np.ndarray) else x.multiply(scale[:, None]).tocsr()


def _first(x: Any, squares: Array, rows: Array, candidates: Array, k: int, metric: str) -> Array:
    r"""Of candidates, the nearest of each row; of those that are equally far, the first."""
    if not rows.size:
        return np.empty((0, k), dtype=np.int64)
    is_self = candidates == rows[:, None]
    if isinstance(x, np.ndarray) and metric == "euclidean":
        far = _squared_distances(x, squares, rows, candidates, k)
        noise: Any = 0.0
    else:
        products = x[rows] @ x.T
        products = np.asarray(products.toarray() if hasattr(products, "toarray") else products)
        products = np.take_along_axis(products, candidates, axis=1)
        if metric == "cosine":
            far, noise = 1 - products, PRODUCTS
        else:
            far = squares[rows][:, None] + squares[candidates] - 2 * products
            noise = PRODUCTS * squares[rows]
    far = np.where(is_self, np.inf, far)
    unit = ALIKE * np.partition(far, k - 1, axis=1)[:, k - 1] + noise
    with np.errstate(over="ignore"):
        rounded = np.where((unit > 0)[:, None], np.rint(far / np.where(unit > 0, unit, 1.0)[:, None]), far)
    order = np.argsort(rounded, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(candidates, order, axis=1)


def _squared_distances(x: Array, squares: Array, rows: Array, candidates: Array, k: int) -> Array:
    r"""By differences; all at once by products where those are as exact."""
    far = np.empty(candidates.shape)
    left = np.arange(len(rows))
    if candidates.shape[1] == len(x):
        by_products = np.maximum(squares[rows][:, None] + squares - 2 * x[rows] @ x.T, 0.0)
        others = np.where(candidates == rows[:, None], np.inf, by_products)
        error = 2 * PRODUCTS * (squares[rows] + squares.max())
        exact = ALIKE * np.partition(others, k - 1, axis=1)[:, k - 1] > error
        far[exact] = by_products[exact]
        left = left[~exact]
    step = max(1, AT_ONCE // max(1, candidates.shape[1] * x.shape[1]))
    for some in (left[start : start + step] for start in range(0, len(left), step)):
        far[some] = np.square(x[candidates[some]] - x[rows[some]][:, None]).sum(axis=-1)
    return far


def _among_equals(x: Array, equal: Array, tied: Array, k: int, index: Array) -> Array:
    r"""Points that are more than :math:`k` times there have one another; returns the points that are left."""
    _, group, counts = np.unique(x[equal], axis=0, return_inverse=True, return_counts=True)
    order = np.argsort(group.reshape(-1), kind="stable")
    done = []
    for members in np.split(equal[order], counts.cumsum()[:-1]):
        if len(members) > k:
            index[members] = members[:k]
            for place in range(k):
                index[members[place], place:] = members[place + 1 : k + 1]
            done.append(members)
    return np.setdiff1d(tied, np.concatenate(done)) if done else tied
