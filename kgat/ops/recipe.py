r"""What fused backends compute, and on what: the contract between them and the op around them.

One pass over the edges of each target, for every head (the head index is left out)

.. math::
    t_e &= \gamma \sum_r w_r \, \mathrm{pair}(q_{ir}, k_{jr}) \; [\, + a_i + b_j \,] \; [\, + c_e \,] \\
    s_e &= \mathrm{link}(t_e) \; [\, + b_j \,] \; [\, + c_e \,] \\
    \mathbf{o}_i &= \sum_e w_e m_e \alpha_e \mathbf{v}_j, \qquad \alpha_e = \exp(s_e - \lambda_i), \qquad
    \lambda_i = \log \sum_e \exp(s_e)

where a recipe says what is in and what joins inside the link. A query bias outside the link would cancel in
the softmax: it is left out. :math:`m` is the dropout mask over :math:`1 - p`.

Backward, with :math:`\mathbf{g} = \partial L / \partial \mathbf{o}`, from what forward saved,
:math:`\mathbf{o}` and :math:`\lambda`:

.. math::
    D_i &= \langle \mathbf{g}_i, \mathbf{o}_i \rangle, \qquad
    \delta_e = \langle \mathbf{g}_i, \mathbf{v}_j \rangle, \qquad
    \dot s_e = \alpha_e (w_e m_e \delta_e - D_i), \qquad \dot t_e = \dot s_e \, \mathrm{link}'(t_e) \\
    \dot{\mathbf{v}}_j &= \sum_e w_e m_e \alpha_e \mathbf{g}_i, \qquad
    \dot w_e = m_e \alpha_e \delta_e \\
    \dot q_{ir} &= \gamma \sum_e \dot t_e w_r \, \partial_1 \mathrm{pair}, \qquad
    \dot k_{jr} = \gamma \sum_e \dot t_e w_r \, \partial_2 \mathrm{pair}, \qquad
    \dot w_r = \gamma \sum_e \dot t_e \, \mathrm{pair}
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from torch import Tensor

from kgat.score.rules import Link, Pair


class BackendError(RuntimeError):
    r"""A backend could not compile what it was given; another one can run it."""


@dataclass(frozen=True)
class Recipe:
    r"""What a backend specialises its code on.

    Args:
        pair (Pair, optional): The pair function; :obj:`None` where the score is made of biases alone, all of
            which then join inside the link. (default: :obj:`None`)
        link (Link): The link function.
        weighted (bool): Whether there is a weight :math:`w_r` per head and feature.
        bias_inside (bool): Whether the edge bias :math:`c` joins inside the link, beside a pair.
    """

    pair: Pair | None
    link: Link
    weighted: bool = False
    bias_inside: bool = False

    @property
    def text(self) -> str:
        r"""The recipe as an op of torch can take it."""
        pair = "" if self.pair is None else self.pair.key
        return f"{pair}|{self.link.key}|{self.weighted:d}|{self.bias_inside:d}"

    @classmethod
    def read(cls, text: str) -> Recipe:
        r"""The recipe that has this :attr:`text`.

        Raises:
            ValueError: If no recipe has it.
        """
        recipe = _READ.get(text)
        if recipe is None:
            recipe = cls._parse(text)
            if "\n" not in text:  # its rules are those of the package, which never go
                _READ[text] = recipe
        return recipe

    @classmethod
    def _parse(cls, text: str) -> Recipe:
        parts = re.split(r"(?<! )\|(?! )", text)  # between spaces it belongs to a rule
        try:
            pair, link, weighted, inside = parts
            flags = [("0", "1").index(flag) == 1 for flag in (weighted, inside)]
            recipe = cls(Pair.of_key(pair) if pair else None, Link.of_key(link), *flags)
            if pair or not any(flags):
                return recipe
        except ValueError:
            pass
        raise ValueError(
            f"Expected a recipe as 'pair|link|weighted|bias_inside', of a compiled pair (or none) and link, "
            f"and two flags that are 0 or 1 (got {text!r}); 'Recipe.text' writes one"
        )

    def __str__(self) -> str:
        pair = "biases" if self.pair is None else f"{self.pair.name}{' weighted' if self.weighted else ''}"
        return f"{self.link.name}({pair}{' + edge bias' if self.bias_inside else ''})"


_READ: dict[str, Recipe] = {}  # by text


@dataclass(frozen=True, eq=False)
class Operands:
    r"""The tensors of a fused pass: contiguous, of one dtype (float32 or float64 scores), on one device.

    Args:
        query (torch.Tensor, optional): :math:`q`.
        key (torch.Tensor, optional): :math:`k`.
        weight (torch.Tensor, optional): :math:`w_r`.
        pair_args (torch.Tensor): Constants of the pair function, per head.
        link_args (torch.Tensor): Constants of the link, per head.
        scale (float): :math:`\gamma`.
        query_bias (torch.Tensor, optional): :math:`a`, only without a pair.
        key_bias (torch.Tensor, optional): :math:`b`.
        edge_bias (torch.Tensor, optional): :math:`c`, in the caller's order of edges.
        edge_weight (torch.Tensor, optional): :math:`w_e`, in the caller's order of edges.
        value (torch.Tensor): :math:`v`; it alone may be of a half type on a GPU.
        dropout (float): :math:`p`.
        base (torch.Tensor, optional): Added to :math:`\mathbf{o}` (by the CPU backend alone); then
            :math:`D_i = \langle \mathbf{g}_i, \mathbf{o}_i - \mathbf{base}_i \rangle`.
        seed (torch.Tensor, optional): One int64 on the device, the key of the dropout mask.

    Shapes:
        - **query:** :math:`(N, H, R)`, **key:** :math:`(M, H, R)`, **weight:** :math:`(H, R)`
        - **pair_args, link_args:** :math:`(n, H)`
        - **query_bias:** :math:`(N, H)`, **key_bias:** :math:`(M, H)`
        - **edge_bias, edge_weight:** :math:`(E, H)`, **value:** :math:`(M, H, C)`
        - **base:** :math:`(N, H, C)` or :math:`(H, C)`
    """

    value: Tensor
    pair_args: Tensor
    link_args: Tensor
    query: Tensor | None = None
    key: Tensor | None = None
    weight: Tensor | None = None
    query_bias: Tensor | None = None
    key_bias: Tensor | None = None
    edge_bias: Tensor | None = None
    edge_weight: Tensor | None = None
    scale: float = 1.0
    dropout: float = 0.0
    seed: Tensor | None = None
    base: Tensor | None = None


@dataclass(frozen=True, eq=False)
class Gradients:
    r"""Gradients of the operands of the same names; :obj:`None` where there is no such operand."""

    value: Tensor
    query: Tensor | None = None
    key: Tensor | None = None
    weight: Tensor | None = None
    query_bias: Tensor | None = None
    key_bias: Tensor | None = None
    edge_bias: Tensor | None = None
    edge_weight: Tensor | None = None
