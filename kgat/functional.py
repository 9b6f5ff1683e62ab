r"""Attention as functions of tensors: they validate, then hand over to a backend."""

from __future__ import annotations

import torch
from torch import Tensor

from kgat import ops
from kgat.capture import without_autocast
from kgat.hidden import hide_unseen
from kgat.names import bare
from kgat.ops import dense, eager
from kgat.ops.arguments import broadcasts, check_dropout, check_gram, check_tensor, edge_call
from kgat.ops.dense import DenseCall
from kgat.ops.graph.adjacency import check_index_type, check_indices
from kgat.ops.precision import at_least_single
from kgat.score.gram import Gram


def edge_softmax(score: Tensor, index: Tensor, num_nodes: int | None = None, *, power: float = 1.0) -> Tensor:
    r"""Normalises edge scores over the edges that share a target.

    .. math::
        \alpha_e = \exp\Big( s_e - \tfrac{1}{p} \log \sum_{e' : i(e') = i(e)} \exp(p\, s_{e'}) \Big)

    With :math:`p = 1` it is the softmax: weights of a target sum to 1. With another :obj:`power` their p-norm
    is 1. Half-precision scores are normalised in single precision. A target all of whose scores are
    :math:`-\infty` gets weights 0.

    Args:
        score (torch.Tensor): Scores :math:`s = \log k`.
        index (torch.Tensor): Target :math:`i(e)` of each edge, in any order.
        num_nodes (int, optional): Number of targets :math:`N`; the largest index plus one if :obj:`None`.
            (default: :obj:`None`)
        power (float, optional): :math:`p > 0`. (default: :obj:`1.0`)

    Shapes:
        - **score:** :math:`(E, H)` or :math:`(E)`, **index:** :math:`(E)`
        - **output:** as :obj:`score`

    Raises:
        ValueError: If the shapes do not fit or :obj:`power` is not positive.
        IndexError: If an index is negative or too large.

    Example:
        >>> import torch
        >>> from kgat.functional import edge_softmax
        >>> edge_softmax(torch.tensor([0.0, 0.0, 5.0]), torch.tensor([0, 0, 1]))
        tensor([0.5000, 0.5000, 1.0000])
    """
    if index.dim() != 1 or score.size(0) != index.numel():
        raise ValueError(
            f"Expected 'index' of shape [E={score.size(0)}] as 'score' {list(score.shape)} has E rows "
            f"(got {list(index.shape)}); give one target per score"
        )
    check_index_type("index", index)
    if not power > 0:
        raise ValueError(f"Expected a positive 'power' (got {power}); 1 is the softmax")
    if num_nodes is None:
        num_nodes = int(index.max()) + 1 if index.numel() else 0
    try:
        return eager.edge_softmax(score, index, num_nodes, power)
    except (IndexError, RuntimeError):
        check_indices(index, index, num_nodes, num_nodes)
        raise


