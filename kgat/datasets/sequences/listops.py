r"""ListOps: nested lists of digits with operators, whose value is a digit.

The rule is that of `"Long Range Arena" <https://arxiv.org/abs/2011.04006>`_ after `"ListOps"
<https://arxiv.org/abs/1804.06028>`_, the generator is our own.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from kgat.datasets.sequence_task import Labelled, Padded, SequenceTask
from kgat.datasets.source import SequenceSource
from kgat.datasets.vocabulary import PAD, Words

# Of LRA. A node below the depth is an operator with the probability that its code calls VALUE_P.
MAX_ARGS, MAX_DEPTH, OPERATOR_P = 10, 10, 0.25
OPERATORS: dict[str, Callable[[Sequence[int]], int]] = {
    "[MIN": min,
    "[MAX": max,
    "[MED": lambda values: _median(sorted(values)),
    "[SM": lambda values: sum(values) % 10,
}
END = "]"
TOKENS = (*OPERATORS, END, *map(str, range(10)))


def _median(values: Sequence[int]) -> int:
    half = len(values) // 2
    # Between two middle digits, LRA rounds down.
    return values[half] if len(values) % 2 else (values[half - 1] + values[half]) // 2


def generate(count: int, lengths: tuple[int, int], seed: int = 0) -> list[tuple[str, ...]]:
    r"""Draws different expressions.

    A node is an operator with probability 0.25 and a digit else, at depth 10 always a digit; an operator
    has 2 to 10 arguments. Expressions outside the given lengths are drawn again.

    Args:
        count (int): How many.
        lengths (tuple of int): The fewest and the most tokens, both allowed; LRA has ``(501, 1999)``.
        seed (int, optional): The seed; the same on each machine. (default: :obj:`0`)

    Raises:
        ValueError: If so many expressions of these lengths are not found.

    Example:
        >>> expression = generate(1, (5, 12), seed=1)[0]
        >>> 5 <= len(expression) <= 12, 0 <= evaluate(expression) <= 9
        (True, True)
    """
    least, most = lengths
    if not 1 <= least <= most:
        raise ValueError(f"Expected 'lengths' as (fewest, most) from 1 on (got {lengths}); swap them")
    draw = random.Random(seed).random  # of the module's functions, the only one that never changes
    drawn: dict[tuple[str, ...], None] = {}
    tries = 0
    while len(drawn) < count:
        tokens: list[str] = []
        _extend(tokens, 1, most, draw)
        if least <= len(tokens) <= most:
            drawn[tuple(tokens)] = None
        tries += 1
        if tries > 1000 * count + 100_000:
            raise ValueError(
                f"Expected {count} different expressions of {least} to {most} tokens (found {len(drawn)} in "
                f"{tries - 1} draws); ask for fewer or allow more lengths"
            )
    return list(drawn)


def _extend(tokens: list[str], depth: int, most: int, draw: Callable[[], float]) -> None:
    if len(tokens) >= most:  # too long whatever follows
        return
    if depth == MAX_DEPTH or draw() > OPERATOR_P:
        tokens.append(TOKENS[len(OPERATORS) + 1 + int(10 * draw())])
        return
    tokens.append(TOKENS[int(len(OPERATORS) * draw())])
    for _ in range(2 + int((MAX_ARGS - 1) * draw())):
        _extend(tokens, depth + 1, most, draw)
    tokens.append(END)


def evaluate(tokens: Sequence[str]) -> int:
    r"""Returns the value of an expression.

    ``[MED`` is the median, rounded down; ``[SM`` the sum modulo 10.

    Args:
        tokens (list of str): The tokens.

    Raises:
        ValueError: If it is no expression.

    Example:
        >>> evaluate("[MAX 2 9 [MIN 4 7 ] 0 ]".split())
        9
    """
    stack: list[tuple[str, list[int]]] = [("", [])]
    for place, token in enumerate(tokens):
        if token in OPERATORS:
            stack.append((token, []))
        elif token in TOKENS and token != END:
            stack[-1][1].append(int(token))
        elif token == END and len(stack) > 1 and stack[-1][1]:
            operator, values = stack.pop()
            stack[-1][1].append(OPERATORS[operator](values))
        else:
            raise ValueError(
                f"Expected an expression of ListOps (got '{token}' as token {place}); correct it"
            )
    (_, values), *open_lists = stack
    if open_lists or len(values) != 1:
        raise ValueError(
            f"Expected one closed expression of ListOps (got {len(open_lists)} open lists and {len(values)} "
            "values); correct it"
        )
    return values[0]


def _read(
    source: SequenceSource,
    paths: list[Path],
    *,
    seed: int = 0,
    lengths: tuple[int, int] = (100, 300),
    sizes: tuple[int, int, int] = (4000, 500, 500),
) -> SequenceTask:
    for option, value, count in (("lengths", lengths, 2), ("sizes", sizes, 3)):
        if len(value) != count or min(value) < 1:
            raise ValueError(
                f"Expected '{option}' as {count} positive numbers (got {value}); give all of them"
            )
    words = Words([PAD, *TOKENS])
    # All parts at once: no expression is in two of them.
    expressions = generate(sum(sizes), lengths, seed)

    def part(first: int, size: int) -> Labelled:
        some = expressions[first : first + size]
        tokens = [torch.tensor([words.id(token) for token in expression]) for expression in some]
        return Labelled(Padded.of(tokens), torch.tensor([evaluate(e) for e in some]))

    train, val, test = (part(sum(sizes[:i]), sizes[i]) for i in range(3))
    return SequenceTask(
        name=source.name,
        kind="classification",
        train=train,
        val=val,
        test=test,
        source=source.citation,
        preprocessing=f"{lengths[0]} to {lengths[1]} tokens, {sizes[0]}/{sizes[1]}/{sizes[2]} expressions, "
        f"seed {seed}",
        num_classes=10,
        vocabulary=words,
    )


SOURCES = [
    SequenceSource(
        name="ListOps",
        read=_read,
        citation="Nangia and Bowman, ListOps (2018), by the rule of Tay et al., Long Range Arena (2021); "
        "drawn",
    )
]
