r"""How near feature maps come to the kernels that they stand for, against the number of features."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from kgat import kernels
from kgat.experiments.circumstances import circumstances
from kgat.experiments.engine import Job, Note
from kgat.kernels import Kernel

SIZES = tuple(2**power for power in range(4, 12))  # numbers of features
SCALES = (0.5, 1.0)  # standard deviations of the tokens
CHANNELS, TOKENS = 4, 128  # few channels, so that a truncated exponential of degree 8 has 495 features


class Map(NamedTuple):
    r"""A feature map and what it stands for.

    Args:
        exact (Kernel): The kernel that is meant.
        build (Callable): Takes what decides the number of features; returns the kernel with that many.
        sizes (dict): Numbers of features, and what :obj:`build` takes for each.
    """

    exact: Kernel
    build: Callable[[int], Kernel]
    sizes: dict[int, int]


def _random(exact: Kernel, cls: Callable[..., Kernel], columns: int, **kwargs: Any) -> Map:
    sizes = {size: size // columns for size in SIZES}
    return Map(exact, lambda count: cls(CHANNELS, num_features=count, **kwargs), sizes)


def _maps() -> dict[str, Map]:
    # A random wave is a sine and a cosine, a hyperbolic direction two exponentials.
    rbf, dot = kernels.RBF(CHANNELS, lengthscale=2.0), kernels.DotProduct(CHANNELS)
    fourier, favor = kernels.RandomFourier, kernels.FAVORPlus
    laplace = kernels.Laplace(CHANNELS, lengthscale=8.0)
    sinc = kernels.SincProduct(CHANNELS, inverse_bandwidth=0.5)
    cosine = kernels.ScaledCosine(CHANNELS, beta=1.0)
    degrees = {15: 2, 70: 4, 210: 6, 495: 8}
    return {
        "RBF: random Fourier": _random(rbf, fourier, 2, lengthscale=2.0),
        "Laplace: random Fourier": _random(laplace, fourier, 2, lengthscale=8.0, law="cauchy"),
        "sinc product: random Fourier": _random(sinc, fourier, 2, lengthscale=2.0, law="sinc4"),
        "scaled cosine: RFA": _random(cosine, kernels.RFA, 2),
        "dot product: FAVOR+, independent": _random(dot, favor, 1, orthogonal=False),
        "dot product: FAVOR+, orthogonal": _random(dot, favor, 1),
        "dot product: FAVOR+, hyperbolic": _random(dot, favor, 2, kind="hyperbolic"),
        "dot product: truncated": Map(
            dot, lambda degree: kernels.TruncatedExponential(CHANNELS, degree=degree), degrees
        ),
    }


def jobs(draws: int) -> list[Job]:
    r"""Returns a job per feature map, scale and draw of tokens and directions, which gives a record of kind
    :obj:`"approximation"`.

    Args:
        draws (int): Number of draws, counted from 0.
    """
    return [
        Job(("approximation", name, scale, seed), f"{name}, draw {seed}", _work, (name, scale, seed))
        for seed in range(draws)
        for scale in SCALES
        for name in _maps()
    ]


def key_of(record: dict[str, Any]) -> tuple[Any, ...]:
    r"""Returns what tells a record from others."""
    return tuple(record[name] for name in ("kind", "model", "scale", "seed"))


@torch.no_grad()
def _work(name: str, scale: float, seed: int, *, note: Note) -> Iterator[dict[str, Any]]:
    one = _maps()[name]
    torch.manual_seed(seed)
    query, key = scale * torch.randn(2, TOKENS, 1, CHANNELS, dtype=torch.float64)
    exact = one.exact.double()(query, key).dense().exp().squeeze(-1)
    estimates = [_estimate(one.build(given).double(), query, key) for given in one.sizes.values()]
    yield {
        "kind": "approximation",
        "model": name,
        "scale": scale,
        "seed": seed,
        "tokens": TOKENS,
        "channels": CHANNELS,
        "features": list(one.sizes),
        **errors(exact, estimates),
        **circumstances("cpu"),
    }


def _estimate(kernel: Kernel, query: Tensor, key: Tensor) -> Tensor:
    f, g = kernel(query, key).features()
    return torch.einsum("nhr,mhr->nm", f, g)


def errors(exact: Tensor, estimates: Sequence[Tensor]) -> dict[str, list[float]]:
    r"""Returns how far estimates of a Gram matrix are off.

    Args:
        exact (torch.Tensor): The Gram matrix.
        estimates (list of torch.Tensor): Its estimates. A factor of the whole matrix counts as none: some
            feature maps estimate a multiple of the kernel, and attention does not see it.

    Returns:
        dict: Per estimate the :obj:`kernel` error relative to the Frobenius norm of the matrix, and the
        :obj:`attention` error, half of the L1 distance between rows that sum to 1, mean over rows: from 0 to
        1 as long as estimates are not negative.

    Shapes:
        - **exact:** :math:`(N, M)`, **estimates:** each :math:`(N, M)`

    Example:
        >>> gram = torch.tensor([[1.0, 1.0], [1.0, 3.0]])
        >>> errors(gram, [2 * gram])
        {'kernel': [0.0], 'attention': [0.0]}
    """
    rows = exact / exact.sum(dim=1, keepdim=True)
    result: dict[str, list[float]] = {"kernel": [], "attention": []}
    for estimate in estimates:
        factor = (exact * estimate).sum() / estimate.square().sum()
        off = torch.linalg.norm(factor * estimate - exact) / torch.linalg.norm(exact)
        attention = estimate / estimate.sum(dim=1, keepdim=True)
        apart = 0.5 * (attention - rows).abs().sum(dim=1).mean()
        result["kernel"].append(float(f"{float(off):.4g}"))
        result["attention"].append(float(f"{float(apart):.4g}"))
    return result
