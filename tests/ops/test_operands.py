"""Operands of every wrong kind: a sentence or the reference's numbers, never a crash, never other numbers."""

from functools import partial
from pathlib import Path

import pytest
import torch
import warm_process

from kgat.functional import dense_attention, edge_attention
from kgat.score.gram import LazyGram, SumGram
from kgat.score.rules import ABS_DIFFERENCE, LEAKY_RELU_SUM, RATIONAL_QUADRATIC, ScoreRule

FUZZ = Path(__file__).with_name("operand_fuzz.py")


def test_fuzz_of_wrong_operands():
    wrong, first = [], 0
    while True:
        run = warm_process.run(FUZZ.read_text(encoding="utf8"), first, check=False)
        lines = run.stdout.splitlines()
        wrong += [line for line in lines if line.startswith("wrong")]
        if lines and lines[-1].startswith("done"):
            count = int(lines[-1].split()[1])
            break
        last = [line for line in lines if line.startswith("case")]
        assert last, f"nothing ran: {run.stderr[-2000:]}"
        wrong.append(f"died with {run.returncode} in {last[-1]}")
        first = int(last[-1].split()[1]) + 1
        assert len(wrong) < 20, "\n".join(wrong)
    assert count > 2000
    assert not wrong, f"{len(wrong)} of {count}:\n" + "\n".join(wrong[:20])


X = torch.randn(50, 2, 8)
EDGES = torch.stack([torch.arange(50), torch.arange(50).flip(0)])


@pytest.mark.parametrize(
    ("gram", "message"),
    [
        (LazyGram.of(torch.randn(50, 2, 64), X), r"\[50, 2, 64\] and \[50, 2, 8\]\); a rule pairs feature r"),
        (
            LazyGram.of(X, X, key_bias=torch.zeros(10, 2)),
            r"'key_bias' of shape \[..., 50, H=2\] \(got \[10, 2\]",
        ),
        (LazyGram.of(X, X, key_bias=torch.zeros(2)), r"'key_bias' of shape .*\(got \[2\]"),
        (LazyGram.of(X, X, query_bias=torch.zeros(1, 2)), r"'query_bias' of shape .*\(got \[1, 2\]"),
        (
            LazyGram.of(X, X, ScoreRule(weight=torch.ones(8, 2))),
            r"broadcasts to \[H=2, R=8\] \(got \[8, 2\]\)",
        ),
        (
            LazyGram.of(X, X, ScoreRule(LEAKY_RELU_SUM)),
            r"1 'pair_args', which 'leaky_relu_sum' takes \(got 0\)",
        ),
        (
            LazyGram.of(X, X, ScoreRule(ABS_DIFFERENCE, RATIONAL_QUADRATIC, link_args=(torch.ones(8),))),
            r"tensors of shape \[H=2\] \(got \[8\]\)",
        ),
        (LazyGram.of(X, X.double().long()), r"'key' of floating-point numbers \(got int64\)"),
        (LazyGram.of(X, X.to("meta")), r"'key' dense and on cpu.*\(got strided on meta\)"),
        (SumGram((LazyGram.of(X, X), LazyGram.of(X[:4], X))), r"\(50, 50, 2\) and \(4, 50, 2\)"),
    ],
)
@pytest.mark.parametrize("route", ["cpu", "eager", "reference", "dense"])
def test_a_kernel_of_wrong_operands_is_a_sentence(gram, message, route):
    call = partial(edge_attention, gram, X, EDGES, backend=route)
    with pytest.raises(ValueError, match=message):
        (partial(dense_attention, gram, X) if route == "dense" else call)()


@pytest.mark.parametrize("shape", [(), (1,), (5,), (1, 5), (3, 1), (3, 5)])
@pytest.mark.parametrize("backend", ["cpu", "eager", "reference"])
def test_a_weight_broadcasts(shape, backend):
    torch.manual_seed(0)
    query, key, value = (torch.randn(n, 3, 5, dtype=torch.float64) for n in (4, 7, 7))
    weight = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    edges = torch.stack([torch.randint(7, (15,)), torch.randint(4, (15,))])
    found, expected = (
        edge_attention(LazyGram.of(query, key, ScoreRule(ABS_DIFFERENCE, weight=w)), value, edges, backend=b)
        for w, b in ((weight, backend), (weight.expand(3, 5), "reference"))
    )
    torch.testing.assert_close(found, expected)
    grads = [torch.autograd.grad(out.square().sum(), weight)[0] for out in (found, expected)]
    torch.testing.assert_close(*grads)
