r"""The contract of a position: how places in a sequence enter attention."""

from __future__ import annotations

import torch
from torch import Tensor

from kgat.arguments import KnowsArguments
from kgat.names import bare
from kgat.score.gram import Gram


class Span:
    r"""A :class:`range` as torch compiles it: of a range, it makes the size a constant, and compiles anew for
    each.

    Args:
        start (int): The first place.
        size (int): The number of places.
        step (int, optional): From one to the next. (default: :obj:`1`)
    """

    def __init__(self, start: int, size: int, step: int = 1) -> None:
        self.start, self.size, self.step = start, size, step

    def __len__(self) -> int:
        return self.size


# Where tokens stand: integers of shape [N], or a range, which says without a look at the device that each
# token stands one behind the other.
Index = Tensor | range | Span


class Position(KnowsArguments):
    r"""How the places of tokens enter kernel attention, as one of the integrations that `"Transformer
    Dissection" <https://arxiv.org/abs/1908.11775>`_ compares.

    .. math::
        \mathrm{score}_{ij} = \log k\big( \mathrm{shift}(\mathbf{q}_i), \mathbf{k}_j \big)
        + \log k_T(t_i, t_j) + b(\mathbf{q}_i, t_i, t_j), \qquad
        \mathbf{q}_i = \mathrm{rotate}\big( \mathbf{W}_q\, \mathrm{add}(\mathbf{x}_i, t_i), t_i \big)

    Each part does nothing unless a position overrides it: :meth:`add` changes the tokens before they are
    projected, :meth:`rotate` queries and keys, :meth:`shift` the queries that meet the keys, :meth:`gram`
    multiplies the kernel by a kernel of places alone, :meth:`bias` adds a score to each pair and
    :meth:`value_bias` a vector to the value of each pair.

    Places are integers of any sign and order: a decoder with a cache gives its one query a place of its
    own, memory stands at negative places. They come as a tensor or as a :class:`range`; the latter lets a
    position rely on consecutive places without asking the device.

    Args:
        embed_dim (int): Width of the tokens :math:`F = H D`.
        num_heads (int, optional): Number of heads :math:`H`. (default: :obj:`1`)

    Shapes:
        - **query_index:** :math:`(N)`, **key_index:** :math:`(M)`
        - **query:** :math:`(*, N, H, D)`, **bias:** :math:`(*, N, M, H)` or :math:`(N, M, H)`

    Raises:
        ValueError: If :obj:`embed_dim` is not a positive multiple of :obj:`num_heads`.

    Example:
        >>> import torch
        >>> from kgat.positions import Position, offsets
        >>> class Recent(Position):
        ...     def bias(self, query, query_index, key_index):
        ...         distance = offsets(query_index, key_index, query.device).abs()
        ...         return -distance.unsqueeze(-1).expand(-1, -1, self.num_heads)
        >>> Recent(8, num_heads=2).bias(torch.zeros(2, 2, 4), range(1, 3), range(3))[..., 0]
        tensor([[-1,  0, -1],
                [-2, -1,  0]])
    """

    # Whether values are made of add()'s result too: v1 of the paper; v2, without, works better there.
    in_values: bool = False

    def __init__(self, embed_dim: int, num_heads: int = 1) -> None:
        super().__init__()
        if num_heads < 1 or embed_dim < 1 or embed_dim % num_heads != 0:
            raise ValueError(
                f"Expected a positive 'embed_dim' divisible by 'num_heads={num_heads}' (got {embed_dim}); "
                f"every head has an equal part of the channels"
            )
        self.embed_dim = embed_dim
        self.num_heads = num_heads
        self.channels = embed_dim // num_heads

    def reset_parameters(self) -> None:
        r"""Draws all learnable parameters anew; a position without any has nothing to do."""

    def add(self, x: Tensor, index: Index) -> Tensor:
        r"""Returns the tokens that queries and keys are projected from.

        Args:
            x (torch.Tensor): Tokens.
            index (torch.Tensor or range): Their places.

        Shapes:
            - **x, output:** :math:`(*, N, F)`, **index:** :math:`(N)`
        """
        return x

    def rotate(self, x: Tensor, index: Index) -> Tensor:
        r"""Returns queries or keys as they look from their places. A cache holds such keys.

        Args:
            x (torch.Tensor): Queries or keys, which may have fewer heads.
            index (torch.Tensor or range): Their places.

        Shapes:
            - **x, output:** :math:`(*, N, H, D)`, **index:** :math:`(N)`
        """
        return x

    def shift(self, query: Tensor) -> Tensor:
        r"""Returns the queries that meet the keys.

        Shapes:
            - **query, output:** :math:`(*, N, H, D)`
        """
        return query

    def gram(self, query_index: Index, key_index: Index, losses: list[Tensor] | None = None) -> Gram | None:
        r"""Returns a kernel on places that multiplies the kernel on tokens, or :obj:`None`.

        Args:
            query_index (torch.Tensor or range): Places of the queries.
            key_index (torch.Tensor or range): Places of the keys.
            losses (list of torch.Tensor, optional): Takes the penalty of a kernel that has one.
                (default: :obj:`None`)

        Shapes:
            - **query_index:** :math:`(N)`, **key_index:** :math:`(M)`
        """
        return None

    def bias(self, query: Tensor, query_index: Index, key_index: Index) -> Tensor | None:
        r"""Returns what is added to the score of each pair, or :obj:`None`.

        Args:
            query (torch.Tensor): Queries, as they were projected and rotated (not shifted).
            query_index (torch.Tensor or range): Their places.
            key_index (torch.Tensor or range): The places of the keys.

        Shapes:
            - **query:** :math:`(*, N, H, D)`, **query_index:** :math:`(N)`, **key_index:** :math:`(M)`
            - **output:** :math:`(*, N, M, H)` or :math:`(N, M, H)`
        """
        return None

    def value_bias(self, query_index: Index, key_index: Index) -> Tensor | None:
        r"""Returns what is added to the value of each pair, or :obj:`None`.

        Shapes:
            - **query_index:** :math:`(N)`, **key_index:** :math:`(M)`, **output:** :math:`(N, M, H, D)`
        """
        return None

    def extra_repr(self) -> str:
        return self._shown("embed_dim", "num_heads")

    def _checked(self, query: Tensor, query_index: Index) -> Tensor:
        # Queries as a score is made of them: at least in single precision.
        shape = (length(query_index), self.num_heads, self.channels)
        if query.dim() < 3 or query.shape[-3:] != shape:
            raise ValueError(
                f"Expected 'query' of shape [..., N={shape[0]}, H={shape[1]}, D={shape[2]}] (got "
                f"{list(query.shape)}); give one place per query"
            )
        return query.to(torch.promote_types(query.dtype, torch.float32))


