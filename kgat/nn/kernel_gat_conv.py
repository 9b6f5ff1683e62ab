r"""The layer: graph attention with any kernel, a drop-in for PyG's GATConv."""

import inspect
from collections.abc import Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn import Parameter
from torch_geometric.nn.conv import MessagePassing
from torch_geometric.nn.inits import glorot, zeros
from torch_geometric.typing import Adj, OptPairTensor, OptTensor, Size, SparseTensor

from kgat import functional, kernels
from kgat.kernels import Context, Kernel, KernelLike
from kgat.kernels.magnitude import with_magnitude
from kgat.names import nearest, one_of
from kgat.nn import start as starting
from kgat.nn.edges import (
    FillValue,
    check_size,
    num_targets,
    read_edges,
    with_self_loops,
    with_self_loops_beside,
)
from kgat.nn.linear import Linear
from kgat.nn.messages import KernelMessages
from kgat.nn.numbers import check_number, check_probability, check_whole, read_channels
from kgat.nn.projections import EDGE_MODES, MAPS, NAMES, WEIGHT_MODES, NodeProjections
from kgat.nn.stock_weights import StockWeights, rename_stock
from kgat.ops.dropout import dropout
from kgat.ops.graph.device import recording
from kgat.ops.plain import is_plain
from kgat.score.gram import Gram

PROJECTIONS = tuple(MAPS)

# What draws its own parameters.
PARTS = (*NAMES, "lin_edge", "res", "lin_position", "kernel", "position_kernel")


