r"""Kernels of the inner product."""

from __future__ import annotations

import torch
from torch import Tensor

from kgat.kernels.kernel import Kernel, positive
from kgat.score.gram import LazyGram
from kgat.score.rules import LOG_SQUARE, MAX_DEGREE, SIGNED, TRUNCATED_EXP, ScoreRule


class DotProduct(Kernel):
    r"""The exponentiated dot product, as in `"Attention Is All You Need"
    <https://arxiv.org/abs/1706.03762>`_ and, as a kernel between two domains, in `"Transformers are
    Deep Infinite-Dimensional Non-Mercer Binary Kernel Machines"
    <https://arxiv.org/abs/2106.01506>`_.

    .. math::
        \log k(\mathbf{q}, \mathbf{k}) = \mathbf{q}^\top \mathbf{k} / \sqrt{D}

    Use it when attention shall be that of Transformers: a long key attracts everyone. All pairs run in
    PyTorch's fused attention. It is the default on sequences.

    Example:
        >>> import torch
        >>> from kgat.kernels import DotProduct
        >>> DotProduct(4)(torch.ones(1, 1, 4), torch.ones(1, 1, 4)).dense().item()
        2.0
    """

    symmetric = True
    positive_definite = True

    def lift(self, query: Tensor, key: Tensor) -> LazyGram:
        return LazyGram.of(query, key, ScoreRule(weight=self.channels**-0.5))


class Linear(Kernel):
    r"""The plain inner product, as in `"Transformer Dissection"
    <https://arxiv.org/abs/1908.11775>`_.

    .. math::
        k(\mathbf{q}, \mathbf{k}) = \mathbf{q}^\top \mathbf{k}

    It can be negative, so it has no logarithm: the Gram matrix refuses scores and offers features,
    which are the queries and keys themselves. Its square is :class:`Polynomial`.

    Use it when attention is linear in the number of tokens and weights may be negative. It serves
    :class:`~kgat.nn.PrimalAttention`.

    Shapes:
        - **features:** :math:`(*, N, H, D)` and :math:`(*, M, H, D)`

    Raises:
        NotImplementedError: If scores are asked for.

    Example:
        >>> import torch
        >>> from kgat.kernels import Linear
        >>> f, g = Linear(4)(torch.ones(1, 1, 4), -torch.ones(1, 1, 4)).features()
        >>> (f * g).sum().item()
        -4.0
    """

    symmetric = True
    positive_definite = True

    def lift(self, query: Tensor, key: Tensor) -> LazyGram:
        return LazyGram.of(query, key, ScoreRule(link=SIGNED))


class Polynomial(Kernel):
    r"""The quadratic kernel, as in `"Transformer Dissection" <https://arxiv.org/abs/1908.11775>`_
    and, with an offset, in `"Transformers are Deep Infinite-Dimensional Non-Mercer Binary Kernel
    Machines" <https://arxiv.org/abs/2106.01506>`_.

    .. math::
        \log k(\mathbf{q}, \mathbf{k}) = \log \big( (\mathbf{q}^\top \mathbf{k} / \sqrt D + g_h)^2
        + \epsilon \big)

    The learned offset :math:`g_h` is one more feature of the inner product. The kernel is positive
    definite as long as no :math:`g_h` is negative.

    Use it when scores shall grow like a power, not an exponential; opposite vectors are as similar as equal
    ones. Its feature map is exact, of about :math:`D^2 / 2` columns: linear in the number of tokens, for
    narrow heads.

    Args:
        offset (float, optional): Initial :math:`g_h`. (default: :obj:`0.0`)
        eps (float, optional): Floor of the kernel; :math:`1 / \sqrt\epsilon` bounds the slope of
            the score. (default: :obj:`1e-5`)

    Raises:
        ValueError: If :obj:`eps` is not positive.

    Example:
        >>> import torch
        >>> from kgat.kernels import Polynomial
        >>> kernel = Polynomial(4, offset=1.0)
        >>> gram = kernel(torch.ones(1, 1, 4), torch.ones(1, 1, 4))
        >>> round(gram.dense().exp().item(), 3)  # (4 / 2 + 1)^2
        9.0
    """

    symmetric = True
    offset: Tensor

    def __init__(self, channels: int, heads: int = 1, offset: float = 0.0, eps: float = 1e-5) -> None:
        super().__init__(channels, heads)
        self.eps = positive("eps", eps)
        self.learn(offset=offset)

    @property
    def positive_definite(self) -> bool:  # type: ignore[override]
        r"""Whether no head has a negative offset."""
        return bool((self.offset >= 0).all())

    def lift(self, query: Tensor, key: Tensor) -> LazyGram:
        offset = self.offset.to(query.dtype).expand(*query.shape[:-1], 1)
        return LazyGram.of(
            torch.cat([query * self.channels**-0.5, offset], dim=-1),
            torch.cat([key, torch.ones_like(key[..., :1])], dim=-1),
            ScoreRule(link=LOG_SQUARE, link_args=(self.eps,)),
        )


