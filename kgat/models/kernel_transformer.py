r"""A transformer whose attention is any module: encoder, decoder or both."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import LayerNorm, ModuleList

from kgat import positions
from kgat.kernels import KernelLike
from kgat.models.pretrained import Pretrained
from kgat.nn import KernelAttention, KernelDecoderLayer, KernelEncoderLayer, SegmentMemory
from kgat.nn.attention import AttentionLike, accepts, is_primal
from kgat.nn.nested import to_nested, unnested
from kgat.nn.numbers import check_probability, check_whole
from kgat.positions import Position, PositionLike
from kgat.positions.position import consecutive

DEFAULTS = {
    "kernel": "dot_product",
    "kernel_kwargs": None,
    "magnitude": None,
    "projections": "separate",
    "method": "auto",
}


class KernelTransformer(Pretrained):
    r"""A transformer with any attention: a stack of :class:`~kgat.nn.KernelEncoderLayer`, and of
    :class:`~kgat.nn.KernelDecoderLayer` where asked for.

    .. math::
        \mathbf{X}^{(0)} = \mathrm{Dropout}(\mathbf{X} + \mathbf{T}), \qquad
        \mathbf{X}^{(l)} = \mathrm{Layer}_l(\mathbf{X}^{(l-1)}), \qquad
        \mathbf{O} = \mathrm{LN}(\mathbf{X}^{(L)})

    with places :math:`\mathbf{T}` for ``position="sum"`` only. With the dot product and without dropout it is
    :class:`torch.nn.Transformer`, number for number. ``attention="primal"`` is the PrimalFormer of
    `"Primal-Attention" <https://arxiv.org/abs/2305.19798>`_, ``attention=["kernel", "primal"]`` its Primal.+,
    ``attention="fourier"`` the FourierFormer of `"Transformer with Fourier Integral Attentions"
    <https://arxiv.org/abs/2206.00206>`_; kernels and positions are those that `"Transformer Dissection"
    <https://arxiv.org/abs/1908.11775>`_ compares.

    Args:
        embed_dim (int, optional): Channels of a token. (default: :obj:`64`)
        num_heads (int, optional): Number of heads :math:`H`. (default: :obj:`4`)
        num_layers (int, optional): Layers of the encoder. (default: :obj:`2`)
        decoder_layers (int, optional): Layers of the decoder. (default: :obj:`0`)
        feedforward_channels (int, optional): Hidden channels of the feed-forward networks; four times
            :obj:`embed_dim` if :obj:`None`. (default: :obj:`None`)
        dropout (float, optional): Dropout of the layers, and where tokens enter. Attention weights may have
            their own: ``attention_kwargs={"dropout": 0.0}``. (default: :obj:`0.1`)
        act (str or Callable, optional): The activation of the feed-forward networks.
            (default: :obj:`"relu"`)
        norm_first (bool, optional): Whether branches are normalised where they begin, not where they end.
            (default: :obj:`False`)
        attention (str, Callable or list, optional): ``"kernel"``, ``"fourier"``, ``"primal"``, the name of a
            kernel, or a factory, see :func:`kgat.nn.attention.resolve`; or a list of one per layer, first
            those of the encoder. (default: :obj:`"kernel"`)
        position (str, Callable, Position or list, optional): How places enter, see
            :func:`kgat.positions.resolve`. ``"sum"`` is added once, where tokens enter; the others are part
            of the attention among the tokens of a sequence, in every layer that takes one. In a list of one
            per layer, each is part of its layer. A :class:`~kgat.positions.Position` that is built already is
            shared. (default: :obj:`None`)
        position_kwargs (dict, optional): Further arguments of the positions. (default: :obj:`None`)
        kernel (str, type, Callable or Kernel, optional): The kernel of every attention that takes one, but
            for :class:`~kgat.nn.PrimalAttention`, whose is a matter of its own (:obj:`attention_kwargs`). A
            kernel that is built already is shared by the layers. (default: :obj:`"dot_product"`)
        kernel_kwargs (dict, optional): Further arguments of the kernel. (default: :obj:`None`)
        magnitude (float or str, optional): As in :class:`~kgat.nn.KernelAttention`. (default: :obj:`None`)
        projections (str, optional): As in :class:`~kgat.nn.KernelAttention`. (default: :obj:`"separate"`)
        method (str, optional): As in :class:`~kgat.nn.KernelAttention`. (default: :obj:`"auto"`)
        attention_kwargs (dict, optional): Further arguments of the attention modules. Each takes those it
            has; one that none has is an error. (default: :obj:`None`)
        cross_attention (str or Callable, optional): What decoder tokens see encoder tokens with; as
            :obj:`attention` of the layer if :obj:`None`, but ``"kernel"`` beside ``"primal"``, which knows a
            single sequence. (default: :obj:`None`)
        cross_position (str, Callable or Position, optional): The position of that attention.
            (default: :obj:`None`)
        causal (bool, optional): Whether tokens of the encoder see no later ones; those of the decoder never
            do. (default: :obj:`False`)
        device (torch.device, optional): Where the parameters live. (default: :obj:`None`)
        dtype (torch.dtype, optional): Their type. (default: :obj:`None`)

    Shapes:
        - **x:** :math:`(B, M, F)`, **y:** :math:`(B, N, F)`, padded or nested
        - **output:** :math:`(B, M, F)`, or :math:`(B, N, F)` with a decoder

    Raises:
        ValueError: If an argument is of no attention module or of a decoder that is not there, or a list has
        not one entry per layer.

    Example:
        >>> import torch
        >>> from kgat import KernelTransformer
        >>> model = KernelTransformer(32, 4, decoder_layers=1, kernel="rbf", position="symmetric")
        >>> model(torch.randn(2, 9, 32), torch.randn(2, 7, 32)).shape
        torch.Size([2, 7, 32])
    """

    def __init__(
        self,
        embed_dim: int = 64,
        num_heads: int = 4,
        num_layers: int = 2,
        decoder_layers: int = 0,
        feedforward_channels: int | None = None,
        dropout: float = 0.1,
        act: str | Callable[[Tensor], Tensor] = "relu",
        norm_first: bool = False,
        *,
        attention: AttentionLike | Sequence[AttentionLike] = "kernel",
        position: PositionLike | Sequence[PositionLike] = None,
        position_kwargs: dict[str, Any] | None = None,
        kernel: KernelLike = "dot_product",
        kernel_kwargs: dict[str, Any] | None = None,
        magnitude: float | str | None = None,
        projections: str = "separate",
        method: str = "auto",
        attention_kwargs: dict[str, Any] | None = None,
        cross_attention: AttentionLike | None = None,
        cross_position: PositionLike = None,
        causal: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        check_whole(num_layers=num_layers, embed_dim=embed_dim, num_heads=num_heads)
        check_whole(0, decoder_layers=decoder_layers)
        check_whole(feedforward_channels=feedforward_channels, optional=True)
        check_probability(dropout=dropout)
        for name, of_decoder in (("cross_attention", cross_attention), ("cross_position", cross_position)):
            if decoder_layers == 0 and of_decoder is not None:
                raise ValueError(
                    f"Expected no {name!r} without a decoder (got {of_decoder!r}); leave it out, or set "
                    f"'decoder_layers'"
                )
        self.embed_dim = embed_dim
        self.num_heads = num_heads
        self.causal = causal
        attentions = _per_layer("attention", attention, num_layers + decoder_layers)
        crosses = [
            cross_attention or ("kernel" if is_primal(own) else own) for own in attentions[num_layers:]
        ]
        resolve = functools.partial(positions.resolve, **(position_kwargs or {}))
        self.position, places = _places(position, attentions, resolve, embed_dim, num_heads)
        options = {"kernel": kernel, "kernel_kwargs": kernel_kwargs, "magnitude": magnitude}
        options |= {"projections": projections, "method": method}
        options = {name: value for name, value in options.items() if value != DEFAULTS[name]}
        further = attention_kwargs or {}
        _check_taken(options, [own for own in (*attentions, *crosses) if not is_primal(own)])
        _check_taken(further, [*attentions, *crosses])
        arguments = functools.partial(_arguments, options, further, resolve)
        hidden = 4 * embed_dim if feedforward_channels is None else feedforward_channels
        sizes = (embed_dim, num_heads, hidden, dropout, act)
        self.dropout = torch.nn.Dropout(dropout)
        layers = [
            {"attention": own, "attention_kwargs": arguments(own, place, causal or i >= num_layers)}
            for i, (own, place) in enumerate(zip(attentions, places, strict=True))
        ]
        self.encoder = ModuleList(
            KernelEncoderLayer(*sizes, norm_first=norm_first, **layer) for layer in layers[:num_layers]
        )
        self.encoder_norm = LayerNorm(embed_dim)
        self.decoder = ModuleList(
            KernelDecoderLayer(
                *sizes,
                norm_first=norm_first,
                cross_attention=cross,
                cross_attention_kwargs=arguments(cross, cross_position, False),
                **layer,
            )
            for layer, cross in zip(layers[num_layers:], crosses, strict=True)
        )
        if decoder_layers > 0:
            self.decoder_norm = LayerNorm(embed_dim)
        self.to(device=device, dtype=dtype)

    def forward(
        self,
        x: Tensor,
        y: Tensor | None = None,
        padding_mask: Tensor | None = None,
        target_padding_mask: Tensor | None = None,
        losses: list[Tensor] | None = None,
    ) -> Tensor:
        r"""Encodes a sequence and, with a decoder, decodes another.

        Args:
            x (torch.Tensor): The tokens of the encoder.
            y (torch.Tensor, optional): The tokens of the decoder. (default: :obj:`None`)
            padding_mask (torch.Tensor, optional): True where :obj:`x` is padding. (default: :obj:`None`)
            target_padding_mask (torch.Tensor, optional): True where :obj:`y` is padding.
                (default: :obj:`None`)
            losses (list of torch.Tensor, optional): Takes the penalties of all attention modules.
                (default: :obj:`None`)

        Shapes:
            - **x:** :math:`(B, M, F)`, **y:** :math:`(B, N, F)`, **padding_mask:** :math:`(B, M)`,
              **target_padding_mask:** :math:`(B, N)`
            - **output:** as :obj:`y`, or as :obj:`x` without

        Raises:
            ValueError: If there is a decoder without tokens, or tokens without a decoder.
        """
        if (y is None) != (len(self.decoder) == 0):
            raise ValueError(
                f"Expected tokens of a decoder iff there is one (got {len(self.decoder)} decoder layers and "
                f"{'none' if y is None else list(y.shape)}); 'encode' runs the encoder alone"
            )
        memory = self.encode(x, padding_mask, losses=losses)
        return memory if y is None else self.decode(y, memory, target_padding_mask, padding_mask, losses)

    def encode(
        self,
        x: Tensor,
        padding_mask: Tensor | None = None,
        causal: bool | None = None,
        losses: list[Tensor] | None = None,
        cache: list[Any] | None = None,
        memory: list[SegmentMemory] | None = None,
    ) -> Tensor:
        r"""Runs the encoder.

        Args:
            x (torch.Tensor): The tokens.
            padding_mask (torch.Tensor, optional): True where a token is padding. (default: :obj:`None`)
            causal (bool, optional): Whether tokens see no later ones; as built if :obj:`None`.
                (default: :obj:`None`)
            losses (list of torch.Tensor, optional): Takes the penalties of all attention modules.
                (default: :obj:`None`)
            cache (list, optional): What :meth:`empty_cache` returned; it remembers earlier tokens, and
                :obj:`x` holds those that follow. (default: :obj:`None`)
            memory (list, optional): What :meth:`empty_memory` returned; :obj:`x` is the next segment of each
                text, whose tokens see the states that it kept of those before. Places that are added to
                tokens begin anew with each segment. (default: :obj:`None`)

        Shapes:
            - **x, output:** :math:`(B, N, F)`, **padding_mask:** :math:`(B, N)`

        Raises:
            ValueError: If there is padding beside a memory.
        """
        if memory is not None and (x.is_nested or padding_mask is not None):
            raise ValueError(
                "Expected segments without padding beside a memory (got some); cut texts into segments of "
                "one length"
            )
        if x.is_nested:
            padded, hidden = unnested("padding_mask", x, padding_mask, self.embed_dim)
            return to_nested(self.encode(padded, hidden, causal, losses, cache), x)
        causal = self.causal if causal is None else causal
        x = self._enter(x, 0 if cache is None else len(cache[0]))
        none = [None] * len(self.encoder)
        for layer, held, kept in zip(self.encoder, cache or none, memory or none, strict=True):
            x = layer(x, None, padding_mask, causal, losses=losses, cache=held, memory=kept)
        return self.encoder_norm(x)

    def decode(
        self,
        y: Tensor,
        memory: Tensor,
        padding_mask: Tensor | None = None,
        memory_padding_mask: Tensor | None = None,
        losses: list[Tensor] | None = None,
        cache: list[Any] | None = None,
    ) -> Tensor:
        r"""Runs the decoder, whose tokens see no later ones.

        Args:
            y (torch.Tensor): The tokens.
            memory (torch.Tensor): What :meth:`encode` returned.
            padding_mask (torch.Tensor, optional): True where a token is padding. (default: :obj:`None`)
            memory_padding_mask (torch.Tensor, optional): True where a token of the encoder is padding.
                (default: :obj:`None`)
            losses (list of torch.Tensor, optional): Takes the penalties of all attention modules.
                (default: :obj:`None`)
            cache (list, optional): As in :meth:`encode`. (default: :obj:`None`)

        Shapes:
            - **y, output:** :math:`(B, N, F)`, **memory:** :math:`(B, M, F)`
            - **padding_mask:** :math:`(B, N)`, **memory_padding_mask:** :math:`(B, M)`
        """
        if memory.is_nested:
            memory, memory_padding_mask = unnested(
                "memory_padding_mask", memory, memory_padding_mask, self.embed_dim
            )
        if y.is_nested:
            padded, hidden = unnested("padding_mask", y, padding_mask, self.embed_dim)
            return to_nested(self.decode(padded, memory, hidden, memory_padding_mask, losses, cache), y)
        y = self._enter(y, 0 if cache is None else len(cache[0][0]))
        for layer, held in zip(self.decoder, cache or [None] * len(self.decoder), strict=True):
            y = layer(
                *(y, memory, None, None, padding_mask, memory_padding_mask, True),
                losses=losses,
                cache=held,
            )
        return self.decoder_norm(y)

    def empty_cache(self) -> list[Any] | None:
        r"""Returns an empty cache per layer, of the decoder if there is one; :obj:`None` if an attention
        module keeps none, so that every step needs all tokens anew."""
        layers = self.decoder if len(self.decoder) else self.encoder
        caches = [layer.empty_cache() for layer in layers]  # type: ignore[operator]
        return None if any(cache is None for cache in caches) else caches

    def empty_memory(self, size: int) -> list[SegmentMemory]:
        r"""Returns an empty memory per layer of the encoder, for a text that comes segment by segment.

        Args:
            size (int): How many states each keeps.

        Raises:
            ValueError: If an attention module cannot see other tokens than those that look, or :obj:`size` is
                negative.
        """
        for layer in self.encoder:
            if not isinstance(layer.self_attn, KernelAttention):
                name = type(layer.self_attn).__name__
                raise ValueError(
                    f"Expected KernelAttention in all layers with a memory (got {name}); build the model "
                    f"with attention='kernel', or the name of a kernel"
                )
        return [SegmentMemory(size) for _ in self.encoder]

    def _enter(self, x: Tensor, start: int) -> Tensor:
        if self.position is not None:
            x = self.position.add(x, consecutive(start, x.size(-2)))
        return self.dropout(x)


def _places(
    position: PositionLike | Sequence[PositionLike],
    attentions: Sequence[AttentionLike],
    resolve: Callable[..., Position | None],
    embed_dim: int,
    num_heads: int,
) -> tuple[Position | None, list[PositionLike]]:
    # What enters where tokens do, and the position of each layer.
    layers = len(attentions)
    if position is None or isinstance(position, (list, tuple)):
        return None, _per_layer("position", position, layers)
    built = resolve(position, embed_dim, num_heads)
    if built is None or isinstance(built, positions.Sum):
        return built, [None] * layers
    takes = [accepts(own, "position") for own in attentions]
    if not any(takes):
        raise ValueError(
            f"Expected an attention that takes a position (got position={position!r} and "
            f"attention={attentions[0]!r}); use position='sum'"
        )
    one: Any = position
    return None, [one if taken else None for taken in takes]


def _arguments(
    options: dict[str, Any],
    further: dict[str, Any],
    resolve: Callable[..., Position | None],
    attention: AttentionLike,
    place: PositionLike,
    causal: bool,
) -> dict[str, Any]:
    # Of all that the model is told, what one attention module takes.
    offered = {**({} if is_primal(attention) else options), **further}
    taken = {name: value for name, value in offered.items() if accepts(attention, name)}
    if causal and accepts(attention, "causal"):
        taken["causal"] = True
    if place is not None:
        taken["position"] = functools.partial(resolve, place)
    return taken


def _check_taken(arguments: Iterable[str], attentions: Sequence[AttentionLike]) -> None:
    for name in arguments:
        if not any(accepts(attention, name) for attention in attentions):
            raise ValueError(
                f"Expected arguments that an attention module of the model has (got {name!r}); leave it out, "
                f"or name an attention that has it, and has it not set"
            )


def _per_layer(name: str, given: Any, layers: int) -> list[Any]:
    if not isinstance(given, (list, tuple)):
        return [given] * layers
    if len(given) != layers:
        raise ValueError(
            f"Expected one '{name}' for each of {layers} layers, those of the encoder first (got "
            f"{len(given)}); give one for all, or as many as there are layers"
        )
    return list(given)
