r"""Primal-Attention: self-attention as the projections of an asymmetric kernel SVD."""

from __future__ import annotations

import itertools
import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import Linear, Parameter

from kgat import functional, kernels
from kgat.capture import without_autocast
from kgat.kernels import Context, Kernel, KernelLike
from kgat.names import bare, one_of, unusual_arguments
from kgat.nn.called_attention import CalledAttention
from kgat.nn.dtypes import check_input
from kgat.nn.feature_parts import Parts, evenly_spaced, joined, mapped, projected, running_mean
from kgat.nn.nested import check_nested, to_nested, unnested
from kgat.nn.numbers import check_heads, check_number, check_whole
from kgat.nn.same_tokens import same_tokens
from kgat.nn.start import parts
from kgat.score.gram import legible

_NO_WEIGHTS = (
    "need_weights=False (got True); PrimalAttention has no weights of pairs, its matrix is 'gram(query)'"
)
_NO_MASK = (
    "attn_mask=None (got a mask); PrimalAttention looks at no pairs: build it with causal=True to hide later "
    "tokens, pass 'key_padding_mask' for absent ones"
)
_NOT_CAUSAL = "is_causal=False (got True); build the layer with causal=True to hide later tokens"
_NO_CACHE = "PrimalAttention runs whole sequences: pass all tokens so far"