def consecutive(start: int, size: int, step: int = 1) -> range | Span:
    r"""Returns places one behind the other.

    Args:
        start (int): The first place.
        size (int): The number of places.
        step (int, optional): From one to the next. (default: :obj:`1`)

    Example:
        >>> consecutive(2, 3), consecutive(2, 3, -1)
        (range(2, 5), range(2, -1, -1))
    """
    if torch.compiler.is_compiling():
        return Span(start, size, step)
    return range(start, start + step * size, step)


def are_same(index: Index, other: Index) -> bool:
    r"""Returns whether two are the same places, without a look at the device.

    Args:
        index (torch.Tensor or range): Places.
        other (torch.Tensor or range): Others.

    Example:
        >>> are_same(range(2), range(2)), are_same(range(2), range(1, 3)), are_same(range(2), torch.arange(2))
        (True, False, False)
    """
    if isinstance(index, Tensor) or isinstance(other, Tensor):
        return index is other
    ends = (index.start, index.step, length(index)), (other.start, other.step, length(other))
    return ends[0] == ends[1]


def length(index: Index) -> int:
    r"""Returns how many places there are.

    Example:
        >>> from kgat.positions.position import length
        >>> length(range(2, 5))
        3
    """
    if isinstance(index, Tensor):
        return index.numel()
    return index.size if isinstance(index, Span) else len(index)  # 'len' has no size that varies


def places(index: Index, device: torch.device | str | None = None) -> Tensor:
    r"""Returns places as a tensor.

    Args:
        index (torch.Tensor or range): The places.
        device (torch.device, optional): Where the tensor shall be; as it is, if :obj:`None`.
            (default: :obj:`None`)

    Shapes:
        - **index, output:** :math:`(N)`

    Raises:
        ValueError: If a tensor is not of one dimension, or not of integers.

    Example:
        >>> from kgat.positions.position import places
        >>> places(range(-2, 1))
        tensor([-2, -1,  0])
    """
    if not isinstance(index, Tensor):
        return index.start + index.step * torch.arange(length(index), device=device)
    if index.dim() != 1 or index.is_floating_point() or index.dtype == torch.bool:
        raise ValueError(
            f"Expected places as a range or integers of shape [N] (got {bare(index.dtype)} "
            f"{list(index.shape)}); all sequences of a batch share them"
        )
    return index if device is None else index.to(device)


def offsets(query_index: Index, key_index: Index, device: torch.device | str | None = None) -> Tensor:
    r"""Returns :math:`i - j` of the places of all queries and keys.

    Args:
        query_index (torch.Tensor or range): Places :math:`i` of the queries.
        key_index (torch.Tensor or range): Places :math:`j` of the keys.
        device (torch.device, optional): As in :func:`places`. (default: :obj:`None`)

    Shapes:
        - **query_index:** :math:`(N)`, **key_index:** :math:`(M)`, **output:** :math:`(N, M)`

    Example:
        >>> from kgat.positions import offsets
        >>> offsets(range(2), range(-1, 2))
        tensor([[ 1,  0, -1],
                [ 2,  1,  0]])
    """
    return places(query_index, device).unsqueeze(-1) - places(key_index, device)


def sinusoids(index: Index, channels: int, like: Tensor) -> Tensor:
    r"""Returns the waves of `"Attention Is All You Need" <https://arxiv.org/abs/1706.03762>`_, sines first.

    .. math::
        \mathbf{t}_p = [\sin(p\, \omega_m) ; \cos(p\, \omega_m)], \qquad \omega_m = 10000^{-2 m / F}

    An odd number of channels lacks the last cosine.

    Args:
        index (torch.Tensor or range): Places :math:`p`, of any sign.
        channels (int): Width :math:`F`.
        like (torch.Tensor): Whose device and precision (but single at least) they have.

    Shapes:
        - **index:** :math:`(N)`, **output:** :math:`(N, F)`

    Example:
        >>> import torch
        >>> from kgat.positions import sinusoids
        >>> sinusoids(range(2), 4, torch.empty(0))
        tensor([[0.0000, 0.0000, 1.0000, 1.0000],
                [0.8415, 0.0100, 0.5403, 0.9999]])
    """
    p = places(index, like.device)
    m = torch.arange((channels + 1) // 2, device=like.device, dtype=torch.float64)
    angle = p.unsqueeze(-1) * 10000.0 ** (-2.0 * m / channels)  # far from 0, single precision has no phase
    t = torch.cat([angle.sin(), angle.cos()], dim=-1)[..., :channels]
    return t.to(torch.promote_types(like.dtype, torch.float32))
