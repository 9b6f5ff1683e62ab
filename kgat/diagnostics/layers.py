r"""What the layers of a model saw and did in a forward pass, and how spread its weights are."""

import inspect
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch_geometric.typing import Adj, SparseTensor
from torch_geometric.utils import degree, is_torch_sparse_tensor, scatter

from kgat.indices import as_long
from kgat.nn.edges import matrix_entries, read_edges


class _Call(NamedTuple):
    conv: Any  # the module; its `kernel` and `project` are asked for by name
    x: Any  # Tensor [N, F], dense or sparse, or the pair of a bipartite layer
    edge_index: Tensor  # [2, E'] with the self-loops that the layer added
    alpha: Tensor  # [E', H]


class Layer(_Call):
    r"""What one attention layer saw and did in a forward pass. Its :obj:`name` is that in the model.

    Args:
        conv (torch.nn.Module): The layer.
        x (torch.Tensor or tuple): Its input, dense or sparse; a pair of a bipartite layer.
        edge_index (torch.Tensor): Its edges, with the self-loops that it added.
        alpha (torch.Tensor): Their weights.

    Shapes:
        - **x:** :math:`(N, F)`, **edge_index:** :math:`(2, E')`, **alpha:** :math:`(E', H)`

    Example:
        >>> import torch
        >>> from kgat import KernelGAT
        >>> from kgat.diagnostics import trace
        >>> layer = trace(KernelGAT(4, 8, 2), torch.randn(3, 4), torch.tensor([[0, 1], [1, 2]]))[1]
        >>> layer.name, layer.edge_index.shape
        ('convs.1', torch.Size([2, 5]))
    """

    name: str = ""

    def weights_of(self, edge_index: Adj) -> Tensor:
        r"""Returns the weights of edges, in their order.

        Of parallel edges the first ones belong together, then the second ones, and so on. A layer that adds
        self-loops replaces those that are there by one per node: the first of a node has its weight, further
        ones have none, and what the layer added where there was none is left out.

        Args:
            edge_index (torch.Tensor, EdgeIndex, torch.sparse tensor or SparseTensor): Edges that the layer
                saw: as a rule those that the model was called with.

        Shapes:
            - **edge_index:** :math:`(2, E)`, **output:** :math:`(E, H)`

        Raises:
            ValueError: If the layer saw one of them less often, as the model changes its graph.

        Example:
            >>> import torch
            >>> from kgat import KernelGAT
            >>> edge_index = torch.tensor([[0, 1, 2, 2], [1, 2, 0, 1]])
            >>> first, second = trace(KernelGAT(4, 8, 2, heads=2), torch.randn(3, 4), edge_index)
            >>> first.alpha.shape, first.weights_of(edge_index).shape
            (torch.Size([7, 2]), torch.Size([4, 2]))
        """
        wanted, known = read_edges(edge_index, None, None).index, self.edge_index
        size = 1 + max((int(edges.max()) for edges in (wanted, known) if edges.numel()), default=0)
        (asked, order), (seen, place) = (
            (edges[1].long() * size + edges[0]).sort(stable=True) for edges in (wanted, known)
        )
        nth = torch.arange(asked.numel(), device=asked.device) - torch.searchsorted(asked, asked)
        at = torch.searchsorted(seen, asked) + nth
        # One more, so that there is a place to look at behind the last.
        found = torch.cat([seen, seen.new_full((1,), -1)])[at.clamp(max=seen.numel())] == asked
        missing = ~found
        if getattr(self.conv, "add_self_loops", False):
            missing &= (nth == 0) | (asked // size != asked % size)
        if bool(missing.any()):
            j, i = wanted[:, order[missing.nonzero()[0]]].flatten().tolist()
            raise ValueError(
                f"Expected edges that layer '{self.name}' saw (got {int(missing.sum())} that it did not, as "
                f"{j} to {i}); the model changes its graph on the way: 'edge_index' of the layer has its own"
            )
        weights = self.alpha.new_zeros(asked.numel(), *self.alpha.shape[1:])
        weights[order[found]] = self.alpha[place[at[found]]]
        return weights


def trace(
    model: torch.nn.Module, x: Any, edge_index: Any = None, edge_attr: Any = None, **kwargs: Any
) -> list[Layer]:
    r"""Runs the model once, in evaluation mode, and keeps what each attention layer saw and did.

    The forward pass is the model's own, so that norms, activations and skip connections between
    the layers are those it was trained with. The mode of every submodule is restored. What is compiled
    runs as it was written.

    Args:
        model (torch.nn.Module): A model, or a layer. Its attention layers, wherever they are in it, are the
            modules that take :obj:`return_attention_weights`, as :class:`~kgat.nn.KernelGATConv` and those of
            PyG do.
        x (torch.Tensor or dict or Data): The node features, dense or sparse, of a heterogeneous model by
            type; what a model takes that is called with one argument.
        edge_index (torch.Tensor or dict, optional): The edge indices. (default: :obj:`None`)
        edge_attr (torch.Tensor or dict, optional): The edge features. (default: :obj:`None`)
        **kwargs (optional): Further arguments of the model, such as :obj:`position` or :obj:`batch`.

    Returns:
        list[Layer]: One entry per call of a layer, in the order of the calls.

    Shapes:
        - **x:** :math:`(N, F)`, **edge_index:** :math:`(2, E)`, **edge_attr:** :math:`(E, F_e)`

    Raises:
        ValueError: If no layer of the model gives attention weights, or none is called.

    Example:
        >>> import torch
        >>> from kgat import KernelGATConv
        >>> from kgat.diagnostics import trace
        >>> x, edge_index = torch.randn(3, 4), torch.tensor([[0, 1, 2], [1, 2, 0]])
        >>> trace(KernelGATConv(4, 2, heads=2), x, edge_index)[0].alpha.shape
        torch.Size([6, 2])
    """
    names = _attention_layers(model)
    if not names:
        raise ValueError(
            f"Expected a model with layers that take 'return_attention_weights' (got "
            f"'{type(model).__name__}'); build it of attention layers such as KernelGATConv"
        )

    layers: list[Layer] = []
    inputs: list[tuple[Any, bool]] = []

    def ask(conv: torch.nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        call = inspect.signature(conv.forward).bind(*args, **kwargs)
        asked = bool(call.arguments.get("return_attention_weights"))
        inputs.append((next(iter(call.arguments.values())), asked))
        call.arguments["return_attention_weights"] = True
        return call.args, call.kwargs

    def keep(conv: torch.nn.Module, _: tuple, output: Any) -> Any:
        out, attached = output
        x, asked = inputs.pop()
        index, alpha = _edge_list(attached)
        layer = Layer(conv, x, index, alpha.detach())
        layer.name = names[conv]
        layers.append(layer)
        return output if asked else out

    modes = [(module, module.training) for module in model.modules()]
    handles = [conv.register_forward_pre_hook(ask, with_kwargs=True) for conv in names]
    handles += [conv.register_forward_hook(keep) for conv in names]
    try:
        model.eval()
        with torch.no_grad(), torch.compiler.set_stance("force_eager"):
            if edge_attr is not None:
                kwargs["edge_attr"] = edge_attr
            model(*((x,) if edge_index is None else (x, edge_index)), **kwargs)
    finally:
        for handle in handles:
            handle.remove()
        for module, training in modes:
            module.training = training
    if not layers:
        raise ValueError(
            f"Expected a model that calls its attention layers (got '{type(model).__name__}', which calls "
            f"none of them); pass one that uses them in 'forward'"
        )
    return layers


def has_attention(model: torch.nn.Module) -> bool:
    r"""Returns whether layers of a model give attention weights, as :func:`trace` asks for them.

    Args:
        model (torch.nn.Module): The model, or a layer.

    Example:
        >>> from kgat.diagnostics import has_attention
        >>> from torch_geometric.nn import GAT, GCN
        >>> has_attention(GAT(4, 6, num_layers=2)), has_attention(GCN(4, 6, num_layers=2))
        (True, False)
    """
    return bool(_attention_layers(model))


def _attention_layers(model: torch.nn.Module) -> dict[torch.nn.Module, str]:
    # The innermost: what is around a layer may take the argument to hand it on.
    asked = {
        module: name
        for name, module in model.named_modules()
        if "return_attention_weights" in inspect.signature(module.forward).parameters
    }
    return {
        module: name
        for module, name in asked.items()
        if not any(inner in asked for inner in list(module.modules())[1:])
    }


def _edge_list(attached: Any) -> tuple[Tensor, Tensor]:
    if isinstance(attached, SparseTensor):
        row, col, alpha = attached.coo()
        return torch.stack([col, row]), alpha
    index, alpha = attached
    if is_torch_sparse_tensor(index):
        row, col, _ = matrix_entries(index)
        return torch.stack([col, row]), alpha
    # `as_subclass` drops what an EdgeIndex knows and leaves its numbers.
    return index.as_subclass(Tensor), alpha


def attention_weights(
    model: torch.nn.Module, x: Any, edge_index: Any = None, edge_attr: Any = None, **kwargs: Any
) -> list[tuple[Tensor, Tensor]]:
    r"""Returns the edges and the attention weights of every layer of a model.

    Args:
        model (torch.nn.Module): A model with attention layers, as in :func:`trace`.
        x (torch.Tensor or dict or Data): As in :func:`trace`.
        edge_index (torch.Tensor or dict, optional): The edge indices. (default: :obj:`None`)
        edge_attr (torch.Tensor or dict, optional): The edge features. (default: :obj:`None`)
        **kwargs (optional): Further arguments of the model.

    Shapes:
        - **output:** per layer, edges :math:`(2, E')` with the self-loops that the layer added,
          and weights :math:`(E', H)`

    Raises:
        ValueError: If no layer of the model gives attention weights, or none is called.

    Example:
        >>> import torch
        >>> from kgat.diagnostics import attention_weights
        >>> from torch_geometric.nn import GAT
        >>> edge_index = torch.tensor([[0, 1, 2, 0], [1, 0, 0, 2]])
        >>> model = GAT(4, 6, num_layers=2, out_channels=3, heads=3)
        >>> [alpha.shape for _, alpha in attention_weights(model, torch.randn(3, 4), edge_index)]
        [torch.Size([7, 3]), torch.Size([7, 3])]
    """
    layers = trace(model, x, edge_index, edge_attr, **kwargs)
    return [(layer.edge_index, layer.alpha) for layer in layers]


def attention_entropy(alpha: Tensor, index: Tensor, num_nodes: int, reduce: bool = True) -> Tensor:
    r"""Returns how evenly attention is spread over the neighbours.

    .. math::
        \eta_h = \frac{1}{\lvert \{ i : d_i \ge 2 \} \rvert} \sum_{i : d_i \ge 2}
        \frac{- \sum_{j \in \mathcal{N}(i)} \alpha_{ijh} \log \alpha_{ijh}}{\log d_i}

    where :math:`d_i` is the number of in-edges of :math:`i`: one is uniform attention, as in a
    mean, and zero is attention to a single neighbour. Targets with fewer than two in-edges have
    nothing to choose from and are left out.

    Args:
        alpha (torch.Tensor): The attention weights.
        index (torch.Tensor): The target of each edge.
        num_nodes (int): The number of targets :math:`N`.
        reduce (bool, optional): If set to :obj:`False`, returns one row per target with two or
            more in-edges instead of their mean. (default: :obj:`True`)

    Shapes:
        - **alpha:** :math:`(E, H)`, **index:** :math:`(E,)`
        - **output:** :math:`(H,)`, not a number if no target has two in-edges

    Raises:
        ValueError: If shapes do not fit.

    Example:
        >>> import torch
        >>> from kgat.diagnostics import attention_entropy
        >>> alpha = torch.tensor([[0.5], [0.5], [1.0]])
        >>> attention_entropy(alpha, torch.tensor([0, 0, 1]), num_nodes=2)
        tensor([1.])
    """
    if alpha.dim() != 2 or index.shape != alpha.shape[:1]:
        raise ValueError(
            "Expected 'alpha' of shape [E, H] and 'index' of shape [E] "
            f"(got {list(alpha.shape)} and {list(index.shape)}); pass the edges of one layer"
        )
    index = as_long(index)
    degrees = degree(index, num_nodes, dtype=alpha.dtype)
    entropy = scatter(-torch.xlogy(alpha, alpha), index, 0, num_nodes, "sum")  # [N, H]
    chosen = degrees >= 2
    entropy = entropy[chosen] / degrees[chosen].log().unsqueeze(-1)
    return entropy.mean(dim=0) if reduce else entropy
