r"""Kernels whose spectral density is a sampler: implicit, and with heads tied by a copula."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn import Parameter
from torch_geometric.nn.inits import glorot
from torch_geometric.utils import scatter

from kgat.kernels.features import normal
from kgat.kernels.kernel import (
    NOTHING,
    Context,
    Kernel,
    number,
    positive,
    whole,
)
from kgat.kernels.spectral import INITS, concatenated, dot_std, points
from kgat.names import one_of
from kgat.ops.plain import call_linear
from kgat.ops.precision import HALF, at_least_single, score_dtype
from kgat.ops.waves import circle
from kgat.score.gram import LazyGram
from kgat.score.rules import LOG_SQUARE, ScoreRule

EVALUATIONS = ("frozen", "sobol")

# Up to where the numbers of an encoder are taken as they are: |mu| / s_0, |log(sigma / s_0)| and a tie before
# its hyperbolic tangent. A mean grows like a logarithm beyond; the others by no more than 1.
MEAN_RATIO = 10.0
LOG_RATIO = 3.0
TIE = 2.0


class Law(NamedTuple):
    r"""The normal law behind the noise of a head, per channel :math:`c`.

    Args:
        mu (torch.Tensor): :math:`\mu`; half of the noise has :math:`-\mu`.
        sigma (torch.Tensor): :math:`\sigma`.
        tie (torch.Tensor, optional): :math:`t \in (-1, 1)`, how a copula ties a head to those before it.
            (default: :obj:`None`)

    Shapes:
        - each :math:`(H, D)`, or one per graph: :math:`(*, H, D)`
    """

    mu: Tensor
    sigma: Tensor
    tie: Tensor | None = None


class ImplicitSpectral(Kernel):
    r"""The kernel of `"Implicit Kernel Attention" <https://arxiv.org/abs/2006.06147>`_ (there: IKAN), whose
    frequencies are drawn from a learned sampler.

    .. math::
        \log k(\mathbf{q}, \mathbf{k}) &= \log ( \kappa(\mathbf{q}, \mathbf{k})^2 + \epsilon ) \\
        \boldsymbol{\omega}_{b s} &= G_b(\mathbf{z}_s), \quad G_b(-\mathbf{z}) = -G_b(\mathbf{z}), \quad
        b \in \{1, 2\} \\
        \mathbf{z}_s &= \pm \boldsymbol{\mu}_h + \boldsymbol{\sigma}_h \mathbf{e}_s, \quad \mathbf{e}_s \sim
        \mathcal{N}(\mathbf{0}, \mathbf{I})

    with :math:`\kappa` as in :class:`Spectral`. The signs are :math:`+` for half of the draws and :math:`-`
    for the others and the networks :math:`G_b` are odd, so that the spectral law is symmetric and the kernel
    real. :class:`Spectral` learns frequencies; here their *law* is learned, and every step of training sees
    another draw of it. Multiply it with a :class:`Magnitude` for the whole model of the paper.

    Its penalty keeps :math:`\mathbf{z}` near a prior,

    .. math::
        \lambda \sum_{h, c} \mathrm{KL} \big( \mathcal{N}(\mu, \sigma) \,\|\, \mathcal{N}(0, s_0) \big),
        \qquad \mathrm{KL} = \log \frac{s_0}{\sigma} + \frac{\sigma^2 + \mu^2}{2 s_0^2} - \frac{1}{2}

    (the mean over graphs where there are several), and goes to the list ``losses`` of the layer's caller, who
    divides it by the number of training examples, as an evidence lower bound would.

    In evaluation nothing is drawn: frequencies come from noise that is part of the state.

    Use it when the kernel itself is to be learned as a law, of which each step of training sees other draws.
    The penalty holds the law near a prior, where the frequencies of :class:`Spectral` are free.

    Args:
        num_features (int, optional): Number :math:`S` of frequency pairs per head, even; a node has
            :math:`2 S` features (:math:`4 S` if :obj:`concat`). (default: :obj:`16`)
        data_dependent (bool, optional): Whether a network computes :math:`\boldsymbol{\mu}` and
            :math:`\boldsymbol{\sigma}` from the mean query and the mean key of a graph; they are free
            parameters of the layer otherwise. A layer on several graphs then needs their :obj:`batch`.
            Features of any scale leave the law finite: what the network says beyond
            :math:`|\mu| = 10 s_0` counts by its logarithm, :math:`|\log(\sigma / s_0)|` is at most 4, and
            straight up to 3. (default: :obj:`False`)
        stationary (bool, optional): Ties :math:`\boldsymbol{\omega}_1 = \boldsymbol{\omega}_2`, which makes
            the kernel translation invariant, for a law that does not depend on data.
            (default: :obj:`False`)
        concat (bool, optional): Compares a learned prototype with the concatenated pair, as
            :class:`SpectralConcat` does, the form that is closest to GAT. (default: :obj:`False`)
        init (str, optional): :obj:`"dot"` adds a linear map to each network that makes the kernel start near
            the RBF inside dot-product attention; :obj:`"official"` is the released code's network alone,
            which starts nearly constant. (default: :obj:`"dot"`)
        eps (float, optional): Floor of the kernel: it bounds the range of the score below by
            :math:`\log \epsilon`. (default: :obj:`1e-5`)
        prior_scale (float, optional): :math:`s_0`, a standard deviation. (default: :obj:`0.1`)
        kl_weight (float, optional): :math:`\lambda`. (default: :obj:`0.1`)
        evaluation (str, optional): The noise of evaluation: :obj:`"frozen"` is one random draw,
            :obj:`"sobol"` scrambled quasi-Monte-Carlo points. (default: :obj:`"frozen"`)
        draws (int, optional): How many draws evaluation averages :math:`\kappa` over; it has that many times
            more features. (default: :obj:`1`)

    Raises:
        ValueError: If :obj:`num_features` is odd or not positive, another number not positive, a weight
            negative, or a name unknown.

    Example:
        >>> import torch
        >>> from kgat.kernels import Context, ImplicitSpectral
        >>> kernel, losses = ImplicitSpectral(4, heads=2), []
        >>> gram = kernel(torch.randn(3, 2, 4), torch.randn(5, 2, 4), Context(losses=losses))
        >>> gram.dense().shape, len(losses)
        (torch.Size([3, 5, 2]), 1)
    """

    penalised = True
    noise: Tensor

    def __init__(
        self,
        channels: int,
        heads: int = 1,
        num_features: int = 16,
        data_dependent: bool = False,
        stationary: bool = False,
        concat: bool = False,
        init: str = "dot",
        eps: float = 1e-5,
        prior_scale: float = 0.1,
        kl_weight: float = 0.1,
        evaluation: str = "frozen",
        draws: int = 1,
    ) -> None:
        super().__init__(channels, heads)
        if number("num_features", num_features, 2**31) < 2 or num_features % 2 != 0:
            raise ValueError(
                f"Expected an even, positive 'num_features' (got {num_features}); half of the draws mirror "
                f"the law of the others"
            )
        if not number("kl_weight", kl_weight) >= 0.0:
            raise ValueError(
                f"Expected a 'kl_weight' of at least 0 (got {kl_weight}); 0 leaves the law without a prior"
            )
        self.num_features = int(num_features)
        self.data_dependent = data_dependent
        self.stationary = stationary
        self.concat = concat
        self.init = one_of("init", init, INITS)
        self.eps = positive("eps", eps)
        self.prior_scale = positive("prior_scale", prior_scale, squared=True)
        self.kl_weight = kl_weight
        self.evaluation = one_of("evaluation", evaluation, EVALUATIONS)
        self.draws = whole("draws", draws)
        # Of one vector with itself; a prototype is compared with pairs.
        self.symmetric = self.positive_definite = not concat
        # A law of the data moves with them.
        self.translation_invariant = stationary and not concat and not data_dependent

        width = 2 * channels if concat else channels
        if data_dependent:
            self.encoder = _Encoder(2 * channels, width, self._outputs)
        else:
            self.law_parameters = Parameter(torch.empty(self._outputs, heads, width))
        # The standard deviation of frequencies is that of z times the linear map.
        skip = dot_std(width) / prior_scale if init == "dot" else 0.0
        self.generators = torch.nn.ModuleList(_Generator(width, skip) for _ in range(1 if stationary else 2))
        if concat:
            self.att = Parameter(torch.empty(heads, width))
        else:
            self.register_parameter("att", None)
        self.register_buffer("noise", torch.empty(self.draws, heads, self.num_features, width))
        self.reset_parameters()

    @property
    def _outputs(self) -> int:
        # What the encoder puts out, or the free parameters hold: mean and logarithm of sigma / s_0.
        return 2

    def reset_parameters(self) -> None:
        if self.data_dependent:
            self.encoder.reset_parameters()
        else:
            self._reset_law()
        for generator in self.generators:
            generator.reset_parameters()  # type: ignore[operator]
        if self.att is not None:
            glorot(self.att)
        self.resample()

    @torch.no_grad()
    def _reset_law(self) -> None:
        mu, log_ratio = self.law_parameters[0], self.law_parameters[1]
        mu.normal_(0.0, 0.1 * self.prior_scale)
        log_ratio.zero_()

    @torch.no_grad()
    def resample(self, generator: torch.Generator | None = None) -> None:
        r"""Draws the noise of evaluation anew."""
        draw = _sobol if self.evaluation == "sobol" else normal
        self.noise.copy_(draw(self.noise, generator))

    def frequencies(
        self, query: Tensor | None = None, key: Tensor | None = None, context: Context = NOTHING
    ) -> tuple[Tensor, ...]:
        r"""Returns :math:`\boldsymbol{\omega}_1` and :math:`\boldsymbol{\omega}_2` (only one where they are
        tied), drawn anew in training.

        Args:
            query (torch.Tensor, optional): Queries, if data-dependent. (default: :obj:`None`)
            key (torch.Tensor, optional): Keys, if data-dependent. (default: :obj:`None`)
            context (Context, optional): The graphs of a batch. (default: :obj:`Context()`)

        Shapes:
            - **output:** each :math:`(*, H, D, S)`, :math:`2D` if :obj:`concat`
        """
        return self._draw(self.law(query, key, context))

    def law(self, query: Tensor | None = None, key: Tensor | None = None, context: Context = NOTHING) -> Law:
        r"""Returns the law behind the noise.

        Args:
            query (torch.Tensor, optional): Queries, if data-dependent. (default: :obj:`None`)
            key (torch.Tensor, optional): Keys, if data-dependent. (default: :obj:`None`)
            context (Context, optional): The graphs of a batch. (default: :obj:`Context()`)

        Raises:
            ValueError: If it depends on data and there are none, or :obj:`batch` does not fit them.
        """
        if not self.data_dependent:
            return self._law(at_least_single(self.law_parameters))
        if context.whole is not None:
            query, key, context = context.whole
        if query is None or key is None:
            raise ValueError(
                f"Expected queries and keys because data_dependent=True (got none); {type(self).__name__} "
                f"computes its spectral law from their means"
            )
        pooled = _pooled(at_least_single(query), at_least_single(key), context)
        weight = getattr(self.encoder.hidden, "weight", None)  # a quantised or wrapped one has none
        if isinstance(weight, Tensor):
            pooled = pooled.to(score_dtype(weight))
        return self._law(self._tamed(self.encoder(pooled)))

    def _tamed(self, outputs: Tensor) -> Tensor:
        # The encoder is linear far from zero, and sigma an exponential of it.
        mean, log_ratio, *ties = outputs
        mean = _slowed(mean, MEAN_RATIO * self.prior_scale)
        return torch.stack([mean, _bounded(log_ratio, LOG_RATIO), *(_bounded(tie, TIE) for tie in ties)])

    def _law(self, outputs: Tensor) -> Law:
        return Law(outputs[0], self.prior_scale * outputs[1].exp())

    def penalty(self, law: Law) -> Tensor:
        r"""Returns the weighted penalty of a law, the mean over graphs.

        Shapes:
            - **output:** :math:`()`
        """
        return self.kl_weight * _mean_of_items(self.divergence(law))

    def divergence(self, law: Law) -> Tensor:
        r"""Returns :math:`\sum_{h, c} \mathrm{KL}(\mathcal{N}(\mu, \sigma) \,\|\, \mathcal{N}(0, s_0))`.

        Shapes:
            - **output:** :math:`(*)`, one per graph
        """
        ratio = law.sigma / self.prior_scale
        kl = -ratio.log() + 0.5 * (ratio.square() + (law.mu / self.prior_scale).square()) - 0.5
        return kl.sum(dim=(-2, -1))

    def lift(self, query: Tensor, key: Tensor, context: Context = NOTHING) -> LazyGram:
        law = self.law(query, key, context)
        if context.losses is not None:
            context.losses.append(self.penalty(law))
        omega = torch.cat(self._draw(law), dim=-1)
        size = omega.size(-1) // len(self.generators)
        graphs = context.graphs if self.data_dependent else (None, None)
        if not self.concat:
            families = len(self.generators)
            f = _points(query, omega, graphs[0], families)
            same = key is query and graphs[0] is graphs[1]
            g = f if same else _points(key, omega, graphs[1], families)
            return LazyGram.of(f, g, ScoreRule(link=LOG_SQUARE, link_args=(self.eps,)))
        prototype = 2.0 * math.pi * torch.einsum("hd,...hds->...hs", self.att.to(omega.dtype), omega)
        # One per graph, beside the nodes of each.
        if graphs[0] is not None:
            prototype = prototype.index_select(0, graphs[0])
        elif prototype.dim() > 2:
            prototype = prototype.unsqueeze(-3)
        return concatenated(
            prototype,
            _points(query, omega[..., : self.channels, :], graphs[0]),
            _points(key, omega[..., self.channels :, :], graphs[1]),
            size=size,
            eps=self.eps,
        )

    def _draw(self, law: Law) -> tuple[Tensor, ...]:
        # [..., H, S, D] -> [..., H, D, S]
        if self.training:
            noise = torch.randn_like(self.noise[0], dtype=law.mu.dtype)
        else:
            noise = self.noise.transpose(0, 1).flatten(1, 2).to(law.mu.dtype)
        noise = self.tied(noise, law)
        sign = noise.new_ones(self.num_features)
        sign[self.num_features // 2 :] = -1.0
        sign = sign.repeat(noise.size(-2) // self.num_features).unsqueeze(-1)
        z = sign * law.mu.unsqueeze(-2) + law.sigma.unsqueeze(-2) * noise
        return tuple(generator(z).transpose(-1, -2) for generator in self.generators)

    def tied(self, noise: Tensor, law: Law) -> Tensor:
        r"""Returns the noise of all heads, which are independent here.

        Shapes:
            - **noise:** :math:`(H, S, D)`, **output:** :math:`(*, H, S, D)`
        """
        return noise


class CopulaSpectral(ImplicitSpectral):
    r"""The kernel of `"Implicit Kernel Attention" <https://arxiv.org/abs/2006.06147>`_ whose heads draw their
    frequencies together (there: MIKAN): a Gaussian copula ties the noise of :class:`ImplicitSpectral`.

    .. math::
        z_{h s c} = \pm \mu_{h c} + \sigma_{h c} \sum_k \tilde L_{c, h k} \, e_{k s c}, \qquad
        \mathbf{L}_c = \mathbf{I} + \mathrm{tril}_{-1}(\mathbf{t}_c \mathbf{t}_c^\top), \quad
        \tilde L_{c, h k} = L_{c, h k} / \sqrt{v_{c h}}, \quad v_{c h} = \textstyle\sum_k L_{c, h k}^2

    with :math:`\mathbf{t}_c \in (-1, 1)^H`. Rows of :math:`\tilde{\mathbf{L}}_c` have length 1, so that
    :math:`\mathbf{R}_c = \tilde{\mathbf{L}}_c \tilde{\mathbf{L}}_c^\top` is the correlation of the heads in
    channel :math:`c` and each head's own law is the one it has without a copula: normal margins with a normal
    copula are correlated normal numbers, with no other function between them. The released code leaves the
    rows as they are and does not sum over :math:`k`, so that its heads are scaled rather than correlated; it
    also cuts noise off at :math:`\pm 2`, which no divergence of normal laws describes.

    Beside :class:`ImplicitSpectral`'s, its penalty has the total correlation,

    .. math::
        \lambda_c \, \mathrm{TC}, \qquad \mathrm{TC} = -\tfrac{1}{2} \sum_c \log \det \mathbf{R}_c
        = \tfrac{1}{2} \sum_{c, h} \log v_{c h}

    which together with it is the divergence of the joint law from independent priors where
    :math:`\lambda_c = \lambda`. A negative weight rewards dependence. With a single head there is nothing to
    tie, and it is :class:`ImplicitSpectral`.

    Use it when heads of :class:`ImplicitSpectral` shall learn how much they agree.

    Args:
        copula_weight (float, optional): :math:`\lambda_c`; the other arguments are those of
            :class:`ImplicitSpectral`, and with :obj:`data_dependent` the network computes :math:`\mathbf{t}`
            too. (default: :obj:`0.01`)

    Raises:
        ValueError: As :class:`ImplicitSpectral`.

    Example:
        >>> import torch
        >>> from kgat.kernels import CopulaSpectral
        >>> kernel = CopulaSpectral(4, heads=3)
        >>> kernel.correlation(kernel.law()).shape  # one matrix of heads per channel
        torch.Size([4, 3, 3])
    """

    def __init__(
        self,
        channels: int,
        heads: int = 1,
        num_features: int = 16,
        data_dependent: bool = False,
        stationary: bool = False,
        concat: bool = False,
        init: str = "dot",
        eps: float = 1e-5,
        prior_scale: float = 0.1,
        kl_weight: float = 0.1,
        copula_weight: float = 0.01,
        evaluation: str = "frozen",
        draws: int = 1,
    ) -> None:
        self.copula_weight = copula_weight
        super().__init__(
            channels,
            heads,
            num_features=num_features,
            data_dependent=data_dependent,
            stationary=stationary,
            concat=concat,
            init=init,
            eps=eps,
            prior_scale=prior_scale,
            kl_weight=kl_weight,
            evaluation=evaluation,
            draws=draws,
        )

    @property
    def _outputs(self) -> int:
        return 3 if self.heads > 1 else 2  # a single head has no tie

    @torch.no_grad()
    def _reset_law(self) -> None:
        super()._reset_law()
        for tie in self.law_parameters[2:]:
            tie.normal_(0.0, 0.5)  # at 0 products of ties have no gradient

    def _law(self, outputs: Tensor) -> Law:
        return Law(*super()._law(outputs)[:2], outputs[2].tanh() if self.heads > 1 else None)

    def penalty(self, law: Law) -> Tensor:
        return super().penalty(law) + self.copula_weight * _mean_of_items(self.total_correlation(law))

    def total_correlation(self, law: Law) -> Tensor:
        r"""Returns :math:`\mathrm{TC} \ge 0`.

        Shapes:
            - **output:** :math:`(*)`, one per graph
        """
        return 0.5 * self._factor(law).square().sum(dim=-1).log().sum(dim=(-2, -1))

    def correlation(self, law: Law) -> Tensor:
        r"""Returns the correlation :math:`\mathbf{R}_c` of the heads, per channel.

        Shapes:
            - **output:** :math:`(*, D, H, H)`, :math:`2D` if :obj:`concat`
        """
        factor = F.normalize(self._factor(law), dim=-1)
        return factor @ factor.transpose(-1, -2)

    def _factor(self, law: Law) -> Tensor:
        t = (torch.zeros_like(law.mu) if law.tie is None else law.tie).transpose(-1, -2)  # [..., D, H]
        eye = torch.eye(self.heads, dtype=t.dtype, device=t.device)
        return eye + (t.unsqueeze(-1) * t.unsqueeze(-2)).tril(-1)

    def tied(self, noise: Tensor, law: Law) -> Tensor:
        r"""Makes independent noise of heads correlated.

        Shapes:
            - **noise:** :math:`(H, S, D)`, **output:** :math:`(*, H, S, D)`
        """
        if law.tie is None:
            return noise
        return torch.einsum("...chk,ksc->...hsc", F.normalize(self._factor(law), dim=-1), noise)


def _reset_linear(lins: Iterable[torch.nn.Module]) -> None:
    for lin in lins:
        torch.nn.init.kaiming_uniform_(lin.weight, a=math.sqrt(5.0))  # type: ignore[arg-type]
        torch.nn.init.zeros_(lin.bias)  # type: ignore[arg-type]


def _mapped(lin: torch.nn.Module, x: Tensor) -> Tensor:
    # Half weights map numbers of single precision in that; no others are looked at any closer, as that takes
    # longer than a call. A quantised module has no weight.
    if getattr(getattr(lin, "weight", None), "dtype", None) in HALF:
        return call_linear(lin, x)  # type: ignore[arg-type]
    return lin(x)  # type: ignore[no-any-return]


class _Generator(torch.nn.Module):
    r"""An odd map of noise, :math:`\mathrm{sign}(\mathbf{z}) \, g(|\mathbf{z}|) + c \, \mathbf{z}`, with a
    network :math:`g` of three layers."""

    skip: Tensor

    def __init__(self, channels: int, skip: float) -> None:
        super().__init__()
        self.initial_skip = skip
        self.lins = torch.nn.ModuleList(torch.nn.Linear(channels, channels) for _ in range(3))
        self.register_buffer("skip", torch.zeros(()))

    def reset_parameters(self) -> None:
        self.skip.fill_(self.initial_skip)
        _reset_linear(self.lins)

    def forward(self, z: Tensor) -> Tensor:
        first, second, third = self.lins
        size = z.abs()
        hidden = F.leaky_relu(_mapped(second, F.leaky_relu(_mapped(first, size), 0.2)), 0.2)
        g = _mapped(third, hidden)
        return z.sign() * g + self.skip.to(z.dtype) * z


class _Encoder(torch.nn.Module):
    r"""From the pooled queries and keys of a head to the numbers of its law."""

    def __init__(self, in_channels: int, channels: int, outputs: int) -> None:
        super().__init__()
        self.hidden = torch.nn.Linear(in_channels, channels)
        self.outputs = torch.nn.ModuleList(torch.nn.Linear(channels, channels) for _ in range(outputs))

    def reset_parameters(self) -> None:
        _reset_linear((self.hidden, *self.outputs))

    def forward(self, x: Tensor) -> Tensor:
        # [..., H, 2D] -> [outputs, ..., H, D]
        hidden = F.leaky_relu(_mapped(self.hidden, x), 0.2)
        return torch.stack([_mapped(lin, hidden) for lin in self.outputs])


def _bounded(x: Tensor, straight: float) -> Tensor:
    # x itself up to a size, then within 1 of it: its slope falls like an inverse square, so that it does not
    # vanish in any precision as that of an exponential tail would.
    inside = x.clamp(-straight, straight)
    return inside + 2.0 / math.pi * (0.5 * math.pi * (x - inside)).atan()


def _slowed(x: Tensor, straight: float) -> Tensor:
    # x itself up to a size, a logarithm beyond.
    inside = x.clamp(-straight, straight)
    return inside + straight * ((x - inside) / straight).asinh()


def _pooled(query: Tensor, key: Tensor, context: Context) -> Tensor:
    # The means over nodes, [..., H, 2D]; those of a graph without nodes are 0.
    of_query, of_key = context.graphs
    if of_query is None or of_key is None:
        means = [_mean(x, present) for x, present in zip((query, key), context.present, strict=True)]
        return torch.cat(means, dim=-1)
    for name, x, graph in (("query", query, of_query), ("key", key, of_key)):
        if x.dim() != 3 or graph.shape != (x.size(0),):
            raise ValueError(
                f"Expected a 'batch' of shape [{x.size(0)}], the graph of each {name} (got "
                f"{list(graph.shape)} for nodes of shape {list(x.shape)}); give each node the number of its "
                f"graph, or none where there is one graph"
            )
    size = max((int(graph.max()) + 1 for graph in (of_query, of_key) if graph.numel() > 0), default=1)
    sides = (query, of_query), (key, of_key)
    return torch.cat([scatter(x, g, dim=0, dim_size=size, reduce="mean") for x, g in sides], dim=-1)


def _mean(x: Tensor, present: Tensor | None) -> Tensor:
    if present is None:
        return x.sum(dim=-3) / max(1, x.size(-3))
    count = present.sum(dim=-1).clamp(min=1).unsqueeze(-1).unsqueeze(-1)
    return x.masked_fill(~present.unsqueeze(-1).unsqueeze(-1), 0.0).sum(dim=-3) / count


def _points(x: Tensor, omega: Tensor, graph: Tensor | None, families: int = 1) -> Tensor:
    if graph is None and omega.dim() == 3:  # the same frequencies for all
        return points(x, omega, families)
    return circle(_angles(x, omega, graph), families)


def _angles(x: Tensor, omega: Tensor, graph: Tensor | None) -> Tensor:
    # [..., N, H, D], [..., H, D, S] -> [..., N, H, S]; the frequencies of each node's graph, if there is one.
    dtype = torch.promote_types(x.dtype, omega.dtype)
    x, omega = x.to(dtype), 2.0 * math.pi * omega.to(dtype)
    if graph is None:
        return torch.einsum("...nhd,...hds->...nhs", x, omega)
    # As a rectangle of graphs and their nodes, which needs no frequencies per node.
    order = graph.argsort(stable=True)
    of_node = graph[order]
    count = graph.bincount(minlength=omega.size(0))
    start = count.cumsum(0) - count
    place = torch.arange(graph.numel(), device=graph.device) - start[of_node]
    width = int(count.max()) if count.numel() else 0
    padded = x.new_zeros(omega.size(0), width, *x.shape[1:]).index_put((of_node, place), x[order])
    angles = torch.einsum("bnhd,bhds->bnhs", padded, omega)[of_node, place]
    return torch.empty_like(angles).index_copy(0, order, angles)


def _mean_of_items(x: Tensor) -> Tensor:
    # Of a batch without graphs, there is no penalty.
    return x.sum() / max(1, x.numel())


def _sobol(like: Tensor, generator: torch.Generator | None = None) -> Tensor:
    # Scrambled Sobol points for each head and channel, through the inverse of the normal distribution.
    draws, heads, size, channels = like.shape
    seed = int(
        torch.randint(2**31, (), generator=generator, device="cpu" if generator is None else generator.device)
    )
    engine = torch.quasirandom.SobolEngine(heads * channels, scramble=True, seed=seed)
    uniform = engine.draw(draws * size, dtype=torch.float64).clamp_(1e-7, 1.0 - 1e-7)
    points = math.sqrt(2.0) * torch.erfinv(2.0 * uniform - 1.0)
    return points.view(draws, size, heads, channels).transpose(1, 2)
