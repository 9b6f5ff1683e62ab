r"""Attention by the Fourier integral theorem."""

from __future__ import annotations

from typing import Any

from kgat.nn.kernel_attention import KernelAttention


class FourierAttention(KernelAttention):
    r"""The attention of `"Transformer with Fourier Integral Attentions" <https://arxiv.org/abs/2206.00206>`_
    (FourierFormer): :class:`KernelAttention` with :class:`~kgat.kernels.SincProduct`.

    .. math::
        \alpha_{ij} = \frac{\prod_c \mathrm{sinc}(R_c (q_{ic} - k_{jc}))^l}
        {\sum_{j'} \prod_c \mathrm{sinc}(R_c (q_{ic} - k_{j'c}))^l}, \qquad
        \mathrm{sinc}(x) = \frac{\sin x}{x}

    There is no :math:`1 / \sqrt{D}`: :math:`R`, which is learned, is the inverse of a bandwidth. The released
    code multiplies the factors and adds :math:`10^{-6}` to the sum; here both are logarithms, which do not
    underflow, and rows sum to 1.

    Args:
        embed_dim (int): As in :class:`KernelAttention`.
        num_heads (int): As in :class:`KernelAttention`.
        dropout (float, optional): As in :class:`KernelAttention`. (default: :obj:`0.0`)
        power (int, optional): :math:`l`, even; the theorems of the paper want at least 4.
            (default: :obj:`4`)
        inverse_bandwidth (float, optional): Initial :math:`R`. (default: :obj:`2.0`)
        per (str, optional): What owns an :math:`R` of its own: the :obj:`"layer"`, as in the released code,
            each :obj:`"channel"`, or each channel of each :obj:`"head"`. (default: :obj:`"head"`)
        **kwargs (optional): Further arguments of :class:`KernelAttention`.

    Shapes:
        As :class:`KernelAttention`.

    Raises:
        ValueError: If sizes do not fit, or :obj:`power` is not an even number of at least 2.

    Example:
        >>> import torch
        >>> from kgat.nn import FourierAttention
        >>> attention = FourierAttention(16, num_heads=4, per="layer")
        >>> attention(torch.randn(2, 10, 16), need_weights=False)[0].shape
        torch.Size([2, 10, 16])
    """

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        dropout: float = 0.0,
        *,
        power: int = 4,
        inverse_bandwidth: float = 2.0,
        per: str = "head",
        **kwargs: Any,
    ) -> None:
        super().__init__(
            *(embed_dim, num_heads, dropout),
            kernel="sinc_product",
            kernel_kwargs={"power": power, "inverse_bandwidth": inverse_bandwidth, "per": per},
            **kwargs,
        )
