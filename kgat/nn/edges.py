r"""Adjacency formats and self-loops: whatever a layer is given becomes one list of edges, built once."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch_geometric import EdgeIndex
from torch_geometric.index import index2ptr
from torch_geometric.typing import Adj, Size, SparseTensor
from torch_geometric.utils import add_self_loops, is_torch_sparse_tensor, to_edge_index
from torch_geometric.utils.loop import compute_loop_attr

from kgat.brief import Brief
from kgat.indices import as_long
from kgat.ops.graph.adjacency import check_edges
from kgat.ops.graph.memory import remember
from kgat.ops.require import check_that

FillValue = float | Tensor | str


@dataclass(frozen=True, eq=False, repr=False)
class Edges(Brief):
    r"""A list of edges with what belongs to each of them, in the order that users see.

    Args:
        index (torch.Tensor): Sources above targets.
        attr (torch.Tensor, optional): Edge features.
        weight (torch.Tensor, optional): Edge weights.
        adjacency (Adj): What the edges were read from; self-loops that were added are in :obj:`index` alone.
        hidden (torch.Tensor, optional): A bias of :math:`-\infty` for scores of edges that are to be taken
            out of a softmax. (default: :obj:`None`)

    Shapes:
        - **index:** :math:`(2, E)`, **attr:** :math:`(E, F)` or :math:`(E)`, **weight, hidden:** :math:`(E)`
    """

    index: Tensor
    attr: Tensor | None
    weight: Tensor | None
    adjacency: Adj
    hidden: Tensor | None = None

    def with_alpha(self, alpha: Tensor) -> tuple[Adj, Tensor] | SparseTensor:
        r"""Attaches attention weights to the edges, in the adjacency's format, as :class:`GATConv` does."""
        if isinstance(self.adjacency, SparseTensor):
            col, row = self.index
            sizes = tuple(self.adjacency.sparse_sizes())
            return type(self.adjacency)(row=row, col=col, value=alpha, sparse_sizes=sizes, is_sorted=True)
        if is_torch_sparse_tensor(self.adjacency):
            return _sparse(self.index, alpha, self.adjacency), alpha
        return self.index, alpha


class EdgeTerms(NamedTuple):
    r"""What edges add to attention.

    Shapes:
        - **vector:** :math:`(E, H, D)`, added to keys; **bias:** :math:`(E, H)`, added to scores
        - **log_weight:** :math:`(E)`, added to scores; **weight:** :math:`(E)`, multiplies normalised weights
    """

    vector: Tensor | None
    bias: Tensor | None
    log_weight: Tensor | None
    weight: Tensor | None


def log_weights(weight: Tensor) -> Tensor:
    r"""Returns the logarithm of edge weights that multiply a kernel: :math:`-\infty`, without a gradient,
    where an edge is absent.

    Shapes:
        - **weight, output:** :math:`(E)`

    Raises:
        ValueError: If one is negative, infinite or NaN.
    """
    detached = weight.detach()
    check_that(((detached >= 0) & (detached < torch.inf)).all(), _WEIGHTS)
    absent = weight == 0
    return torch.where(absent, 1.0, weight).log().masked_fill(absent, -torch.inf)


_WEIGHTS = (
    "Expected finite 'edge_weight' of at least 0 with weight_mode='kernel', which multiplies the kernel "
    "before it is normalised (got a negative, infinite or NaN one); weight_mode='alpha' multiplies the "
    "normalised weights and takes numbers of any sign"
)


def num_targets(adjacency: Adj, size: Size, flow: str) -> int | None:
    r"""Returns the number of targets that a size or a matrix says, if any."""
    if size is not None and size[1] is not None:
        return size[1]
    if not isinstance(adjacency, SparseTensor) and not is_torch_sparse_tensor(adjacency):
        return None
    if flow == "target_to_source":
        raise ValueError(
            "Expected flow='source_to_target' with a sparse adjacency (got 'target_to_source'); pass its "
            "transpose, or 'edge_index' of shape [2, E]"
        )
    return adjacency.size(0)


def check_size(adjacency: Adj, size: Size, sources: int, targets: int) -> None:
    r"""Checks that the numbers of sources and targets are those that a caller and a matrix say."""
    if isinstance(adjacency, SparseTensor) or is_torch_sparse_tensor(adjacency):
        rows, cols = adjacency.size(0), adjacency.size(1)
        if (rows, cols) != (targets, sources):
            raise ValueError(
                f"Expected a sparse adjacency of shape {[targets, sources]}, of targets and sources (got "
                f"{[rows, cols]}); check that it and the node features belong together"
            )
    for expected, nodes in zip(size or (), (sources, targets), strict=False):
        if expected is not None and expected != nodes:
            raise ValueError(
                f"Expected 'size' equal to the numbers of sources and targets {(sources, targets)} (got "
                f"{tuple(size)}); leave it out, or count the nodes anew"  # type: ignore[arg-type]
            )


