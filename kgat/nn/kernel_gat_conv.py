r"""The layer: graph attention with any kernel, a drop-in for PyG's GATConv."""

import inspect
from typing import Any, ClassVar, NoReturn

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn import Parameter
from torch_geometric.nn.aggr import SumAggregation
from torch_geometric.nn.conv import GATConv, GATv2Conv, MessagePassing
from torch_geometric.nn.inits import glorot, zeros
from torch_geometric.typing import Adj, OptPairTensor, OptTensor, Size, SparseTensor
from torch_geometric.utils import is_torch_sparse_tensor

from kgat import functional, kernels
from kgat.kernels import Additive, AdditiveV2, Context, Kernel, KernelLike
from kgat.kernels.magnitude import with_magnitude
from kgat.names import nearest, one_of
from kgat.nn import start as starting
from kgat.nn.edges import Edges, FillValue, read_edges, with_self_loops, with_self_loops_beside
from kgat.nn.linear import Linear
from kgat.ops.dropout import dropout
from kgat.ops.graph.adjacency import check_indices
from kgat.ops.plain import is_plain
from kgat.ops.require import require
from kgat.score.gram import Gram

PROJECTIONS = ("shared", "shared_qk", "shared_kv", "separate")
EDGE_MODES = ("score", "key", "key_value")
WEIGHT_MODES = ("kernel", "alpha")


