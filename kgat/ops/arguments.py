r"""The one place that looks at what a user gives, ahead of every backend.

Shapes, types, devices and layouts are compared here, for all backends alike. Values are not looked at: that
would wait for a device.
"""

from __future__ import annotations

from typing import NoReturn

import torch
from torch import Tensor
from torch_geometric import EdgeIndex

from kgat.names import bare, one_of
from kgat.ops.call import Call
from kgat.ops.graph.adjacency import check_edges
from kgat.ops.precision import HALF
from kgat.ops.require import check_that
from kgat.score.gram import ComposedGram, Gram, HeadsGram, LazyGram, LogitGram, SumGram
from kgat.score.rules import Link, Pair, ScoreRule

FLOWS = ("source_to_target", "target_to_source")
FLOATS = (torch.float32, torch.float64, *HALF)
_OF_PARTS = (SumGram, ComposedGram, HeadsGram)
VARIADIC = 0x04 | 0x08  # of code objects: *args and **kwargs


def check_gram(gram: Gram, device: torch.device) -> tuple[int, int, int]:
    r"""Checks the lifted operands of a kernel against each other; returns :math:`N, M, H`.

    Args:
        gram (Gram): The kernel of all pairs, of any leading dimensions that broadcast.
        device (torch.device): Where the values are.

    Raises:
        ValueError: If operands do not fit together, with their names and shapes.
    """
    if type(gram) is LogitGram and gram.nodes is not None:  # whose operands are yet to be made
        check_tensor("query", gram.nodes[0], device)
        return gram.size
    if isinstance(gram, _OF_PARTS):
        if not gram.parts:
            raise ValueError("Expected a kernel of at least one part (got none); give its parts")
        sizes = [check_gram(part, device) for part in gram.parts]
        if isinstance(gram, HeadsGram):
            of_heads = sum(heads for _, _, heads in sizes)
            sizes = [(targets, sources, of_heads) for targets, sources, _ in sizes]
        for size in sizes:
            if size != sizes[0]:
                raise ValueError(
                    f"Expected parts of a kernel with equal numbers of queries, keys and heads (got "
                    f"{sizes[0]} and {size}); all operands of a kernel are of the same nodes and heads"
                )
        return sizes[0]
    if isinstance(gram, LazyGram):
        _check_sides(gram)
        targets, sources, heads = gram.size
        for i, (query, key, rule) in enumerate(gram.terms):
            check_tensor("query", query, device)
            check_tensor("key", key, device)
            if query.shape[-3:-1] != (targets, heads) or key.shape[-3:-1] != (sources, heads):
                raise ValueError(
                    f"Expected a lifted query of shape [..., N={targets}, H={heads}, R] and a lifted key of "
                    f"shape [..., M={sources}, H={heads}, R] (got {list(query.shape)} and {list(key.shape)} "
                    f"in term {i}); all operands of a kernel are of the same nodes and heads"
                )
            if isinstance(rule, ScoreRule):
                if query.size(-1) != key.size(-1):
                    raise ValueError(
                        f"Expected as many lifted features of the query as of the key (got "
                        f"{list(query.shape)} and {list(key.shape)}); a rule pairs feature r of one with "
                        f"feature r of the other"
                    )
                check_rule(rule, heads, query.size(-1), device)
            elif not callable(rule):
                raise TypeError(
                    f"Expected a rule as a 'ScoreRule' or a function of query and key (got {rule!r}); "
                    f"'ScoreRule()' is the inner product"
                )
        for name, bias, rows in (
            ("query_bias", gram.query_bias, targets),
            ("key_bias", gram.key_bias, sources),
        ):
            if bias is None:
                continue
            check_tensor(name, bias, device)
            if bias.shape[-2:] != (rows, heads):
                raise ValueError(
                    f"Expected '{name}' of shape [..., {rows}, H={heads}] (got {list(bias.shape)}); give one "
                    f"number per node and head"
                )
    return gram.size


def _check_sides(gram: LazyGram) -> None:
    # There are dimensions to count the nodes and heads by: what does not fit is named later on.
    if not gram.terms and (gram.query_bias is None or gram.key_bias is None):
        raise ValueError(
            "Expected a kernel with terms, or with a bias for queries and one for keys (got neither); "
            "its number of nodes and heads is not known otherwise"
        )
    sides = gram.terms[0][:2] if gram.terms else (gram.query_bias, gram.key_bias)
    least = 3 if gram.terms else 2
    for name, x in zip(("query", "key"), sides, strict=True):
        if not isinstance(x, Tensor) or x.dim() < least:
            got = list(x.shape) if isinstance(x, Tensor) else type(x).__name__
            want = "[..., nodes, H, R]" if least == 3 else "[..., nodes, H]"
            raise ValueError(
                f"Expected the {name} side of a kernel as a tensor of shape {want} (got {got}); heads "
                f"come after nodes"
            )