def read_edges(
    adjacency: Adj, attr: Tensor | None, weight: Tensor | None, edge_dim: int | None = None
) -> Edges:
    r"""Reads ``edge_index``, :class:`EdgeIndex`, ``torch.sparse`` and ``SparseTensor`` adjacencies.

    Sparse adjacencies are transposed, as everywhere in PyG: rows are targets. Their values stand in for
    missing edge features where a layer takes some, as in GATConv: those of a ``SparseTensor`` of any
    dimension, those of ``torch.sparse`` if they are vectors (it has scalars even where nobody gave any).

    Args:
        adjacency (Adj): The edges.
        attr (torch.Tensor, optional): Edge features.
        weight (torch.Tensor, optional): Edge weights.
        edge_dim (int, optional): Size of the features that the layer takes, if any. (default: :obj:`None`)

    Shapes:
        - **attr:** :math:`(E, F)` or :math:`(E)`, **weight:** :math:`(E)`

    Raises:
        ValueError: If features are given to a layer that takes none, or shapes do not fit.
    """
    if attr is not None and edge_dim is None:
        raise ValueError(
            f"Expected no 'edge_attr' because 'edge_dim=None' (got {list(attr.shape)}); build the layer with "
            f"'edge_dim={attr.size(-1) if attr.dim() > 1 else 1}'"
        )
    missing = attr is None and edge_dim is not None
    if isinstance(adjacency, SparseTensor):
        row, col, value = adjacency.coo()
        index, attr = torch.stack([col, row]), value if missing else attr
    elif is_torch_sparse_tensor(adjacency):
        value = matrix_entries(adjacency)[2]
        index, attr = remember(adjacency, "edges", _places), value if missing and value.dim() > 1 else attr
    elif isinstance(adjacency, EdgeIndex):
        index = adjacency.as_tensor()
    else:
        check_edges(adjacency)
        index = adjacency
    count = index.size(1)
    if attr is not None and (attr.shape if attr.dim() != 1 else (attr.size(0), 1)) != (count, edge_dim):
        raise ValueError(
            f"Expected 'edge_attr' of shape [E={count}, {edge_dim}] because 'edge_dim={edge_dim}' (got "
            f"{list(attr.shape)}); give a row of that width per edge, in the order of 'edge_index'"
        )
    if weight is not None and weight.shape != (count,):
        raise ValueError(
            f"Expected 'edge_weight' of shape [E={count}] (got {list(weight.shape)}); one number per edge"
        )
    return Edges(index, attr, weight, adjacency)


def with_self_loops(edges: Edges, num_nodes: int, fill_value: FillValue) -> Edges:
    r"""Replaces all self-loops by one per node, after the other edges, as :class:`GATConv` does.

    The new list of edges is remembered while the old one lives, so that a layer sorts a graph only once.

    Args:
        edges (Edges): The edges.
        num_nodes (int): Number of nodes that are source and target.
        fill_value (float, torch.Tensor or str): Features of the new loops: a constant, or how to reduce the
            features of a node's in-edges (``"add"``, ``"mean"``, ``"min"``, ``"max"``, ``"mul"``). Weights
            of new loops are 1.
    """
    given = edges.index
    kept: Tensor | None = None
    if edges.attr is not None or edges.weight is not None:
        # One list for all that belongs to the edges: compiled code then knows it as one length.
        kept = remember(given, "kept", _kept)

    def looped(x: Tensor, fill: FillValue) -> Tensor:
        assert kept is not None
        x = x.index_select(0, kept)
        return torch.cat([x, _of_loops(given[1].index_select(0, kept), x, num_nodes, fill)])

    def with_loops(index: Tensor) -> Tensor:
        rest = _kept(index) if kept is None else kept
        return add_self_loops(index.index_select(1, rest), num_nodes=num_nodes)[0]

    index = remember(given, ("loops", num_nodes), with_loops)
    attr = None if edges.attr is None else looped(edges.attr, fill_value)
    weight = None if edges.weight is None else looped(edges.weight, 1.0)
    if isinstance(edges.adjacency, Tensor) and not is_torch_sparse_tensor(edges.adjacency):
        return Edges(index, attr, weight, index)
    # Entries of a matrix have an order of their own, in which the loops stand among the others.
    major = 0 if getattr(edges.adjacency, "layout", None) == torch.sparse_csc else 1
    order = remember(index, ("order", major), lambda edges: _order(edges, major))
    attr, weight = (None if x is None else x.index_select(0, order) for x in (attr, weight))
    entries = remember(index, ("entries", major), lambda edges: edges[:, order])
    return Edges(entries, attr, weight, edges.adjacency)


