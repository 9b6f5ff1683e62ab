r"""Neighbour sampling that needs no compiler."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch_geometric.data import Data, HeteroData
from torch_geometric.sampler import (
    BaseSampler,
    EdgeSamplerInput,
    HeteroSamplerOutput,
    NegativeSampling,
    NodeSamplerInput,
    SamplerOutput,
)
from torch_geometric.sampler.base import NumNeighbors, SubgraphType
from torch_geometric.sampler.neighbor_sampler import edge_sample, node_sample
from torch_geometric.sampler.utils import to_csc
from torch_geometric.typing import EdgeType, NodeType

from kgat.brief import Brief
from kgat.loader import loops
from kgat.names import one_of, unknown
from kgat.ops.graph.adjacency import check_edges, check_indices
from kgat.ops.graph.fingerprint import fingerprint
from kgat.ops.graph.mixing import STEP, THIRD

Array: TypeAlias = NDArray[Any]
Output: TypeAlias = SamplerOutput | HeteroSamplerOutput

ALONE = ""  # the type of all nodes where there is one
_ALL: EdgeType = (ALONE, ALONE, ALONE)
_NONE = np.empty(0, np.int64)

# Negatives are drawn by PyG from torch's own generator, which all threads share.
_drawing = threading.Lock()


@dataclass(frozen=True, eq=False, repr=False)
class _Edges(Brief):
    r"""The edges of one type, sorted by target and then by time."""

    colptr: Tensor
    row: Tensor
    perm: Tensor | None
    weight: Tensor
    cumulative: Tensor
    time: Tensor

    @classmethod
    def of(
        cls,
        store: Any,
        sizes: tuple[int, int],
        weight: Tensor | None,
        time: dict[str, Tensor],
        **options: Any,
    ) -> _Edges:
        r"""Sorts the edges between so many sources and targets.

        Args:
            store (Data or EdgeStorage): Holds them.
            sizes ((int, int)): Numbers of sources and targets.
            weight (torch.Tensor, optional): A number per edge.
            time (dict): The time of each edge, or of each source, as an argument of
                :func:`torch_geometric.sampler.utils.to_csc`.
            **options (optional): More of its arguments.
        """
        edge_index = store.get("edge_index") if "edge_index" in store else None
        if edge_index is not None:
            check_edges(edge_index)
            check_indices(edge_index[1], edge_index[0], sizes[1], sizes[0])
        colptr, row, perm = to_csc(store, device="cpu", **time, **options)
        missing = sizes[1] + 1 - colptr.numel()
        colptr = torch.cat([colptr, colptr[-1:].expand(missing)]) if missing > 0 else colptr
        of_edge = torch.empty(0, dtype=torch.long)
        if "edge_time" in time:
            of_edge = time["edge_time"] if perm is None else time["edge_time"][perm]
        elif time:
            of_edge = time["src_node_time"][row]
        weights, cumulative = (torch.empty(0, dtype=torch.double) for _ in range(2))
        if weight is not None:
            weights = (weight if perm is None else weight[perm]).double().contiguous()
            cumulative = torch.from_numpy(loops.running_sums(colptr.numpy(), weights.numpy()))
        return cls(colptr, row.contiguous(), perm, weights, cumulative, of_edge.contiguous())

    def share(self) -> None:
        r"""Moves what was made here into memory that all processes share."""
        for tensor in (self.weight, self.cumulative, self.time):
            tensor.share_memory_()


class _Nodes:
    r"""The nodes of one type in a batch."""

    def __init__(self, num_nodes: int, seeds: Array | None, first_tree: int) -> None:
        self.num_nodes = num_nodes
        self.id = _NONE if seeds is None else seeds
        self.count = self.id.size
        disjoint = first_tree >= 0
        self.tree = np.arange(first_tree, first_tree + self.count) if disjoint else _NONE
        self.disjoint = disjoint
        self.table = loops.grown(np.empty((0, 2), np.int64), self.count)
        loops.enter(self.table, self.id, first_tree, num_nodes)
        self.begin, self.end = 0, self.count
        self.per_hop = [self.count]

    def reserve(self, more: int) -> None:
        r"""Makes room for so many nodes more."""
        needed = self.count + more
        if not self.disjoint:
            needed = min(needed, self.per_hop[0] + self.num_nodes)  # seeds may be there more than once
        if needed > self.id.size:
            self.id = np.concatenate([self.id[: self.count], np.empty(needed - self.count, np.int64)])
            if self.disjoint:
                self.tree = np.concatenate([self.tree[: self.count], np.empty(needed - self.count, np.int64)])
        self.table = loops.grown(self.table, needed)

    def advance(self) -> None:
        r"""Ends a hop: what is new is whose neighbours come next."""
        self.begin, self.end = self.end, self.count
        self.per_hop.append(self.end - self.begin)

    def trees(self, begin: int, end: int) -> Array:
        return self.tree[begin:end] if self.disjoint else _NONE


def is_sorted(edge_index: Tensor) -> bool:
    r"""Whether edges are sorted by target.

    Shapes:
        - **edge_index:** :math:`(2, E)`
    """
    return bool(loops.in_order(edge_index[1].cpu().numpy()))


class NeighborSampler(BaseSampler):
    r"""A neighbour sampler for :class:`torch_geometric.loader.NeighborLoader`, without a compiler, as in the
    `"Inductive Representation Learning on Large Graphs" <https://arxiv.org/abs/1706.02216>`_ paper.

    It returns what PyG's sampler does with pyg-lib: seeds first, then the nodes that each hop adds, edges hop
    by hop and sorted by target. The loops are compiled by Numba, kept on disk, and do not hold the GIL.

    A node's neighbours are drawn uniformly or by weight; without replacement an edge is drawn at most once
    (with weights one after the other, each by its weight among those that are left). A neighbourhood of no
    more than that many is taken whole, and one whose weights are all 0 is taken as empty otherwise. Parallel
    edges count as several. The sampler keeps the graph as it is when it is built.

    Args:
        data (Data or HeteroData): The graph.
        num_neighbors (list of int or dict): How many neighbours to draw for each node, hop by hop; -1 takes
            all. In a heterogeneous graph for every type of edge, or by type.
        subgraph_type (str, optional): :obj:`"directional"` (the drawn edges), :obj:`"bidirectional"` (in both
            directions) or :obj:`"induced"` (all edges between drawn nodes). (default: :obj:`"directional"`)
        replace (bool, optional): Whether to draw with replacement. (default: :obj:`False`)
        disjoint (bool, optional): Whether each seed has a tree of its own; always so with time.
            (default: :obj:`False`)
        temporal_strategy (str, optional): :obj:`"uniform"`, or :obj:`"last"` for the latest neighbours
            instead of drawn ones. (default: :obj:`"uniform"`)
        time_attr (str, optional): The attribute of nodes or edges that holds times: only what is not later
            than the seed is drawn. (default: :obj:`None`)
        weight_attr (str, optional): The attribute of edges that holds weights. (default: :obj:`None`)
        is_sorted (bool, optional): Whether edges are sorted by target, and within by time, already.
            (default: :obj:`False`)
        share_memory (bool, optional): Whether to put the graph into shared memory. (default: :obj:`False`)
        seed (int, optional): Batches depend on it and on their seed nodes alone; drawn from torch's generator
            for each batch if :obj:`None`. (default: :obj:`None`)

    Shapes:
        - **input:** seeds :math:`(B)`
        - **output:** node :math:`(N)`, row, col and edge :math:`(E)`

    Raises:
        ValueError: If an argument is not as described.
        IndexError: If edges or seeds name nodes that are not there.

    Example:
        >>> import torch
        >>> from kgat.loader import NeighborSampler
        >>> from torch_geometric.data import Data
        >>> from torch_geometric.loader import NeighborLoader
        >>> data = Data(torch.randn(4, 8), torch.tensor([[0, 1, 2, 3], [1, 2, 3, 0]]))
        >>> sampler = NeighborSampler(data, [2, 2], seed=0)
        >>> loader = NeighborLoader(data, num_neighbors=[2, 2], batch_size=2, neighbor_sampler=sampler)
        >>> next(iter(loader)).num_sampled_nodes
        [2, 1, 1]
    """

    def __init__(
        self,
        data: Data | HeteroData,
        num_neighbors: Sequence[int] | Mapping[EdgeType, Sequence[int]] | NumNeighbors,
        subgraph_type: SubgraphType | str = "directional",
        replace: bool = False,
        disjoint: bool = False,
        temporal_strategy: str = "uniform",
        time_attr: str | None = None,
        weight_attr: str | None = None,
        is_sorted: bool = False,
        share_memory: bool = False,
        seed: int | None = None,
    ) -> None:
        if not isinstance(data, Data | HeteroData):
            raise ValueError(
                f"Expected 'data' as a Data or HeteroData (got {type(data).__name__}); put the graph into one"
            )
        if seed is not None and not 0 <= seed < 1 << 63:
            raise ValueError(f"Expected 'seed' in [0, 2^63) (got {seed}); None takes torch's generator")
        self.is_hetero = isinstance(data, HeteroData)
        self.subgraph_type = SubgraphType(
            one_of(
                "subgraph_type",
                getattr(subgraph_type, "value", subgraph_type),
                [t.value for t in SubgraphType],
            )
        )
        self.temporal_strategy = one_of("temporal_strategy", temporal_strategy, ("uniform", "last"))
        self.replace, self.seed = replace, seed
        self.disjoint = disjoint or time_attr is not None
        nodes = {t: data[t] for t in data.node_types} if self.is_hetero else {ALONE: data}
        edges = {t: data[t] for t in data.edge_types} if self.is_hetero else {_ALL: data}
        self._sizes = {name: int(store.num_nodes or 0) for name, store in nodes.items()}
        self._times, edge_times = _times(nodes, edges, time_attr)
        self._edges: dict[EdgeType, _Edges] = {}
        for name, store in edges.items():
            time = {}
            if name in edge_times:
                time["edge_time"] = edge_times[name]
            elif name[0] in self._times:
                time["src_node_time"] = self._times[name[0]]
            weight = None if weight_attr is None else _weight(store, weight_attr, name)
            sizes = self._sizes[name[0]], self._sizes[name[2]]
            options = {"is_sorted": is_sorted, "share_memory": share_memory}
            self._edges[name] = _Edges.of(store, sizes, weight, time, **options)
            if share_memory:
                self._edges[name].share()
        self.num_neighbors = num_neighbors

    @classmethod
    def of_arguments(cls, loader: type, *args: Any, **kwargs: Any) -> NeighborSampler:
        r"""Returns the sampler that a loader of PyG needs that is called with some arguments.

        Args:
            loader (type): The loader.
            *args (optional): Its arguments.
            **kwargs (optional): Its arguments.
        """
        bound = inspect.signature(loader).bind(*args, **kwargs).arguments
        options = bound.pop("kwargs", {})
        if bound.pop("directed", True) is False:
            bound["subgraph_type"] = SubgraphType.induced
        taken = inspect.signature(cls).parameters
        given = {name: value for name, value in bound.items() if name in taken}
        return cls(**given, share_memory=options.get("num_workers", 0) > 0)

    @property
    def num_neighbors(self) -> NumNeighbors:
        r"""How many neighbours each hop draws."""
        return self._num_neighbors

    @num_neighbors.setter
    def num_neighbors(self, value: Any) -> None:
        given = value.values if isinstance(value, NumNeighbors) else value
        if isinstance(given, Mapping):
            if not self.is_hetero:
                raise ValueError(
                    "Expected 'num_neighbors' as a list for a graph of one type (got a dictionary); "
                    "give the list"
                )
            for name in () if given is not value else given:
                if name not in self._edges and name != "__default__":
                    unknown("types of edges as keys of 'num_neighbors'", str(name), map(str, self._edges))
        each = given.values() if isinstance(given, Mapping) else [given]
        for counts in each:
            if isinstance(counts, str) or not isinstance(counts, Sequence) or not all(map(_is_count, counts)):
                raise ValueError(
                    f"Expected 'num_neighbors' as whole numbers of at least -1, one per hop (got {given!r}); "
                    "-1 takes all neighbours"
                )
        if len({len(counts) for counts in each}) > 1:
            raise ValueError(
                f"Expected 'num_neighbors' of the same length for all types of edges (got {given!r}); 0 "
                "draws none in a hop"
            )
        self._num_neighbors = value if isinstance(value, NumNeighbors) else NumNeighbors(value)

    @property
    def num_nodes(self) -> int | dict[NodeType, int]:
        r"""Number of nodes, by type if there are several."""
        return self._sizes if self.is_hetero else self._sizes[ALONE]

    @property
    def edge_permutation(self) -> None:
        r"""Nothing: edges come by their places in the data."""
        return None

    def sample_from_nodes(self, inputs: NodeSamplerInput, key: int | None = None) -> Output:
        r"""Draws the neighbourhoods of nodes.

        Args:
            inputs (NodeSamplerInput): The seeds.
            key (int, optional): All that the draws depend on; if :obj:`None`, as :obj:`seed` says.
                (default: :obj:`None`)
        """
        out = node_sample(inputs, partial(self._sample, key=key))
        return self._both_ways(out)

    def sample_from_edges(
        self, inputs: EdgeSamplerInput, neg_sampling: NegativeSampling | None = None, key: int | None = None
    ) -> Output:
        r"""Draws the neighbourhoods of the ends of edges, and of negatives.

        Args:
            inputs (EdgeSamplerInput): The edges.
            neg_sampling (NegativeSampling, optional): How to draw negatives. (default: :obj:`None`)
            key (int, optional): All that the draws depend on; if :obj:`None`, as :obj:`seed` says.
                (default: :obj:`None`)
        """
        if key is None:
            key = self._key(torch.stack([inputs.row, inputs.col]))
        node_time = None
        if self._times:
            node_time = self._times if self.is_hetero else self._times[ALONE]
        arguments = (self.num_nodes, self.disjoint, node_time, neg_sampling)
        sample = partial(self._sample, key=key)
        if neg_sampling is None:
            return self._both_ways(edge_sample(inputs, sample, *arguments))
        with _drawing:
            state = torch.default_generator.get_state()
            try:
                torch.default_generator.manual_seed(key)
                out = edge_sample(inputs, sample, *arguments)
            finally:
                torch.default_generator.set_state(state)
        return self._both_ways(out)

    def _both_ways(self, out: Output) -> Output:
        return out.to_bidirectional() if self.subgraph_type is SubgraphType.bidirectional else out

    def _key(self, seeds: Tensor) -> int:
        if self.seed is None:
            return int(torch.randint((1 << 63) - 1, ()))
        return (fingerprint(seeds)[1] ^ (self.seed * STEP)) & ((1 << 63) - 1)

    def _sample(self, seed: Any, seed_time: Any = None, key: int | None = None) -> Output:
        seeds = seed if self.is_hetero else {ALONE: seed}
        times = seed_time if self.is_hetero or seed_time is None else {ALONE: seed_time}
        for name, node in seeds.items():
            _check_seeds(node, self._sizes[name], name)
        if key is None:
            key = self._key(torch.cat([node.long() for node in seeds.values()]))
        first, begins = 0, {}
        for name, node in seeds.items():
            begins[name] = first
            first += node.numel()
        nodes = {}
        for name, size in self._sizes.items():
            given = seeds[name].long().contiguous().numpy() if name in seeds else None
            nodes[name] = _Nodes(size, given, begins.get(name, 0) if self.disjoint else -1)
        until = self._until(seeds, times)
        blocks = self._hops(nodes, until, key)
        hop_sizes = {name: [block[2].size for block in of_type] for name, of_type in blocks.items()}
        if self.subgraph_type is SubgraphType.induced:
            blocks = {name: [self._induced(name, nodes, until)] for name in self._edges}
        parts = {}
        for name, of_type in blocks.items():
            source, target, edge = (
                torch.from_numpy(
                    np.concatenate([b[k] for b in of_type]) if len(of_type) != 1 else of_type[0][k]
                )
                if of_type
                else torch.empty(0, dtype=torch.long)
                for k in range(3)
            )
            perm = self._edges[name].perm
            parts[name] = source, target, edge if perm is None else perm[edge]
        return self._output(nodes, parts, hop_sizes)

    def _output(
        self,
        nodes: dict[NodeType, _Nodes],
        parts: dict[EdgeType, tuple[Tensor, Tensor, Tensor]],
        hop_sizes: dict[EdgeType, list[int]],
    ) -> Output:
        whole = self.subgraph_type is SubgraphType.induced
        node = {name: torch.from_numpy(n.id[: n.count]) for name, n in nodes.items()}
        tree = {name: torch.from_numpy(n.tree[: n.count]) for name, n in nodes.items()}
        if self.is_hetero:
            return HeteroSamplerOutput(
                node=node,
                row={name: part[0] for name, part in parts.items()},
                col={name: part[1] for name, part in parts.items()},
                edge={name: part[2] for name, part in parts.items()},
                batch=tree if self.disjoint else None,
                num_sampled_nodes=None if whole else {name: n.per_hop for name, n in nodes.items()},
                num_sampled_edges=None if whole else hop_sizes,
            )
        return SamplerOutput(
            node[ALONE],
            *parts[_ALL],
            batch=tree[ALONE] if self.disjoint else None,
            num_sampled_nodes=None if whole else nodes[ALONE].per_hop,
            num_sampled_edges=None if whole else hop_sizes[_ALL],
        )

    def _hops(
        self, nodes: dict[NodeType, _Nodes], until: Array, key: int
    ) -> dict[EdgeType, list[tuple[Array, Array, Array]]]:
        names = list(self._edges)
        if self.is_hetero:
            values: Any = self._num_neighbors.get_mapped_values(names)
            counts = {name: values["__".join(name)] for name in names}
        else:
            counts = {_ALL: self._num_neighbors.get_mapped_values()}
        blocks: dict[EdgeType, list[tuple[Array, Array, Array]]] = {name: [] for name in names}
        for hop in range(self._num_neighbors.num_hops):
            for number, (name, edges) in enumerate(self._edges.items()):
                sources, targets = nodes[name[0]], nodes[name[2]]
                begin, end = targets.begin, targets.end
                tree = targets.trees(begin, end)
                bound = until[tree] if edges.time.numel() else until[:0]
                stream = (key + (hop * len(names) + number + 1) * THIRD) & ((1 << 63) - 1)
                time = edges.time.numpy()
                ptr, edge = loops.draw(
                    *(edges.colptr.numpy(), edges.weight.numpy(), edges.cumulative.numpy(), time),
                    *(targets.id[begin:end], bound.astype(time.dtype), counts[name][hop]),
                    *(self.replace, self.temporal_strategy == "last" and time.size > 0, stream),
                )
                sources.reserve(edge.size)
                row, col, sources.count = loops.relabel(
                    *(edges.row.numpy(), edge, ptr, begin, tree, sources.table),
                    *(sources.id, sources.tree, sources.count, sources.num_nodes),
                )
                blocks[name].append((row, col, edge))
            for of_type in nodes.values():
                of_type.advance()
        return blocks

    def _induced(
        self, name: EdgeType, nodes: dict[NodeType, _Nodes], until: Array
    ) -> tuple[Array, Array, Array]:
        edges, sources, targets = self._edges[name], nodes[name[0]], nodes[name[2]]
        tree = targets.trees(0, targets.count)
        time = edges.time.numpy()
        bound = (until[tree] if time.size else until[:0]).astype(time.dtype)
        return loops.induce(  # type: ignore[no-any-return]
            *(edges.colptr.numpy(), edges.row.numpy(), time, targets.id[: targets.count], bound, tree),
            *(sources.table, sources.num_nodes),
        )

    def _until(self, seeds: dict[NodeType, Tensor], times: dict[NodeType, Tensor] | None) -> Array:
        # The latest time of each tree.
        if not any(edges.time.numel() for edges in self._edges.values()):
            return _NONE
        parts = []
        for name, node in seeds.items():
            given = None if times is None else times.get(name)
            if given is None and name not in self._times:
                raise ValueError(
                    "Expected times of the seeds, because only edges have times (got none); pass "
                    "'input_time' or 'edge_label_time'"
                )
            parts.append(self._times[name][node] if given is None else given)
        return torch.cat(parts).numpy()


def _is_count(count: Any) -> bool:
    return isinstance(count, int) and not isinstance(count, bool) and count >= -1


def _times(
    nodes: dict[NodeType, Any], edges: dict[EdgeType, Any], name: str | None
) -> tuple[dict[NodeType, Tensor], dict[EdgeType, Tensor]]:
    if name is None:
        return {}, {}
    of_nodes = {t: s[name].cpu() for t, s in nodes.items() if name in s and s.is_node_attr(name)}
    of_edges = {t: s[name].cpu() for t, s in edges.items() if name in s and s.is_edge_attr(name)}
    if bool(of_nodes) == bool(of_edges):
        has = "both have" if of_nodes else "neither has"
        raise ValueError(
            f"Expected 'time_attr' of either nodes or edges ({has} '{name}'); name an attribute of "
            "one of both"
        )
    return of_nodes, of_edges


def _weight(store: Any, name: str, kind: EdgeType) -> Tensor:
    of = "" if kind == _ALL else f" of {kind}"
    if name not in store or not store.is_edge_attr(name):
        attributes = [key for key in store.keys() if store.is_edge_attr(key)]  # noqa: SIM118
        unknown("'weight_attr' as an attribute of edges" + of, name, attributes)
    weight: Tensor = store[name].detach().cpu()
    if weight.dim() == 2 and weight.size(1) == 1:
        weight = weight[:, 0]
    if weight.dim() != 1 or not ((weight >= 0) & (weight < torch.inf)).all():
        raise ValueError(
            f"Expected '{name}'{of} as one finite number of at least 0 per edge (got a negative, infinite or "
            f"NaN one, or shape {list(weight.shape)}); 0 stands for an edge that is never drawn"
        )
    return weight


def _check_seeds(node: Tensor, num_nodes: int, name: NodeType) -> None:
    if node.numel() == 0:
        return
    low, high = (int(v) for v in torch.aminmax(node))
    if low < 0 or high >= num_nodes:
        of = f" of type '{name}'" if name else ""
        raise IndexError(
            f"Expected seed nodes in [0, {num_nodes - 1}] for {num_nodes} nodes{of} (got "
            f"{low if low < 0 else high}); number the nodes from 0"
        )
