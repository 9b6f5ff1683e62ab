r"""What a kernel has learned: its profile over distance, spectral law, heads and importance."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from kgat.diagnostics.spectra import gram_among, gram_of_some, sample
from kgat.kernels import Magnitude

HEADS = 8  # more heads than this are stored as their mean or by the first ones
POINTS = 25  # distances of a stored kernel profile
FREQUENCIES = 64  # of a stored spectral law, per head
IMAGE = 24  # nodes of a stored Gram matrix, for the first IMAGES heads
IMAGES = 2


def kernel_profile(
    kernel: Callable[[Tensor, Tensor], Any],
    query: Tensor,
    max_distance: float | None = None,
    points: int = POINTS,
    references: int = 8,
    directions: int = 32,
    seed: int = 0,
    nodes: tuple[Tensor, Tensor] | None = None,
) -> tuple[dict[str, Any] | None, str | None]:
    r"""Measures how a kernel falls on straight lines.

    .. math::
        \kappa(r) = \operatorname*{median}_{\mathbf{q}, \mathbf{u}} \,
        k(\mathbf{q}, \mathbf{q} + r \mathbf{u}) \big/ k(\mathbf{q}, \mathbf{q})

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
        nodes ((torch.Tensor, torch.Tensor), optional): Queries and keys whose means a kernel takes that
            depends on such means; the given queries on both sides if :obj:`None`. (default: :obj:`None`)

    Returns:
        tuple[dict | None, str | None]: The profile and :obj:`None`, or :obj:`None` and the reason
        why there is none. The profile holds :obj:`distance` (a list of :obj:`points`), the median
        :obj:`kernel`, the quantiles :obj:`low` (10 %) and :obj:`high` (90 %), each of shape
        :math:`(H, \text{points})`, and :obj:`normalised`: :obj:`"zero"` or :obj:`"maximum"`.

    Shapes:
        - **query:** :math:`(N, H, D)`, **nodes:** :math:`(N, H, D)` and :math:`(M, H, D)`

    Example:
        >>> import torch
        >>> from kgat.diagnostics import kernel_profile
        >>> from kgat.kernels import RBF
        >>> profile, reason = kernel_profile(RBF(4), torch.randn(9, 1, 4), max_distance=2.0, points=3)
        >>> profile["distance"], profile["kernel"][0][0], reason
        ([0.0, 1.0, 2.0], 1.0, None)
    """
    everyone = (query, query) if nodes is None else nodes
    query = query.detach()[sample(query.size(0), 256, seed)]
    if query.size(0) == 0:
        return None, "there are no nodes"
    if max_distance is None:
        pairs = torch.cdist(query.transpose(0, 1).double(), query.transpose(0, 1).double())
        max_distance = float(pairs.flatten().quantile(0.95)) if pairs.numel() else 0.0
        # All queries the same (one node, or a dead layer): any length is as good as another.
        max_distance = max_distance if 0 < max_distance < math.inf else 1.0

    generator = torch.Generator().manual_seed(seed)
    start = query[sample(query.size(0), references, seed)]  # [P, H, D]
    unit = torch.randn(start.size(0), directions, *start.shape[1:], generator=generator, device="cpu")
    unit = (unit / torch.linalg.vector_norm(unit, dim=-1, keepdim=True)).to(start)  # [P, U, H, D]
    distance = torch.linspace(0, max_distance, points).to(start)  # [T]
    steps = distance.view(-1, 1, 1) * unit.unsqueeze(2)  # [P, U, T, H, D]
    key = (start[:, None, None] + steps).flatten(0, 2)  # [P * U * T, H, D]
    row = torch.arange(start.size(0), device=start.device).repeat_interleave(directions * points)
    try:
        with torch.no_grad():
            gram = gram_of_some(kernel, start, key, *everyone)
            score = gram.at(row, torch.arange(key.size(0), device=key.device))
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

    Shapes:
        - **query:** :math:`(N, H, D)`, **key:** :math:`(M, H, D)`

    Example:
        >>> import torch
        >>> from kgat.diagnostics import spectral_law
        >>> from kgat.kernels import RBF, Spectral
        >>> x = torch.randn(5, 2, 4)
        >>> len(spectral_law(Spectral(4, heads=2, num_features=3), x, x)["frequencies"])
        2
        >>> spectral_law(RBF(4, heads=2), x, x) is None
        True
    """
    part = _first_part(kernel, "frequencies")
    if part is None:
        return None
    sampled = hasattr(part, "law")
    nodes = part.scaled(query, key) if sampled else ()  # type: ignore[operator]
    mode = part.training
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        part.train(sampled)
        try:
            omega = torch.cat(part.frequencies(*nodes), dim=-1)  # type: ignore[operator]
            while sampled and omega.size(-1) < most:
                omega = torch.cat([omega, *part.frequencies(*nodes)], dim=-1)  # type: ignore[operator]
        finally:
            part.train(mode)
    omega = omega[..., :most]
    if part.input_scale is not None:  # in the units of queries and keys
        omega = omega * part.input_scale.unsqueeze(-1)  # type: ignore[operator]
    omega = omega.transpose(-1, -2).double().cpu()  # [H, n, D]
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
        - **query:** :math:`(N, H, D)`, **key:** :math:`(M, H, D)`
        - **output:** :math:`(H, H)`, or :obj:`None` if there is no copula

    Example:
        >>> import torch
        >>> from kgat.diagnostics import head_correlation
        >>> from kgat.kernels import CopulaSpectral
        >>> x = torch.randn(5, 2, 4)
        >>> head_correlation(CopulaSpectral(4, heads=2), x, x).shape
        torch.Size([2, 2])
    """
    part = _first_part(kernel, "correlation")
    if part is None:
        return None
    with torch.no_grad():
        correlation: Tensor = part.correlation(part.law(*part.scaled(query, key)))  # type: ignore[operator]
        return correlation.mean(dim=0)


def head_distance(alpha: Tensor) -> Tensor:
    r"""Returns how far the heads of a layer are from each other, a measure of how redundant they are, as
    `"Transformer with Fourier Integral Attentions" <https://arxiv.org/abs/2206.00206>`_ reports one.

    .. math::
        \frac{2}{H (H - 1)} \sum_{h < h'} \lVert \mathbf{A}_h - \mathbf{A}_{h'} \rVert_F

    Args:
        alpha (torch.Tensor): The attention weights of two or more heads.

    Shapes:
        - **alpha:** :math:`(*, N, M, H)`, **output:** :math:`(*)`, 0 where all heads are alike

    Raises:
        ValueError: If there are fewer than two heads.

    Example:
        >>> import torch
        >>> from kgat.diagnostics import head_distance
        >>> head_distance(torch.eye(2).view(2, 2, 1) * torch.tensor([1.0, 0.0]))
        tensor(1.4142)
    """
    if alpha.dim() < 3 or alpha.size(-1) < 2:
        raise ValueError(
            f"Expected 'alpha' of shape [..., N, M, H] with at least two heads (got {list(alpha.shape)}); "
            "keep the heads apart, with average_attn_weights=False, and move them to the end"
        )
    first, second = torch.triu_indices(alpha.size(-1), alpha.size(-1), 1)
    return torch.linalg.matrix_norm((alpha[..., first] - alpha[..., second]).movedim(-1, -3)).mean(dim=-1)


def importance(kernel: torch.nn.Module, key: Tensor) -> Tensor | None:
    r"""Returns what a node adds to every score as a key: the sum of the magnitudes of a kernel.

    .. math::
        \sum_m \tfrac{1}{2} \lVert \mathbf{k}_{jh} \rVert_{p_m}^2

    Args:
        kernel (Kernel): A kernel with a :class:`~kgat.kernels.Magnitude` among its factors.
        key (torch.Tensor): The keys.

    Shapes:
        - **key:** :math:`(N, H, D)`, **output:** :math:`(N, H)`, or :obj:`None` without magnitude

    Example:
        >>> import torch
        >>> from kgat.diagnostics import importance
        >>> from kgat.kernels import RBF, Magnitude
        >>> importance(RBF(4) * Magnitude(4), torch.randn(5, 1, 4)).shape
        torch.Size([5, 1])
    """
    magnitudes = [part for part in _parts(kernel) if isinstance(part, Magnitude)]
    with torch.no_grad():
        norms = [part.half_norm(part.scaled(key, key)[1]) for part in magnitudes]
    return sum(norms[1:], norms[0]) if norms else None


def gram_image(
    kernel: Callable[[Tensor, Tensor], Any],
    query: Tensor,
    key: Tensor,
    labels: Tensor | None = None,
    max_nodes: int = IMAGE,
    seed: int = 0,
) -> dict[str, Any]:
    r"""Returns :func:`gram_matrix` of a few nodes, sorted by class, as an image of the kernel.

    Args:
        kernel (Kernel): The kernel.
        query (torch.Tensor): The queries.
        key (torch.Tensor): The keys of the same nodes.
        labels (torch.Tensor, optional): The class of each node. (default: :obj:`None`)
        max_nodes (int, optional): Number of nodes at most. (default: :obj:`24`)
        seed (int, optional): The seed of the sample. (default: :obj:`0`)

    Returns:
        dict: :obj:`values` of shape :math:`(H, n, n)`, for the first heads, and :obj:`labels` of length
        :math:`n`.

    Shapes:
        - **query, key:** :math:`(N, H, D)`, **labels:** :math:`(N)`

    Example:
        >>> import torch
        >>> from kgat.diagnostics import gram_image
        >>> from kgat.kernels import RBF
        >>> x = torch.tensor([[[0.0]], [[1.0]], [[0.0]]])
        >>> gram_image(RBF(1), x, x, labels=torch.tensor([0, 1, 0]))
        {'values': [[[1.0, 1.0, 0.607], [1.0, 1.0, 0.607], [0.607, 0.607, 1.0]]], 'labels': [0, 0, 1]}
    """
    nodes = sample(query.size(0), max_nodes, seed)
    if labels is not None:
        nodes = nodes[labels.cpu()[nodes].argsort(stable=True)]
    gram = gram_among(kernel, query, key, nodes, nodes)
    classes = [] if labels is None else labels.cpu()[nodes].long().tolist()
    values = gram.permute(2, 0, 1)[:IMAGES].numpy(force=True).round(3)  # a colour shows no more
    return {"values": values.tolist(), "labels": classes}


def _parts(kernel: torch.nn.Module) -> list[torch.nn.Module]:
    # The factors and summands, however deep.
    if not hasattr(kernel, "parts"):
        return [kernel]
    return [inner for part in kernel.parts for inner in _parts(part)]  # type: ignore[union-attr]


def _first_part(kernel: torch.nn.Module, name: str) -> torch.nn.Module | None:
    return next((part for part in _parts(kernel) if hasattr(part, name)), None)
