r"""How the error of the Fourier integral estimator of a density falls, against its theorem."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from kgat.experiments.circumstances import circumstances
from kgat.experiments.engine import Job, Note
from kgat.kernels import SincProduct

POWERS = (2, 4)  # the theorem holds from 4 on
SIZES = {1: (100, 300, 1000, 3000, 10000), 2: (100, 300, 1000, 3000)}  # of the data, by channels
# R, of steps of the root of 2
BANDWIDTHS = {1: [2.0 ** (step / 2) for step in range(9)], 2: [2.0 ** (step / 2) for step in range(7)]}
# Of the grid on which errors are integrated. It may be coarser than an estimate: its mean over draws, and so
# the mean squared error at a place, is as smooth as the density.
REACH, STEPS = 4.0, {1: 41, 2: 25}
CENTRES, DEVIATION = (-1.0, 1.0), 0.6  # of the mixture of two normal laws in each channel


def jobs(draws: int) -> list[Job]:
    r"""Returns a job per number of channels, power, size and draw of the data, which gives a record of kind
    :obj:`"density"`: integrated squared errors of :meth:`kgat.kernels.SincProduct.log_density`, one per
    bandwidth.

    Args:
        draws (int): Number of draws, counted from 0.
    """
    return [
        Job(("density", channels, power, size, seed), f"{size} points, draw {seed}", _work, one)
        for seed in range(draws)
        for channels, sizes in SIZES.items()
        for size in sizes
        for power in POWERS
        for one in [(channels, power, size, seed)]
    ]


def key_of(record: dict[str, Any]) -> tuple[str | int, ...]:
    r"""Returns what tells a record from others."""
    return (record["kind"], *(record[name] for name in ("channels", "power", "size", "seed")))


def density(x: Tensor) -> Tensor:
    r"""Returns the density that is to be found: in each channel an equal mixture of two normal laws.

    Shapes:
        - **x:** :math:`(N, D)`, **output:** :math:`(N)`
    """
    laws = [torch.distributions.Normal(centre, DEVIATION).log_prob(x).exp() for centre in CENTRES]
    return (0.5 * (laws[0] + laws[1])).prod(dim=-1)


@torch.no_grad()
def _work(channels: int, power: int, size: int, seed: int, *, note: Note) -> Iterator[dict[str, Any]]:
    generator = torch.Generator().manual_seed(seed)
    shape = (size, channels)
    centre = torch.tensor(CENTRES)[torch.randint(2, shape, generator=generator)]
    data = centre + DEVIATION * torch.randn(shape, generator=generator)
    axis = torch.linspace(-REACH, REACH, STEPS[channels])
    grid = torch.cartesian_prod(*[axis] * channels).view(-1, channels)
    cell = float(axis[1] - axis[0]) ** channels
    wanted, errors = density(grid), []
    for bandwidth in BANDWIDTHS[channels]:
        kernel = SincProduct(channels, power=power, inverse_bandwidth=bandwidth)
        found = kernel.log_density(grid.unsqueeze(1), data.unsqueeze(1)).squeeze(1).exp()
        errors.append(float(f"{float((found - wanted).square().sum()) * cell:.4g}"))
    yield {
        "kind": "density",
        "channels": channels,
        "power": power,
        "size": size,
        "seed": seed,
        "bandwidths": [round(bandwidth, 4) for bandwidth in BANDWIDTHS[channels]],
        "errors": errors,
        **circumstances("cpu"),
    }


def slope(x: list[float], y: list[float]) -> float:
    r"""Returns the exponent of a power law through points, by least squares of logarithms.

    Example:
        >>> round(slope([1.0, 2.0, 4.0], [3.0, 12.0, 48.0]), 12)
        2.0
    """
    log_x, log_y = ([math.log(value) for value in values] for values in (x, y))
    mean_x, mean_y = (sum(values) / len(values) for values in (log_x, log_y))
    covariance = sum((a - mean_x) * (b - mean_y) for a, b in zip(log_x, log_y, strict=True))
    return covariance / sum((a - mean_x) ** 2 for a in log_x)