def edge_attention(
    gram: Gram,
    value: Tensor,
    edge_index: Tensor,
    *,
    edge_bias: Tensor | None = None,
    edge_log_weight: Tensor | None = None,
    edge_weight: Tensor | None = None,
    dropout: float = 0.0,
    base: Tensor | None = None,
    flow: str = "source_to_target",
    backend: str | None = None,
) -> Tensor:
    r"""Averages values over the in-edges of each target, weighted by a kernel.

    .. math::
        \mathbf{o}_i = \sum_{e : j \to i} w_e\, \alpha_e \mathbf{v}_j, \qquad
        \alpha_e = \frac{\exp(\log k(\mathbf{q}_i, \mathbf{k}_j) + c_e)}
        {\sum_{e' : j' \to i} \exp(\log k(\mathbf{q}_i, \mathbf{k}_{j'}) + c_{e'})}, \qquad
        c_e = b_e + \log u_e

    A target without in-edges gets exactly 0 (or its :obj:`base`). The order of the edges never matters
    beyond rounding. A plain
    :obj:`edge_index` is sorted once and remembered while that tensor lives.

    Args:
        gram (Gram): Scores of all pairs, not yet evaluated: what ``kernel(query, key)`` returns.
        value (torch.Tensor): Values :math:`\mathbf{v}`.
        edge_index (torch.Tensor): Edges, sources above targets (see :obj:`flow`).
        edge_bias (torch.Tensor, optional): :math:`b`, added to the scores, or inside the link of a kernel
            that says so (GAT). (default: :obj:`None`)
        edge_log_weight (torch.Tensor, optional): :math:`\log u`, so that :math:`u` multiplies the kernel
            before it is normalised; :math:`-\infty` removes an edge. (default: :obj:`None`)
        edge_weight (torch.Tensor, optional): :math:`w`, multiplies the normalised weights.
            (default: :obj:`None`)
        dropout (float, optional): Probability of dropping a weight; pass 0 in evaluation.
            (default: :obj:`0.0`)
        base (torch.Tensor, optional): What the averages are added to, a bias or a skip connection: cheaper
            here than as a sum of its own. (default: :obj:`None`)
        flow (str, optional): :obj:`"source_to_target"` averages over ``edge_index[0]``,
            :obj:`"target_to_source"` over ``edge_index[1]``. (default: :obj:`"source_to_target"`)
        backend (str, optional): Forces a backend: ``"gpu"``, ``"cpu"``, ``"eager"`` or ``"reference"``.
            (default: :obj:`None`)

    Shapes:
        - **gram:** :math:`N` queries, :math:`M` keys, :math:`H` heads; **value:** :math:`(M, H, C)`
        - **edge_index:** :math:`(2, E)`, **edge_bias:** :math:`(E, H)`
        - **edge_log_weight, edge_weight:** :math:`(E)` or :math:`(E, H)`
        - **base:** :math:`(N, H, C)` or :math:`(H, C)`, **output:** :math:`(N, H, C)`

    Raises:
        ValueError: If shapes do not fit or :obj:`backend` is unknown.
        IndexError: If an index is negative or too large.
        NotImplementedError: If the kernel can be negative, or the named backend cannot run the call.

    Example:
        >>> import torch
        >>> from kgat.functional import edge_attention
        >>> from kgat.kernels import RBF
        >>> kernel = RBF(4, heads=2)
        >>> x = torch.randn(3, 2, 4)
        >>> edge_index = torch.tensor([[0, 1], [2, 2]])
        >>> edge_attention(kernel(x, x), x, edge_index).shape
        torch.Size([3, 2, 4])
    """
    call = edge_call(gram, value, edge_index, edge_bias, edge_log_weight, edge_weight, dropout, base, flow)
    try:
        return ops.edge_attention(call, backend)
    except (IndexError, RuntimeError):
        # Ranges are not checked ahead of a call, which would wait for the device; only a failure asks why.
        check_indices(call.row, call.col, call.num_targets, value.size(0))
        raise


