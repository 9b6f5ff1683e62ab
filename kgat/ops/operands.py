r"""The operands of a fused pass: one table of their names, their shapes and when they are there.

The ops of torch take their arguments in the order of the table, backends take them as one object, and what
anybody gives to the ops is checked against its rows. Compiled loops read through raw pointers: what has
another shape than they take it for is read beyond its end, or read as other numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any, NamedTuple, NoReturn, get_args, get_origin, get_type_hints

import torch
from torch import Tensor

from kgat.names import bare
from kgat.ops.precision import HALF
from kgat.ops.recipe import Recipe

# What a row may be of, by the type of scores.
TYPES: dict[torch.dtype, dict[str, tuple[torch.dtype, ...]]] = {
    score: {
        "score": (score,),
        "value": (score, *HALF) if score == torch.float32 else (score,),
        "float": (score, torch.float32, torch.float64, *HALF),
        "int64": (torch.int64,),
        "index": (torch.int64, torch.int32),
    }
    for score in (torch.float32, torch.float64)
}


class Row(NamedTuple):
    r"""What the table says of one tensor.

    Args:
        shapes (dict): Its shape in symbols, by the number of dimensions.
        type (str): Which of :data:`TYPES`.
        needed (bool): Whether it is always there.
        learned (bool): Whether the backward pass computes its gradient.
        constant (bool): Whether a gradient may not even be asked for.
        when (Callable, optional): Says of a recipe and the operands whether it has to be there or has to be
            absent; otherwise it may be there. (default: :obj:`None`)
    """

    shapes: dict[int, tuple[str, ...]]
    type: str = "score"
    needed: bool = False
    learned: bool = False
    constant: bool = False
    when: Callable[[Recipe, Mapping[str, Tensor | None]], bool] | None = None


def row(*shapes: str, **rest: Any) -> Row:
    r"""Returns a row of the table, for shapes as ``"N H C"``."""
    return Row({len(shape.split()): tuple(shape.split()) for shape in shapes}, **rest)


def _paired(recipe: Recipe, x: Mapping[str, Tensor | None]) -> bool:
    return recipe.pair is not None


def _weighted(recipe: Recipe, x: Mapping[str, Tensor | None]) -> bool:
    return recipe.weighted


def _of_biases(recipe: Recipe, x: Mapping[str, Tensor | None]) -> bool:
    return recipe.pair is None and x["key_bias"] is not None


class Operands(NamedTuple):
    r"""The operands of a fused pass, in the symbols of :mod:`kgat.ops.recipe`.

    Backends get them contiguous, of one type (float32 or float64, that of scores) and on one device; values
    may be of a half type.

    Args:
        value (torch.Tensor): :math:`v`.
        pair_args (torch.Tensor): Two constants of the pair function, per head.
        link_args (torch.Tensor): Two constants of the link, per head.
        query (torch.Tensor, optional): :math:`q`.
        key (torch.Tensor, optional): :math:`k`.
        weight (torch.Tensor, optional): :math:`w_r`.
        query_bias (torch.Tensor, optional): :math:`a`, only without a pair.
        key_bias (torch.Tensor, optional): :math:`b`.
        edge_bias (torch.Tensor, optional): :math:`c`, in the caller's order of edges.
        edge_weight (torch.Tensor, optional): :math:`w_e`, in the caller's order of edges.
        seed (torch.Tensor, optional): The key of the dropout mask.
        scale (float): :math:`\gamma`.
        dropout (float): :math:`p`.
    """

    value: Annotated[Tensor, row("M H C", type="value", needed=True, learned=True)]
    pair_args: Annotated[Tensor, row("2 H", needed=True, constant=True)]
    link_args: Annotated[Tensor, row("2 H", needed=True, constant=True)]
    query: Annotated[Tensor | None, row("N H R", learned=True, when=_paired)] = None
    key: Annotated[Tensor | None, row("M H R", learned=True, when=_paired)] = None
    weight: Annotated[Tensor | None, row("H R", learned=True, when=_weighted)] = None
    query_bias: Annotated[Tensor | None, row("N H", "N H 1", learned=True, when=_of_biases)] = None
    key_bias: Annotated[Tensor | None, row("M H", "M H 1", learned=True)] = None
    edge_bias: Annotated[Tensor | None, row("E H", learned=True)] = None
    edge_weight: Annotated[Tensor | None, row("E H", learned=True)] = None
    seed: Annotated[Tensor | None, row("1", type="int64")] = None
    scale: float = 1.0
    dropout: float = 0.0

    @property
    def dtype(self) -> torch.dtype:
        r"""The type of scores."""
        return self.link_args.dtype

    @property
    def heads(self) -> int:
        r""":math:`H`."""
        return self.value.size(1)

    @property
    def features(self) -> int:
        r""":math:`R`, 0 without a pair."""
        return 0 if self.query is None else self.query.size(2)

    @property
    def channels(self) -> int:
        r""":math:`C`."""
        return self.value.size(2)

    @property
    def learned(self) -> dict[str, Tensor]:
        r"""The operands that there are and that a backward pass computes gradients of, by name."""
        return {name: x for name in LEARNED if (x := getattr(self, name)) is not None}

    def contiguous(self) -> Operands:
        r"""Returns operands that lie in memory as they are read."""
        there: Any = [x for x in self[: len(TABLE)] if x is not None]
        return self if all(map(Tensor.is_contiguous, there)) else self.map(Tensor.contiguous)

    def map(self, function: Callable[[Tensor], Tensor]) -> Operands:
        r"""Applies a function to all tensors that there are."""
        return Operands._make([function(x) if isinstance(x, Tensor) else x for x in self])


_HINTS = get_type_hints(Operands, include_extras=True)
TABLE: dict[str, Row] = {
    name: get_args(hint)[1] for name, hint in _HINTS.items() if get_origin(hint) is Annotated
}
LEARNED = tuple(name for name, known in TABLE.items() if known.learned)
# Of a pass that computes the sums of pairs alone.
OF_SCORES = ("query", "key", "weight", "pair_args")
LEARNED_OF_SCORES = OF_SCORES[:3]
# What backward takes beside the operands, of a pass and of the sums of pairs.
RESULTS = {"grad": row("N H C", type="float"), "out": row("N H C"), "lse": row("N H 2")}
RESULTS_OF_SCORES = {"grad": row("E H")}
_EDGES = row("2 E", type="index")


def schema(names: Iterable[str]) -> str:
    r"""Declares operands as arguments of an op of torch.

    Args:
        names (iterable): Their names.
    """
    return ", ".join(
        f"{'float' if name not in TABLE else 'Tensor' if TABLE[name].needed else 'Tensor?'} {name}"
        for name in names
    )


def check_pass(
    x: Operands,
    edge_index: Tensor,
    recipe: str,
    target: int,
    num_targets: int,
    *results: Tensor,
) -> Recipe:
    r"""Checks the arguments of a fused pass; returns the recipe.

    Args:
        x (Operands): The operands.
        edge_index (torch.Tensor): The edges.
        recipe (str): A :attr:`~kgat.ops.recipe.Recipe.text`.
        target (int): Which row of :obj:`edge_index` holds the targets.
        num_targets (int): :math:`N`.
        *results (torch.Tensor): For the backward pass, those of :data:`RESULTS`.

    Raises:
        ValueError: If one of them does not fit.
    """
    known = _check(dict(zip(TABLE, x, strict=False)), edge_index, recipe, target, num_targets)  # type: ignore[arg-type]
    if not 0.0 <= x.dropout <= 1.0:
        raise ValueError(
            f"Expected 'dropout' in [0, 1] (got {x.dropout}); it is a probability, and 0 drops nothing"
        )
    if x.dropout > 0.0 and x.seed is None:
        raise ValueError(f"Expected a 'seed' with dropout={x.dropout} (got None); give one int64 number, [1]")
    if results:
        sizes: dict[str, int] = {"N": num_targets, "H": x.heads, "C": x.channels, "2": 2}
        for (name, wanted), result in zip(RESULTS.items(), results, strict=True):
            _check_row(name, wanted, result, sizes, x.dtype, edge_index.device)
    return known


def check_score(
    x: Mapping[str, Tensor | None], edge_index: Tensor, recipe: str, target: int, *results: Tensor
) -> Recipe:
    r"""Checks the arguments of the sums of pairs alone; returns the recipe.

    Args:
        x (dict): The operands, :data:`OF_SCORES`.
        edge_index (torch.Tensor): The edges.
        recipe (str): A :attr:`~kgat.ops.recipe.Recipe.text`.
        target (int): Which row of :obj:`edge_index` holds the targets.
        *results (torch.Tensor): For the backward pass, that of :data:`RESULTS_OF_SCORES`.

    Raises:
        ValueError: If one of them does not fit.
    """
    known = _check(x, edge_index, recipe, target)
    query = x["query"]
    if query is None:
        raise ValueError(f"Expected a recipe with a pair (got {recipe!r}); biases have no sum")
    sizes = {"E": edge_index.size(1), "H": query.size(1)}
    for (name, wanted), result in zip(RESULTS_OF_SCORES.items(), results, strict=False):
        _check_row(name, wanted, result, sizes, query.dtype, query.device)
    return known


def _check(
    operands: Mapping[str, Tensor | None],
    edge_index: Tensor,
    recipe: str,
    target: int,
    num_targets: int | None = None,
) -> Recipe:
    known = Recipe.read(recipe)
    scores = operands["pair_args"]
    if edge_index is None or scores is None:  # torch lets None pass for a tensor
        _refuse("edge_index" if edge_index is None else "pair_args", "as a tensor", None)
    device, dtype = edge_index.device, scores.dtype
    if dtype not in TYPES:
        _refuse("pair_args", "of float32 or float64, the type of scores", scores)
    if target not in (0, 1):
        raise ValueError(
            f"Expected 'target' as 0 or 1 (got {target}); give the row of 'edge_index' that holds the targets"
        )
    sizes = {"1": 1, "2": 2}
    _check_row("edge_index", _EDGES, edge_index, sizes, dtype, device)
    if num_targets is not None:
        if num_targets < 0:
            raise ValueError(
                f"Expected 'num_targets' of at least 0 (got {num_targets}); give the number of target nodes"
            )
        sizes["N"] = num_targets
    for name, x in operands.items():
        wanted = TABLE[name]
        there = (wanted.needed or x is not None) if wanted.when is None else wanted.when(known, operands)
        if there is (x is None):
            raise ValueError(
                f"Expected {'a' if x is None else 'no'} '{name}' with the recipe {recipe!r} (got "
                f"{'None' if x is None else list(x.shape)}); 'kgat.ops.recipe' says what a pass takes"
            )
        if x is not None:
            _check_row(name, wanted, x, sizes, dtype, device)
    return known


def _check_row(
    name: str, wanted: Row, x: Tensor, sizes: dict[str, int], dtype: torch.dtype, device: torch.device
) -> None:
    # The first operand that has a symbol in its shape says what it stands for.
    if x is None:
        _refuse(name, "as a tensor", None)
    shape = x.shape
    symbols = wanted.shapes.get(len(shape))
    fits = symbols is not None and (
        tuple(map(sizes.get, symbols)) == shape
        or all(sizes.setdefault(symbol, size) == size for symbol, size in zip(symbols, shape, strict=True))
    )
    if fits and x.dtype in TYPES[dtype][wanted.type] and x.device == device and x.layout is torch.strided:
        if not (wanted.constant and x.requires_grad):
            return
        raise ValueError(
            f"Expected '{name}' that needs no gradient (got one that does); 'kgat.functional.edge_attention' "
            f"differentiates by constants"
        )
    shapes = " or ".join(
        f"[{', '.join(str(sizes.get(symbol, symbol)) for symbol in shape)}]"
        for shape in wanted.shapes.values()
    )
    types = " or ".join(dict.fromkeys(map(bare, TYPES[dtype][wanted.type])))
    _refuse(name, f"of shape {shapes}, {types}, dense, on {device}", x)


def _refuse(name: str, wanted: str, x: Tensor | None) -> NoReturn:
    if x is None:
        raise ValueError(f"Expected '{name}' {wanted} (got None); it is not optional")
    layout = "" if x.layout == torch.strided else f" {bare(x.layout)}"
    raise ValueError(
        f"Expected '{name}' {wanted} (got {list(x.shape)} {bare(x.dtype)}{layout} on {x.device}); "
        f"'kgat.functional.edge_attention' takes operands of all types and brings them there"
    )
