"""Long rows in pieces: the numbers of the formula, and the same bits on any number of threads."""

from contextlib import nullcontext

import pytest
import torch
from checked_loops import checked
from oracle import adjacency, attention
from test_cpu import (  # noqa: F401
    GRAPHS,
    RECIPES,
    H,
    check,
    check_dropout,
    for_torch,
    operands,
    threads,
)

from kgat.functional import edge_attention
from kgat.ops.cpu import launch as cpu
from kgat.ops.cpu import pieces
from kgat.ops.cpu.loops import BLOCK
from kgat.ops.graph.adjacency import Adjacency
from kgat.ops.recipe import Recipe
from kgat.score import rules
from kgat.score.gram import LazyGram

# Long targets 2 and 49, the long sources 7 and 0, rows beside them and between them, and one at the bound.
HUBS = [
    *((j, 2) for j in range(60) for _ in range(20)),
    *((7, i) for i in range(50) for _ in range(15)),
    *((j % 60, 49) for j in range(513)),
    *((j % 60, 20) for j in range(480)),
    *((0, i % 50) for i in range(600)),
]


@pytest.fixture
def hubs(monkeypatch):
    monkeypatch.setattr(pieces, "LONG", BLOCK)  # the least there may be
    monkeypatch.setitem(GRAPHS, "hubs", (50, 60, HUBS))


def test_pieces_are_all_edges_of_long_rows(monkeypatch):
    monkeypatch.setattr(pieces, "LONG", 3)
    ptr = torch.tensor([0, 3, 3, 7, 8, 15, 15])  # of 3, 0, 4, 1, 7 and 0 edges
    cut = pieces.Pieces.of(ptr)
    assert cut.node.tolist() == [2, 4]
    ranges = [(int(cut.owner[v]), int(cut.ptr[v]), int(cut.ptr[v + 1])) for v, _ in cut.bounds]
    assert ranges == [(0, 3, 5), (0, 5, 7), (1, 8, 10), (1, 10, 12), (1, 12, 15)]
    assert pieces.Pieces.of(ptr[:3]) is None


@pytest.mark.parametrize("recipe", RECIPES, ids=str)
def test_equals_the_formula(recipe, hubs):
    check(recipe, "hubs", torch.float64, 1e-9, 1e-9)
    check(recipe, "hubs", torch.float32, 1e-3, 2e-4)


@pytest.mark.parametrize("recipe", [RECIPES[1], RECIPES[-1]], ids=str)
def test_stays_inside_of_every_buffer(recipe, hubs):
    with checked():
        check(recipe, "hubs", torch.float64, 1e-9, 1e-9, features=3, channels=2)


def test_dropout(hubs):
    recipe = Recipe(rules.ABS_DIFFERENCE, rules.IDENTITY, weighted=True)
    check_dropout(recipe, 50, 60, HUBS, 5, nullcontext())


@pytest.mark.parametrize(
    ("offset", "rest"),
    [(0.0, 0.0), (90.0, 0.0), (-90.0, 0.0), (1e4, 0.0), (-1e4, 0.0), (-torch.inf, -1e4), (-torch.inf, 1e4)],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_pieces_far_apart_keep_their_digits(offset, rest, dtype, hubs):
    torch.manual_seed(0)
    edges = 5 * BLOCK
    edge_index = torch.stack([torch.arange(edges) % 40, torch.zeros(edges, dtype=torch.long)])
    bias, value = torch.randn(edges, 1, dtype=dtype), torch.randn(40, 1, 2, dtype=dtype)
    bias[: 2 * BLOCK] += offset
    bias[2 * BLOCK : 3 * BLOCK] += rest
    bias[3 * BLOCK :] += offset
    gram = LazyGram(query_bias=torch.zeros(1, 1, dtype=dtype), key_bias=torch.zeros(40, 1, dtype=dtype))
    for scores in (bias, torch.full_like(bias, -torch.inf)):
        out = edge_attention(gram, value, edge_index, edge_bias=scores, backend="cpu")
        weight = scores.double().T.softmax(dim=1).nan_to_num()
        expected = (weight @ value.double()[edge_index[0], 0]).to(dtype)
        torch.testing.assert_close(out[:, 0], expected, rtol=1e-5, atol=1e-5)


def _found(recipe, edge_index, nodes, dtype, channels=5, features=4):
    edges = edge_index.size(1)
    sorted_edges = Adjacency.of(edge_index.clone(), 1, nodes, nodes)  # cut anew
    x = operands(recipe, nodes, nodes, edges, dtype, features=features, channels=channels)
    x = x._replace(dropout=0.2, seed=torch.tensor([4]))
    out, lse = cpu.attention(recipe, sorted_edges, x)
    slope = torch.linspace(-1, 1, out.numel(), dtype=dtype).view_as(out)
    found = {"out": out, "lse": lse, **cpu.attention_backward(recipe, sorted_edges, x, out, lse, slope)}
    if recipe.pair is not None:
        slope = torch.linspace(-1, 1, edges * H, dtype=dtype).view(edges, H)
        found["score"] = cpu.score(recipe, sorted_edges, x)
        of_score = cpu.score_backward(recipe, sorted_edges, x, slope)
        found |= {f"score of {name}": grad for name, grad in of_score.items()}
    return found


def _unlike(found, expected):
    return [name for name, x in expected.items() if not torch.equal(found[name], x)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("recipe", RECIPES[1:3] + RECIPES[-1:], ids=str)
def test_the_same_bits_on_any_number_of_threads(recipe, dtype, hubs, threads, monkeypatch):  # noqa: F811
    monkeypatch.setattr(cpu, "WORK", 1 << 10)  # many slots, although the graph is small
    edge_index = torch.tensor(HUBS).T.contiguous()
    threads(1)
    expected = _found(recipe, edge_index, 60, dtype)
    for number in (2, 3, 8, 8):
        threads(number)
        assert not _unlike(_found(recipe, edge_index, 60, dtype), expected)


def test_half_a_million_edges_of_one_row(threads):  # noqa: F811
    torch.manual_seed(0)
    edges, recipe = 500_000, Recipe(rules.MUL, rules.IDENTITY)
    hub = torch.stack([torch.randint(0, 1000, (edges,)), torch.full((edges,), 3)])
    for edge_index in (hub, hub.flip(0)):  # a target and a source
        found = []
        for number in (1, 2):
            threads(number)
            found.append(_found(recipe, edge_index, 1000, torch.float32, channels=1, features=1))
        assert not _unlike(*found)
    x = operands(recipe, 1000, 1000, edges, torch.float64, features=1, channels=1)
    mask = cpu.dropout_mask(edges, H, 0.2, torch.tensor([4]))
    expected, lse = attention(recipe, hub, 1000, for_torch(recipe, x)[1], mask)
    found = _found(recipe, hub, 1000, torch.float64, channels=1, features=1)
    torch.testing.assert_close(found["out"], expected)
    torch.testing.assert_close(found["lse"].sum(-1), lse)


@pytest.mark.parametrize("by_column", [False, True])
def test_a_long_row_is_the_work_of_many(by_column, hubs):
    _, sorted_edges = adjacency(50, 60, HUBS)
    x = operands(RECIPES[0], 50, 60, len(HUBS), torch.float32)
    frame = cpu._frame(sorted_edges, by_column, x)
    ptr = sorted_edges.colptr if by_column else sorted_edges.rowptr
    long = ptr.diff()[ptr.diff() > BLOCK]
    assert frame.pieces.slots == (-(-long // BLOCK)).sum() >= 4
    assert frame.size < 8 * BLOCK
