r"""What a trained attention model attends to: entropy, profile and spectrum of its kernels."""

import inspect
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch_geometric.utils import degree, scatter

from kgat.kernels import Magnitude

__all__ = [
    "Layer",
    "attention_entropy",
    "attention_record",
    "attention_spectrum",
    "attention_weights",
    "cumulative_spectrum",
    "effective_rank",
    "gram_image",
    "gram_matrix",
    "gram_spectrum",
    "head_correlation",
    "importance",
    "inertia",
    "kernel_profile",
    "negative_mass",
    "neighbourhood",
    "numerical_rank",
    "singular_values",
    "smallest_eigenvalue",
    "smoother_spectrum",
    "spectra_record",
    "spectral_law",
    "symmetry_gap",
    "trace",
]

BINS = 20  # of the histogram of normalised entropies over [0, 1]
POINTS = 25  # distances of a stored kernel profile
SINGULAR_VALUES = 64  # stored per head: the tail beyond is below print resolution
EDGES = 100  # of a stored neighbourhood; with 8 heads this keeps a record below 30 kB
CANDIDATES = 4096  # among which the center of a neighbourhood is chosen
HEADS = 8  # more heads than this are stored as their mean or by the first ones
FREQUENCIES = 64  # of a stored spectral law, per head
IMPORTANCES = 200  # nodes whose importance is stored
IMAGE = 24  # nodes of a stored Gram matrix, for the first IMAGES heads
IMAGES = 2


class Layer(NamedTuple):
    r"""What one attention layer saw and did in a forward pass."""

    conv: Any  # the module; its `kernel` and `project` are asked for by name
    x: Any  # Tensor [N, F], dense or sparse, or the pair of a bipartite layer
    edge_index: Tensor  # [2, E'] with the self-loops that the layer added
    alpha: Tensor  # [E', H]


