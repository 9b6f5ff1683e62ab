"""A backend is a class of a name, a device and the functions of a pass; one line makes it known."""

import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

import kgat
from kgat.functional import edge_attention, edge_attention_with_weights, explain
from kgat.kernels import RBF, Additive, AdditiveV2
from kgat.ops import BACKENDS, backend
from kgat.ops.eager import call_of
from kgat.ops.fused import FusedBackend
from kgat.ops.notice import warn_once
from kgat.ops.operands import LEARNED_OF_SCORES
from kgat.ops.reference import Reference
from kgat.score.gram import LazyGram, SumGram
from kgat.score.rules import DROPOUT, Pair, ScoreRule
from kgat.score.scalar import absolute
from kgat.testing import check_backend

SCORE = "the score of fused attention runs on the eager backend: "


class Toy(FusedBackend):
    """All of a room: what the reference computes, with autograd for what is backward."""

    name, device = "toy", "cpu"
    passes = 0

    def available(self):
        return None

    def call(self, recipe, adjacency, x):
        row = torch.arange(adjacency.num_targets).repeat_interleave(adjacency.rowptr.diff())
        edge_index = torch.empty(2, adjacency.num_edges, dtype=torch.long)
        edge_index[:, adjacency.edge.long()] = torch.stack([adjacency.col.long(), row])
        mask = None
        if x.dropout > 0:
            mask = self.dropout_mask(adjacency.num_edges, x.heads, x.dropout, x.seed)
        return call_of(recipe, x, edge_index, 1, adjacency.num_targets, mask)

    def attention(self, recipe, adjacency, x):
        type(self).passes += 1
        call = self.call(recipe, adjacency, x)
        lse = x.link_args.new_zeros(adjacency.num_targets, x.heads, 2)
        scores = call.scores()
        for i in call.row.unique():
            lse[i, :, 1] = scores[call.row == i].logsumexp(dim=0)
        return Reference().edge_attention(call), lse

    def attention_backward(self, recipe, adjacency, x, out, lse, grad):
        type(self).passes += 1
        return self.differentiated(
            x, lambda y: Reference().edge_attention(self.call(recipe, adjacency, y)), grad, x.learned
        )

    def score(self, recipe, adjacency, x):
        call = self.call(recipe, adjacency, x)
        return call.gram.at(call.row, call.col)

    def score_backward(self, recipe, adjacency, x, grad):
        names = [name for name in x.learned if name in LEARNED_OF_SCORES]
        return self.differentiated(x, lambda y: self.score(recipe, adjacency, y), grad, names)

    def differentiated(self, x, function, grad, names):
        leaves = {name: getattr(x, name).detach().requires_grad_() for name in names}

        def differentiate():
            out = function(x._replace(**leaves))
            return torch.autograd.grad(out, list(leaves.values()), grad, allow_unused=True)

        with ThreadPoolExecutor(1) as thread:  # inside of an op of torch, autograd records nothing
            found = thread.submit(differentiate).result()
        return {
            name: torch.zeros_like(leaf) if d is None else d
            for (name, leaf), d in zip(leaves.items(), found, strict=True)
        }

    def dropout_mask(self, edges, heads, p, seed):
        draw = torch.Generator().manual_seed(int(seed))
        return (torch.rand(edges, heads, generator=draw) >= p).double() / (1 - p)


class Elsewhere(Toy):
    name, device = "elsewhere", "xpu"


@pytest.fixture
def toy():
    # A device has one backend: this takes the place of "cpu".
    before = list(BACKENDS)
    BACKENDS[:] = [Toy() if known.device == "cpu" else known for known in before]
    yield
    BACKENDS[:] = before


def case():
    torch.manual_seed(0)
    x = torch.randn(6, 2, 4, requires_grad=True)
    return RBF(4, 2)(x, x), x, torch.randint(0, 6, (2, 20))


def test_a_new_backend_is_chosen_and_explained(toy):
    gram, x, edges = case()
    expected = edge_attention(gram, x, edges, backend="eager")
    before = Toy.passes
    out = edge_attention(gram, x, edges)
    torch.autograd.grad(out.sum(), x)
    assert Toy.passes == before + 2
    torch.testing.assert_close(out, expected)
    assert explain(gram, x, edges) == (
        "gpu: tensors are on cpu; toy: ok; eager: ok; reference (only if named): ok"
    )


