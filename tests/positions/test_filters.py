r"""Which keys a query sees: masks and edges, against loops."""

import inspect

import pytest
import torch

from kgat import kernels
from kgat.functional import dense_attention, edge_attention
from kgat.positions import Filter, causal, full, memory, strided, visible_edges, window

pytestmark = pytest.mark.quick

RULES = [
    (full, lambda i, j: True),
    (causal, lambda i, j: j <= i),
    (window(0), lambda i, j: i == j),
    (window(2), lambda i, j: abs(i - j) <= 2),
    (strided(0, 1), lambda i, j: j <= i),
    (strided(1, 3), lambda i, j: j <= i and (i - j <= 1 or (i - j) % 3 == 0)),
    (memory(0), lambda i, j: 0 <= j <= i),
    (memory(2), lambda i, j: -2 <= j <= i),
    (Filter("odd", lambda offset: offset % 2 == 1), lambda i, j: (i - j) % 2 == 1),
]
PLACES = [
    (range(5), range(5)),
    (range(5, 6), range(6)),
    (range(4), range(-3, 4)),
    (range(2), range(6)),
    (range(6), range(2)),
    (range(20, 23), range(4)),
    (range(0), range(3)),
    (range(3), range(0)),
    (range(0), range(0)),
]


@pytest.mark.parametrize("places", PLACES, ids=str)
@pytest.mark.parametrize(("visible", "rule"), RULES, ids=lambda x: "" if inspect.isfunction(x) else str(x))
def test_masks_and_edges_are_the_rule(visible, rule, places):
    queries, keys = places
    pairs = [(m, n) for n, i in enumerate(queries) for m, j in enumerate(keys) if rule(i, j)]
    expected = torch.zeros(len(queries), len(keys), dtype=torch.bool)
    for m, n in pairs:
        expected[n, m] = True
    mask = visible(queries, keys)
    assert mask.dtype == torch.bool
    assert torch.equal(mask, expected)
    given = (torch.tensor(list(index), dtype=torch.long) for index in places)
    assert torch.equal(visible(*given), expected)
    edges = visible_edges(visible, queries, keys)
    assert edges.dtype == torch.long
    assert edges.shape == (2, len(pairs))
    assert [tuple(edge) for edge in edges.t().tolist()] == pairs


def test_numbers_of_tokens_are_ranges():
    assert torch.equal(visible_edges(window(1), 4, 3), visible_edges(window(1), range(4), range(3)))


def test_a_window_over_a_long_sequence_costs_its_own_size():
    edges = visible_edges(window(1), 300_000, 300_000)  # all pairs would be 90 GB
    assert edges.shape == (2, 3 * 300_000 - 2)


def test_a_window_on_edges_is_masked_attention():
    torch.manual_seed(0)
    x = torch.randn(7, 3, 5, dtype=torch.float64)
    gram = kernels.RBF(5, 3).double()(x, x)
    for visible in (window(1), strided(1, 3), causal):
        expected = dense_attention(gram, x, visible(range(7), range(7)))
        torch.testing.assert_close(edge_attention(gram, x, visible_edges(visible, 7, 7)), expected)


# TD T8
def test_memory_is_causal_attention_over_memory_and_segment():
    torch.manual_seed(0)
    x = torch.randn(4 + 5, 3, 5, dtype=torch.float64)  # four tokens of memory
    kernel = kernels.DotProduct(5, 3)
    whole = dense_attention(kernel(x, x), x, causal(range(9), range(9)))
    places = range(5), range(-4, 5)
    segment = dense_attention(kernel(x[4:], x), x, memory(4)(*places))
    torch.testing.assert_close(segment, whole[4:])
    short = dense_attention(kernel(x[4:], x), x, memory(2)(*places))
    torch.testing.assert_close(
        short, dense_attention(kernel(x[2:], x[2:]), x[2:], causal(range(7), range(7)))[2:]
    )


def test_repr_and_bad_input():
    assert [repr(rule) for rule, _ in RULES[:2]] == ["full", "causal"]
    assert [repr(f) for f in (window(3), strided(1, 2), memory(4))] == [
        "window(3)",
        "strided(1, 2)",
        "memory(4)",
    ]
    for bad, message in (
        (lambda: window(-1), r"'radius' of at least 0 \(got -1\)"),
        (lambda: strided(-1, 2), r"local=-1, stride=2"),
        (lambda: strided(1, 0), r"local=1, stride=0"),
        (lambda: memory(-1), r"'size' of at least 0 \(got -1\)"),
        (lambda: visible_edges(full, range(0, 4, 2), 3), r"places without gaps"),
        (lambda: causal(torch.arange(3.0), range(2)), r"integers of shape \[N\]"),
    ):
        with pytest.raises(ValueError, match=message):
            bad()