class TruncatedExponential(Kernel):
    r"""The Taylor polynomial of :class:`DotProduct`, a kernel with the first features of its infinite
    feature map, as in `"Transformers are Deep Infinite-Dimensional Non-Mercer Binary Kernel Machines"
    <https://arxiv.org/abs/2106.01506>`_.

    .. math::
        \log k(\mathbf{q}, \mathbf{k}) &= \log \sum_{n=0}^{p} \frac{(\mathbf{q}^\top \mathbf{k} / \sqrt
        D)^n}{n!} = \log \langle \phi(\mathbf{q}), \phi(\mathbf{k}) \rangle \\
        \phi(\mathbf{x})_{\mathbf{i}} &= \prod_c \frac{x_c^{i_c}}{D^{i_c / 4} \sqrt{i_c!}}, \qquad
        i_1 + \dots + i_D \le p

    Of even degree it is positive everywhere, but no more monotone: :math:`k` grows towards both ends. The
    linear route is exact and takes :math:`\binom{D + p}{p}` features; more than 16,384 are refused.

    Use it when dot-product attention shall be exact and linear in the number of tokens, and channels are few.

    Args:
        degree (int, optional): :math:`p`, an even number up to 8. (default: :obj:`2`)

    Shapes:
        - **features:** :math:`(*, N, H, R)` and :math:`(*, M, H, R)` with :math:`R = \binom{D + p}{p}`

    Raises:
        ValueError: If :obj:`degree` is not 2, 4, 6 or 8.
        NotImplementedError: If features are asked for where they are too many.

    Example:
        >>> import torch
        >>> from kgat.kernels import TruncatedExponential
        >>> gram = TruncatedExponential(4)(torch.ones(1, 1, 4), torch.ones(1, 1, 4))
        >>> round(gram.dense().exp().item(), 3)  # 1 + 2 + 2^2 / 2
        5.0
        >>> f, g = gram.features()
        >>> f.shape, round((f * g).sum().item(), 3)
        (torch.Size([1, 1, 15]), 5.0)
    """

    symmetric = True
    positive_definite = True

    def __init__(self, channels: int, heads: int = 1, degree: int = 2) -> None:
        super().__init__(channels, heads)
        if degree not in range(2, MAX_DEGREE + 1, 2):
            raise ValueError(
                f"Expected an even 'degree' from 2 to {MAX_DEGREE} (got {degree}); an odd one is negative "
                f"somewhere, and a higher one is nearly DotProduct"
            )
        self.degree = int(degree)

    def lift(self, query: Tensor, key: Tensor) -> LazyGram:
        scale = self.channels**-0.25  # of both sides, so that their feature maps are one
        q = query * scale
        k = q if key is query else key * scale
        return LazyGram.of(q, k, ScoreRule(link=TRUNCATED_EXP, link_args=(self.degree,)))
