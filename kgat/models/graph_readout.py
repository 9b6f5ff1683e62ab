r"""From a model of nodes to one of whole graphs."""

import inspect
from typing import Any

import torch
from torch import Tensor
from torch_geometric.nn.aggr import Aggregation, MultiAggregation
from torch_geometric.nn.dense.linear import Linear
from torch_geometric.nn.resolver import aggregation_resolver
from torch_geometric.typing import OptTensor

from kgat.indices import as_long
from kgat.models.penalty import penalised
from kgat.nn.numbers import check_probability, check_whole

__all__ = ["GraphReadout", "encode", "takes"]


def takes(model: torch.nn.Module) -> frozenset[str]:
    r"""Returns the names of the arguments of a model beside features and edges; :obj:`"**"` stands for all.

    Example:
        >>> from torch_geometric.nn import GCN
        >>> "edge_weight" in takes(GCN(4, 8, 2))
        True
    """
    parameters = list(inspect.signature(model.forward).parameters.values())
    any_name = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters)
    return frozenset(parameter.name for parameter in parameters[2:]) | ({"**"} if any_name else set())


def encode(encoder: torch.nn.Module, names: frozenset[str], *inputs: Tensor, **extras: Any) -> Tensor:
    r"""Calls a model of nodes with what is there of what it takes.

    Args:
        encoder (torch.nn.Module): The model.
        names (frozenset of str): What it :func:`takes`.
        *inputs (torch.Tensor): Features and edges.
        **extras (optional): The rest, by name.
    """
    known = names.__contains__ if "**" not in names else lambda _: True
    given = {name: value for name, value in extras.items() if value is not None and known(name)}
    nodes: Tensor = encoder(*inputs, **given)
    return nodes


class GraphReadout(torch.nn.Module):
    r"""Pools what any model says of nodes, and maps it to an answer for each graph.

    .. math::
        \mathbf{y}_g = \mathbf{W} \operatorname*{pool}_{i \in g} \, f(\mathbf{X}, \mathcal{E})_i + \mathbf{b}

    Args:
        encoder (torch.nn.Module): The model :math:`f` of nodes, called with features, edges, and those of
            :obj:`edge_attr`, :obj:`batch` and :obj:`losses` that it takes.
        channels (int): Columns of its output.
        out_channels (int): Number of classes, labels or values.
        pooling (str, optional): :obj:`"mean"`, :obj:`"sum"` (or :obj:`"add"`), :obj:`"max"` or another
            aggregation of :mod:`torch_geometric.nn.aggr` that needs at most its number of channels; several
            are joined with a plus, :obj:`"mean+max"`. (default: :obj:`"mean"`)
        dropout (float, optional): Dropout on what is pooled. (default: :obj:`0.0`)

    Shapes:
        - **x:** :math:`(N, F)`, **edge_index:** :math:`(2, E)`, **batch:** :math:`(N)`
        - **output:** :math:`(G, F_{out})`

    Raises:
        ValueError: If there is no such pooling, or a number is out of range.

    Example:
        >>> from kgat import KernelGAT
        >>> model = GraphReadout(KernelGAT(4, 8, 2, heads=2, kernel="rbf"), 8, 3, pooling="mean+max")
        >>> edge_index = torch.tensor([[0, 1, 2, 3], [1, 0, 3, 2]])
        >>> model(torch.randn(4, 4), edge_index, batch=torch.tensor([0, 0, 1, 1])).shape
        torch.Size([2, 3])
    """

    def __init__(
        self,
        encoder: torch.nn.Module,
        channels: int,
        out_channels: int,
        pooling: str = "mean",
        *,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        check_whole(channels=channels, out_channels=out_channels)
        check_probability(dropout=dropout)
        self.encoder = encoder
        self.pool = _aggregation(pooling, channels)
        self.dropout = torch.nn.Dropout(dropout)
        with torch.no_grad():  # some poolings change the number of channels
            pooled = self.pool(torch.zeros(2, channels), index=torch.zeros(2, dtype=torch.long), dim_size=1)
        self.lin = Linear(pooled.size(-1), out_channels)
        self.takes = takes(encoder)

    penalised = penalised

    def forward(
        self,
        x: Tensor,
        edge_index: Tensor,
        edge_attr: OptTensor = None,
        batch: OptTensor = None,
        batch_size: int | None = None,
        losses: list[Tensor] | None = None,
    ) -> Tensor:
        r"""Answers for each graph.

        Args:
            x (torch.Tensor): Node features.
            edge_index (torch.Tensor): The edges.
            edge_attr (torch.Tensor, optional): Edge features. (default: :obj:`None`)
            batch (torch.Tensor, optional): The graph of each node, sorted; one graph if :obj:`None`.
                (default: :obj:`None`)
            batch_size (int, optional): Number of graphs. (default: :obj:`None`)
            losses (list of torch.Tensor, optional): Takes the penalties of kernels. (default: :obj:`None`)
        """
        if batch is None:
            batch, batch_size = x.new_zeros(x.size(0), dtype=torch.long), 1
        batch = as_long(batch)
        if batch_size is None:
            batch_size = int(batch.max()) + 1 if batch.numel() > 0 else 0
        extras = {"edge_attr": edge_attr, "batch": batch, "losses": losses}
        nodes = encode(self.encoder, self.takes, x, edge_index, **extras)
        pooled = self.pool(nodes, index=batch, dim_size=batch_size)
        return self.lin(self.dropout(pooled))


def _aggregation(pooling: str, channels: int) -> Aggregation:
    names = [name.strip() for name in pooling.split("+")]
    if len(names) > 1:
        return MultiAggregation([_aggregation(name, channels) for name in names])
    try:
        if not pooling:  # which PyG takes for its base class
            raise ValueError("no name")
        try:
            aggregation = aggregation_resolver(pooling)
        except TypeError:  # it wants its number of channels
            aggregation = aggregation_resolver(pooling, channels)
    except (TypeError, ValueError, AttributeError) as error:
        raise ValueError(
            f"Expected a pooling of torch_geometric.nn.aggr that needs nothing but channels (got "
            f"'{pooling}'); use 'mean', 'sum', 'max', 'softmax', 'median', 'std', or several as 'mean+max'"
        ) from error
    return aggregation