class KernelGATConv(StockWeights, NodeProjections, KernelMessages):
    r"""Graph attention whose score is a kernel: a drop-in for :class:`torch_geometric.nn.conv.GATConv`.

    .. math::
        \mathbf{x}^{\prime}_i = \sum_{j \in \mathcal{N}(i)} \alpha_{ij} \mathbf{W}_v \mathbf{x}_j, \qquad
        \alpha_{ij} = \frac{k(\mathbf{W}_q \mathbf{x}_i, \mathbf{W}_k \mathbf{x}_j)}
        {\sum_{j' \in \mathcal{N}(i)} k(\mathbf{W}_q \mathbf{x}_i, \mathbf{W}_k \mathbf{x}_{j'})}

    This is the kernel smoother of `"Transformer Dissection" <https://arxiv.org/abs/1908.11775>`_ on the
    in-edges of a node. With ``kernel="additive"`` it is `"Graph Attention Networks"
    <https://arxiv.org/abs/1710.10903>`_, number for number, and loads a GATConv state dict;
    ``"additive_v2"`` is GATv2Conv, ``"dot_product"`` TransformerConv, ``"scaled_cosine"`` AGNNConv.

    All positional arguments and their defaults are those of GATConv; the others are keyword-only.

    Args:
        in_channels (int or tuple): Size of each input sample, or :obj:`-1` to derive it from the first input.
            A tuple holds the sizes of sources and targets.
        out_channels (int): Channels per head, of values as of queries and keys.
        heads (int, optional): Number of heads :math:`H`. (default: :obj:`1`)
        concat (bool, optional): Whether heads are concatenated or averaged. (default: :obj:`True`)
        negative_slope (float, optional): Slope of the LeakyReLU of the kernels that have one.
            (default: :obj:`0.2`)
        dropout (float, optional): Dropout on the normalised weights. (default: :obj:`0.0`)
        add_self_loops (bool, optional): Whether each node attends to itself. Loops in the input are
            replaced. (default: :obj:`True`)
        edge_dim (int, optional): Size of edge features. (default: :obj:`None`)
        fill_value (float, torch.Tensor or str, optional): Features of the added self-loops: a value or how to
            reduce those of the in-edges. (default: :obj:`"mean"`)
        bias (bool, optional): Whether a bias is added to the output. (default: :obj:`True`)
        residual (bool, optional): Whether a linear map of the target is added. (default: :obj:`False`)
        kernel (str, type, callable or Kernel, optional): A name of :mod:`kgat.kernels`, a
            :class:`~kgat.kernels.Kernel` class, a factory called with ``(channels, heads)``, or a kernel made
            for this layer. (default: :obj:`"additive"`)
        kernel_kwargs (dict, optional): Further arguments of the kernel class. (default: :obj:`None`)
        projections (str, optional): Which of :math:`\mathbf{W}_q, \mathbf{W}_k, \mathbf{W}_v` are one:
            :obj:`"shared"` all (GAT), :obj:`"shared_qk"` queries and keys, which makes attention of a
            symmetric kernel symmetric, :obj:`"shared_kv"` keys and values (GATv2), :obj:`"separate"` none
            (Transformer). With a tuple of :obj:`in_channels`, :obj:`"shared"` still maps sources and targets
            apart. (default: :obj:`"shared"`)
        projection_bias (bool, optional): Whether the projections have biases. (default: :obj:`False`)
        magnitude (float or str, optional): Multiplies the kernel by an L^p
            :class:`~kgat.kernels.Magnitude`: the order p, or :obj:`"learned"`. (default: :obj:`None`)
        edge_mode (str, optional): Where edge features enter: :obj:`"score"` adds one learned number per edge
            and head to the score (for the additive kernel inside its LeakyReLU, as GATConv does),
            :obj:`"key"` adds a vector to the key (GATv2Conv), :obj:`"key_value"` to key and value
            (TransformerConv). (default: :obj:`"score"`)
        weight_mode (str, optional): What :obj:`edge_weight` multiplies: the :obj:`"kernel"`, before it is
            normalised (weights must not be negative; 0 removes the edge of a finite source), or
            :obj:`"alpha"` afterwards. (default: :obj:`"kernel"`)
        value_dropout (float, optional): Dropout on the values but not on the keys, as the original GAT code
            has it and GATConv has not. (default: :obj:`0.0`)
        position_dim (int, optional): Size of positional encodings :math:`\mathbf{t}` (of Laplacian
            eigenvectors or random walks, say), on which a kernel of their own,
            :math:`k_T(\mathbf{W}_T \mathbf{t}_i, \mathbf{W}_T \mathbf{t}_j)`, multiplies :math:`k`: the
            product of symmetric kernels of Transformer Dissection. Values do not see them.
            (default: :obj:`None`)
        position_kernel (str, type, callable or Kernel, optional): :math:`k_T`, given like :obj:`kernel`. Two
            dot products, or two kernels of distances alike, still are one pass over the edges.
            (default: :obj:`"dot_product"`)
        backend (str, optional): Forces a backend of :func:`kgat.functional.edge_attention`.
            (default: :obj:`None`)
        start (str, optional): :obj:`"unit"` gives the scores a start that does not depend on the scale of
            features, the width or the kernel: the first forward pass on a graph with edges sets one scale per
            factor of the kernel and head, by which its queries and keys are multiplied from then on, such
            that scores have a standard deviation of 1 over the edges (of a bounded kernel, the nearest that
            it reaches; :class:`~kgat.kernels.ScaledCosine` changes its :math:`\beta` instead). Without it,
            scores may start so close to each other that attention is a mean, or so far apart that it is a
            maximum. With :obj:`"median"` the median score over the edges is :math:`-1/2` instead, for each
            factor that is translation-invariant: the median heuristic, by which the median distance is the
            lengthscale of :class:`~kgat.kernels.RBF`. Scales are buffers, no parameters, and part of the
            state dict; :func:`kgat.nn.calibrate` sets them by hand. A copy that is to average weights is made
            after the first pass, or it finds scales of its own. Additive kernels and
            :class:`~kgat.kernels.KANScore` keep the start of their papers, and
            :class:`~kgat.kernels.LeakyCosine`, :class:`~kgat.kernels.L2Distance` and
            :class:`~kgat.kernels.Constant` have no scale to set.
            (default: :obj:`None`)
        **kwargs (optional): Arguments of :class:`torch_geometric.nn.conv.MessagePassing`.

    Shapes:
        - **input:** node features :math:`(N, F_{in})` or :math:`((M, F_s), (N, F_t))` if bipartite, edges
          :math:`(2, E)`, edge features :math:`(E, F_e)` *(optional)*
        - **output:** :math:`(N, H \cdot F_{out})`, or :math:`(N, F_{out})` if heads are averaged. With
          ``return_attention_weights=True``, :math:`((N, H \cdot F_{out}), ((2, E'), (E', H)))`

    Raises:
        TypeError: If there is no argument of a name.
        ValueError: If the value of an argument is unknown or shapes do not fit; also if edge features are
            given to a layer without :obj:`edge_dim`, where GATConv ignores them silently.
        IndexError: If an edge points outside of the nodes.

    Example:
        >>> import torch
        >>> from kgat import KernelGATConv
        >>> conv = KernelGATConv(16, 8, heads=4, kernel="rbf", magnitude=1.5)
        >>> x, edge_index = torch.randn(3, 16), torch.tensor([[0, 1, 2], [1, 2, 0]])
        >>> conv(x, edge_index).shape
        torch.Size([3, 32])
        >>> out, (edge_index, alpha) = conv(x, edge_index, return_attention_weights=True)
        >>> alpha.shape  # with a self-loop per node
        torch.Size([6, 4])
    """

    def __init__(
        self,
        in_channels: int | tuple[int, int],
        out_channels: int,
        heads: int = 1,
        concat: bool = True,
        negative_slope: float = 0.2,
        dropout: float = 0.0,
        add_self_loops: bool = True,
        edge_dim: int | None = None,
        fill_value: FillValue = "mean",
        bias: bool = True,
        residual: bool = False,
        *,
        kernel: KernelLike = "additive",
        kernel_kwargs: dict[str, Any] | None = None,
        projections: str = "shared",
        projection_bias: bool = False,
        magnitude: float | str | None = None,
        edge_mode: str = "score",
        weight_mode: str = "kernel",
        value_dropout: float = 0.0,
        position_dim: int | None = None,
        position_kernel: KernelLike = "dot_product",
        backend: str | None = None,
        start: str | None = None,
        **kwargs: Any,
    ) -> None:
        _check_names(type(self), kwargs)
        check_whole(out_channels=out_channels, heads=heads)
        check_whole(edge_dim=edge_dim, position_dim=position_dim, optional=True)
        check_probability(dropout=dropout, value_dropout=value_dropout)
        check_number(negative_slope=negative_slope)
        kwargs.setdefault("aggr", "add")
        super().__init__(node_dim=0, **kwargs)
        self.in_channels = read_channels(in_channels)
        self.out_channels = out_channels
        self.heads = heads
        self.concat = concat
        self.negative_slope = negative_slope
        self.dropout = dropout
        self.add_self_loops = add_self_loops
        self.edge_dim = edge_dim
        self.fill_value = fill_value
        self.residual = residual
        self.projections = one_of("projections", projections, PROJECTIONS)
        self.magnitude = magnitude
        self.edge_mode = one_of("edge_mode", edge_mode, EDGE_MODES)
        self.weight_mode = one_of("weight_mode", weight_mode, WEIGHT_MODES)
        self.value_dropout = value_dropout
        self.position_dim = position_dim
        self.backend = backend
        self.start = one_of("start", start, starting.STARTS)

        self._build_projections(projection_bias)
        options = dict(kernel_kwargs or {})
        if negative_slope != 0.2:  # a kernel without a slope refuses it, rather than ignore it
            options.setdefault("negative_slope", negative_slope)
        self.kernel = with_magnitude(kernels.resolve(kernel, out_channels, heads, **options), magnitude)
        self.lin_position = self.position_kernel = self.lin_edge = self.res = None
        if position_dim is not None:
            self.lin_position = self._linear(position_dim)
            self.position_kernel = kernels.resolve(position_kernel, out_channels, heads)
        self.register_parameter("att_edge", None)
        if edge_dim is not None:
            self.lin_edge = self._linear(edge_dim)
            if edge_mode == "score":
                self.att_edge = Parameter(torch.empty(1, heads, out_channels))
        width = heads * out_channels if concat else out_channels
        if residual:
            self.res = Linear(self._sides()[1], width, bias=False, weight_initializer="glorot")
        self.register_parameter("bias", Parameter(torch.empty(width)) if bias else None)

        self.register_load_state_dict_pre_hook(rename_stock)
        self.register_load_state_dict_pre_hook(starting.load)
        # A kernel that is passed in stays what it is: it may have been trained.
        given = {"kernel": kernel, "position_kernel": position_kernel}
        self._reset(name for name in PARTS if not isinstance(given.get(name), torch.nn.Module))

    @property
    def penalised(self) -> bool:
        r"""Whether a kernel has a penalty for ``losses``."""
        of_position = self.position_kernel is not None and self.position_kernel.penalised
        return self.kernel.penalised or of_position

    def reset_parameters(self) -> None:
        r"""Draws all learnable parameters anew, those of kernels that were passed in, too."""
        self._reset(PARTS)

    def _reset(self, names: Iterable[str]) -> None:
        super().reset_parameters()
        for name in names:
            if (part := getattr(self, name)) is not None:
                part.reset_parameters()
        glorot(self.att_edge)
        zeros(self.bias)
        starting.reopen(self)

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        if self.start is not None:
            starting.save(self, destination, prefix)

    def forward(
        self,
        x: Tensor | OptPairTensor,
        edge_index: Adj,
        edge_attr: OptTensor = None,
        size: Size = None,
        return_attention_weights: bool | None = None,
        edge_weight: OptTensor = None,
        batch: OptTensor | tuple[Tensor, Tensor] = None,
        losses: list[Tensor] | None = None,
        position: OptTensor | tuple[Tensor, Tensor] = None,
    ) -> Tensor | tuple[Tensor, tuple[Adj, Tensor]] | tuple[Tensor, SparseTensor]:
        r"""Runs the forward pass of the module.

        Args:
            x (torch.Tensor or (torch.Tensor, torch.Tensor)): Node features; a tuple holds those of sources
                and targets, and targets may be :obj:`None`.
            edge_index (torch.Tensor, EdgeIndex, torch.sparse tensor or SparseTensor): The edges.
            edge_attr (torch.Tensor, optional): Edge features. (default: :obj:`None`)
            size ((int, int), optional): Numbers of sources and targets. (default: :obj:`None`)
            return_attention_weights (bool, optional): If :obj:`True`, returns
                ``(out, (edge_index, alpha))``: the edges with their self-loops and the weights of each edge
                and head, after dropout in training. (default: :obj:`None`)
            edge_weight (torch.Tensor, optional): A number per edge; see :obj:`weight_mode`.
                (default: :obj:`None`)
            batch (torch.Tensor or (torch.Tensor, torch.Tensor), optional): The graph of each node, or of each
                source and each target, for kernels that depend on the graph. (default: :obj:`None`)
            losses (list of torch.Tensor, optional): Takes the penalty of a kernel that has one.
                (default: :obj:`None`)
            position (torch.Tensor or (torch.Tensor, torch.Tensor), optional): Positional encodings of the
                nodes, or of sources and targets, of a layer with :obj:`position_dim`.
                (default: :obj:`None`)

        Shapes:
            - **x:** :math:`(N, F_{in})` or :math:`((M, F_s), (N, F_t))`
            - **edge_attr:** :math:`(E, F_e)` or :math:`(E)`, **edge_weight:** :math:`(E)`
            - **batch:** :math:`(N)` or :math:`(M)` and :math:`(N)`
            - **position:** :math:`(N, F_p)` or :math:`((M, F_p), (N, F_p))`
        """
        edges = read_edges(edge_index, edge_attr, edge_weight, self.edge_dim)
        query, key, value = self.project(x, num_targets(edge_index, size, self.flow))
        check_size(edge_index, size, key.size(0), query.size(0))
        places = self._project_position(position, query.size(0), key.size(0))
        if self.training:
            value = dropout(value, self.value_dropout)
        messages = (self.edge_mode != "score" and edges.attr is not None) or self._needs_messages()
        if self.add_self_loops:
            nodes = min(query.size(0), key.size(0)) if size is None else min(size)
            fixed = torch.compiler.is_compiling() or recording(edges.index.device)  # is the number of edges
            beside = fixed and not return_attention_weights and not messages
            add_loops = with_self_loops_beside if beside else with_self_loops
            edges = add_loops(edges, nodes, self.fill_value)
        terms = self._edge_terms(edges)
        context = _context(batch, losses)
        if self.start is not None:
            pairs = edges.index[self._target], edges.index[1 - self._target]
            starting.fit(self, query, key, pairs, terms.vector, places, context)

        # k(W_q x_i, W_k x_j), normalised over the in-edges of i, times W_v x_j
        alpha = None
        if messages:
            out, alpha = self._pass_messages(query, key, value, places, edges, terms, context)
        else:
            gram = self._gram(query, key, places, context, x)
            options: dict[str, Any] = {
                "edge_bias": terms.bias,
                "edge_log_weight": terms.log_weight,
                "edge_weight": terms.weight,
                "dropout": self.dropout if self.training else 0.0,
                "base": self._base(x, query.size(0)),
                "flow": self.flow,
                "backend": self.backend,
            }
            if return_attention_weights:
                out, alpha = functional.edge_attention_with_weights(gram, value, edges.index, **options)
            else:
                out = functional.edge_attention(gram, value, edges.index, **options)
        out = out.view(-1, self.heads * self.out_channels) if self.concat else out.mean(dim=1)
        if messages or not self.concat:
            out = self._add_base(out, x)
        return (out, edges.with_alpha(alpha)) if return_attention_weights else out  # type: ignore

    def _gram(
        self,
        query: Tensor,
        key: Tensor,
        places: tuple[Tensor, Tensor] | None,
        context: Context,
        x: Tensor | OptPairTensor | None = None,
    ) -> Gram:
        kernel, gram = self.kernel, None
        if x is not None and type(kernel).of_features is not Kernel.of_features:
            features = self._unprojected(x, key) if is_plain(kernel, type(kernel)) else None
            gram = None if features is None else kernel.of_features(*features)
        if gram is None:
            gram = kernel(query, key, context)
        if places is None or self.position_kernel is None:
            return gram
        return gram * self.position_kernel(*places, context)

    def _base(self, x: Tensor | OptPairTensor, targets: int) -> OptTensor:
        # What the attention of concatenated heads is added to: bias, skip connection, or both in one product.
        target = x[1] if isinstance(x, tuple) else x
        res, bias = None if target is None else self.res, self.bias
        if not self.concat:
            return None
        if res is None:
            return None if bias is None else bias.view(self.heads, self.out_channels)
        if bias is not None and target.layout == torch.strided and is_plain(res, Linear):
            base = F.linear(target, res.weight, bias)
        else:
            base = self._add_base(None, x)
        return base.view(targets, self.heads, self.out_channels)

    def _add_base(self, out: OptTensor, x: Tensor | OptPairTensor) -> Tensor:
        target = x[1] if isinstance(x, tuple) else x
        for term in (None if self.res is None or target is None else self.res(target), self.bias):
            if term is not None:
                out = term if out is None else out + term
        assert out is not None
        return out

    def __repr__(self) -> str:
        kernel = "" if self.kernel.stock[0] == "GATConv" else f", kernel={self.kernel!r}"
        return f"{type(self).__name__}({self.in_channels}, {self.out_channels}, heads={self.heads}{kernel})"


def _check_names(cls: type, kwargs: dict[str, Any]) -> None:
    for name in kwargs:
        if name not in inspect.signature(MessagePassing).parameters:
            own = list(inspect.signature(KernelGATConv).parameters)
            raise TypeError(
                f"Expected arguments of {cls.__name__} or MessagePassing (got '{name}')"
                f"{nearest(name, own) or '; leave it out'}"
            )


def _context(
    batch: OptTensor | tuple[OptTensor, OptTensor], losses: list[Tensor] | tuple[list[Tensor], ...] | None
) -> Context:
    # Of queries and keys; a heterogeneous model makes pairs of what it hands on, of nothing too.
    if isinstance(batch, tuple):
        batch = None if batch[0] is None else batch[::-1]
    return Context(batch, losses[-1] if isinstance(losses, tuple) else losses)
