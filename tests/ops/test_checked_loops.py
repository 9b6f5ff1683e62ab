"""The loops of the CPU on arrays that check every index, over graphs of all shapes."""

import pytest
import torch
from checked_loops import checked
from test_cpu import check, check_dropout

from kgat.ops.cpu import launch as cpu
from kgat.ops.recipe import Recipe
from kgat.score import rules

RECIPES = [
    Recipe(None, rules.LEAKY_RELU),
    Recipe(rules.MUL, rules.LEAKY_RELU, bias_inside=True),
    Recipe(rules.ABS_DIFFERENCE, rules.IDENTITY, weighted=True),
]
# What a block was bounded by before: its edges, and nothing else.
BY_EDGES = ("limit = min(end, start + BLOCK)", "limit = end")


@pytest.mark.parametrize("graph", ["empty", "one_node", "hub", "bipartite", "gap", "rated", "rating"])
@pytest.mark.parametrize("recipe", RECIPES, ids=str)
def test_stays_inside_of_every_buffer(recipe, graph):
    with checked():
        check(recipe, graph, torch.float64, 1e-9, 1e-9, features=3, channels=2)


@pytest.mark.parametrize("recipe", RECIPES, ids=str)
def test_with_fewest_operands_in_single_precision(recipe):
    with checked():
        check(recipe, "sparse", torch.float32, 1e-3, 2e-4, extras=False, features=2, channels=1)


@pytest.mark.parametrize("recipe", [RECIPES[0], RECIPES[2]], ids=str)
def test_many_slots_and_dropout(recipe, monkeypatch):
    monkeypatch.setattr(cpu, "WORK", 1)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    targets, sources = 3_100, 3_200
    edges = [(j * 31 % sources, j * 17 % targets // 3) for j in range(700)]
    check_dropout(recipe, targets, sources, edges, 2, checked())


@pytest.mark.parametrize(
    ("plant", "buffer"),
    [
        (BY_EDGES, "scratch"),
        (("(max(BLOCK, degree) + 31) // 16 * 16", "BLOCK"), "scratch"),
        (("BUFFERS = 7", "BUFFERS = 6"), "scratch"),
        (("total += dt[e * heads + h]", "total += dt[(e + 1) * heads + h]"), "dt"),
        (("packed[row * 4 + 3] = total", "packed[row * 4 + 4] = total"), "packed"),
    ],
)
def test_a_planted_error_is_caught(plant, buffer):
    def run():
        for graph in ("gap", "hub"):
            check(RECIPES[0], graph, torch.float64, 1e-9, 1e-9, features=3, channels=2)

    with checked(plant), pytest.raises(IndexError, match=f"'{buffer}'"):
        run()