def _order(index: Tensor, major: int) -> Tensor:
    order = index[1 - major].argsort(stable=True)
    return order[index[major].index_select(0, order).argsort(stable=True)]


def _sparse(index: Tensor, value: Tensor, like: Tensor) -> Tensor:
    # Neither sorts nor sums: the values stay those of the edges, one for one.
    col, row = index
    rows, cols = like.shape[:2]
    size = (rows, cols, *value.shape[1:])
    if like.layout == torch.sparse_csr:
        return torch.sparse_csr_tensor(index2ptr(row, rows), col, value, size, device=value.device)
    if like.layout == torch.sparse_csc:
        return torch.sparse_csc_tensor(index2ptr(col, cols), row, value, size, device=value.device)
    places = torch.stack([row, col])
    # Loops were put where they belong, so that entries which were in order still are.
    ordered = like.is_coalesced()
    return torch.sparse_coo_tensor(places, value, size, device=value.device, is_coalesced=ordered)


def with_self_loops_beside(edges: Edges, num_nodes: int, fill_value: FillValue) -> Edges:
    r"""As :func:`with_self_loops`, but keeps the self-loops that were there, which :attr:`Edges.hidden` then
    takes out of a softmax.

    How many edges there are then depends on no data. Compiled code knows the number, also that it is the same
    in all layers: of a list that is as long as its mask says, the default backend of ``torch.compile`` loses
    the length where two layers make one. Edges that are no plain tensor have none left to hide.
    """
    if edges.adjacency is not edges.index:
        return with_self_loops(edges, num_nodes, fill_value)
    given = edges.index
    loop = given[0] == given[1]
    node = torch.arange(num_nodes, dtype=given.dtype, device=given.device)
    index = torch.cat([given, node.expand(2, -1)], dim=1)
    attr = weight = None
    # What is on the loops that were there is not looked at: it may be no number.
    if edges.attr is not None:
        attr = torch.where(loop.view(-1, *[1] * (edges.attr.dim() - 1)), 0, edges.attr)
        # They count for no mean of a node's features.
        elsewhere = torch.where(loop, num_nodes, given[1])
        attr = torch.cat([attr, _of_loops(elsewhere, attr, num_nodes, fill_value)])
    if edges.weight is not None:
        weight = torch.where(loop, 1, edges.weight)
        weight = torch.cat([weight, weight.new_ones(num_nodes)])
    hidden = torch.zeros(index.size(1), device=given.device)
    hidden = torch.where(torch.cat([loop, loop.new_zeros(num_nodes)]), -torch.inf, hidden)
    return Edges(index, attr, weight, index, hidden)


def _of_loops(target: Tensor, x: Tensor, num_nodes: int, fill_value: FillValue) -> Tensor:
    # Features of new loops. One more node takes the edges of nodes without one: there are more of one side
    # where the sides differ. It takes indices of no node, too, which attention refuses later, by name.
    target = torch.where((target >= 0) & (target < num_nodes), target, num_nodes)
    target = as_long(target)
    index = torch.stack([target, target])
    return compute_loop_attr(index, x, num_nodes + 1, False, fill_value)[:num_nodes]


def _places(adjacency: Tensor) -> Tensor:
    row, col, _ = matrix_entries(adjacency)
    return torch.stack([col, row])


def matrix_entries(adjacency: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    r"""Returns rows, columns and values of the entries of a sparse matrix, as they stand there: one that is
    not coalesced stays as it is, which PyG's function would call coalesced from then on."""
    if adjacency.layout == torch.sparse_coo:
        row, col = adjacency._indices()
        # Those of a coalesced one have gradients.
        return row, col, adjacency.values() if adjacency.is_coalesced() else adjacency._values()
    (row, col), values = to_edge_index(adjacency)
    return row, col, values


def _kept(edge_index: Tensor) -> Tensor:
    return (edge_index[0] != edge_index[1]).nonzero().view(-1)
