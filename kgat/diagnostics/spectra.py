r"""Gram matrices, their spectra and what these say: rank, symmetry, definiteness."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from kgat.kernels import Context, Kernel


def gram_matrix(
    kernel: Callable[[Tensor, Tensor], Any], query: Tensor, key: Tensor, max_nodes: int = 256, seed: int = 0
) -> Tensor:
    r"""Returns the kernel of all pairs of nodes, divided by the largest of each head, in float64.

    .. math::
        K_{ijh} = k_h(\mathbf{q}_i, \mathbf{k}_j) \Big/ \max_{i' j'} k_h(\mathbf{q}_{i'}, \mathbf{k}_{j'})

    It is 0 for a kernel that is 0 everywhere.

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

    Raises:
        NotImplementedError: If the kernel can be negative.

    Example:
        >>> import torch
        >>> from kgat.diagnostics import gram_matrix
        >>> from kgat.kernels import RBF
        >>> x = torch.tensor([[[0.0]], [[1.0]]])
        >>> gram_matrix(RBF(1), x, x).squeeze(-1).detach()
        tensor([[1.0000, 0.6065],
                [0.6065, 1.0000]], dtype=torch.float64)
    """
    rows = sample(query.size(0), max_nodes, seed)
    columns = sample(key.size(0), max_nodes, seed)
    return gram_among(kernel, query, key, rows, columns)


def gram_among(
    kernel: Callable[[Tensor, Tensor], Any], query: Tensor, key: Tensor, rows: Tensor, columns: Tensor
) -> Tensor:
    r"""Returns :func:`gram_matrix` of the nodes that are named; a kernel that depends on means of the nodes
    takes those of all.

    Shapes:
        - **rows:** :math:`(n)`, **columns:** :math:`(m)`, **output:** :math:`(n, m, H)`
    """
    with torch.no_grad():
        score = gram_of_some(kernel, query[rows], key[columns], query, key).dense().double()
    largest = score.amax(dim=(0, 1), keepdim=True)
    return (score - torch.where(largest == -torch.inf, 0.0, largest)).exp()


def gram_of_some(
    kernel: Callable[[Tensor, Tensor], Any], query: Tensor, key: Tensor, queries: Tensor, keys: Tensor
) -> Any:
    r"""Returns the Gram matrix of points under the law that a kernel has on all queries and all keys."""
    if not isinstance(kernel, Kernel):
        return kernel(query, key)
    return kernel(query, key, Context(whole=(queries, keys, Context())))


def gram_spectrum(
    kernel: Callable[[Tensor, Tensor], Any], query: Tensor, key: Tensor, max_nodes: int = 256, seed: int = 0
) -> Tensor:
    r"""Returns the singular values of the Gram matrix of a kernel, divided by the largest of each head.

    .. math::
        \sigma_{ih} / \sigma_{1h}, \qquad \mathbf{K}_h = \mathbf{U}_h \, \mathrm{diag}(\boldsymbol{\sigma}_h)
        \, \mathbf{V}_h^\top

    Args:
        kernel (Kernel): The kernel: :obj:`kernel(query, key).dense()` are the scores.
        query (torch.Tensor): The queries.
        key (torch.Tensor): The keys.
        max_nodes (int, optional): The largest sample, see :func:`gram_matrix`.
            (default: :obj:`256`)
        seed (int, optional): The seed of the sample. (default: :obj:`0`)

    Shapes:
        - **query:** :math:`(N, H, D)`, **key:** :math:`(M, H, D)`
        - **output:** :math:`(H, \min(N, M, n))`, decreasing

    Raises:
        NotImplementedError: If the kernel can be negative.

    Example:
        >>> import torch
        >>> from kgat.diagnostics import gram_spectrum
        >>> from kgat.kernels import RBF
        >>> x = torch.tensor([[[0.0]], [[1.0]]])
        >>> gram_spectrum(RBF(1), x, x).detach()
        tensor([[1.0000, 0.2449]], dtype=torch.float64)
    """
    return singular_values(gram_matrix(kernel, query, key, max_nodes, seed))


def singular_values(gram: Tensor) -> Tensor:
    r"""Returns the singular values of a Gram matrix, divided by the largest of each head.

    .. math::
        \sigma_{ih} / \sigma_{1h}, \qquad \mathbf{K}_h = \mathbf{U}_h \, \mathrm{diag}(\boldsymbol{\sigma}_h)
        \, \mathbf{V}_h^\top

    Of a kernel between two domains they play the part of eigenvalues: the matrix need not be square. They are
    0 for a matrix of zeros.

    Args:
        gram (torch.Tensor): The Gram matrix.

    Shapes:
        - **gram:** :math:`(N, M, H)`, **output:** :math:`(H, \min(N, M))`, decreasing

    Raises:
        ValueError: If it is not a matrix for each head.

    Example:
        >>> import torch
        >>> from kgat.diagnostics import singular_values
        >>> singular_values(torch.tensor([[4.0, 0.0], [0.0, 2.0]]).unsqueeze(-1))
        tensor([[1.0000, 0.5000]])
    """
    _expect_matrix(gram)
    values = torch.linalg.svdvals(gram.permute(2, 0, 1))  # [H, n]
    return _share(values, values[:, :1])


def numerical_rank(gram: Tensor, tolerance: float | None = None) -> Tensor:
    r"""Returns how many singular values are above a share of the largest: the features that are needed.

    .. math::
        \lvert \{ i : \sigma_i > \tau \, \sigma_1 \} \rvert

    Args:
        gram (torch.Tensor): The Gram matrix.
        tolerance (float, optional): That share :math:`\tau`; the rounding of the matrix,
            :math:`\max(N, M)` times the precision of its numbers, if :obj:`None`. (default: :obj:`None`)

    Shapes:
        - **gram:** :math:`(N, M, H)`, **output:** :math:`(H,)`

    Raises:
        ValueError: If it is not a matrix for each head.

    Example:
        >>> import torch
        >>> from kgat.diagnostics import numerical_rank
        >>> numerical_rank(torch.ones(3, 4, 1))
        tensor([1])
    """
    return (singular_values(gram) > _tolerance(gram, tolerance)).sum(dim=-1)


def attention_spectrum(alpha: Tensor) -> Tensor:
    r"""Returns the singular values of dense attention matrices, of each head.

    .. math::
        \sigma_{ih}, \qquad \mathbf{A}_h = \mathbf{U}_h \, \mathrm{diag}(\boldsymbol{\sigma}_h) \,
        \mathbf{V}_h^\top

    Those of a :class:`~kgat.nn.PrimalAttention`, which has no such matrix, are its
    :meth:`~kgat.nn.PrimalAttention.singular_values`.

    Args:
        alpha (torch.Tensor): The attention weights, or any other matrix of pairs.

    Shapes:
        - **alpha:** :math:`(*, N, M, H)`, **output:** :math:`(*, H, \min(N, M))`, decreasing

    Raises:
        ValueError: If there are fewer dimensions.

    Example:
        >>> import torch
        >>> from kgat.diagnostics import attention_spectrum
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
        >>> import torch
        >>> from kgat.diagnostics import cumulative_spectrum
        >>> cumulative_spectrum(torch.tensor([3.0, 1.0]))
        tensor([0.7500, 1.0000])
    """
    return _share(singular_values.cumsum(dim=-1), singular_values.sum(dim=-1, keepdim=True))


def effective_rank(singular_values: Tensor) -> Tensor:
    r"""Returns the effective rank of `"The Effective Rank"
    <https://ieeexplore.ieee.org/document/7098875>`_ (Roy and Vetterli, 2007).

    .. math::
        \exp \Bigl( - \sum_i p_i \log p_i \Bigr), \quad p_i = \sigma_i / \sum_j \sigma_j

    It is :math:`r` for :math:`r` equal singular values, one for a single one and 0 for a matrix of zeros.

    Args:
        singular_values (torch.Tensor): Singular values, of any scale.

    Shapes:
        - **singular_values:** :math:`(*, n)`, **output:** :math:`(*)`

    Example:
        >>> import torch
        >>> from kgat.diagnostics import effective_rank
        >>> effective_rank(torch.tensor([[1.0, 1.0, 0.0]]))
        tensor([2.])
    """
    total = singular_values.sum(dim=-1, keepdim=True)
    p = _share(singular_values, total)
    return (-torch.xlogy(p, p)).sum(dim=-1).exp().masked_fill(total.squeeze(-1) == 0, 0.0)


def symmetry_gap(gram: Tensor) -> Tensor:
    r"""Returns how far the Gram matrix is from being symmetric.

    .. math::
        \lVert \mathbf{K} - \mathbf{K}^{\top} \rVert_F / (2 \lVert \mathbf{K} \rVert_F)

    Zero for a symmetric matrix, that of zeros too, and one for an antisymmetric one.

    Args:
        gram (torch.Tensor): The Gram matrix.

    Shapes:
        - **gram:** :math:`(N, N, H)`, **output:** :math:`(H,)`

    Raises:
        ValueError: If the matrix is not square.

    Example:
        >>> import torch
        >>> from kgat.diagnostics import symmetry_gap
        >>> symmetry_gap(torch.tensor([[0.0, 1.0], [-1.0, 0.0]]).unsqueeze(-1))
        tensor([1.])
    """
    _expect_square(gram)
    gap = torch.linalg.vector_norm(gram - gram.transpose(0, 1), dim=(0, 1))
    return _share(gap, 2 * torch.linalg.vector_norm(gram, dim=(0, 1)))


def smallest_eigenvalue(gram: Tensor) -> Tensor:
    r"""Returns the smallest eigenvalue of the symmetric part of a Gram matrix, divided by the one of largest
    absolute value.

    .. math::
        \min_i \lambda_i \Big/ \max_i |\lambda_i|

    with the eigenvalues of :math:`(\mathbf{K} + \mathbf{K}^{\top}) / 2`. Negative beyond rounding: the matrix
    is not positive semi-definite. It is 0 for a matrix of zeros.

    Args:
        gram (torch.Tensor): The Gram matrix.

    Shapes:
        - **gram:** :math:`(N, N, H)`, **output:** :math:`(H,)`

    Raises:
        ValueError: If the matrix is not square.

    Example:
        >>> import torch
        >>> from kgat.diagnostics import smallest_eigenvalue
        >>> smallest_eigenvalue(torch.tensor([[2.0, 0.0], [0.0, -1.0]]).unsqueeze(-1))
        tensor([-0.5000])
    """
    values = _eigenvalues(gram)
    return _share(values[:, 0], values.abs().amax(dim=-1))


def negative_mass(gram: Tensor) -> Tensor:
    r"""Returns how far the Gram matrix is from being positive semi-definite.

    .. math::
        \sum_{\lambda_i < 0} |\lambda_i| \, / \, \sum_i |\lambda_i|

    with the eigenvalues of :math:`(\mathbf{K} + \mathbf{K}^{\top}) / 2`. Zero for a positive semi-definite
    matrix, that of zeros too, and one half for a symmetric one without a trace; how asymmetric it is says
    :func:`symmetry_gap`.

    Args:
        gram (torch.Tensor): The Gram matrix.

    Shapes:
        - **gram:** :math:`(N, N, H)`, **output:** :math:`(H,)`

    Raises:
        ValueError: If the matrix is not square.

    Example:
        >>> import torch
        >>> from kgat.diagnostics import negative_mass
        >>> negative_mass(torch.tensor([[1.0, 0.0], [0.0, -3.0]]).unsqueeze(-1))
        tensor([0.7500])
    """
    values = _eigenvalues(gram)
    return _share(-values.clamp(max=0).sum(dim=-1), values.abs().sum(dim=-1))


def inertia(gram: Tensor, centred: bool = False, tolerance: float | None = None) -> Tensor:
    r"""Counts the positive, zero and negative eigenvalues of the symmetric part of a Gram matrix.

    .. math::
        \lvert \{ i : \lambda_i > 0 \} \rvert, \quad \lvert \{ i : \lambda_i = 0 \} \rvert, \quad
        \lvert \{ i : \lambda_i < 0 \} \rvert

    with the eigenvalues of :math:`(\mathbf{K} + \mathbf{K}^{\top}) / 2`.
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

    Raises:
        ValueError: If the matrix is not square.

    Example:
        >>> import torch
        >>> from kgat.diagnostics import inertia
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
    r"""Returns the eigenvalues of attention itself, the smoother whose rows sum to 1, as in `"Transformer
    Dissection" <https://arxiv.org/abs/1908.11775>`_.

    .. math::
        \mathbf{D}^{-1} \mathbf{K}, \qquad D_{ii} = \sum_j K_{ij}

    Of a symmetric positive semi-definite kernel they are real and in :math:`[0, 1]`, because the matrix is
    similar to :math:`\mathbf{D}^{-1/2} \mathbf{K} \mathbf{D}^{-1/2}`; projections of their own for queries
    and keys make negative and complex ones. The largest is 1, that of a constant; the smaller the others, the
    more a layer smooths.

    Args:
        gram (torch.Tensor): The Gram matrix, without negative entries. A row of zeros stays one.

    Shapes:
        - **gram:** :math:`(N, N, H)`, **output:** :math:`(H, N)`, complex, by decreasing real part

    Raises:
        ValueError: If the matrix is not square.

    Example:
        >>> import torch
        >>> from kgat.diagnostics import smoother_spectrum
        >>> smoother_spectrum(torch.tensor([[3.0, 1.0], [1.0, 3.0]]).unsqueeze(-1)).real
        tensor([[1.0000, 0.5000]])
    """
    _expect_square(gram)
    rows = gram.sum(dim=1, keepdim=True)
    values = torch.linalg.eigvals((gram / torch.where(rows == 0, 1.0, rows)).permute(2, 0, 1))  # [H, N]
    return values.gather(-1, values.real.argsort(dim=-1, descending=True))