class KernelGATConv(MessagePassing):
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
            maximum. Scales are buffers, no parameters, and part of the state dict;
            :func:`kgat.nn.calibrate` sets them by hand. Additive kernels and
            :class:`~kgat.kernels.KANScore` keep the start of their papers, and
            :class:`~kgat.kernels.LeakyCosine` and :class:`~kgat.kernels.L2Distance` have no scale to set.
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
        kwargs.setdefault("aggr", "add")
        super().__init__(node_dim=0, **kwargs)
        for name, option, choices in (
            ("projections", projections, PROJECTIONS),
            ("edge_mode", edge_mode, EDGE_MODES),
            ("weight_mode", weight_mode, WEIGHT_MODES),
            ("start", start, starting.STARTS),
        ):
            one_of(name, option, choices)

        self.in_channels = in_channels
        self.out_channels = out_channels
        self.heads = heads
        self.concat = concat
        self.negative_slope = negative_slope
        self.dropout = dropout
        self.add_self_loops = add_self_loops
        self.edge_dim = edge_dim
        self.fill_value = fill_value
        self.residual = residual
        self.projections = projections
        self.magnitude = magnitude
        self.edge_mode = edge_mode
        self.weight_mode = weight_mode
        self.value_dropout = value_dropout
        self.position_dim = position_dim
        self.backend = backend
        self.start = start

        self._build_projections(projection_bias)
        self.kernel = _build_kernel(kernel, out_channels, heads, negative_slope, kernel_kwargs, magnitude)

        width = heads * out_channels
        self.lin_position = self.position_kernel = None
        if position_dim is not None:
            self.lin_position = Linear(position_dim, width, bias=False, weight_initializer="glorot")
            self.position_kernel = kernels.resolve(position_kernel, out_channels, heads)
        self.lin_edge = self.res = None
        self.register_parameter("att_edge", None)
        if edge_dim is not None:
            self.lin_edge = Linear(edge_dim, width, bias=False, weight_initializer="glorot")
            if edge_mode == "score":
                self.att_edge = Parameter(torch.empty(1, heads, out_channels))
        total_out_channels = width if concat else out_channels
        if residual:
            targets = in_channels if isinstance(in_channels, int) else in_channels[1]
            self.res = Linear(targets, total_out_channels, bias=False, weight_initializer="glorot")
        if bias:
            self.bias = Parameter(torch.empty(total_out_channels))
        else:
            self.register_parameter("bias", None)

        self.register_load_state_dict_pre_hook(_rename_stock_parameters)
        self.register_load_state_dict_pre_hook(starting.load)
        self.reset_parameters()

    def _build_projections(self, bias: bool) -> None:
        def linear(in_channels: int) -> Linear:
            width = self.heads * self.out_channels
            return Linear(in_channels, width, bias=bias, weight_initializer="glorot")

        self.lin = self.lin_src = self.lin_dst = None
        self.lin_query = self.lin_key = self.lin_value = None
        keys, queries = self._pair(self.in_channels)
        if self.projections == "shared":
            if isinstance(self.in_channels, int):
                self.lin = linear(self.in_channels)
            else:
                self.lin_src, self.lin_dst = linear(keys), linear(queries)
            return
        self.lin_query = linear(queries)
        if self.projections != "shared_qk":
            self.lin_key = linear(keys)
        elif queries != keys:
            raise ValueError(
                f"Expected equal 'in_channels' of sources and targets where projections='shared_qk' "
                f"(got {self.in_channels}); use 'separate'"
            )
        if self.projections != "shared_kv":
            self.lin_value = linear(keys)

    @staticmethod
    def _pair(in_channels: int | tuple[int, int]) -> tuple[int, int]:
        return (in_channels, in_channels) if isinstance(in_channels, int) else in_channels

    @property
    def _target(self) -> int:  # which row of edge_index holds the targets
        return 1 if self.flow == "source_to_target" else 0

    @property
    def att_src(self) -> Tensor:
        r"""GATConv's attention vector of sources, as its parameter of this name, of an additive kernel.

        Shapes:
            - **output:** :math:`(1, H, D)`
        """
        return self._stock_vector("att_key")

    @property
    def att_dst(self) -> Tensor:
        r"""GATConv's attention vector of targets, as its parameter of this name, of an additive kernel.

        Shapes:
            - **output:** :math:`(1, H, D)`
        """
        return self._stock_vector("att_query")

    def _stock_vector(self, name: str) -> Tensor:
        if not isinstance(self.kernel, Additive):
            raise AttributeError(f"{type(self).__name__} has no attention vectors with {self.kernel!r}")
        return getattr(self.kernel, name).unsqueeze(0)  # type: ignore[no-any-return]

    def __setattr__(self, name: str, value: Any) -> None:
        # A parameter under one of GATConv's names is that of the kernel.
        own = {"att_src": "att_key", "att_dst": "att_query"}.get(name)
        if own is None or not isinstance(getattr(self, "kernel", None), Additive):
            super().__setattr__(name, value)
        else:
            value = value.detach().reshape(self.heads, self.out_channels)
            setattr(self.kernel, own, Parameter(value, getattr(self.kernel, own).requires_grad))

    @property
    def penalised(self) -> bool:
        r"""Whether a kernel has a penalty for ``losses``."""
        of_position = self.position_kernel is not None and self.position_kernel.penalised
        return self.kernel.penalised or of_position

    def reset_parameters(self) -> None:
        r"""Draws all learnable parameters anew."""
        super().reset_parameters()
        for lin in (
            *(self.lin, self.lin_src, self.lin_dst),
            *(self.lin_query, self.lin_key, self.lin_value),
            *(self.lin_edge, self.res, self.lin_position),
        ):
            if lin is not None:
                lin.reset_parameters()
        self.kernel.reset_parameters()
        if self.position_kernel is not None:
            self.position_kernel.reset_parameters()
        glorot(self.att_edge)
        zeros(self.bias)
        starting.reopen(self)

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        if self.start is not None:
            starting.save(self, destination, prefix)

    @classmethod
    def from_gat(cls, conv: GATConv, **kwargs: Any) -> "KernelGATConv":
        r"""Makes the layer that computes what a :class:`GATConv` computes, with its weights.

        Args:
            conv (GATConv): An initialised GATConv.
            **kwargs (optional): Keyword-only arguments of this class. What :obj:`position_dim` adds keeps its
                initial weights.

        Raises:
            TypeError: If it is another layer.
            ValueError: If another kernel than GAT's is asked for.

        Example:
            >>> from kgat import KernelGATConv
            >>> from torch_geometric.nn import GATConv
            >>> KernelGATConv.from_gat(GATConv(16, 8, heads=4))
            KernelGATConv(16, 8, heads=4)
        """
        if not isinstance(conv, GATConv):
            raise TypeError(
                f"Expected a GATConv (got {type(conv).__name__}); build another layer with its own arguments "
                f"and load what weights it shares"
            )
        if kernels.resolve(kwargs.get("kernel", "additive"), 1, 1).__class__ is not Additive:
            raise ValueError(
                f"Expected kernel='additive' for the weights of a GATConv (got {kwargs['kernel']!r}); build "
                f"KernelGATConv(kernel=...) where another kernel is to learn its own"
            )
        new = cls(
            conv.in_channels,
            conv.out_channels,
            conv.heads,
            conv.concat,
            conv.negative_slope,
            conv.dropout,
            conv.add_self_loops,
            conv.edge_dim,
            conv.fill_value,
            bias=conv.bias is not None,
            residual=conv.residual,
            aggr=conv.aggr,
            flow=conv.flow,
            **kwargs,
        )
        state, own = conv.state_dict(), new.state_dict()
        state.update(
            {name: own[name] for name in own if name.startswith(("lin_position.", "position_kernel."))}
        )
        new.load_state_dict(state)
        reference = next(conv.parameters())
        return new.to(reference.device, reference.dtype).train(conv.training)

    def to_gat(self) -> GATConv:
        r"""Makes the :class:`GATConv` that computes what this layer computes, with its weights.

        Its state dict is in GATConv's names; ``KernelGATConv.from_gat`` is the way back.

        Raises:
            ValueError: If the layer has what GATConv has not, such as another kernel.

        Example:
            >>> from kgat import KernelGATConv
            >>> KernelGATConv(16, 8, heads=4).to_gat()
            GATConv(16, 8, heads=4)
        """
        biased = any(
            lin is not None and lin.bias is not None for lin in (self.lin, self.lin_src, self.lin_dst)
        )
        self._expect_stock(
            "GATConv",
            {
                "kernel='additive'": type(self.kernel) is Additive,
                "projections='shared'": self.projections == "shared",
                "projection_bias=False": not biased,
                "edge_mode='score'": self.edge_dim is None or self.edge_mode == "score",
            },
        )
        return self._to_stock(GATConv, {"kernel.att_key": "att_src", "kernel.att_query": "att_dst"})

    def to_gatv2(self) -> GATv2Conv:
        r"""Makes the :class:`GATv2Conv` that computes what this layer computes, with its weights.

        The layer is one of ``kernel="additive_v2"``, ``projections="shared_kv"`` (or ``"shared"``, which is
        GATv2Conv's ``share_weights``), ``projection_bias`` as ``bias`` and ``edge_mode="key"``;
        :meth:`load_state_dict` reads what a GATv2Conv saves.

        Raises:
            ValueError: If the layer has what GATv2Conv has not.

        Example:
            >>> from kgat import KernelGATConv
            >>> KernelGATConv(
            ...     *(16, 8, 4), kernel="additive_v2", projections="shared_kv", projection_bias=True
            ... ).to_gatv2()
            GATv2Conv(16, 8, heads=4)
        """
        shared = self.lin is not None
        key = self.lin if shared else self.lin_key
        self._expect_stock(
            "GATv2Conv",
            {
                "kernel='additive_v2'": type(self.kernel) is AdditiveV2,
                "projections='shared_kv'": shared or self.projections == "shared_kv",
                f"projection_bias={self.bias is not None}": key is not None
                and (key.bias is None) == (self.bias is None),
                "edge_mode='key'": self.edge_dim is None or self.edge_mode == "key",
            },
        )
        names = {"kernel.att": "att"}
        sides = {"lin": ("lin_l", "lin_r")} if shared else {"lin_key": ("lin_l",), "lin_query": ("lin_r",)}
        for own, stock in sides.items():
            names |= {f"{own}.{part}": f"{side}.{part}" for side in stock for part in ("weight", "bias")}
        return self._to_stock(GATv2Conv, names, share_weights=shared)

    def _expect_stock(self, stock: str, conditions: dict[str, bool]) -> None:
        conditions = conditions | {
            "value_dropout=0.0": self.value_dropout == 0.0,
            "position_dim=None": self.position_dim is None,
        }
        missing = [option for option, met in conditions.items() if not met]
        if missing:
            raise ValueError(
                f"Expected a layer that {stock} can compute (got {self!r}); it needs {', '.join(missing)}"
            )

    def _to_stock(self, cls: Any, names: dict[str, str], **kwargs: Any) -> Any:
        stock = cls(
            *(self.in_channels, self.out_channels, self.heads, self.concat, self.kernel.negative_slope),
            *(self.dropout, self.add_self_loops, self.edge_dim, self.fill_value),
            bias=self.bias is not None,
            residual=self.residual,
            aggr=self.aggr,
            flow=self.flow,
            **kwargs,
        )
        state = {}
        for name, value in self.state_dict().items():
            new = names.get(name, name)
            state[new] = value.unsqueeze(0) if name.startswith("kernel.") else value
        if kwargs.get("share_weights"):
            state |= {name.replace("lin_r.", "lin_l."): state[name] for name in state if "lin_r." in name}
        stock.load_state_dict(state)
        reference = next(self.parameters())
        return stock.to(reference.device, reference.dtype).train(self.training)

    def project(
        self, x: Tensor | OptPairTensor, num_targets: int | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        r"""Returns queries, keys and values of all heads.

        Args:
            x (torch.Tensor or tuple): Node features, of sources and targets if a tuple; targets may be
                :obj:`None`, whose queries are then zero vectors.
            num_targets (int, optional): Number of targets where they have no features.
                (default: :obj:`None`)

        Shapes:
            - **x:** :math:`(N, F_{in})` or :math:`((M, F_s), (N, F_t))`
            - **query:** :math:`(N, H, D)`, **key, value:** :math:`(M, H, D)`
        """
        same = not isinstance(x, tuple)
        x_key, x_query = (x, x) if same else x
        self._check_features(x_key, x_query)

        def heads(lin: Linear | None, features: Tensor) -> Tensor:
            assert lin is not None
            return lin(features).view(-1, self.heads, self.out_channels)

        if self.projections == "shared":
            lin_key, lin_query = (self.lin_src, self.lin_dst) if self.lin is None else [self.lin] * 2
        else:
            lin_query = self.lin_query
            lin_key = self.lin_query if self.lin_key is None else self.lin_key
        key = heads(lin_key, x_key)
        value = key if self.lin_value is None else heads(self.lin_value, x_key)
        if x_query is None:
            rows = key.size(0) if num_targets is None else num_targets
            query = key.new_zeros(rows, self.heads, self.out_channels)
        elif same and lin_query is lin_key:
            query = key
        else:
            query = heads(lin_query, x_query)
        return query, key, value

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
        if edge_attr is not None and self.edge_dim is None:
            raise ValueError(
                f"Expected no 'edge_attr' because 'edge_dim=None' (got {list(edge_attr.shape)}); build the "
                f"layer with 'edge_dim={edge_attr.size(-1) if edge_attr.dim() > 1 else 1}'"
            )
        edges = read_edges(edge_index, edge_attr, edge_weight, self.edge_dim)
        self._check_edges(edges)
        num_targets = self._num_targets(edge_index, size)
        query, key, value = self.project(x, num_targets)
        if size is not None:
            self._check_size(size, query, key)
        places = self._project_position(position, query.size(0), key.size(0))
        if self.training:
            value = dropout(value, self.value_dropout)
        hidden = None
        if self.add_self_loops:
            num_nodes = min(query.size(0), key.size(0)) if size is None else min(size)
            if torch.compiler.is_compiling() and not return_attention_weights and self._takes_all_edges():
                edges, hidden = with_self_loops_beside(edges, num_nodes, self.fill_value)
            else:
                edges = with_self_loops(edges, num_nodes, self.fill_value)

        edge = self._edge_features(edges)
        edge_bias = None
        if edge is not None and self.edge_mode == "score":
            edge_bias = (edge * self.att_edge).sum(dim=-1)
        edge_log_weight, edge_scale = self._edge_weights(edges.weight)
        if hidden is not None:
            edge_log_weight = hidden if edge_log_weight is None else edge_log_weight + hidden
        vectors = edge is not None and self.edge_mode != "score"
        if isinstance(batch, tuple):  # a pair of nothing is what heterogeneous models make of nothing
            batch = None if batch[0] is None else batch[::-1]
        context = Context(batch, losses[-1] if isinstance(losses, tuple) else losses)
        if self.start is not None:
            pairs = edges.index[self._target], edges.index[1 - self._target]
            starting.fit(self, query, key, pairs, edge if vectors else None, places, context)
        alpha = None
        messages = vectors or self._needs_messages()
        if messages:
            vector = edge if vectors else None
            out, alpha = self._message_route(
                *(query, key, value, places, edges, vector, edge_bias, edge_log_weight, edge_scale, context)
            )
        else:
            gram = self._with_position(self._gram(x, query, key, context), places, context)
            options: dict[str, Any] = {
                "edge_bias": edge_bias,
                "edge_log_weight": edge_log_weight,
                "edge_weight": edge_scale,
                "dropout": self.dropout if self.training else 0.0,
                "base": self._base(x, query.size(0)),
                "flow": self.flow,
                "backend": self.backend,
            }
            if return_attention_weights:
                out, alpha = functional.edge_attention_with_weights(gram, value, edges.index, **options)
            else:
                out = functional.edge_attention(gram, value, edges.index, **options)

        if self.concat:
            out = out.view(-1, self.heads * self.out_channels)
        else:
            out = out.mean(dim=1)
        if messages or not self.concat:
            out = self._add_base(out, x)

        if return_attention_weights:
            assert alpha is not None
            attached = edges.with_alpha(alpha)
            return out, attached  # type: ignore[return-value]
        return out

    def _gram(self, x: Tensor | OptPairTensor, query: Tensor, key: Tensor, context: Context) -> Gram:
        # The logits of GAT from the features: cheaper than from the projections, unless features are many.
        x_key, x_query = x if isinstance(x, tuple) else (x, x)
        lin_key, lin_query = (self.lin_src, self.lin_dst) if self.lin is None else (self.lin, self.lin)
        if x_query is not None and lin_key is not None and lin_query is not None:
            few = max(x_key.size(1), x_query.size(1)) <= 2 * self.heads * self.out_channels
            dense = x_query.layout == x_key.layout == torch.strided
            single = key.dtype in (torch.float32, torch.float64)
            plain = is_plain(lin_key, Linear) and is_plain(lin_query, Linear)
            if few and dense and single and plain and lin_key.bias is None and lin_query.bias is None:
                kernel = self.kernel
                if isinstance(kernel, Additive) and is_plain(kernel, Additive):
                    return kernel.of_features(x_query, lin_query.weight, x_key, lin_key.weight)
        return self.kernel(query, key, context)

    def _project_position(
        self, position: OptTensor | tuple[Tensor, Tensor], targets: int, sources: int
    ) -> tuple[Tensor, Tensor] | None:
        # W_T t of targets and sources.
        position = None if isinstance(position, tuple) and position == (None, None) else position
        if self.lin_position is None:
            if position is None:
                return None
            given = position[0] if isinstance(position, tuple) else position
            raise ValueError(
                f"Expected no 'position' because 'position_dim=None' (got {list(given.shape)}); build the "
                f"layer with 'position_dim={given.size(-1)}'"
            )
        if position is None:
            raise ValueError(
                f"Expected 'position' of shape [N={targets}, {self.position_dim}] because "
                f"'position_dim={self.position_dim}' (got 'None'); pass it, or build the layer with "
                f"'position_dim=None'"
            )
        of_key, of_query = position if isinstance(position, tuple) else (position, position)
        for side, nodes, t in (("sources", sources, of_key), ("targets", targets, of_query)):
            if t is None or t.shape != (nodes, self.position_dim):
                raise ValueError(
                    f"Expected 'position' of shape [{nodes}, position_dim={self.position_dim}] for the "
                    f"{side} (got {None if t is None else list(t.shape)}); where they are not the targets, "
                    f"give a pair"
                )
        key = self.lin_position(of_key).view(-1, self.heads, self.out_channels)
        if of_query is of_key:
            return key, key
        return self.lin_position(of_query).view(-1, self.heads, self.out_channels), key

    def _with_position(self, gram: Gram, places: tuple[Tensor, Tensor] | None, context: Context) -> Gram:
        if places is None or self.position_kernel is None:
            return gram
        return gram * self.position_kernel(*places, context)

    def _base(self, x: Tensor | OptPairTensor, num_targets: int) -> OptTensor:
        # What the attention of concatenated heads is added to: bias, skip connection, or both in one product.
        target = x[1] if isinstance(x, tuple) else x
        if not self.concat or (self.bias is None and (self.res is None or target is None)):
            return None
        if self.res is None or target is None:
            return self.bias.view(self.heads, self.out_channels)
        if self.bias is None or target.layout != torch.strided or not is_plain(self.res, Linear):
            base = self._add_base(None, x)
        else:
            base = F.linear(target, self.res.weight, self.bias)
        return base.view(num_targets, self.heads, self.out_channels)

    def _add_base(self, out: OptTensor, x: Tensor | OptPairTensor) -> Tensor:
        target = x[1] if isinstance(x, tuple) else x
        if self.res is not None and target is not None:
            skip = self.res(target)
            out = skip if out is None else out + skip
        assert out is not None
        return out if self.bias is None else out + self.bias

    def _message_route(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        places: tuple[Tensor, Tensor] | None,
        edges: Edges,
        edge: OptTensor,
        edge_bias: OptTensor,
        edge_log_weight: OptTensor,
        edge_scale: OptTensor,
        context: Context,
    ) -> tuple[Tensor, Tensor]:
        # PyG's own message and aggregate: what explainers, hooks and subclasses reach into.
        if self.backend not in (None, "eager"):
            raise NotImplementedError(
                f"backend={self.backend!r} cannot call hooks or an overridden message, explain, take edge "
                f"vectors or aggregate with '{self.aggr}'. eager: ok"
            )
        row, col = edges.index[self._target], edges.index[1 - self._target]
        try:
            if edge is None:
                gram = self._with_position(self.kernel(query, key, context), places, context)
                score = gram.at(row, col, edge_bias)
            else:
                # An edge moves its own key alone: all else that a kernel computes is that of the nodes.
                batch = context.batch
                if batch is not None:
                    of_query, of_key = batch if isinstance(batch, tuple) else (batch, batch)
                    batch = of_query.index_select(0, row), of_key.index_select(0, col)
                of_pairs = Context(batch, context.losses, whole=(query, key, context))
                pairs = self.kernel(query.index_select(0, row), key.index_select(0, col) + edge, of_pairs)
                if places is not None and self.position_kernel is not None:
                    pairs = pairs * self.position_kernel(*places, context).map(
                        lambda x, dim: x.index_select(dim, row), lambda x, dim: x.index_select(dim, col)
                    )
                score = pairs.paired(edge_bias)
        except (IndexError, RuntimeError):
            check_indices(row, col, query.size(0), key.size(0))
            raise
        if edge_log_weight is not None:
            score = score + edge_log_weight.unsqueeze(-1)
        alpha = functional.edge_softmax(score, row, query.size(0))
        alpha = F.dropout(alpha, p=self.dropout, training=self.training)
        weight = alpha if edge_scale is None else alpha * edge_scale.unsqueeze(-1)
        size = (key.size(0), query.size(0))
        # Values stand for the sources and queries for the targets, as in GATConv: explainers ask for them.
        propagate: Any = self.propagate
        x: Tensor | tuple[Tensor, Tensor] = (value, query)
        if self.explain and propagate.__module__.endswith("_propagate"):
            # Of a class above, PyG gives back what it compiled: it explains nothing.
            propagate = super().propagate
        if self._target == 0:
            # What PyG compiles takes the first of a pair for the sources, whatever the flow; what it does not
            # compile, the one that the flow names.
            x = (query, value) if self.explain else value
        out = propagate(
            edges.index,
            x=x,
            alpha=weight.to(value.dtype),
            edge=edge if self.edge_mode == "key_value" else None,
            size=size if self._target == 1 else size[::-1],
        )
        return out, alpha

    # Of what propagate is called with: PyG compiles it once per class, where it need not guess.
    propagate_type: ClassVar[dict[str, Any]] = {"x": OptPairTensor, "alpha": Tensor, "edge": OptTensor}

    def message(self, x_j: Tensor, alpha: Tensor, edge: OptTensor) -> Tensor:
        if edge is not None:
            x_j = x_j + edge
        return alpha.unsqueeze(-1) * x_j

    def _needs_messages(self) -> bool:
        overridden = any(
            getattr(type(self), name) is not getattr(KernelGATConv, name)
            for name in ("message", "aggregate", "update", "message_and_aggregate")
        )
        hooks = (
            *(self._propagate_forward_pre_hooks, self._propagate_forward_hooks),
            *(self._message_forward_pre_hooks, self._message_forward_hooks),
            *(self._aggregate_forward_pre_hooks, self._aggregate_forward_hooks),
        )
        return bool(
            overridden or self.explain or any(hooks) or not is_plain(self.aggr_module, SumAggregation)
        )

    def register_edge_update_forward_pre_hook(self, hook: Any) -> NoReturn:
        _refuse_edge_update()

    def register_edge_update_forward_hook(self, hook: Any) -> NoReturn:
        _refuse_edge_update()

    def _takes_all_edges(self) -> bool:
        # Whether what a softmax hides stays out of sight: no messages are made of edges.
        return self.edge_mode == "score" and not self._needs_messages()

    def _edge_features(self, edges: Edges) -> OptTensor:
        attr = edges.attr
        if attr is None or self.lin_edge is None:
            return None
        if attr.dim() == 1:
            attr = attr.view(-1, 1)
        return self.lin_edge(attr).view(-1, self.heads, self.out_channels)

    def _edge_weights(self, weight: OptTensor) -> tuple[OptTensor, OptTensor]:
        # What multiplies the kernel, as a logarithm, and what multiplies the normalised weights.
        if weight is None or self.weight_mode == "alpha":
            return None, weight
        detached = weight.detach()
        require(((detached >= 0) & (detached < torch.inf)).all(), _WEIGHTS)
        absent = weight == 0
        return torch.where(absent, 1.0, weight).log().masked_fill(absent, -torch.inf), None

    def _check_edges(self, edges: Edges) -> None:
        count, attr, weight = edges.index.size(1), edges.attr, edges.weight
        if self.edge_dim is not None and attr is not None:
            given = attr.shape if attr.dim() != 1 else (attr.size(0), 1)
            if given != (count, self.edge_dim):
                raise ValueError(
                    f"Expected 'edge_attr' of shape [E={count}, {self.edge_dim}] because "
                    f"'edge_dim={self.edge_dim}' (got {list(attr.shape)})"
                )
        if weight is not None and weight.shape != (count,):
            raise ValueError(
                f"Expected 'edge_weight' of shape [E={count}] (got {list(weight.shape)}); one number per edge"
            )

    def _num_targets(self, adjacency: Adj, size: Size) -> int | None:
        if size is not None and size[1] is not None:
            return size[1]
        if isinstance(adjacency, SparseTensor) or is_torch_sparse_tensor(adjacency):
            if self._target == 0:
                raise ValueError(
                    "Expected flow='source_to_target' with a sparse adjacency (got 'target_to_source'); "
                    "pass its transpose, or 'edge_index' of shape [2, E]"
                )
            return adjacency.size(0)
        return None

    def _check_size(self, size: tuple[int, int], query: Tensor, key: Tensor) -> None:
        rows = (key.size(0), query.size(0))
        for given, found in zip(size, rows, strict=True):
            if given is not None and given != found:
                raise ValueError(
                    f"Expected 'size' equal to the numbers of sources and targets {rows} (got {tuple(size)})"
                )

    def _check_features(self, x_key: OptTensor, x_query: OptTensor) -> None:
        if x_key is None:
            raise ValueError("Expected features of the sources (got 'None'); only targets may have none")
        for x, expected in zip((x_key, x_query), self._pair(self.in_channels), strict=True):
            if x is not None and (x.dim() != 2 or (expected != -1 and x.size(1) != expected)):
                want = "in_channels" if expected == -1 else f"in_channels={expected}"
                raise ValueError(
                    f"Expected node features of shape [nodes, {want}] (got {list(x.shape)}); a batch of "
                    f"graphs is one graph of many components in PyG"
                )

    def __repr__(self) -> str:
        kernel = "" if type(self.kernel) is Additive else f", kernel={self.kernel!r}"
        name = type(self).__name__
        return f"{name}({self.in_channels}, {self.out_channels}, heads={self.heads}{kernel})"


def _check_names(cls: type, kwargs: dict[str, Any]) -> None:
    for name in kwargs:
        if name not in inspect.signature(MessagePassing).parameters:
            own = list(inspect.signature(KernelGATConv).parameters)
            raise TypeError(
                f"Expected arguments of {cls.__name__} or MessagePassing (got '{name}'){nearest(name, own)}"
            )


def _refuse_edge_update() -> NoReturn:
    raise NotImplementedError(
        "Expected no hook of 'edge_update' (got one); scores are not made of numbers of nodes alone here: "
        "hook 'message', whose input 'alpha' holds the weights"
    )


_WEIGHTS = (
    "Expected finite 'edge_weight' of at least 0 with weight_mode='kernel', which multiplies the kernel "
    "before it is normalised (got a negative, infinite or NaN one); weight_mode='alpha' multiplies the "
    "normalised weights and takes numbers of any sign"
)


def _build_kernel(
    kernel: KernelLike,
    channels: int,
    heads: int,
    negative_slope: float,
    kernel_kwargs: dict[str, Any] | None,
    magnitude: float | str | None,
) -> Kernel:
    kwargs = dict(kernel_kwargs or {})
    if negative_slope != 0.2:  # a kernel without a slope refuses it, rather than ignore it
        kwargs.setdefault("negative_slope", negative_slope)
    return with_magnitude(kernels.resolve(kernel, channels, heads, **kwargs), magnitude)


def _rename_stock_parameters(conv: KernelGATConv, state: dict[str, Any], prefix: str, *_: Any) -> None:
    # Lets a layer load what GATConv, GATv2Conv and TransformerConv saved, and GATConv before PyG 2.5.
    names = {"lin_skip.weight": "res.weight", "lin_skip.bias": "bias"}
    if conv.lin is not None:
        names["lin_src.weight"] = "lin.weight"
    for path, module in conv.kernel.named_modules(prefix="kernel"):
        if isinstance(module, Additive):
            names |= {"att_src": f"{path}.att_key", "att_dst": f"{path}.att_query"}
        elif isinstance(module, AdditiveV2):
            names["att"] = f"{path}.att"
            for side, name in (("lin_l", "lin_key"), ("lin_r", "lin_query")):
                names |= {f"{side}.{part}": f"{name}.{part}" for part in ("weight", "bias")}
    for old, new in names.items():
        if prefix + old in state and prefix + new not in state:
            value = state.pop(prefix + old)
            state[prefix + new] = value.squeeze(0) if old.startswith("att") else value
