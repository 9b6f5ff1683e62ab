r"""A transformer that predicts the next token."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import Linear

from kgat.models.decoding import evaluating
from kgat.models.kernel_transformer import KernelTransformer
from kgat.models.pretrained import Pretrained
from kgat.models.token_embedding import TokenEmbedding
from kgat.nn import SegmentMemory
from kgat.nn.numbers import check_whole


class LanguageModel(Pretrained):
    r"""Predicts each token of a sequence from those before it with a causal
    :class:`~kgat.models.KernelTransformer`.

    .. math::
        p(t_{i+1} \mid t_1, \ldots, t_i) = \mathrm{softmax}\big( \mathbf{W} \,
        \mathrm{Transformer}(\mathrm{embed}(t_1, \ldots, t_i))_i + \mathbf{b} \big)

    Args:
        vocab_size (int): Number of tokens :math:`V`.
        embed_dim (int, optional): Channels of a token. (default: :obj:`64`)
        num_heads (int, optional): Number of heads. (default: :obj:`4`)
        num_layers (int, optional): Number of layers. (default: :obj:`2`)
        feedforward_channels (int, optional): As in :class:`~kgat.models.KernelTransformer`.
            (default: :obj:`None`)
        dropout (float, optional): As in :class:`~kgat.models.KernelTransformer`. (default: :obj:`0.1`)
        act (str or Callable, optional): As in :class:`~kgat.models.KernelTransformer`.
            (default: :obj:`"relu"`)
        norm_first (bool, optional): As in :class:`~kgat.models.KernelTransformer`. (default: :obj:`False`)
        tied (bool, optional): Whether :math:`\mathbf{W}` is the embedding, without :math:`\mathbf{b}`.
            (default: :obj:`False`)
        memory (int, optional): How many states of earlier segments of a text each layer sees, as in
            `"Transformer-XL" <https://arxiv.org/abs/1901.02860>`_, where :meth:`empty_memory` is handed
            over with each. (default: :obj:`0`)
        device (torch.device, optional): Where the parameters live. (default: :obj:`None`)
        dtype (torch.dtype, optional): Their type. (default: :obj:`None`)
        **kwargs (optional): Keyword arguments of :class:`~kgat.models.KernelTransformer`: ``attention``,
            ``kernel``, ``position`` and so on.

    Shapes:
        - **tokens:** :math:`(B, N)`, **output:** :math:`(B, N, V)`

    Raises:
        ValueError: If a number is out of range, or an attention cannot see the states of a :obj:`memory`.

    Example:
        >>> import torch
        >>> from kgat.models import LanguageModel
        >>> model = LanguageModel(10, embed_dim=32, kernel="rbf", position="txl")
        >>> tokens = torch.randint(10, (2, 7))
        >>> model(tokens).shape, model.generate(tokens, steps=3).shape
        (torch.Size([2, 7, 10]), torch.Size([2, 10]))
    """

    inner = KernelTransformer
    fixed = ("decoder_layers", "causal")

    def __init__(
        self,
        vocab_size: int,
        embed_dim: int = 64,
        num_heads: int = 4,
        num_layers: int = 2,
        feedforward_channels: int | None = None,
        dropout: float = 0.1,
        act: str | Callable[[Tensor], Tensor] = "relu",
        norm_first: bool = False,
        *,
        tied: bool = False,
        memory: int = 0,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__()
        check_whole(0, memory=memory)
        self.embed = TokenEmbedding(vocab_size, embed_dim)
        self.transformer = KernelTransformer(
            *(embed_dim, num_heads, num_layers, 0, feedforward_channels, dropout, act, norm_first),
            causal=True,
            **kwargs,
        )
        self.memory = memory
        self.empty_memory()  # says what is wrong with the attention
        self.out = None if tied else Linear(embed_dim, vocab_size)
        self.to(device=device, dtype=dtype)

    def forward(
        self,
        tokens: Tensor,
        losses: list[Tensor] | None = None,
        cache: list[Any] | None = None,
        memory: list[SegmentMemory] | None = None,
    ) -> Tensor:
        r"""Returns the logits of the token that follows each token.

        Padding after a sequence needs no mask: no token sees it.

        Args:
            tokens (torch.Tensor): The tokens.
            losses (list of torch.Tensor, optional): Takes the penalties of all attention modules.
                (default: :obj:`None`)
            cache (list, optional): What ``transformer.empty_cache()`` returned, for tokens that follow those
                of earlier calls. (default: :obj:`None`)
            memory (list, optional): What :meth:`empty_memory` returned, for the next segment of each text.
                (default: :obj:`None`)

        Shapes:
            - **tokens:** :math:`(B, N)`, **output:** :math:`(B, N, V)`
        """
        h = self.transformer.encode(self.embed(tokens), losses=losses, cache=cache, memory=memory)
        return self.embed.logits(h) if self.out is None else self.out(h)

    def empty_memory(self) -> list[SegmentMemory] | None:
        r"""Returns an empty memory per layer, to be passed with every segment of a text; :obj:`None` if the
        model has none."""
        return None if self.memory == 0 else self.transformer.empty_memory(self.memory)

    @torch.no_grad()
    def generate(
        self,
        tokens: Tensor,
        steps: int,
        temperature: float = 0.0,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        r"""Goes on with sequences, in evaluation mode.

        Args:
            tokens (torch.Tensor): How the sequences begin, with one token at least.
            steps (int): How many tokens to add.
            temperature (float, optional): Tokens are drawn from the softmax of the logits divided by it; at
                0, the likeliest is taken. (default: :obj:`0.0`)
            generator (torch.Generator, optional): Source of random numbers. (default: :obj:`None`)

        Shapes:
            - **tokens:** :math:`(B, N)`, **output:** :math:`(B, N + \mathrm{steps})`

        Raises:
            ValueError: If there is no token to begin with, or :obj:`steps` or the temperature is negative.
        """
        if tokens.dim() != 2 or tokens.size(1) == 0:
            raise ValueError(
                f"Expected 'tokens' of shape [B, N] with N of at least 1 (got {list(tokens.shape)}); begin "
                f"with a token that says so"
            )
        if not temperature >= 0.0:  # not-a-number neither
            raise ValueError(f"Expected a 'temperature' of at least 0 (got {temperature}); 0 draws nothing")
        check_whole(0, steps=steps)
        with evaluating(self):
            cache, new = self.transformer.empty_cache(), tokens
            for _ in range(steps):
                logits = self(tokens if cache is None else new, cache=cache)[:, -1]
                if temperature == 0.0:
                    new = logits.argmax(dim=-1, keepdim=True)
                else:
                    # Of differences to the largest, in double precision: no temperature is too small.
                    logits = logits.double() - logits.max(dim=-1, keepdim=True).values
                    alpha = (logits / temperature).softmax(dim=-1)
                    new = torch.multinomial(alpha, 1, generator=generator)
                tokens = torch.cat([tokens, new], dim=1)
        return tokens