def _eigenvalues(gram: Tensor) -> Tensor:
    # Of the symmetric part, [H, N], increasing.
    _expect_square(gram)
    return torch.linalg.eigvalsh((gram + gram.transpose(0, 1)).permute(2, 0, 1) / 2)


def _tolerance(gram: Tensor, tolerance: float | None) -> float:
    return max(gram.shape[:2]) * torch.finfo(gram.dtype).eps if tolerance is None else tolerance


def _share(part: Tensor, whole: Tensor) -> Tensor:
    # 0 of nothing: what is known of a matrix of zeros is no NaN.
    return part / whole.masked_fill(whole == 0, 1.0)


def _expect_matrix(gram: Tensor) -> None:
    if gram.dim() != 3:
        raise ValueError(
            f"Expected 'gram' of shape [N, M, H] (got {list(gram.shape)}); heads come last, one is "
            "gram.unsqueeze(-1)"
        )


def _expect_square(gram: Tensor) -> None:
    if gram.dim() != 3 or gram.size(0) != gram.size(1):
        raise ValueError(
            f"Expected 'gram' of shape [N, N, H] (got {list(gram.shape)}); "
            "take the queries and the keys of the same nodes"
        )


def sample(size: int, most: int, seed: int) -> Tensor:
    r"""Returns the numbers of all nodes, or of a seeded sample if they are too many, increasing."""
    if size <= most:
        return torch.arange(size, device="cpu")
    generator = torch.Generator().manual_seed(seed)
    return torch.randperm(size, generator=generator, device="cpu")[:most].sort().values