def dense_attention(
    gram: Gram,
    value: Tensor,
    mask: Tensor | None = None,
    dropout: float = 0.0,
    *,
    bias: Tensor | None = None,
    causal: bool = False,
    method: str = "auto",
) -> Tensor:
    r"""Averages values over all keys, weighted by a kernel: :func:`edge_attention` on the complete graph.

    .. math::
        \mathbf{o}_i = \sum_j \alpha_{ij} \mathbf{v}_j, \qquad
        \alpha_{ij} = \frac{\exp(\log k(\mathbf{q}_i, \mathbf{k}_j) + c_{ij})}
        {\sum_{j'} \exp(\log k(\mathbf{q}_i, \mathbf{k}_{j'}) + c_{ij'})}

    with both sums over the keys that a query may see. A query that sees none gets exactly 0.

    Four routes compute the same: ``"sdpa"`` is torch's fused attention, for inner products plus biases of
    nodes, which become one more channel; ``"linear"`` is :func:`linear_attention`; ``"edges"`` is
    :func:`edge_attention` on a fused backend, which never holds the channels of a pair; ``"dense"`` takes any
    kernel and computes the scores of one block of queries after the other, twice if there is a backward pass.
    :func:`explain` compares their costs.

    Args:
        gram (Gram): Scores of all pairs, not yet evaluated: what ``kernel(query, key)`` returns.
        value (torch.Tensor): Values :math:`\mathbf{v}`.
        mask (torch.Tensor, optional): True where a query sees a key, the same for all heads; all of them if
            :obj:`None`. (default: :obj:`None`)
        dropout (float, optional): Probability of dropping a weight; pass 0 in evaluation.
            (default: :obj:`0.0`)
        bias (torch.Tensor, optional): :math:`c`, added to the scores; :math:`-\infty` hides a key.
            (default: :obj:`None`)
        causal (bool, optional): Whether a query sees the keys up to its own place only, where the last query
            stands at the place of the last key. (default: :obj:`False`)
        method (str, optional): The route, or :obj:`"auto"` for the cheapest. (default: :obj:`"auto"`)

    Shapes:
        - **gram:** :math:`N` queries, :math:`M` keys, :math:`H` heads; **value:** :math:`(*, M, H, C)`
        - **mask:** :math:`(*, N, M)` or :math:`(*, 1, M)`, **bias:** :math:`(*, N, M, H)`, where :math:`N`
          and :math:`H` may be 1
        - **output:** :math:`(*, N, H, C)`

    Raises:
        ValueError: If shapes or the type of the mask do not fit, or :obj:`method` is unknown.
        NotImplementedError: If the kernel can be negative, or the named route cannot run the call.

    Example:
        >>> import torch
        >>> from kgat.functional import dense_attention
        >>> from kgat.kernels import RBF
        >>> x = torch.randn(3, 2, 4)
        >>> dense_attention(RBF(4, heads=2)(x, x), x, causal=True).shape
        torch.Size([3, 2, 4])
    """
    call = _dense_call(gram, value, mask, dropout, bias, causal)
    return _attended(call, method)


def dense_softmax(
    gram: Gram, mask: Tensor | None = None, *, bias: Tensor | None = None, causal: bool = False
) -> Tensor:
    r"""Returns the weights :math:`\alpha` of :func:`dense_attention`.

    Args:
        gram (Gram): As in :func:`dense_attention`.
        mask (torch.Tensor, optional): As in :func:`dense_attention`. (default: :obj:`None`)
        bias (torch.Tensor, optional): As in :func:`dense_attention`. (default: :obj:`None`)
        causal (bool, optional): As in :func:`dense_attention`. (default: :obj:`False`)

    Shapes:
        - **mask:** :math:`(*, N, M)` or :math:`(*, 1, M)`, **bias:** :math:`(*, N, M, H)`, where :math:`N`
          and :math:`H` may be 1
        - **output:** :math:`(*, N, M, H)`

    Raises:
        ValueError: If shapes or the type of the mask do not fit.
        NotImplementedError: If the kernel can be negative.

    Example:
        >>> import torch
        >>> from kgat.functional import dense_softmax
        >>> from kgat.kernels import RBF
        >>> x = torch.zeros(2, 1, 4)
        >>> dense_softmax(RBF(4)(x, x), causal=True).squeeze(-1)
        tensor([[1.0000, 0.0000],
                [0.5000, 0.5000]]...)
    """
    _check_pairs(gram, gram.batch, mask, bias)
    mask = hide_unseen(mask, bias, causal, *gram.size[:2])
    return dense.softmax(gram, mask, bias, causal).movedim(-3, -1)


