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
:math:`\mathbf{o}` and :math:`\lambda`, in the type of scores and without what is added to it afterwards:
differences :math:`w_e m_e \delta_e - D_i` are lost where :math:`D_i` is rounded more than they are.

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

    @property
    def source(self) -> list[str]:
        r"""Its functions and their derivatives, as text."""
        rules = (self.link,) if self.pair is None else (self.link, self.pair)
        return [function.text for rule in rules for function in (rule.in_scalars, rule.derivative)]  # type: ignore[union-attr]

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