class PrimalAttention(CalledAttention, torch.nn.Module):
    r"""The layer of `"Primal-Attention: Self-attention through Asymmetric Kernel SVD in Primal
    Representation" <https://arxiv.org/abs/2305.19798>`_, called like :class:`torch.nn.MultiheadAttention`.

    .. math::
        \mathbf{e}_{ih} &= (\mathbf{F}_h^\top \mathbf{W}_{e,h})^\top \phi_q(\mathbf{W}_q \mathbf{x}_i)_h \\
        \mathbf{r}_{ih} &= (\mathbf{F}_h^\top \mathbf{W}_{r,h})^\top \phi_k(\mathbf{W}_k \mathbf{x}_i)_h \\
        \mathbf{o}_i &= \mathbf{W}_o \, \big\Vert_h \, (\mathbf{C} \, [\mathbf{e}_{ih}; \mathbf{r}_{ih}] +
        \mathbf{c}) + \mathbf{b}_o

    where :math:`k(\mathbf{q}, \mathbf{k}) = \langle \phi_q(\mathbf{q}), \phi_k(\mathbf{k}) \rangle` is a
    kernel with :math:`P` features and :math:`\mathbf{F}_h \in \mathbb{R}^{n \times P}` holds rows of the
    input, evenly spaced over its tokens: their channels of head :math:`h` as they are, or lifted by
    :math:`\phi_k` where a kernel has more or fewer features than a head has channels. Nothing is normalised
    and no pair of tokens is ever looked at: the cost is :math:`O(N P s)`.

    Where :math:`J` of :func:`~kgat.functional.ksvd_loss` is stationary, :math:`\mathbf{e}, \mathbf{r}` are
    singular vectors times singular values of :math:`\mathbf{K} = \boldsymbol{\Phi}_q \mathbf{F}^\top
    \mathbf{F} \boldsymbol{\Phi}_k^\top`, and :math:`J = 0`. Each call adds

    .. math::
        \eta \, \frac{1}{B} \sum_b J_b^2

    to the list ``losses`` of its caller, who adds up those of all layers, as the paper writes. Its scripts
    take the mean over layers: their :math:`\eta` is to be divided by the number of layers. That :math:`J = 0`
    is necessary for such a decomposition, not sufficient.

    A causal layer takes the features of the running means of queries and of keys, its only mixing of tokens,
    and weights that do not depend on data (:math:`\mathbf{F} = \mathbf{I}`).

    Args:
        embed_dim (int): Channels of the tokens.
        num_heads (int): Number of heads :math:`H`, of :math:`D` = :obj:`embed_dim` :math:`/ H` channels each.
        rank (int, optional): Components :math:`s` per score. More than the kernel has features (:math:`D` of
            them for the cosine) are allowed, but then nothing is of low rank. (default: :obj:`30`)
        bias (bool, optional): Whether the linear maps have biases. (default: :obj:`True`)
        data_dependent (bool, optional): Whether the weights meet the data through :math:`\mathbf{F}`; if
            :obj:`None`, unless :obj:`causal`. (default: :obj:`None`)
        rank_multi (int, optional): Rows of :math:`\mathbf{F}` per component: :math:`n` is
            :obj:`rank` :math:`\cdot` :obj:`rank_multi`. A sequence of fewer tokens repeats some.
            (default: :obj:`10`)
        max_len (int, optional): The length of the longest sequence to expect, if known: :math:`n` is no
            larger. (default: :obj:`None`)
        causal (bool, optional): Whether a token sees only those before it and itself. (default: :obj:`False`)
        kernel (str, type, callable or Kernel, optional): What :func:`kgat.kernels.resolve` takes; it needs
            finite features, each of one token alone. It may be negative: nothing is divided by a sum.
            (default: :obj:`"cosine"`)
        kernel_kwargs (dict, optional): Further arguments of the kernel class. (default: :obj:`None`)
        concat (str, optional): Whether :math:`\mathbf{C}, \mathbf{c}` are :obj:`"shared"` by all heads, as in
            the paper's code, or :obj:`"per_head"`. (default: :obj:`"shared"`)
        ksvd_weight (float, optional): :math:`\eta`. (default: :obj:`0.1`)
        batch_first (bool, optional): Whether tensors are :math:`(B, N, F)` rather than :math:`(N, B, F)`.
            (default: :obj:`True`)
        device (torch.device, optional): Where the parameters live. (default: :obj:`None`)
        dtype (torch.dtype, optional): Their type. (default: :obj:`None`)

    Shapes:
        - **query:** :math:`(B, N, F)`, or :math:`(N, F)` without batch, or a nested tensor;
          **key_padding_mask:** :math:`(B, N)`
        - **output:** as :obj:`query`, and :obj:`None`

    Raises:
        ValueError: If an argument is out of range, :obj:`num_heads` does not divide :obj:`embed_dim`, or
            features of the kernel depend on other tokens.
        NotImplementedError: If the kernel has no finite features.

    Example:
        >>> import torch
        >>> from kgat.nn import PrimalAttention
        >>> attention, losses = PrimalAttention(16, 4, rank=3), []
        >>> out, _ = attention(torch.randn(2, 7, 16), losses=losses)
        >>> out.shape, len(losses)
        (torch.Size([2, 7, 16]), 1)
    """

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        rank: int = 30,
        bias: bool = True,
        *,
        data_dependent: bool | None = None,
        rank_multi: int = 10,
        max_len: int | None = None,
        causal: bool = False,
        kernel: KernelLike = "cosine",
        kernel_kwargs: dict[str, Any] | None = None,
        concat: str = "shared",
        ksvd_weight: float = 0.1,
        batch_first: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        check_whole(rank=rank, rank_multi=rank_multi)
        check_whole(max_len=max_len, optional=True)
        check_heads(embed_dim, num_heads)
        check_number(0.0, ksvd_weight=ksvd_weight)
        if causal and data_dependent:
            raise ValueError(
                "Expected data_dependent=False because causal=True (got True); the rows of the input that "
                "weights depend on would show a token those after it"
            )
        self.embed_dim = embed_dim
        self.num_heads = num_heads
        self.head_dim = embed_dim // num_heads
        self.rank = rank
        self.data_dependent = not causal if data_dependent is None else data_dependent
        self.num_rows = rank * rank_multi if max_len is None else min(max_len, rank * rank_multi)
        self.causal = causal
        self.concat = one_of("concat", concat, ("shared", "per_head"))
        self.ksvd_weight = ksvd_weight
        self.batch_first = batch_first

        self.kernel = kernels.resolve(kernel, self.head_dim, num_heads, **(kernel_kwargs or {}))
        self.num_features = _num_features(self.kernel)
        self.lin_query = Linear(embed_dim, embed_dim, bias=bias)
        self.lin_key = Linear(embed_dim, embed_dim, bias=bias)
        size = self.num_rows if self.data_dependent else self.num_features
        self.weight_e = Parameter(torch.empty(num_heads, size, rank))
        self.weight_r = Parameter(torch.empty(num_heads, size, rank))
        self.lam = Parameter(torch.empty(num_heads, rank))
        maps = 1 if concat == "shared" else num_heads
        self.weight_concat = Parameter(torch.empty(maps, 2 * rank, self.head_dim))
        self.bias_concat: Tensor | None
        self.register_parameter("bias_concat", Parameter(torch.empty(maps, self.head_dim)) if bias else None)
        self.lin_out = Linear(embed_dim, embed_dim, bias=bias)
        # A kernel that is passed in stays what it is: it may have been trained.
        self._reset(with_kernel=not isinstance(kernel, torch.nn.Module))
        self.to(device=device, dtype=dtype)

    # What torch's layers look at, of which this module has but the last.
    in_proj_weight = in_proj_bias = CalledAttention.NO_WEIGHT

    @property
    def out_proj(self) -> Linear:
        r"""The last map, by the name that it has in torch's layer."""
        return self.lin_out

    @property
    def penalised(self) -> bool:
        r"""Whether it adds a penalty to ``losses``."""
        return self.ksvd_weight > 0.0 or self.kernel.penalised

    def reset_parameters(self) -> None:
        r"""Draws all learnable parameters anew, those of a kernel that was passed in, too."""
        self._reset(with_kernel=True)

    def _reset(self, with_kernel: bool) -> None:
        for part in (self.lin_query, self.lin_key, self.lin_out):
            part.reset_parameters()
        if with_kernel:
            self.kernel.reset_parameters()
        # Of the matrix [H, n s]: heads are orthonormal to each other, columns of one head are not.
        torch.nn.init.orthogonal_(self.weight_e)
        torch.nn.init.orthogonal_(self.weight_r)
        torch.nn.init.uniform_(self.lam)
        bound = 1.0 / math.sqrt(2 * self.rank)  # as torch.nn.Linear
        torch.nn.init.uniform_(self.weight_concat, -bound, bound)
        if self.bias_concat is not None:
            torch.nn.init.uniform_(self.bias_concat, -bound, bound)

    def forward(
        self,
        query: Tensor,
        key: Tensor | None = None,
        value: Tensor | None = None,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = False,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
        *,
        losses: list[Tensor] | None = None,
        cache: Any = None,
    ) -> tuple[Tensor, None]:
        r"""Runs the forward pass of the module.

        Args:
            query (torch.Tensor): The tokens.
            key (torch.Tensor, optional): The tokens once more, or :obj:`None`. (default: :obj:`None`)
            value (torch.Tensor, optional): The tokens once more, or :obj:`None`. (default: :obj:`None`)
            key_padding_mask (torch.Tensor, optional): True, or :math:`-\infty` among numbers, where there is
                *no* token. Such places count nowhere; their outputs are the biases alone. Other numbers have
                no score to join. (default: :obj:`None`)
            need_weights (bool, optional): Has to be :obj:`False`: there are no weights of pairs.
                (default: :obj:`False`)
            attn_mask (torch.Tensor, optional): Has to be :obj:`None`: there are no pairs to mask. Beside
                :obj:`is_causal` it is the mask of that order, as in torch's layers. (default: :obj:`None`)
            average_attn_weights (bool, optional): Of weights there are none. (default: :obj:`True`)
            is_causal (bool, optional): A promise that the layer is. (default: :obj:`False`)
            losses (list of torch.Tensor, optional): Takes :math:`\eta \, \mathrm{mean}_b J_b^2`, over the
                items that have tokens, and the penalty of a kernel that has one. (default: :obj:`None`)
            cache (optional): Has to be :obj:`None`: this layer keeps none. (default: :obj:`None`)

        Raises:
            ValueError: If shapes do not fit, or an argument asks for what the layer does not have.
        """
        _check_tokens(query, key=key, value=value)
        masked = attn_mask is not None and not (is_causal and self.causal)
        asked = {_NO_WEIGHTS: need_weights, _NO_MASK: masked, _NOT_CAUSAL: is_causal and not self.causal}
        _refuse(asked | {f"cache=None (got {type(cache).__name__}); {_NO_CACHE}": cache is not None})
        if query.is_nested:
            return self._of_nested(query, key_padding_mask, losses), None
        x, mask = self._tokens(query, key_padding_mask)
        phi_q, phi_k, rows = self._lift(x, mask, losses)
        dtype = phi_q[0][0].dtype
        with without_autocast(x.device):
            weight_e, weight_r = self.weight_e.to(dtype), self.weight_r.to(dtype)
            e, r = projected(phi_q, rows, weight_e), projected(phi_k, rows, weight_r)
            _check_range(self.kernel, [*phi_q, *phi_k], e, r)
            if losses is not None:
                j = functional.ksvd_loss(e, r, self.lam, weight_e, weight_r, mask)
                items = max(1, j.numel()) if mask is None else mask.any(dim=-1).sum().clamp(min=1)
                losses.append(self.ksvd_weight * j.square().sum() / items)
        scores = torch.cat([e, r], dim=-1).to(self.weight_concat.dtype)  # [B, N, H, 2s]
        out = torch.einsum("bnhs,hsd->bnhd", scores, self.weight_concat.expand(self.num_heads, -1, -1))
        if self.bias_concat is not None:
            out = out + self.bias_concat
        out = self.lin_out(out.flatten(-2))
        if query.dim() == 2:
            return out.squeeze(0), None
        return out if self.batch_first else out.transpose(0, 1), None

    def _of_nested(self, query: Tensor, padding: Tensor | None, losses: list[Tensor] | None) -> Tensor:
        check_nested({}, self.batch_first)
        x, padding = unnested("key_padding_mask", query, padding, self.embed_dim)
        return to_nested(self(x, key_padding_mask=padding, losses=losses)[0], query)

    @torch.no_grad()
    def gram(self, query: Tensor, key_padding_mask: Tensor | None = None) -> Tensor:
        r"""Returns the matrix that the layer is a decomposition of, which :meth:`forward` never forms.

        .. math::
            \mathbf{K} = \boldsymbol{\Phi}_q \mathbf{F}^\top \mathbf{F} \boldsymbol{\Phi}_k^\top

        Args:
            query (torch.Tensor): The tokens.
            key_padding_mask (torch.Tensor, optional): True where there is no token; these rows and columns
                are 0. (default: :obj:`None`)

        Shapes:
            - **query:** as in :meth:`forward`, **output:** :math:`(B, N, N, H)`, or :math:`(N, N, H)`
        """
        left, right = self._factors(query, key_padding_mask)
        with without_autocast(left.device):
            gram = torch.einsum("bihp,bjhp->bijh", left, right)
        return gram.squeeze(0) if query.dim() == 2 else gram

    @torch.no_grad()
    def singular_values(self, query: Tensor, key_padding_mask: Tensor | None = None) -> Tensor:
        r"""Returns the singular values of :meth:`gram`, of each head, in :math:`O(N P^2)`; there are no
        others but 0. Their cumulative share is :func:`kgat.diagnostics.cumulative_spectrum`.

        Args:
            query (torch.Tensor): The tokens.
            key_padding_mask (torch.Tensor, optional): True where there is no token. (default: :obj:`None`)

        Shapes:
            - **query:** as in :meth:`forward`
            - **output:** :math:`(B, H, \min(N, P))`, or :math:`(H, \min(N, P))`; decreasing

        Example:
            >>> import torch
            >>> from kgat.nn import PrimalAttention
            >>> PrimalAttention(16, 4, rank=3).singular_values(torch.randn(7, 16)).shape
            torch.Size([4, 4])
        """
        left, right = self._factors(query, key_padding_mask)
        with without_autocast(left.device):
            left, right = (torch.linalg.qr(x.transpose(1, 2), mode="r").R for x in (left, right))
            values = torch.linalg.svdvals(left @ right.transpose(-1, -2))
        return values.squeeze(0) if query.dim() == 2 else values

    def _factors(self, query: Tensor, key_padding_mask: Tensor | None) -> tuple[Tensor, Tensor]:
        # K = left right^T with P columns each: [B, N, H, P].
        *lifted, row_parts = self._lift(*self._tokens(query, key_padding_mask), None)
        phi_q, phi_k = (joined(parts) for parts in lifted)
        if row_parts is None:
            return phi_q, phi_k
        rows = joined(row_parts)
        with without_autocast(query.device):
            square = torch.einsum("bnhp,bnho->bhpo", rows, rows)
            return torch.einsum("bnhp,bhpo->bnho", phi_q, square), phi_k

    def _tokens(self, query: Tensor, key_padding_mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        # The tokens [B, N, F], absent ones cleared, and where there are tokens [B, N].
        if query.dim() not in (2, 3) or query.size(-1) != self.embed_dim:
            raise ValueError(
                f"Expected 'query' of shape [B, N, embed_dim={self.embed_dim}], or [N, {self.embed_dim}] "
                f"without batch (got {list(query.shape)}); build the layer with the channels of its tokens"
            )
        x = query if query.dim() == 2 or self.batch_first else query.transpose(0, 1)
        absent = key_padding_mask
        if absent is not None and absent.is_floating_point():
            absent = absent == -torch.inf  # as torch.nn.TransformerEncoder hands on a bool mask
        if absent is not None and (absent.dtype != torch.bool or absent.shape != x.shape[:-1]):
            raise ValueError(
                f"Expected a bool 'key_padding_mask' of shape {list(x.shape[:-1])} (got "
                f"{bare(absent.dtype)} {list(absent.shape)}); True says that there is no token"
            )
        if query.dim() == 2:
            x, absent = x.unsqueeze(0), None if absent is None else absent.unsqueeze(0)
        return (x, None) if absent is None else (x.masked_fill(absent.unsqueeze(-1), 0.0), ~absent)

    def _lift(
        self, x: Tensor, mask: Tensor | None, losses: list[Tensor] | None
    ) -> tuple[Parts, Parts, Parts | None]:
        # Features of queries and keys [B, N, H, P], 0 for absent tokens, and the rows F [B, n, H, P], or
        # None for F = I.
        heads, tokens = (self.num_heads, self.head_dim), x.size(1)
        check_input("'query'", x, self.lin_query)
        query, key = self.lin_query(x).unflatten(-1, heads), self.lin_key(x).unflatten(-1, heads)
        rows = evenly_spaced(x, mask, self.num_rows).unflatten(-1, heads) if self.data_dependent else None
        with without_autocast(x.device):
            if self.causal:
                query, key = running_mean(query, mask), running_mean(key, mask)
            lifted = rows is not None and self.num_features != self.head_dim
            if lifted and rows is not None:  # in one call with the keys, so that random features are the same
                key = torch.cat([key, rows], dim=1)
            features = self.kernel(query, key, Context(losses=losses)).feature_parts()
            size = sum(part.query.size(-1) for part in features)
            if size != self.num_features:
                raise ValueError(
                    f"Expected {self.num_features} features of the kernel as at construction (got "
                    f"{size}); take one with as many in evaluation as in training"
                )
            phi_q: Parts = [(part.query, part.query_log) for part in features]
            phi_k: Parts = [(part.key, part.key_log) for part in features]
            row_parts: Parts | None = None
            if lifted:
                row_parts = mapped(phi_k, lambda f: f[:, tokens:])
                phi_k = mapped(phi_k, lambda f: f[:, :tokens])
            elif rows is not None:
                row_parts = [(rows.to(phi_q[0][0].dtype), None)]
            if mask is not None:

                def cleared(f: Tensor) -> Tensor:
                    return f.masked_fill(~mask.view(*mask.shape, *[1] * (f.dim() - 2)), 0.0)

                phi_q, phi_k = mapped(phi_q, cleared), mapped(phi_k, cleared)
        return phi_q, phi_k, row_parts

    def extra_repr(self) -> str:
        rows = f", num_rows={self.num_rows}" if self.data_dependent else ""
        others = unusual_arguments(causal=(self.causal, False), concat=(self.concat, "shared"))
        return f"{self.embed_dim}, {self.num_heads}, rank={self.rank}{rows}{others}"


def _check_range(kernel: Kernel, features: Parts, *scores: Tensor) -> None:
    # Looked at where it is free: not on a device that would have to be waited for.
    if scores[0].device.type != "cpu" or not legible() or all(bool(s.isfinite().all()) for s in scores):
        return
    logs = [float(log.detach().amax()) for _, log in features if log is not None and log.numel()]
    if logs and max(logs) > 0.5 * math.log(torch.finfo(scores[0].dtype).max):
        raise ValueError(
            f"Expected features that {bare(scores[0].dtype)} holds, since scores are not normalised (got one "
            f"of exp({max(logs):.3g}) from {kernel!r}); normalise the tokens, or take a kernel of bounded "
            f"features, such as 'cosine' or 'spectral'"
        )


def _refuse(asked: dict[str, bool]) -> None:
    for expected in (expected for expected, is_asked in asked.items() if is_asked):
        raise ValueError(f"Expected {expected}")


def _check_tokens(query: Tensor, **others: Tensor | None) -> None:
    for name, tokens in others.items():
        if tokens is not None and not same_tokens(tokens, query):
            raise ValueError(
                f"Expected '{name}' as 'query' itself or 'None' (got another tensor); PrimalAttention is "
                f"self-attention, use KernelAttention across sequences"
            )


def _num_features(kernel: Kernel) -> int:
    # Asked of one token, which also asks whether there are any.
    for part in parts(kernel):
        if getattr(part, "data_dependent", False):
            raise ValueError(
                f"Expected a kernel whose features are those of one token alone (got "
                f"{type(part).__name__} with data_dependent=True); build it with data_dependent=False"
            )
    state = next(itertools.chain(kernel.parameters(), kernel.buffers()), None)
    like = torch.empty(0) if state is None else state
    with torch.no_grad():
        token = like.new_zeros(1, kernel.heads, kernel.channels)
        return sum(part.query.size(-1) for part in kernel(token, token).feature_parts())