def linear_attention(
    gram: Gram, value: Tensor, mask: Tensor | None = None, *, causal: bool = False
) -> Tensor:
    r"""Averages values over all keys in time and memory linear in their number, for a kernel with features.

    .. math::
        \mathbf{o}_i = \frac{\sum_j g(\mathbf{k}_j)^\top f(\mathbf{q}_i) \, \mathbf{v}_j}
        {\sum_j g(\mathbf{k}_j)^\top f(\mathbf{q}_i)}, \qquad
        \langle f(\mathbf{q}), g(\mathbf{k}) \rangle = k(\mathbf{q}, \mathbf{k})

    Features are exact, so that this is :func:`dense_attention` at another price: one that grows with their
    number :math:`R`. A key that the mask hides is in neither sum. The causal form goes in chunks.

    Args:
        gram (Gram): The kernel of all pairs: what ``kernel(query, key)`` returns.
        value (torch.Tensor): Values :math:`\mathbf{v}`.
        mask (torch.Tensor, optional): True for the keys that are there. (default: :obj:`None`)
        causal (bool, optional): Whether a query sees the keys up to its own place only, where the last query
            stands at the place of the last key. (default: :obj:`False`)

    Shapes:
        - **gram:** :math:`N` queries, :math:`M` keys, :math:`H` heads; **value:** :math:`(*, M, H, C)`
        - **mask:** :math:`(*, M)`, **output:** :math:`(*, N, H, C)`

    Raises:
        ValueError: If shapes or the type of the mask do not fit.
        NotImplementedError: If the kernel has no finite feature map, or can be negative, and with it the
            normaliser.

    Example:
        >>> import torch
        >>> from kgat.functional import linear_attention
        >>> from kgat.kernels import FAVORPlus
        >>> x = torch.randn(1000, 2, 4)
        >>> linear_attention(FAVORPlus(4, heads=2)(x, x), x).shape
        torch.Size([1000, 2, 4])
    """
    call = _dense_call(gram, value, mask, 0.0, None, causal, of_keys=True)
    return _attended(call, "linear")


def explain(
    gram: Gram,
    value: Tensor,
    edge_index: Tensor | None = None,
    *,
    dropout: float = 0.0,
    edge_bias: Tensor | None = None,
    edge_log_weight: Tensor | None = None,
    edge_weight: Tensor | None = None,
    base: Tensor | None = None,
    flow: str = "source_to_target",
    mask: Tensor | None = None,
    bias: Tensor | None = None,
    causal: bool = False,
) -> str:
    r"""Says which backends can run an :func:`edge_attention`, in order of preference, or what each route of a
    :func:`dense_attention` would cost, and why others cannot.

    Costs are estimates for one core, there to be compared. The call is checked as it would be if it ran, and
    none of it runs.

    Args:
        gram (Gram): As in :func:`edge_attention`.
        value (torch.Tensor): As in :func:`edge_attention`.
        edge_index (torch.Tensor, optional): As in :func:`edge_attention`; all pairs if :obj:`None`.
            (default: :obj:`None`)
        dropout (float, optional): As in both. (default: :obj:`0.0`)
        edge_bias (torch.Tensor, optional): As in :func:`edge_attention`. (default: :obj:`None`)
        edge_log_weight (torch.Tensor, optional): As in :func:`edge_attention`. (default: :obj:`None`)
        edge_weight (torch.Tensor, optional): As in :func:`edge_attention`. (default: :obj:`None`)
        base (torch.Tensor, optional): As in :func:`edge_attention`. (default: :obj:`None`)
        flow (str, optional): As in :func:`edge_attention`. (default: :obj:`"source_to_target"`)
        mask (torch.Tensor, optional): As in :func:`dense_attention`. (default: :obj:`None`)
        bias (torch.Tensor, optional): As in :func:`dense_attention`. (default: :obj:`None`)
        causal (bool, optional): As in :func:`dense_attention`. (default: :obj:`False`)

    Shapes:
        - **value:** :math:`(M, H, C)` with edges, else :math:`(*, M, H, C)`; **edge_index:** :math:`(2, E)`
        - **edge_bias:** :math:`(E, H)`, **edge_log_weight, edge_weight:** :math:`(E)` or :math:`(E, H)`
        - **base:** :math:`(N, H, C)` or :math:`(H, C)`
        - **mask:** :math:`(*, N, M)` or :math:`(*, 1, M)`, **bias:** :math:`(*, N, M, H)`

    Raises:
        ValueError: If shapes do not fit, or an argument is of :func:`dense_attention` where there are edges,
            or of :func:`edge_attention` where there are none.

    Example:
        >>> import torch
        >>> from kgat.functional import explain
        >>> from kgat.kernels import RBF
        >>> x = torch.randn(3, 1, 4)
        >>> print(explain(RBF(4)(x, x), x, torch.tensor([[0], [1]])))
        gpu: tensors are on cpu; cpu: ok; eager: ok; reference (only if named): ok
        >>> print(explain(RBF(4)(x, x), x))
        sdpa: about ... ms; linear: ... no finite feature map...; edges: about ... ms; dense: about ... ms
    """
    if edge_index is None:
        of_edges: dict[str, object] = {"edge_bias": edge_bias, "edge_log_weight": edge_log_weight}
        of_edges |= {"edge_weight": edge_weight, "base": base}
        of_edges["flow"] = None if flow == "source_to_target" else flow
        _refuse(of_edges, "without 'edge_index'", "pass the edges, or leave it out")
        calls = _dense_call(gram, value, mask, dropout, bias, causal).by_heads()
        return " | ".join(map(dense.explain, calls))
    of_pairs: dict[str, object] = {"mask": mask, "bias": bias, "causal": causal or None}
    _refuse(of_pairs, "beside 'edge_index'", "leave out the edges to ask for all pairs, or this argument")
    return ops.explain(
        edge_call(gram, value, edge_index, edge_bias, edge_log_weight, edge_weight, dropout, base, flow)
    )


