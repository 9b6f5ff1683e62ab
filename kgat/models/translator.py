r"""A transformer that turns one sequence of tokens into another."""

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
from kgat.nn.numbers import check_number, check_whole


class Translator(Pretrained):
    r"""Translates with a :class:`~kgat.models.KernelTransformer` of encoder and decoder.

    .. math::
        p(t_{i+1} \mid t_1, \ldots, t_i, \mathbf{s}) = \mathrm{softmax}\big( \mathbf{W} \,
        \mathrm{Transformer}(\mathrm{embed}(\mathbf{s}), \mathrm{embed}(t_1, \ldots, t_i))_i + \mathbf{b}
        \big)

    Args:
        source_vocab (int): Number of source tokens.
        target_vocab (int): Number of target tokens :math:`V`.
        embed_dim (int, optional): Channels of a token. (default: :obj:`64`)
        num_heads (int, optional): Number of heads. (default: :obj:`4`)
        num_layers (int, optional): Layers of the encoder. (default: :obj:`2`)
        decoder_layers (int, optional): Layers of the decoder; :obj:`num_layers` if :obj:`None`.
            (default: :obj:`None`)
        feedforward_channels (int, optional): As in :class:`~kgat.models.KernelTransformer`.
            (default: :obj:`None`)
        dropout (float, optional): As in :class:`~kgat.models.KernelTransformer`. (default: :obj:`0.1`)
        act (str or Callable, optional): As in :class:`~kgat.models.KernelTransformer`.
            (default: :obj:`"relu"`)
        norm_first (bool, optional): As in :class:`~kgat.models.KernelTransformer`. (default: :obj:`False`)
        tied (bool, optional): Whether :math:`\mathbf{W}` is the embedding of target tokens, without
            :math:`\mathbf{b}`. (default: :obj:`False`)
        device (torch.device, optional): Where the parameters live. (default: :obj:`None`)
        dtype (torch.dtype, optional): Their type. (default: :obj:`None`)
        **kwargs (optional): Keyword arguments of :class:`~kgat.models.KernelTransformer`: ``attention``,
            ``kernel``, ``position``, ``cross_position`` and so on.

    Shapes:
        - **source:** :math:`(B, M)`, **target:** :math:`(B, N)`, **output:** :math:`(B, N, V)`

    Raises:
        ValueError: If a number is out of range: there is at least one layer for the decoder.

    Example:
        >>> import torch
        >>> from kgat.models import Translator
        >>> model = Translator(10, 12, embed_dim=32, kernel="rbf", position="symmetric")
        >>> source = torch.randint(10, (2, 7))
        >>> model(source, torch.randint(12, (2, 5))).shape
        torch.Size([2, 5, 12])
        >>> len(model.translate(source, bos=0, eos=1, max_len=6, beam=3))
        2
    """

    inner = KernelTransformer
    fixed = ("causal",)

    def __init__(
        self,
        source_vocab: int,
        target_vocab: int,
        embed_dim: int = 64,
        num_heads: int = 4,
        num_layers: int = 2,
        decoder_layers: int | None = None,
        feedforward_channels: int | None = None,
        dropout: float = 0.1,
        act: str | Callable[[Tensor], Tensor] = "relu",
        norm_first: bool = False,
        *,
        tied: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__()
        check_whole(source_vocab=source_vocab, target_vocab=target_vocab, num_layers=num_layers)
        decoder_layers = num_layers if decoder_layers is None else decoder_layers
        check_whole(decoder_layers=decoder_layers)
        self.source_embed = TokenEmbedding(source_vocab, embed_dim)
        self.target_embed = TokenEmbedding(target_vocab, embed_dim)
        self.transformer = KernelTransformer(
            *(embed_dim, num_heads, num_layers, decoder_layers),
            *(feedforward_channels, dropout, act, norm_first),
            causal=False,
            **kwargs,
        )
        self.out = None if tied else Linear(embed_dim, target_vocab)
        self.to(device=device, dtype=dtype)

    def forward(
        self,
        source: Tensor,
        target: Tensor,
        source_padding: Tensor | None = None,
        target_padding: Tensor | None = None,
        losses: list[Tensor] | None = None,
    ) -> Tensor:
        r"""Returns the logits of the token that follows each target token.

        Args:
            source (torch.Tensor): The tokens to translate.
            target (torch.Tensor): The translation so far, which begins with a token that says so.
            source_padding (torch.Tensor, optional): True where there is *no* source token.
                (default: :obj:`None`)
            target_padding (torch.Tensor, optional): True where there is *no* target token.
                (default: :obj:`None`)
            losses (list of torch.Tensor, optional): Takes the penalties of all attention modules.
                (default: :obj:`None`)

        Shapes:
            - **source, source_padding:** :math:`(B, M)`, **target, target_padding:** :math:`(B, N)`
            - **output:** :math:`(B, N, V)`
        """
        memory = self._encode(source, source_padding, losses)
        return self._decode(target, memory, target_padding, source_padding, losses, None)

    @torch.no_grad()
    def translate(
        self,
        source: Tensor,
        bos: int,
        eos: int,
        max_len: int,
        source_padding: Tensor | None = None,
        beam: int = 1,
        length_penalty: float = 1.0,
    ) -> list[list[int]]:
        r"""Searches for the likeliest translations, in evaluation mode.

        Of each source, :obj:`beam` translations are followed; each step keeps the likeliest of all ways to go
        on. In the end, that of the largest :math:`\log p(\mathbf{t}) / |\mathbf{t}|^\gamma` is chosen, where
        the length counts :obj:`eos`.

        Args:
            source (torch.Tensor): The tokens to translate.
            bos (int): The token that a translation begins with.
            eos (int): The token that ends it.
            max_len (int): How many tokens to look for, :obj:`eos` among them.
            source_padding (torch.Tensor, optional): True where there is *no* source token.
                (default: :obj:`None`)
            beam (int, optional): How many translations to follow; 1 takes the likeliest token each time.
                (default: :obj:`1`)
            length_penalty (float, optional): :math:`\gamma`; 0 prefers short translations.
                (default: :obj:`1.0`)

        Returns the translations without :obj:`bos` and :obj:`eos`.

        Shapes:
            - **source, source_padding:** :math:`(B, M)`

        Raises:
            ValueError: If :obj:`beam` or :obj:`max_len` is not positive.
        """
        check_whole(beam=beam, max_len=max_len)
        check_number(length_penalty=length_penalty)
        with evaluating(self):
            tokens, length = self._search(source, bos, eos, max_len, source_padding, beam, length_penalty)
        rows = zip(tokens.tolist(), length.tolist(), strict=True)
        found = [row[:size] for row, size in rows]
        return [row[:-1] if row[-1:] == [eos] else row for row in found]

    def _search(
        self,
        source: Tensor,
        bos: int,
        eos: int,
        max_len: int,
        source_padding: Tensor | None,
        beam: int,
        length_penalty: float,
    ) -> tuple[Tensor, Tensor]:
        batch, device = source.size(0), source.device
        memory = self._encode(source, source_padding, None).repeat_interleave(beam, dim=0)
        padding = None if source_padding is None else source_padding.repeat_interleave(beam, dim=0)
        cache = self.transformer.empty_cache()
        first = torch.arange(batch, device=device).unsqueeze(1) * beam  # row of the first beam of each source
        new = tokens = torch.full((batch * beam, 1), bos, device=device)
        # At first all beams are the same: only one of them may go on.
        score = torch.zeros(batch, beam, device=device).index_fill(
            1, torch.arange(1, beam, device=device), -torch.inf
        )
        done = torch.zeros(batch, beam, dtype=torch.bool, device=device)
        length = torch.zeros(batch, beam, dtype=torch.long, device=device)
        for _ in range(max_len):
            logits = self._decode(tokens if cache is None else new, memory, None, padding, None, cache)[:, -1]
            step = logits.float().log_softmax(dim=-1).unflatten(0, (batch, beam))
            vocab = step.size(-1)
            # What has ended goes on with eos, for nothing.
            free = torch.full((vocab,), -torch.inf, device=device).index_fill(
                0, torch.tensor(eos, device=device), 0.0
            )
            step = torch.where(done.unsqueeze(-1), free, step)
            score, best = (score.unsqueeze(-1) + step).flatten(1).topk(beam, dim=1)
            parent, new = best // vocab, (best % vocab).view(-1, 1)
            done, length = done.gather(1, parent), length.gather(1, parent)
            length = length + ~done
            done = done | (new.view(batch, beam) == eos)
            rows = (first + parent).flatten()
            tokens = torch.cat([tokens[rows], new], dim=1)
            if done.all():
                break
            if cache is not None and beam > 1:
                for own, _ in cache:  # of the source, all beams hold the same
                    own.select(rows)
        best = (score / length**length_penalty).argmax(dim=1, keepdim=True)
        return tokens[(first + best).flatten(), 1:], length.gather(1, best).flatten()

    def _encode(self, source: Tensor, padding: Tensor | None, losses: list[Tensor] | None) -> Tensor:
        source = source if padding is None else source.masked_fill(padding, 0)
        return self.transformer.encode(self.source_embed(source), padding, losses=losses)

    def _decode(
        self,
        target: Tensor,
        memory: Tensor,
        padding: Tensor | None,
        source_padding: Tensor | None,
        losses: list[Tensor] | None,
        cache: list[Any] | None,
    ) -> Tensor:
        target = target if padding is None else target.masked_fill(padding, 0)
        h = self.transformer.decode(
            self.target_embed(target), memory, padding, source_padding, losses=losses, cache=cache
        )
        return self.target_embed.logits(h) if self.out is None else self.out(h)