def check_rule(rule: ScoreRule, heads: int, features: int, device: torch.device) -> None:
    r"""Checks the weight and the constants of a rule, which broadcast as :class:`ScoreRule` says.

    Args:
        rule (ScoreRule): The rule.
        heads (int): :math:`H`.
        features (int): :math:`R`.
        device (torch.device): Where the values are.

    Raises:
        ValueError: If one of them does not fit.
    """
    weight = rule.weight
    if isinstance(weight, Tensor):
        check_tensor("weight", weight, device)
        if not broadcasts(weight.shape, (heads, features)):
            raise ValueError(
                f"Expected the 'weight' of a rule as a number, or of a shape that broadcasts to [H={heads}, "
                f"R={features}] (got {list(weight.shape)}); give one number per head and lifted feature"
            )
    elif not isinstance(weight, float | int):
        raise TypeError(
            f"Expected the 'weight' of a rule as a number or a tensor (got {weight!r}); 1.0 changes nothing"
        )
    for name, function, given, kind in (
        ("pair", rule.pair, rule.pair_args, Pair),
        ("link", rule.link, rule.link_args, Link),
    ):
        if type(function) is not kind and not isinstance(function, kind):
            raise TypeError(
                f"Expected the {name} of a rule as a '{kind.__name__}' (got {function!r}); "
                f"'kgat.score.rules' has them, and makes one of a function"
            )
        if given or function.derivative is not None:
            _check_count(name, function, len(given), 2 if kind is Pair else 1)
        for arg in given:
            if isinstance(arg, Tensor):
                check_tensor(f"{name}_args", arg, device)
                if arg.dim() > 1 or not broadcasts(arg.shape, (heads,)):
                    raise ValueError(
                        f"Expected '{name}_args' of a rule as numbers, or tensors of shape [H={heads}] (got "
                        f"{list(arg.shape)}); a constant is the same for all nodes and features of a head"
                    )
            elif not isinstance(arg, float | int):
                raise TypeError(
                    f"Expected '{name}_args' of a rule as numbers or tensors (got {arg!r}); give a tuple of "
                    "them"
                )


def broadcasts(shape: torch.Size, to: tuple[int, ...]) -> bool:
    r"""Returns whether what has one shape can be expanded to another."""
    return len(shape) <= len(to) and all(
        size in (1, wanted) for size, wanted in zip(shape[::-1], to[::-1], strict=False)
    )


def _check_count(name: str, function: Pair | Link, count: int, operands: int) -> None:
    # Compiled code takes what it is given for the arguments in order: one too few would be a 0.
    code = getattr(function.in_scalars, "__code__", None)
    if code is None or code.co_flags & VARIADIC:
        return
    most = code.co_argcount - operands
    least = most - len(function.in_scalars.__defaults__ or ())
    if not least <= count <= most:
        raise ValueError(
            f"Expected {most} '{name}_args', which '{function.name}' takes (got {count}); give a rule the "
            f"constants of its {name}, in order"
        )


def edge_call(
    gram: Gram,
    value: Tensor,
    edge_index: Tensor,
    edge_bias: Tensor | None,
    edge_log_weight: Tensor | None,
    edge_weight: Tensor | None,
    dropout: float,
    base: Tensor | None,
    flow: str,
) -> Call:
    r"""Returns the call of an :func:`kgat.functional.edge_attention`, whose arguments these are.

    Raises:
        ValueError: If one of them does not fit.
        TypeError: If one of them is of a wrong type.
    """
    check_tensor("value", value)
    device = value.device
    targets, sources, heads = check_gram(gram, device)
    check_unbatched(gram)
    if value.dim() != 3 or value.shape[:2] != (sources, heads):
        raise ValueError(
            f"Expected 'value' of shape [M={sources}, H={heads}, C] as the keys have (got "
            f"{list(value.shape)}); give one value per key and head"
        )
    if isinstance(edge_index, EdgeIndex):
        edge_index = edge_index.as_tensor()
    if not isinstance(edge_index, Tensor):
        raise TypeError(
            f"Expected 'edge_index' as a tensor (got {type(edge_index).__name__}); give integers of "
            "shape [2, E]"
        )
    check_edges(edge_index)
    if edge_index.device != device:
        _refuse_place("edge_index", edge_index, device)
    edges = edge_index.size(1)
    if edge_bias is not None:
        check_tensor("edge_bias", edge_bias, device)
        if edge_bias.shape != (edges, heads):
            raise ValueError(
                f"Expected 'edge_bias' of shape [E={edges}, H={heads}] (got {list(edge_bias.shape)}); give "
                f"one number per edge and head"
            )
    edge_log_weight = _per_edge("edge_log_weight", edge_log_weight, edges, heads, device)
    edge_weight = _per_edge("edge_weight", edge_weight, edges, heads, device)
    if base is not None:
        check_tensor("base", base, device)
        shape = (targets, heads, value.size(2))
        if base.shape != (shape if base.dim() == 3 else shape[1:]):
            raise ValueError(
                f"Expected 'base' of shape [N={targets}, H={heads}, C={value.size(2)}] or [H, C] (got "
                f"{list(base.shape)}); it is added to the averages"
            )
    check_dropout(dropout)
    if edge_log_weight is not None:  # NaN is not below infinity either
        check_that((edge_log_weight.detach() < torch.inf).all(), _LOG_WEIGHT)
    target = 1 if one_of("flow", flow, FLOWS) == FLOWS[0] else 0
    of_edges = edge_bias, edge_log_weight, edge_weight
    return Call(gram.up_to_query(), value, edge_index, targets, target, *of_edges, dropout, base)