def _refuse(arguments: dict[str, object], where: str, remedy: str) -> None:
    for name, given in arguments.items():
        if given is not None:
            raise ValueError(f"Expected no '{name}' {where} (got one); {remedy}")


def ksvd_loss(
    e: Tensor, r: Tensor, lam: Tensor, weight_e: Tensor, weight_r: Tensor, mask: Tensor | None = None
) -> Tensor:
    r"""The objective of the asymmetric kernel SVD of `"Primal-Attention: Self-attention through Asymmetric
    Kernel SVD in Primal Representation" <https://arxiv.org/abs/2305.19798>`_, per item of a batch.

    .. math::
        J = \frac{1}{H} \sum_h \Big( \frac{1}{2N} \sum_i
        \lVert \boldsymbol{\lambda}_h \odot \mathbf{e}_{ih} \rVert^2
        + \frac{1}{2N} \sum_j \lVert \boldsymbol{\lambda}_h \odot \mathbf{r}_{jh} \rVert^2
        - \mathrm{tr}(\mathbf{W}_{e,h}^\top \mathbf{W}_{r,h}) \Big)

    with means over the :math:`N` tokens that the mask keeps. Where the scores are those of a singular value
    decomposition, :math:`J = 0`: it is squared before it joins a loss. (The paper writes the sum of
    :math:`J^2` over layers, its code takes their mean.) The paper's
    :math:`\boldsymbol{\Lambda}` is :math:`\mathrm{diag}(\boldsymbol{\lambda}_h)^2 / N`.

    Args:
        e (torch.Tensor): Left scores :math:`\mathbf{e}`, projections of the lifted queries.
        r (torch.Tensor): Right scores :math:`\mathbf{r}`, projections of the lifted keys.
        lam (torch.Tensor): :math:`\boldsymbol{\lambda}`, of any sign.
        weight_e (torch.Tensor): :math:`\mathbf{W}_e`: the weights that do not depend on data, rather than
            their products with rows of the input, for which :math:`J` is not 0 at the decomposition.
        weight_r (torch.Tensor): :math:`\mathbf{W}_r`, likewise.
        mask (torch.Tensor, optional): True where a token exists; all do if :obj:`None`.
            (default: :obj:`None`)

    Shapes:
        - **e, r:** :math:`(*, N, H, s)`, **lam:** :math:`(H, s)`, **weight_e, weight_r:** :math:`(H, n, s)`
        - **mask:** :math:`(*, N)`, **output:** :math:`(*)`, 0 for an item without tokens

    Raises:
        ValueError: If shapes or the type of the mask do not fit.

    Example:
        >>> import torch
        >>> from kgat.functional import ksvd_loss
        >>> e, weight = torch.ones(2, 3, 1, 4), torch.zeros(1, 5, 4)
        >>> ksvd_loss(e, e, torch.ones(1, 4), weight, weight)
        tensor([4., 4.])
    """
    heads, rank = lam.shape if lam.dim() == 2 else (-1, -1)
    if e.dim() < 3 or e.shape[-2:] != (heads, rank) or e.shape != r.shape:
        raise ValueError(
            f"Expected 'e' and 'r' of shape [..., N, H, s] and 'lam' of shape [H, s] (got {list(e.shape)}, "
            f"{list(r.shape)} and {list(lam.shape)}); give a score per token, head and component"
        )
    if weight_e.dim() != 3 or weight_e.shape[::2] != (heads, rank) or weight_e.shape != weight_r.shape:
        raise ValueError(
            f"Expected 'weight_e' and 'weight_r' of shape [H={heads}, n, s={rank}] (got "
            f"{list(weight_e.shape)} and {list(weight_r.shape)}); give the weights that do not depend on data"
        )
    tokens = e.size(-3)
    if mask is not None and (mask.dtype != torch.bool or mask.shape != e.shape[:-2]):
        raise ValueError(
            f"Expected a bool 'mask' of shape {list(e.shape[:-2])} (got {bare(mask.dtype)} "
            f"{list(mask.shape)}); True says that a token exists"
        )
    with without_autocast(e.device):
        e, r, lam, weight_e, weight_r = (at_least_single(x) for x in (e, r, lam, weight_e, weight_r))
        trace = (weight_e * weight_r).sum(dim=(-2, -1)).mean()
        if mask is not None:
            # Absent tokens are cleared before they are squared: what they hold is nobody's business.
            e, r = (x.masked_fill(~mask[..., None, None], 0.0) for x in (e, r))
        energy = 0.5 * ((lam * e).square() + (lam * r).square()).sum(dim=-1).mean(dim=-1)  # [..., N]
        if mask is None:
            # Without tokens there is nothing to decompose, and no mean.
            return energy.mean(dim=-1) - trace if tokens else energy.sum(dim=-1)
        count = mask.sum(dim=-1)
        return (energy.sum(dim=-1) / count.clamp(min=1) - trace).masked_fill(count == 0, 0.0)


