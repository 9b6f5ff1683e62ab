r"""A model of values whose output is in their units."""

from typing import Any

import torch
from torch import Tensor

from kgat.models.graph_readout import takes
from kgat.models.penalty import penalised
from kgat.nn.numbers import check_whole

__all__ = ["StandardizedOutput"]


class StandardizedOutput(torch.nn.Module):
    r"""A model that predicts values in units of their standard deviation from their mean, and answers in
    theirs: the same learning rate then serves solubilities and prices.

    .. math::
        \hat{\mathbf{y}} = \boldsymbol{\mu} + \boldsymbol{\sigma} \odot f(\cdot)

    Args:
        model (torch.nn.Module): The model :math:`f`.
        channels (int): Number of values.

    Shapes:
        - **output:** :math:`(N, C)` with :math:`C` = :obj:`channels`, that of the model

    Raises:
        ValueError: If :obj:`channels` is not positive.

    Example:
        >>> model = StandardizedOutput(torch.nn.Linear(2, 1), 1)
        >>> model.standardize(torch.tensor([10.0, 20.0, float("nan")]))
        >>> model.mean, model.std
        (tensor([15.]), tensor([5.]))
    """

    mean: Tensor
    std: Tensor

    def __init__(self, model: torch.nn.Module, channels: int) -> None:
        super().__init__()
        check_whole(channels=channels)
        self.model = model
        self.takes = takes(model)
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("std", torch.ones(channels))

    penalised = penalised

    @torch.no_grad()
    def standardize(self, y: Tensor) -> None:
        r"""Takes mean and standard deviation from the known values of training.

        Args:
            y (torch.Tensor): The values, :obj:`nan` where unknown.

        Shapes:
            - **y:** :math:`(N)` or :math:`(N, C)`
        """
        for column, values in enumerate(y.reshape(len(y), -1).double().unbind(1)):
            known = values[~values.isnan()]
            if known.numel() > 0:
                deviation = known.std(correction=0)
                self.mean[column] = known.mean()
                self.std[column] = torch.where(deviation > 0, deviation, 1.0)

    def standardized(self, values: Tensor) -> Tensor:
        r"""Returns values in units of the standard deviation from the mean."""
        return (values.reshape(len(values), -1) - self.mean) / self.std

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        r"""Takes what the model takes."""
        output: Tensor = self.model(*args, **kwargs)
        return self.mean + self.std * output

    def inference(self, *args: Any, **kwargs: Any) -> Tensor:
        r"""Takes what :obj:`inference` of the model takes."""
        model: Any = self.model
        output: Tensor = model.inference(*args, **kwargs)
        return self.mean + self.std * output
