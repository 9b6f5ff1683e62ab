r"""The nearest points of each point, the same on every machine."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from kgat.extras import require

__all__ = ["nearest"]

Array = NDArray[Any]

# Distances are sums, whose last digits depend on the machine: squares that are this close, as a share of the
# largest squared length, count as equal.
ALIKE = 1e-10
AT_ONCE = 1 << 22  # pairs of a point and a candidate


def nearest(x: Any, k: int, metric: str = "euclidean") -> Array:
    r"""Returns the nearest other points of each point. Of points that are equally far, those that come first.

    Sorting distances alone leaves open which of several equal ones come out, as points that occur twice or
    columns of whole numbers have them: another number of threads, another order.

    Args:
        x (numpy.ndarray or scipy.sparse matrix): Points.
        k (int): Number of neighbours, less than that of the points.
        metric (str, optional): :obj:`"euclidean"`, or :obj:`"cosine"`, by which a point of zeros is at 1 from
            all. (default: :obj:`"euclidean"`)

    Shapes:
        - **x:** :math:`(N, F)`
        - **output:** :math:`(N, k)`, in the order of distances where they differ

    Example:
        >>> nearest(np.array([[0.0], [1.0], [1.0], [-1.0], [9.0]]), 2).tolist()
        [[1, 2], [2, 0], [1, 0], [0, 1], [1, 2]]
    """
    require("to find nearest neighbours", "sklearn", "scipy")
    from scipy import sparse
    from sklearn.neighbors import NearestNeighbors

    is_sparse = sparse.issparse(x)
    x = sparse.csr_array(x, dtype=np.float64) if is_sparse else np.asarray(x, dtype=np.float64)
    squares = np.asarray((x * x).sum(axis=1)).ravel()
    points = len(squares)
    search = NearestNeighbors(metric=metric).fit(x)
    distance, index = search.kneighbors(n_neighbors=min(k + 1, points - 1))
    if index.shape[1] == k:  # all others
        return np.array([[*range(row), *range(row + 1, points)] for row in range(points)])
    index = index[:, :k].copy()
    # A distance that is a difference of large squares has half of their digits.
    slack = np.sqrt(ALIKE * (squares.max() if metric == "euclidean" else 1.0))
    bound = distance[:, k - 1] + slack
    tied = np.flatnonzero(distance[:, k] <= bound)
    if metric == "euclidean" and not is_sparse:
        tied = _among_equals(x, tied[distance[tied, k] <= slack], tied, k, index)
    wide = 2 * (k + 1)
    while tied.size:
        wide = min(wide, points)
        open_still = []
        step = max(1, AT_ONCE // wide)
        for rows in (tied[start : start + step] for start in range(0, tied.size, step)):
            distance, candidates = search.kneighbors(x[rows], n_neighbors=wide)
            for row, of_row, around in zip(rows, distance, candidates, strict=True):
                if wide < points and of_row[-1] <= bound[row]:
                    open_still.append(row)
                    continue
                others = np.sort(around[around != row])
                if metric == "cosine" or is_sparse:
                    products = x[others] @ x[[row]].T
                    products = (products.toarray() if is_sparse else products).ravel()
                if metric == "cosine":
                    lengths = np.sqrt(squares[others] * squares[row])
                    far = 1 - products / np.where(lengths > 0, lengths, 1.0)
                elif is_sparse:
                    far = squares[others] + squares[row] - 2 * products
                else:
                    far = np.square(x[others] - x[row]).sum(axis=1)
                unit = ALIKE * (max(squares[others].max(), squares[row]) if metric == "euclidean" else 1.0)
                order = np.argsort(np.rint(far / unit) if unit else far, kind="stable")
                index[row] = others[order[:k]]
        tied = np.array(open_still, dtype=np.int64)
        wide *= 4
    return index


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