def _dense_call(
    gram: Gram,
    value: Tensor,
    mask: Tensor | None,
    dropout: float,
    bias: Tensor | None,
    causal: bool,
    of_keys: bool = False,
) -> DenseCall:
    # With a mask of keys [..., M] instead of one of pairs.
    check_tensor("value", value)
    _, sources, heads = check_gram(gram, value.device)
    if value.dim() < 3 or value.shape[-3:-1] != (sources, heads):
        raise ValueError(
            f"Expected 'value' of shape [..., M={sources}, H={heads}, C] as the keys have (got "
            f"{list(value.shape)}); give one value per key and head"
        )
    check_dropout(dropout)
    lead = _common_batch(gram.batch, value.shape[:-3])
    if of_keys and mask is not None:
        _check_mask(mask, lead, (sources,))
        mask = mask.unsqueeze(-2)
    else:
        _check_pairs(gram, lead, mask, bias)
    mask = hide_unseen(mask, bias, causal, *gram.size[:2])
    return DenseCall(gram, value.expand(*lead, *value.shape[-3:]), mask, bias, causal, dropout)


def _attended(call: DenseCall, method: str) -> Tensor:
    parts = [dense.choose(part, method).attend(part) for part in call.by_heads()]
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=-2)


def _common_batch(of_kernel: torch.Size, of_value: torch.Size) -> torch.Size:
    try:
        return torch.broadcast_shapes(of_kernel, of_value)
    except RuntimeError as error:
        raise ValueError(
            f"Expected leading dimensions of 'value' and of the kernel that broadcast (got {list(of_value)} "
            f"and {list(of_kernel)}); give a value to each item of the batch"
        ) from error