def test_reasons_of_a_new_backend_are_shown(toy, monkeypatch):
    gram, x, edges = case()
    BACKENDS.insert(0, Elsewhere())
    monkeypatch.setattr(Toy, "available", lambda self: "needs a toy box")
    assert explain(gram, x, edges) == (
        "elsewhere: tensors are on cpu; gpu: tensors are on cpu; toy: needs a toy box; eager: ok; "
        "reference (only if named): ok"
    )
    assert "(elsewhere: tensors are on cpu; gpu: tensors are on cpu; toy: needs a toy box)" in explain(
        gram, x
    )
    with pytest.raises(NotImplementedError, match=r"backend='toy' cannot run .* toy: needs a toy box"):
        edge_attention(gram, x, edges, backend="toy")


@pytest.mark.parametrize("kernel", [RBF, Additive, AdditiveV2, lambda c, h: RBF(c, h) * Additive(c, h)])
def test_a_new_backend_is_held_against_the_reference(toy, kernel):
    check_backend(kernel, "toy", channels=3, heads=2)


@pytest.mark.parametrize(
    ("function", "change", "law"),
    [
        ("attention", lambda found: (1.01 * found[0], found[1]), "value"),
        ("attention_backward", lambda found: found | {"query": 1.01 * found["query"]}, "gradient of query"),
    ],
)
def test_a_wrong_backend_is_found_out(toy, monkeypatch, function, change, law):
    right = getattr(Toy, function)
    monkeypatch.setattr(Toy, function, lambda *arguments: change(right(*arguments)))
    with pytest.raises(AssertionError, match=law):
        check_backend(RBF, "toy", channels=3, heads=2)


def test_dropout_of_a_new_backend(toy):
    gram, x, edges = case()
    out, alpha = edge_attention_with_weights(gram, x, edges, dropout=0.5)
    by_hand = torch.zeros_like(x).index_add(0, edges[1], alpha.unsqueeze(-1) * x[edges[0]])
    torch.testing.assert_close(out, by_hand)


def test_a_backend_without_all_functions_is_none():
    class Half(Toy):
        score_backward = backend.Passes.score_backward

    with pytest.raises(TypeError, match="score_backward"):
        Half()


def test_a_device_without_a_backend_is_a_sentence():
    with pytest.raises(ValueError, match=r"Expected tensors on cpu or cuda, .*\(got xpu\)"):
        backend.on(torch.device("xpu"))


def test_only_backends_and_graphs_know_types_of_devices():
    package = Path(kgat.__file__).parent
    sources = [*(package / "ops").glob("*.py"), *(package / "ops" / "graph").glob("*.py")]
    sources += [package / "functional.py", *(package / "testing").glob("*.py")]
    asks = re.compile(r"is_cuda|\.type [!=]= \"cuda\"|BACKENDS\[")
    names = {path.name for path in sources if asks.search(path.read_text(encoding="utf8"))}
    assert names == {"device.py"}


def test_a_score_that_is_not_compiled_says_why(caplog):
    warn_once.cache_clear()
    bent = Pair("bent", lambda x, y: absolute(x - y), derivative=lambda x, y: torch.sign(x - y))
    x, edges = torch.randn(3, 2, 4), torch.tensor([[0, 1, 2], [1, 1, 0]])
    dropped = LazyGram.of(x, x, ScoreRule(link=DROPOUT, link_args=(0.0,)))  # torch alone, on purpose
    for gram in (LazyGram.of(x, x, ScoreRule(bent)), SumGram((dropped, LazyGram.of(x, x, ScoreRule(bent))))):
        why = "'bent' is not written in scalars (TypeError: "
        assert f"cpu: ok, but its score runs in ops of torch: {why}" in explain(gram, x, edges)
        with caplog.at_level("WARNING", logger="kgat"):
            torch.testing.assert_close(
                edge_attention(gram, x, edges), edge_attention(gram, x, edges, backend="eager")
            )
    assert [record.getMessage().startswith(SCORE + why) for record in caplog.records] == [True]
    assert "runs in ops of torch" not in explain(dropped, x, edges)