_LOG_WEIGHT = (
    "Expected 'edge_log_weight' below infinity (got an infinite one, or NaN as the logarithm of a negative "
    "weight); pass weights of any sign as 'edge_weight', which multiplies the normalised weights"
)


def check_dropout(dropout: float) -> None:
    r"""Raises a :class:`ValueError` unless :obj:`dropout` is a probability."""
    if not 0.0 <= dropout <= 1.0:
        raise ValueError(
            f"Expected 'dropout' in [0, 1] (got {dropout}); it is a probability, and 0 drops nothing"
        )


def check_unbatched(gram: Gram) -> None:
    r"""Refuses leading dimensions: the nodes of many graphs are the nodes of one.

    Args:
        gram (Gram): A kernel that :func:`check_gram` has seen.

    Raises:
        ValueError: If there are any.
    """
    if type(gram) is LogitGram and gram.nodes is not None and gram.nodes[0].dim() == 3:
        return
    if isinstance(gram, _OF_PARTS):
        for part in gram.parts:
            check_unbatched(part)
    elif isinstance(gram, LazyGram):
        biases = [b for b in (gram.query_bias, gram.key_bias) if b is not None]
        if any(t.query.dim() != 3 or t.key.dim() != 3 for t in gram.terms) or any(
            b.dim() != 2 for b in biases
        ):
            raise ValueError(
                f"Expected a kernel of nodes without leading dimensions (got {list(gram.batch)}); a batch of "
                f"graphs is one graph of many components, and 'dense_attention' takes batches of sequences"
            )


def _per_edge(name: str, x: Tensor | None, edges: int, heads: int, device: torch.device) -> Tensor | None:
    if x is None:
        return None
    check_tensor(name, x, device)
    given = list(x.shape)
    if x.dim() == 1:
        x = x.unsqueeze(-1)
    if x.dim() != 2 or x.size(0) != edges or x.size(1) not in (1, heads):
        raise ValueError(
            f"Expected '{name}' of shape [E={edges}] or [E={edges}, H={heads}] (got {given}); give one "
            f"number per edge, or per edge and head"
        )
    return x


def check_tensor(name: str, x: Tensor, device: torch.device | None = None) -> None:
    r"""Checks that an operand holds real numbers, densely, where the values are.

    Args:
        name (str): Its name.
        x (torch.Tensor): The operand.
        device (torch.device, optional): Where it has to be. (default: :obj:`None`)

    Raises:
        ValueError: If it does not.
        TypeError: If it is no tensor.
    """
    if not isinstance(x, Tensor):
        raise TypeError(
            f"Expected '{name}' as a tensor (got {type(x).__name__}); make one with 'torch.as_tensor'"
        )
    if x.dtype not in FLOATS:
        raise ValueError(
            f"Expected '{name}' of floating-point numbers (got {bare(x.dtype)}); float16, bfloat16, "
            f"float32 and float64 are known"
        )
    if x.layout != torch.strided or (device is not None and x.device != device):
        _refuse_place(name, x, x.device if device is None else device)


def _refuse_place(name: str, x: Tensor, device: torch.device) -> NoReturn:
    raise ValueError(
        f"Expected '{name}' dense and on {device}, as the values are (got {bare(x.layout)} on "
        f"{x.device}); bring it there with 'to_dense()' and 'to(...)'"
    )