def trace(
    model: torch.nn.Module,
    x: Tensor,
    edge_index: Tensor,
    edge_attr: Tensor | None = None,
) -> list[Layer]:
    r"""Runs the model once, in evaluation mode, and keeps what each attention layer saw and did.

    The forward pass is the model's own, so that norms, activations and skip connections between
    the layers are those it was trained with. The mode of every submodule is restored.

    Args:
        model (torch.nn.Module): A model whose layers are in :obj:`model.convs`, as in every
            :class:`torch_geometric.nn.models.BasicGNN`.
        x (torch.Tensor): The node features, dense or sparse.
        edge_index (torch.Tensor): The edge indices.
        edge_attr (torch.Tensor, optional): The edge features. (default: :obj:`None`)

    Returns:
        list[Layer]: One entry per layer.

    Raises:
        ValueError: If the model has no :obj:`convs`, or one of them gives no attention weights.
    """
    convs = list(getattr(model, "convs", ()))
    if not convs:
        raise ValueError(
            f"Expected a model with its layers in 'convs' (got '{type(model).__name__}'); "
            "build it as a torch_geometric BasicGNN"
        )
    for conv in convs:
        if "return_attention_weights" not in inspect.signature(conv.forward).parameters:
            raise ValueError(
                "Expected layers that take 'return_attention_weights' "
                f"(got '{type(conv).__name__}'); use an attention layer such as KernelGATConv"
            )

    layers: list[Layer] = []
    inputs: list[Any] = []

    def ask(_: torch.nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        inputs.append(args[0] if args else kwargs["x"])
        return args, {**kwargs, "return_attention_weights": True}

    def keep(conv: torch.nn.Module, _: tuple, output: Any) -> Tensor:
        out, (index, alpha) = output
        # `as_subclass` drops what an EdgeIndex knows and leaves its numbers.
        layers.append(Layer(conv, inputs[-1], index.as_subclass(Tensor), alpha.detach()))
        return out

    modes = [(module, module.training) for module in model.modules()]
    handles = [conv.register_forward_pre_hook(ask, with_kwargs=True) for conv in convs]
    handles += [conv.register_forward_hook(keep) for conv in convs]
    try:
        model.eval()
        with torch.no_grad():
            if edge_attr is None:
                model(x, edge_index)
            else:
                model(x, edge_index, edge_attr=edge_attr)
    finally:
        for handle in handles:
            handle.remove()
        for module, training in modes:
            module.training = training
    return layers


def attention_weights(
    model: torch.nn.Module,
    x: Tensor,
    edge_index: Tensor,
    edge_attr: Tensor | None = None,
) -> list[tuple[Tensor, Tensor]]:
    r"""Returns the edges and the attention weights of every layer of a model.

    Args:
        model (torch.nn.Module): A model with its attention layers in :obj:`convs`.
        x (torch.Tensor): The node features.
        edge_index (torch.Tensor): The edge indices.
        edge_attr (torch.Tensor, optional): The edge features. (default: :obj:`None`)

    Shapes:
        - **output:** per layer, edges :math:`(2, E')` with the self-loops that the layer added,
          and weights :math:`(E', H)`

    Example:
        >>> from torch_geometric.nn import GAT
        >>> edge_index = torch.tensor([[0, 1, 2, 0], [1, 0, 0, 2]])
        >>> model = GAT(4, 6, num_layers=2, out_channels=3, heads=3)
        >>> [alpha.shape for _, alpha in attention_weights(model, torch.randn(3, 4), edge_index)]
        [torch.Size([7, 3]), torch.Size([7, 3])]
    """
    layers = trace(model, x, edge_index, edge_attr)
    return [(layer.edge_index, layer.alpha) for layer in layers]


def attention_entropy(
    alpha: Tensor,
    index: Tensor,
    num_nodes: int,
    reduce: bool = True,
) -> Tensor:
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

    Example:
        >>> alpha = torch.tensor([[0.5], [0.5], [1.0]])
        >>> attention_entropy(alpha, torch.tensor([0, 0, 1]), num_nodes=2)
        tensor([1.])
    """
    if alpha.dim() != 2 or index.shape != alpha.shape[:1]:
        raise ValueError(
            "Expected 'alpha' of shape [E, H] and 'index' of shape [E] "
            f"(got {list(alpha.shape)} and {list(index.shape)}); pass the edges of one layer"
        )
    degrees = degree(index, num_nodes, dtype=alpha.dtype)
    entropy = scatter(-torch.xlogy(alpha, alpha), index, 0, num_nodes, "sum")  # [N, H]
    chosen = degrees >= 2
    entropy = entropy[chosen] / degrees[chosen].log().unsqueeze(-1)
    return entropy.mean(dim=0) if reduce else entropy


def gram_matrix(
    kernel: Callable[[Tensor, Tensor], Any],
    query: Tensor,
    key: Tensor,
    max_nodes: int = 256,
    seed: int = 0,
) -> Tensor:
    r"""Returns :math:`K_{ijh} = k_h(\mathbf{q}_i, \mathbf{k}_j) / \max_{ij} K_{ijh}` in float64.

    Args:
        kernel (Kernel): The kernel: :obj:`kernel(query, key).dense()` are the scores.
        query (torch.Tensor): The queries.
        key (torch.Tensor): The keys.
        max_nodes (int, optional): With more nodes than this, the matrix is that of a seeded
            sample; the same nodes on both sides if there are as many queries as keys.
            (default: :obj:`256`)
        seed (int, optional): The seed of the sample. (default: :obj:`0`)

    Shapes:
        - **query:** :math:`(N, H, D)`, **key:** :math:`(M, H, D)`
        - **output:** :math:`(\min(N, n), \min(M, n), H)` with :math:`n` = :obj:`max_nodes`
    """
    rows = _sample(query.size(0), max_nodes, seed)
    columns = _sample(key.size(0), max_nodes, seed)
    with torch.no_grad():
        score = kernel(query[rows], key[columns]).dense().double()  # [n, m, H]
    return (score - score.amax(dim=(0, 1), keepdim=True)).exp()


def gram_spectrum(
    kernel: Callable[[Tensor, Tensor], Any],
    query: Tensor,
    key: Tensor,
    max_nodes: int = 256,
    seed: int = 0,
) -> Tensor:
    r"""Returns the singular values of the Gram matrix, divided by the largest of each head.

    Args:
        kernel (Kernel): The kernel: :obj:`kernel(query, key).dense()` are the scores.
        query (torch.Tensor): The queries.
        key (torch.Tensor): The keys.
        max_nodes (int, optional): The largest sample, see :meth:`gram_matrix`.
            (default: :obj:`256`)
        seed (int, optional): The seed of the sample. (default: :obj:`0`)

    Shapes:
        - **query:** :math:`(N, H, D)`, **key:** :math:`(M, H, D)`
        - **output:** :math:`(H, \min(N, M, n))`, decreasing
    """
    return singular_values(gram_matrix(kernel, query, key, max_nodes, seed))


def singular_values(gram: Tensor) -> Tensor:
    r"""Returns the singular values of a Gram matrix, divided by the largest of each head.

    Of a kernel between two domains they play the part of eigenvalues: the matrix need not be square.

    Shapes:
        - **gram:** :math:`(N, M, H)`, **output:** :math:`(H, \min(N, M))`, decreasing
    """
    values = torch.linalg.svdvals(gram.permute(2, 0, 1))  # [H, n]
    return values / values[:, :1]


def numerical_rank(gram: Tensor, tolerance: float | None = None) -> Tensor:
    r"""Returns how many singular values are above a share of the largest: the features that are needed.

    Args:
        gram (torch.Tensor): The Gram matrix.
        tolerance (float, optional): That share; the rounding of the matrix, :math:`\max(N, M)` times the
            precision of its numbers, if :obj:`None`. (default: :obj:`None`)

    Shapes:
        - **gram:** :math:`(N, M, H)`, **output:** :math:`(H,)`

    Example:
        >>> numerical_rank(torch.ones(3, 4, 1))
        tensor([1])
    """
    return (singular_values(gram) > _tolerance(gram, tolerance)).sum(dim=-1)


def attention_spectrum(alpha: Tensor) -> Tensor:
    r"""Returns the singular values of dense attention matrices, of each head.

    Those of a :class:`~kgat.nn.PrimalAttention`, which has no such matrix, are its
    :meth:`~kgat.nn.PrimalAttention.singular_values`.

    Args:
        alpha (torch.Tensor): The attention weights, or any other matrix of pairs.

    Shapes:
        - **alpha:** :math:`(*, N, M, H)`, **output:** :math:`(*, H, \min(N, M))`, decreasing

    Example:
        >>> attention_spectrum(torch.eye(2).view(2, 2, 1) * 3)
        tensor([[3., 3.]])
    """
    if alpha.dim() < 3:
        raise ValueError(
            f"Expected 'alpha' of shape [..., N, M, H] (got {list(alpha.shape)}); heads come last, of "
            f"torch.nn.MultiheadAttention take alpha.movedim(-3, -1) with average_attn_weights=False"
        )
    return torch.linalg.svdvals(alpha.detach().movedim(-1, -3))


def cumulative_spectrum(singular_values: Tensor) -> Tensor:
    r"""Returns which share of the sum of all singular values the largest ones hold, as Figure 1 of
    `"Primal-Attention" <https://arxiv.org/abs/2305.19798>`_.

    .. math::
        c_i = \sum_{j \le i} \sigma_j \Big/ \sum_j \sigma_j

    A steep curve means low rank. It is 0 for a matrix of zeros.

    Args:
        singular_values (torch.Tensor): Singular values, decreasing.

    Shapes:
        - **singular_values, output:** :math:`(*, n)`

    Example:
        >>> cumulative_spectrum(torch.tensor([3.0, 1.0]))
        tensor([0.7500, 1.0000])
    """
    total = singular_values.sum(dim=-1, keepdim=True)
    return singular_values.cumsum(dim=-1) / total.masked_fill(total == 0, 1.0)


def spectra_record(dataset: str, config: Any, singular_values: Iterable[Tensor]) -> dict[str, Any]:
    r"""Returns the cumulative spectra of the layers of a model, ready to be a JSON line and to be drawn by
    :func:`kgat.plots.spectra`: of each layer the mean over heads and items.

    Args:
        dataset (str): The name of the data set.
        config (dict or object): Where :obj:`model` and :obj:`seed` are read, if it has them.
        singular_values (list of torch.Tensor): Per layer those of :func:`attention_spectrum` or
            :meth:`PrimalAttention.singular_values <kgat.nn.PrimalAttention.singular_values>`.

    Shapes:
        - **singular_values:** each :math:`(*, n)`

    Example:
        >>> record = spectra_record("drawn", {"model": "primal"}, [torch.tensor([[3.0, 1.0], [1.0, 1.0]])])
        >>> record["layers"]
        [[0.625, 1.0]]
    """
    curves = (cumulative_spectrum(values) for values in singular_values)
    return {
        "kind": "spectra",
        "dataset": dataset,
        "model": _setting(config, "model"),
        "seed": _setting(config, "seed"),
        "layers": [
            _rounded(c.reshape(-1, c.size(-1)).mean(dim=0)[:SINGULAR_VALUES].tolist()) for c in curves
        ],
    }


def effective_rank(singular_values: Tensor) -> Tensor:
    r"""Returns the effective rank of `"The Effective Rank"
    <https://ieeexplore.ieee.org/document/7098875>`_ (Roy and Vetterli, 2007).

    .. math::
        \exp \Bigl( - \sum_i p_i \log p_i \Bigr), \quad p_i = \sigma_i / \sum_j \sigma_j

    It is :math:`r` for :math:`r` equal singular values and one for a single one.

    Shapes:
        - **singular_values:** :math:`(H, n)`, **output:** :math:`(H,)`

    Example:
        >>> effective_rank(torch.tensor([[1.0, 1.0, 0.0]]))
        tensor([2.])
    """
    p = singular_values / singular_values.sum(dim=-1, keepdim=True)
    return (-torch.xlogy(p, p)).sum(dim=-1).exp()


def symmetry_gap(gram: Tensor) -> Tensor:
    r"""Returns how far the Gram matrix is from being symmetric.

    .. math::
        \lVert \mathbf{K} - \mathbf{K}^{\top} \rVert_F / (2 \lVert \mathbf{K} \rVert_F)

    Zero for a symmetric matrix, one for an antisymmetric one.

    Shapes:
        - **gram:** :math:`(N, N, H)`, **output:** :math:`(H,)`
    """
    _expect_square(gram)
    gap = torch.linalg.vector_norm(gram - gram.transpose(0, 1), dim=(0, 1))
    return gap / (2 * torch.linalg.vector_norm(gram, dim=(0, 1)))


def smallest_eigenvalue(gram: Tensor) -> Tensor:
    r"""Returns the smallest eigenvalue of :math:`(\mathbf{K} + \mathbf{K}^{\top}) / 2`, divided by
    the one of largest absolute value.

    Negative beyond rounding: the matrix is not positive semi-definite.

    Shapes:
        - **gram:** :math:`(N, N, H)`, **output:** :math:`(H,)`
    """
    values = _eigenvalues(gram)
    return values[:, 0] / values.abs().amax(dim=-1)


def negative_mass(gram: Tensor) -> Tensor:
    r"""Returns how far the Gram matrix is from being positive semi-definite.

    .. math::
        \sum_{\lambda_i < 0} |\lambda_i| \, / \, \sum_i |\lambda_i|

    with the eigenvalues of :math:`(\mathbf{K} + \mathbf{K}^{\top}) / 2`. Zero for a positive semi-definite
    matrix, one half for a symmetric one without a trace; how asymmetric it is says :meth:`symmetry_gap`.

    Shapes:
        - **gram:** :math:`(N, N, H)`, **output:** :math:`(H,)`

    Example:
        >>> negative_mass(torch.tensor([[1.0, 0.0], [0.0, -3.0]]).unsqueeze(-1))
        tensor([0.7500])
    """
    values = _eigenvalues(gram)
    return -values.clamp(max=0).sum(dim=-1) / values.abs().sum(dim=-1)


def inertia(gram: Tensor, centred: bool = False, tolerance: float | None = None) -> Tensor:
    r"""Counts the positive, zero and negative eigenvalues of :math:`(\mathbf{K} + \mathbf{K}^{\top}) / 2`.

    A Gram matrix is positive semi-definite without negative ones. It is *conditionally* so, on vectors that
    sum to 0, if there are none after centring, :math:`(\mathbf{I} - \mathbf{1}\mathbf{1}^\top / N) \,
    \mathbf{K} \, (\mathbf{I} - \mathbf{1}\mathbf{1}^\top / N)`: of the L2 distance, which has a single
    positive eigenvalue, centring leaves none that is positive, so that its negative is conditionally positive
    definite.

    Args:
        gram (torch.Tensor): The Gram matrix.
        centred (bool, optional): Whether rows and columns are centred first, which adds one zero.
            (default: :obj:`False`)
        tolerance (float, optional): Up to this share of the largest absolute value, an eigenvalue is zero;
            :math:`N` times the precision of the numbers if :obj:`None`. (default: :obj:`None`)

    Shapes:
        - **gram:** :math:`(N, N, H)`, **output:** :math:`(H, 3)`

    Example:
        >>> points = torch.arange(4.0)
        >>> distance = (points[:, None] - points).abs().unsqueeze(-1)
        >>> inertia(distance), inertia(distance, centred=True)
        (tensor([[1, 0, 3]]), tensor([[0, 1, 3]]))
    """
    _expect_square(gram)
    scale = gram.abs().amax(dim=(0, 1))
    if centred:
        gram = gram - gram.mean(dim=0, keepdim=True)
        gram = gram - gram.mean(dim=1, keepdim=True)
    values = _eigenvalues(gram)
    zero = _tolerance(gram, tolerance) * torch.maximum(values.abs().amax(dim=-1), scale).unsqueeze(-1)
    signs = (values > zero, values.abs() <= zero, values < -zero)
    return torch.stack([sign.sum(dim=-1) for sign in signs], dim=-1)


def smoother_spectrum(gram: Tensor) -> Tensor:
    r"""Returns the eigenvalues of attention itself, the smoother :math:`\mathbf{D}^{-1} \mathbf{K}` whose
    rows sum to 1, as in `"Transformer Dissection" <https://arxiv.org/abs/1908.11775>`_.

    Of a symmetric positive semi-definite kernel they are real and in :math:`[0, 1]`, because the matrix is
    similar to :math:`\mathbf{D}^{-1/2} \mathbf{K} \mathbf{D}^{-1/2}`; projections of their own for queries
    and keys make negative and complex ones. The largest is 1, that of a constant; the smaller the others, the
    more a layer smooths.

    Args:
        gram (torch.Tensor): The Gram matrix, without negative entries. A row of zeros stays one.

    Shapes:
        - **gram:** :math:`(N, N, H)`, **output:** :math:`(H, N)`, complex, by decreasing real part

    Example:
        >>> smoother_spectrum(torch.tensor([[3.0, 1.0], [1.0, 3.0]]).unsqueeze(-1)).real
        tensor([[1.0000, 0.5000]])
    """
    _expect_square(gram)
    rows = gram.sum(dim=1, keepdim=True)
    values = torch.linalg.eigvals((gram / torch.where(rows == 0, 1.0, rows)).permute(2, 0, 1))  # [H, N]
    return values.gather(-1, values.real.argsort(dim=-1, descending=True))


def kernel_profile(
    kernel: Callable[[Tensor, Tensor], Any],
    query: Tensor,
    max_distance: float | None = None,
    points: int = POINTS,
    references: int = 8,
    directions: int = 32,
    seed: int = 0,
) -> tuple[dict[str, Any] | None, str | None]:
    r"""Measures :math:`k(\text{distance})`: how the kernel falls on straight lines.

    From a few of the given queries :math:`\mathbf{q}`, keys :math:`\mathbf{q} + r \mathbf{u}` are
    laid along random unit directions :math:`\mathbf{u}`, and the kernel is evaluated at each. For
    a kernel of the distance alone all lines agree; else their spread shows how much the direction
    matters. The kernel is divided by its value at distance zero on the same line, or, where it
    (nearly) vanishes there, by the largest value of the median over the lines.

    Args:
        kernel (Kernel): The kernel: :obj:`kernel(query, key).at(row, col)` are the scores.
        query (torch.Tensor): Queries of real nodes.
        max_distance (float, optional): The length of the lines. The default is the 95 % quantile
            of the distances between the queries, over all heads. (default: :obj:`None`)
        points (int, optional): The number of distances. (default: :obj:`25`)
        references (int, optional): The number of queries. (default: :obj:`8`)
        directions (int, optional): The number of lines from each. (default: :obj:`32`)
        seed (int, optional): The seed of queries and directions. (default: :obj:`0`)

    Returns:
        tuple[dict | None, str | None]: The profile and :obj:`None`, or :obj:`None` and the reason
        why there is none. The profile holds :obj:`distance` (a list of :obj:`points`), the median
        :obj:`kernel`, the quantiles :obj:`low` (10 %) and :obj:`high` (90 %), each of shape
        :math:`(H, \text{points})`, and :obj:`normalised`: :obj:`"zero"` or :obj:`"maximum"`.
    """
    query = query.detach()[_sample(query.size(0), 256, seed)]
    if query.size(0) == 0:
        return None, "there are no nodes"
    if max_distance is None:
        pairs = torch.cdist(query.transpose(0, 1).double(), query.transpose(0, 1).double())
        max_distance = float(pairs.flatten().quantile(0.95)) if pairs.numel() else 0.0
        # All queries the same (one node, or a dead layer): any length is as good as another.
        max_distance = max_distance if 0 < max_distance < math.inf else 1.0

    generator = torch.Generator().manual_seed(seed)
    start = query[_sample(query.size(0), references, seed)]  # [P, H, D]
    unit = torch.randn(start.size(0), directions, *start.shape[1:], generator=generator)
    unit = (unit / torch.linalg.vector_norm(unit, dim=-1, keepdim=True)).to(start)  # [P, U, H, D]
    distance = torch.linspace(0, max_distance, points).to(start)  # [T]
    steps = distance.view(-1, 1, 1) * unit.unsqueeze(2)  # [P, U, T, H, D]
    key = (start[:, None, None] + steps).flatten(0, 2)  # [P * U * T, H, D]
    row = torch.arange(start.size(0), device=start.device).repeat_interleave(directions * points)
    try:
        with torch.no_grad():
            score = kernel(start, key).at(row, torch.arange(key.size(0), device=key.device))
    except NotImplementedError as error:
        return None, str(error).split("\n", 1)[0] or f"{type(kernel).__name__} gives no scores"
    if not bool(torch.isfinite(score).all()):
        return None, f"{type(kernel).__name__} gives scores that are not finite"

    score = score.double().view(-1, points, score.size(-1)).permute(2, 0, 1)  # [H, lines, T]
    at_zero = score[:, :, :1]
    normalised = "zero"
    median = (score - at_zero).median(dim=1).values  # [H, T]
    # A kernel that grows a thousandfold along half of the lines has nothing to divide by at zero.
    if float(median.amax()) > math.log(1e3):
        normalised = "maximum"
        at_zero = score.median(dim=1).values.amax(dim=-1).view(-1, 1, 1)
    # Along single lines exp(q.k) may overflow what JSON and a figure can hold.
    value = (score - at_zero).clamp(max=math.log(1e6)).exp()
    low, middle, high = value.quantile(torch.tensor([0.1, 0.5, 0.9]).to(value), dim=1)
    profile = {
        "distance": distance.tolist(),
        "kernel": middle.tolist(),
        "low": low.tolist(),
        "high": high.tolist(),
        "normalised": normalised,
    }
    return profile, None


def spectral_law(
    kernel: torch.nn.Module, query: Tensor, key: Tensor, most: int = FREQUENCIES, seed: int = 0
) -> dict[str, Any] | None:
    r"""Returns frequencies of a spectral kernel in the plane that holds most of their variance.

    The two axes are the leading principal axes of the frequencies of all heads together, so that heads can be
    compared; the law is symmetric, so that its centre is 0. Of a kernel that draws its frequencies (
    :class:`~kgat.kernels.ImplicitSpectral`) new draws are taken.

    Args:
        kernel (Kernel): The kernel; of a product, the first factor with frequencies is taken.
        query (torch.Tensor): Queries of real nodes.
        key (torch.Tensor): Keys of real nodes.
        most (int, optional): Frequencies per head at most. (default: :obj:`64`)
        seed (int, optional): The seed of the draws. (default: :obj:`0`)

    Returns:
        dict, optional: :obj:`frequencies` of shape :math:`(H, n, 2)` and :obj:`share`, the share of variance
        in the plane; :obj:`None` if the kernel has no frequencies.
    """
    part = _first_part(kernel, "frequencies")
    if part is None:
        return None
    sampled = hasattr(part, "law")
    nodes = (query, key) if sampled else ()
    mode = part.training
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        part.train(sampled)
        try:
            found = [torch.cat(part.frequencies(*nodes), dim=-1)]  # type: ignore[operator]
            while sampled and sum(omega.size(-1) for omega in found) < most:
                found.append(torch.cat(part.frequencies(*nodes), dim=-1))  # type: ignore[operator]
        finally:
            part.train(mode)
    omega = torch.cat(found, dim=-1)[..., :most].transpose(-1, -2).double().cpu()  # [H, n, D]
    if not sampled:  # free frequencies come without their mirror images
        omega = torch.cat([omega, -omega], dim=1)
    _, values, axes = torch.linalg.svd(omega.flatten(0, 1), full_matrices=False)
    plane = omega @ axes[:2].T
    plane = torch.nn.functional.pad(plane, (0, 2 - plane.size(-1)))
    share = values[:2].square().sum() / values.square().sum().clamp(min=1e-300)
    return {"frequencies": plane[:HEADS].tolist(), "share": float(share)}


def head_correlation(kernel: torch.nn.Module, query: Tensor, key: Tensor) -> Tensor | None:
    r"""Returns the correlation of heads under the copula of a kernel, the mean over channels.

    Args:
        kernel (Kernel): The kernel; of a product, the first factor with a copula is taken.
        query (torch.Tensor): Queries of real nodes.
        key (torch.Tensor): Keys of real nodes.

    Shapes:
        - **output:** :math:`(H, H)`, or :obj:`None` if there is no copula
    """
    part = _first_part(kernel, "correlation")
    if part is None:
        return None
    with torch.no_grad():
        correlation: Tensor = part.correlation(part.law(query, key))  # type: ignore[operator]
        return correlation.mean(dim=0)


def importance(kernel: torch.nn.Module, key: Tensor) -> Tensor | None:
    r"""Returns what a node adds to every score as a key: the sum of the magnitudes of a kernel.

    Args:
        kernel (Kernel): A kernel with a :class:`~kgat.kernels.Magnitude` among its factors.
        key (torch.Tensor): The keys.

    Shapes:
        - **key:** :math:`(N, H, D)`, **output:** :math:`(N, H)`, or :obj:`None` without magnitude
    """
    found = [part for part in _parts(kernel) if isinstance(part, Magnitude)]
    if not found:
        return None
    with torch.no_grad():
        return sum(part.half_norm(key) for part in found)  # type: ignore[return-value]


def gram_image(
    kernel: Callable[[Tensor, Tensor], Any],
    query: Tensor,
    key: Tensor,
    labels: Tensor | None = None,
    max_nodes: int = IMAGE,
    seed: int = 0,
) -> dict[str, Any]:
    r"""Returns :meth:`gram_matrix` of a few nodes, sorted by class, as an image of the kernel.

    Args:
        kernel (Kernel): The kernel.
        query (torch.Tensor): The queries.
        key (torch.Tensor): The keys of the same nodes.
        labels (torch.Tensor, optional): The class of each node. (default: :obj:`None`)
        max_nodes (int, optional): Number of nodes at most. (default: :obj:`24`)
        seed (int, optional): The seed of the sample. (default: :obj:`0`)

    Returns:
        dict: :obj:`values` of shape :math:`(H, n, n)` and :obj:`labels` of length :math:`n`.
    """
    nodes = _sample(query.size(0), max_nodes, seed)
    if labels is not None:
        nodes = nodes[labels.cpu()[nodes].argsort(stable=True)]
    gram = gram_matrix(kernel, query[nodes], key[nodes], max_nodes)
    found = [] if labels is None else labels.cpu()[nodes].long().tolist()
    values = gram.permute(2, 0, 1)[:IMAGES].numpy(force=True).round(3)  # a colour shows no more
    return {"values": values.tolist(), "labels": found}


def _parts(kernel: torch.nn.Module) -> list[torch.nn.Module]:
    # The factors and summands, however deep.
    if not hasattr(kernel, "parts"):
        return [kernel]
    return [inner for part in kernel.parts for inner in _parts(part)]  # type: ignore[union-attr]


def _first_part(kernel: torch.nn.Module, name: str) -> torch.nn.Module | None:
    return next((part for part in _parts(kernel) if hasattr(part, name)), None)


def neighbourhood(
    edge_index: Tensor,
    alpha: Tensor,
    center: int | None = None,
    hops: int = 1,
    max_nodes: int = 40,
    labels: Tensor | None = None,
    max_edges: int = EDGES,
) -> dict[str, Any]:
    r"""Cuts out the neighbourhood of a node, with the attention weights on its edges.

    Without :obj:`center`, a node with more neighbours than most (80 % to 97 % quantile of the
    degrees) is taken whose labels in the neighbourhood are the most mixed: the one place where
    attention can matter. The choice depends on the graph and the labels only, hence is the same
    for every model.

    Args:
        edge_index (torch.Tensor): The edges, with the self-loops of the layer.
        alpha (torch.Tensor): The attention weights.
        center (int, optional): The node. (default: :obj:`None`)
        hops (int, optional): How far to go against the edges. (default: :obj:`1`)
        max_nodes (int, optional): Nodes are dropped beyond this, the farthest and, among these,
            those of highest index first. (default: :obj:`40`)
        labels (torch.Tensor, optional): The class of each node. (default: :obj:`None`)
        max_edges (int, optional): Edges that end farther from the center are dropped beyond this.
            (default: :obj:`100`)

    Returns:
        dict: :obj:`center`, :obj:`nodes`, :obj:`edges` (source, target), :obj:`alpha` of each edge
        and head, :obj:`labels` of the nodes (-1 if unknown), :obj:`targets` (the nodes all of
        whose in-edges are there, if nothing was dropped), :obj:`hops` and :obj:`degree`, the
        number of neighbours of the center in the graph.

    Shapes:
        - **edge_index:** :math:`(2, E)`, **alpha:** :math:`(E, H)`, **labels:** :math:`(N,)`

    Example:
        >>> edge_index = torch.tensor([[0, 1, 2], [1, 0, 0]])
        >>> cut = neighbourhood(edge_index, torch.tensor([[1.0], [0.4], [0.6]]), center=0)
        >>> cut["nodes"], cut["edges"]
        ([0, 1, 2], [[1, 0], [2, 0], [0, 1]])
    """
    source, target = edge_index.cpu()
    num_nodes = max(
        int(edge_index.max()) + 1 if edge_index.numel() else 0,
        0 if labels is None else labels.size(0),
    )
    if center is None:
        center = _mixed_node(source, target, num_nodes, labels, max_nodes)
    if not 0 <= center < num_nodes:
        raise IndexError(f"Expected 'center' in 0..{num_nodes - 1} (got {center}); pass a node of the graph")
    distance = torch.full((num_nodes,), hops + 1)
    distance[center] = 0
    for hop in range(1, hops + 1):
        reached = source[distance[target] == hop - 1]
        distance[reached] = distance[reached].clamp(max=hop)
    inside = (distance <= hops).nonzero().flatten()
    nodes = inside[distance[inside].argsort(stable=True)][:max_nodes]

    kept = torch.zeros(num_nodes, dtype=torch.bool)
    kept[nodes] = True
    edges = (kept[source] & kept[target]).nonzero().flatten()
    edges = edges[distance[target[edges]].argsort(stable=True)][:max_edges]
    neighbours = source[(target == center) & (source != center)].unique()
    classes = labels.cpu()[nodes].tolist() if labels is not None else [-1] * nodes.numel()
    return {
        "center": int(center),
        "nodes": nodes.tolist(),
        "labels": [int(label) for label in classes],
        "edges": torch.stack([source[edges], target[edges]], dim=1).tolist(),
        "alpha": alpha.cpu()[edges].tolist(),
        "targets": nodes[distance[nodes] < hops].tolist(),
        "hops": hops,
        "degree": neighbours.numel(),
    }


def attention_record(
    model: torch.nn.Module,
    task: Any,
    config: Any,
    layer: int = 0,
) -> dict[str, Any]:
    r"""Returns everything that the figures show of a trained model, ready to be a JSON line.

    Profile, spectrum and neighbourhood are those of one layer; the entropies of all of them. A
    layer without :obj:`kernel` (GATConv, GATv2Conv) has neither profile nor spectrum, and
    :obj:`reason` says so. At most eight heads are stored; the neighbourhood of a layer with more
    holds the mean over its heads.

    Args:
        model (torch.nn.Module): The trained model, with its layers in :obj:`convs`.
        task (Task): The task: its name, features, edges and labels.
        config (dict or object): Where :obj:`model` and :obj:`seed` are read, if it has them.
        layer (int, optional): The layer to look into. (default: :obj:`0`)
    """
    data = task.data
    layers = trace(model, data.x, data.edge_index, getattr(data, "edge_attr", None))
    if not -len(layers) <= layer < len(layers):
        raise IndexError(f"Expected 'layer' below {len(layers)} (got {layer}); pass a layer of the model")
    record: dict[str, Any] = {
        "kind": "attention",
        "dataset": task.name,
        "model": _setting(config, "model"),
        "seed": _setting(config, "seed"),
        "layers": [],
    }
    for conv, _, edge_index, alpha in layers:
        target = _to_target(conv, edge_index)[1]
        entropy = attention_entropy(alpha, target, data.num_nodes, reduce=False)
        counts = torch.histc(entropy.float().cpu(), bins=BINS, min=0, max=1 + 1e-6)
        record["layers"].append(
            {
                "heads": alpha.size(1),
                "entropy": _rounded(entropy.mean(dim=0).tolist()),
                "histogram": [int(count) for count in counts],
            }
        )

    conv, x, edge_index, alpha = layers[layer]
    record["layer"] = layer % len(layers)
    labels = data.y if data.y is not None and data.y.dim() == 1 else None
    if labels is not None and labels.is_floating_point():
        labels = None
    record.update(_kernel_record(conv, x, _to_target(conv, edge_index)[1], labels))
    shown = alpha if alpha.size(1) <= HEADS else alpha.mean(dim=1, keepdim=True)
    record["neighbourhood"] = None
    if edge_index.numel():
        cut = neighbourhood(_to_target(conv, edge_index), shown, labels=labels)
        record["neighbourhood"] = _rounded(cut)
    return record


def _to_target(conv: Any, edge_index: Tensor) -> Tensor:
    return edge_index.flip(0) if conv.flow == "target_to_source" else edge_index


def _kernel_record(conv: Any, x: Any, target: Tensor, labels: Tensor | None) -> dict[str, Any]:
    absent: dict[str, Any] = {"profile": None, "spectrum": None}
    kernel = getattr(conv, "kernel", None)
    if kernel is None:
        return absent | {"reason": f"{type(conv).__name__} has no kernel"}
    with torch.no_grad():
        query, key, _ = conv.project(x)
    profile, reason = kernel_profile(kernel, query)
    if profile is None:
        return absent | {"reason": reason}
    for name in ("kernel", "low", "high"):
        profile[name] = profile[name][:HEADS]
    gram = gram_matrix(kernel, query, key)
    values = singular_values(gram)
    record = {
        "profile": profile,
        "spectrum": values[:HEADS, :SINGULAR_VALUES].tolist(),
        "effective_rank": effective_rank(values).tolist(),
        "nodes_sampled": min(gram.shape[:2]),
        "reason": None,
    }
    if query.size(0) == key.size(0):
        record["symmetry_gap"] = symmetry_gap(gram).tolist()
        record["smallest_eigenvalue"] = smallest_eigenvalue(gram).tolist()
        record["image"] = gram_image(kernel, query, key, labels)
    record["law"] = spectral_law(kernel, query, key)
    correlation = head_correlation(kernel, query, key)
    record["head_correlation"] = None if correlation is None else correlation.tolist()
    record["importance"] = None
    value = importance(kernel, key)
    if value is not None and query.size(0) == key.size(0):
        nodes = _sample(key.size(0), IMPORTANCES, 0)
        record["importance"] = {
            "value": value.mean(dim=1).cpu()[nodes].tolist(),
            "degree": degree(target.cpu(), key.size(0))[nodes].long().tolist(),
            "labels": None if labels is None else labels.cpu()[nodes].long().tolist(),
        }
    return _rounded(record)


def _eigenvalues(gram: Tensor) -> Tensor:
    # Of the symmetric part, [H, N], increasing.
    _expect_square(gram)
    return torch.linalg.eigvalsh((gram + gram.transpose(0, 1)).permute(2, 0, 1) / 2)


def _tolerance(gram: Tensor, tolerance: float | None) -> float:
    return max(gram.shape[:2]) * torch.finfo(gram.dtype).eps if tolerance is None else tolerance


def _expect_square(gram: Tensor) -> None:
    if gram.dim() != 3 or gram.size(0) != gram.size(1):
        raise ValueError(
            f"Expected 'gram' of shape [N, N, H] (got {list(gram.shape)}); "
            "take the queries and the keys of the same nodes"
        )


def _sample(size: int, most: int, seed: int) -> Tensor:
    if size <= most:
        return torch.arange(size)
    generator = torch.Generator().manual_seed(seed)
    return torch.randperm(size, generator=generator)[:most].sort().values


def _mixed_node(source: Tensor, target: Tensor, num_nodes: int, labels: Tensor | None, max_nodes: int) -> int:
    if num_nodes == 0:
        raise ValueError("Expected a graph with nodes (got none); pass the edges of a layer")
    proper = source != target
    source, target = source[proper], target[proper]
    degrees = degree(target, num_nodes)
    low, high = _quantiles(degrees, 0.8, 0.97)
    fits = (degrees >= low) & (degrees <= high) & (degrees < max_nodes) & (degrees >= 2)
    if not bool(fits.any()):
        fits = degrees == degrees.clamp(max=max_nodes - 1).max()
    if not bool(fits.any()):
        fits = torch.ones_like(degrees, dtype=torch.bool)
    nodes = fits.nonzero().flatten()
    # Every n-th of very many, so that the choice costs no more on a huge graph.
    nodes = nodes[:: -(-nodes.numel() // CANDIDATES)]
    mixed = torch.zeros(nodes.numel())
    if labels is not None:
        position = torch.full((num_nodes,), -1).scatter(0, nodes, torch.arange(nodes.numel()))
        ends = position[target]
        classes = labels.cpu().long().clamp(min=-1) + 1  # unknown is a class of its own
        count = torch.zeros(nodes.numel(), int(classes.max()) + 1)
        one = torch.ones(())
        count.index_put_((ends[ends >= 0], classes[source[ends >= 0]]), one, accumulate=True)
        count.index_put_((torch.arange(nodes.numel()), classes[nodes]), one, accumulate=True)
        share = count / count.sum(dim=1, keepdim=True)
        mixed = (-torch.xlogy(share, share)).sum(dim=1)
    # Rounded, so that the order of a sum cannot decide; then the larger, then the first node.
    order = [
        (-round(disorder, 4), -float(degrees[node]), node)
        for disorder, node in zip(mixed.tolist(), nodes.tolist(), strict=True)
    ]
    return min(order)[2]


def _quantiles(values: Tensor, *levels: float) -> list[float]:
    # torch.quantile refuses more than 16 million values; a sort does not.
    ordered = values.sort().values
    last = ordered.numel() - 1
    return [float(ordered[round(level * last)]) for level in levels]


def _setting(config: Any, name: str) -> Any:
    return config.get(name) if isinstance(config, Mapping) else getattr(config, name, None)


def _rounded(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _rounded(item) for name, item in value.items()}
    if isinstance(value, float):
        return float(f"{value:.4g}") if math.isfinite(value) else None
    if isinstance(value, Iterable) and not isinstance(value, str):
        return [_rounded(item) for item in value]
    return value