def _check_pairs(gram: Gram, lead: torch.Size, mask: Tensor | None, bias: Tensor | None) -> None:
    targets, sources, heads = gram.size
    if mask is not None:
        _check_mask(mask, lead, (targets, sources))
    if bias is not None:
        fits = bias.dim() >= 3 and bias.size(-3) in (1, targets) and bias.size(-1) in (1, heads)
        if not fits or bias.size(-2) != sources or not broadcasts(bias.shape[:-3], lead):
            raise ValueError(
                f"Expected 'bias' of shape [..., N={targets} or 1, M={sources}, H={heads} or 1] (got "
                f"{list(bias.shape)}); give one number per pair and head"
            )


def _check_mask(mask: Tensor, lead: torch.Size, sizes: tuple[int, ...]) -> None:
    # Of pairs, for 'sizes' N and M, or of keys, for M alone.
    *queries, keys = sizes
    before = mask.dim() - len(sizes)
    fits = before >= 0 and mask.size(-1) == keys and all(mask.size(-2) in (1, size) for size in queries)
    if mask.dtype != torch.bool or not fits or not broadcasts(mask.shape[:before], lead):
        said = ", ".join([*(f"N={size} or 1" for size in queries), f"M={keys}"])
        raise ValueError(
            f"Expected a bool 'mask' of shape [..., {said}] (got {bare(mask.dtype)} {list(mask.shape)}); "
            f"True shows a key{' to a query' if queries else ''}"
        )


def edge_attention_with_weights(
    gram: Gram,
    value: Tensor,
    edge_index: Tensor,
    *,
    edge_bias: Tensor | None = None,
    edge_log_weight: Tensor | None = None,
    edge_weight: Tensor | None = None,
    dropout: float = 0.0,
    base: Tensor | None = None,
    flow: str = "source_to_target",
    backend: str | None = None,
) -> tuple[Tensor, Tensor]:
    r"""Returns what :func:`edge_attention` returns, bit for bit, and the weights :math:`m_e \alpha_e`.

    :math:`m` is the dropout mask over :math:`1 - p`, so that weights and output belong together in training
    too; :obj:`edge_weight` is not in them. Both outputs have gradients. The weights cost one more pass over
    the edges.

    Args:
        gram (Gram): As in :func:`edge_attention`, as the others are.
        value (torch.Tensor): As in :func:`edge_attention`.
        edge_index (torch.Tensor): As in :func:`edge_attention`.
        edge_bias (torch.Tensor, optional): (default: :obj:`None`)
        edge_log_weight (torch.Tensor, optional): (default: :obj:`None`)
        edge_weight (torch.Tensor, optional): (default: :obj:`None`)
        dropout (float, optional): (default: :obj:`0.0`)
        base (torch.Tensor, optional): (default: :obj:`None`)
        flow (str, optional): (default: :obj:`"source_to_target"`)
        backend (str, optional): (default: :obj:`None`)

    Shapes:
        - **output:** :math:`(N, H, C)` and :math:`(E, H)`

    Raises:
        ValueError: If shapes do not fit or :obj:`backend` is unknown.
        IndexError: If an index is negative or too large.
        NotImplementedError: If the kernel can be negative, or the named backend cannot run the call.

    Example:
        >>> import torch
        >>> from kgat.functional import edge_attention_with_weights
        >>> from kgat.kernels import RBF
        >>> x, edge_index = torch.zeros(3, 1, 4), torch.tensor([[0, 1, 2], [2, 2, 1]])
        >>> edge_attention_with_weights(RBF(4)(x, x), x, edge_index)[1].detach().flatten()
        tensor([0.5000, 0.5000, 1.0000])
    """
    call = edge_call(gram, value, edge_index, edge_bias, edge_log_weight, edge_weight, dropout, base, flow)
    try:
        return ops.edge_attention_with_weights(call, backend)
    except (IndexError, RuntimeError):
        check_indices(call.row, call.col, call.num_targets, value.size(0))
        raise
