r"""Vectors of tokens, and tokens from vectors."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn import Parameter

from kgat.nn.numbers import check_whole


class TokenEmbedding(torch.nn.Module):
    r"""A vector for each token of a vocabulary, as `"Attention Is All You Need"
    <https://arxiv.org/abs/1706.03762>`_ has it.

    .. math::
        \mathbf{x}_i = \sqrt F\, \mathbf{E}_{t_i}, \qquad \mathbf{E}_{vf} \sim \mathcal{N}(0, 1/F)

    so that tokens enter with variance 1, and :math:`\mathbf{E}` can serve as the output map too.

    Args:
        vocab_size (int): Number of tokens :math:`V`.
        embed_dim (int): Channels :math:`F`.
        device (torch.device, optional): Where the parameters live. (default: :obj:`None`)
        dtype (torch.dtype, optional): Their type. (default: :obj:`None`)

    Shapes:
        - **tokens:** :math:`(*)`, **output:** :math:`(*, F)`

    Raises:
        ValueError: If a size is not positive.

    Example:
        >>> import torch
        >>> from kgat.models.token_embedding import TokenEmbedding
        >>> embed = TokenEmbedding(10, 8)
        >>> x = embed(torch.tensor([3, 1]))
        >>> x.shape, embed.logits(x).shape
        (torch.Size([2, 8]), torch.Size([2, 10]))
    """

    def __init__(
        self,
        vocab_size: int,
        embed_dim: int,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        check_whole(vocab_size=vocab_size, embed_dim=embed_dim)
        self.weight = Parameter(torch.empty(vocab_size, embed_dim, device=device, dtype=dtype))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        r"""Draws the vectors anew."""
        torch.nn.init.normal_(self.weight, std=self.weight.size(1) ** -0.5)

    def forward(self, tokens: Tensor) -> Tensor:
        r"""Returns the vectors of tokens.

        Shapes:
            - **tokens:** :math:`(*)`, **output:** :math:`(*, F)`
        """
        return F.embedding(tokens, self.weight) * self.weight.size(1) ** 0.5

    def logits(self, x: Tensor) -> Tensor:
        r"""Returns the inner products of vectors with those of all tokens.

        Shapes:
            - **x:** :math:`(*, F)`, **output:** :math:`(*, V)`
        """
        return F.linear(x, self.weight)

    def extra_repr(self) -> str:
        return f"{self.weight.size(0)}, {self.weight.size(1)}"
