import inspect
import re

import pytest
import torch

from kgat import functional, kernels
from kgat.functional import dense_attention, edge_attention, edge_softmax, ksvd_loss
from kgat.kernels import RBF

pytestmark = pytest.mark.quick


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_edge_softmax_equals_dense_softmax(dtype):
    torch.manual_seed(0)
    n, m = 4, 6
    score = torch.randn(n, m, 3, dtype=dtype, requires_grad=True)
    perm = torch.randperm(n * m)
    flat = score.reshape(n * m, 3)[perm]
    alpha = edge_softmax(flat, torch.arange(n).repeat_interleave(m)[perm], n)
    expected = score.softmax(dim=1).reshape(n * m, 3)[perm]
    torch.testing.assert_close(alpha, expected)
    slope = torch.randn_like(alpha)
    found, wanted = (
        torch.autograd.grad((a * slope).sum(), score, retain_graph=True)[0] for a in (alpha, expected)
    )
    torch.testing.assert_close(found, wanted)


def test_edge_softmax_by_hand():
    alpha = edge_softmax(torch.tensor([[0.0], [2.0], [1.0]]).log(), torch.tensor([0, 0, 2]))
    torch.testing.assert_close(alpha, torch.tensor([[0.0], [1.0], [1.0]]))
    third = edge_softmax(torch.tensor([1.0, 2.0]).log(), torch.tensor([1, 1]))
    torch.testing.assert_close(third, torch.tensor([1 / 3, 2 / 3]))


def test_edge_softmax_power_makes_the_p_norm_one():
    torch.manual_seed(0)
    index = torch.tensor([0, 1, 0, 1, 1])
    alpha = edge_softmax(torch.randn(5, 2), index, 2, power=3.0)
    norms = torch.zeros(2, 2).index_add(0, index, alpha**3)
    torch.testing.assert_close(norms, torch.ones(2, 2))


def test_a_group_of_minus_infinity_gets_zeros():
    score = torch.tensor([-torch.inf, -torch.inf, 0.0], requires_grad=True)
    alpha = edge_softmax(score, torch.tensor([0, 0, 1]))
    assert alpha.tolist() == [0.0, 0.0, 1.0]


def test_a_hub_in_half_precision_keeps_its_weights():
    degree = 70_000  # the sum of as many ones is infinite in float16
    alpha = edge_softmax(torch.zeros(degree, dtype=torch.float16), torch.zeros(degree).long())
    assert alpha.dtype == torch.float16
    assert alpha.float().sum().item() == pytest.approx(1.0, rel=0.01)


def test_large_scores_do_not_overflow():
    alpha = edge_softmax(torch.tensor([1e30, 1e30, -1e30]), torch.tensor([0, 0, 0]))
    assert alpha.tolist() == [0.5, 0.5, 0.0]


def test_empty():
    assert edge_softmax(torch.empty(0, 3), torch.empty(0, dtype=torch.long)).shape == (0, 3)


X = torch.randn(3, 2, 4)
GRAM = RBF(4, heads=2)(X, X)
EDGES = torch.tensor([[0, 1], [2, 2]])


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"value": X[:2]}, ValueError, r"'value' of shape \[M=3, H=2, C\].*got \[2, 2, 4\]"),
        ({"edge_index": EDGES.float()}, ValueError, r"integer 'edge_index'.*got float32 \[2, 2\]"),
        ({"edge_index": EDGES.flatten()}, ValueError, r"shape \[2, E\].*got int64 \[4\]"),
        ({"edge_index": EDGES + 1}, IndexError, r"target indices.*got 3"),
        ({"edge_index": EDGES - 1}, IndexError, r"source indices.*got -1"),
        ({"edge_bias": torch.zeros(2)}, ValueError, r"'edge_bias' of shape \[E=2, H=2\]"),
        ({"edge_weight": torch.zeros(3)}, ValueError, r"'edge_weight' of shape \[E=2\]"),
        ({"dropout": 1.5}, ValueError, r"'dropout' in \[0, 1\] \(got 1.5\)"),
        ({"flow": "upstream"}, ValueError, r"'flow' as .*got 'upstream'"),
    ],
)
@pytest.mark.parametrize("route", ["sorted", "scattered"])
def test_bad_input_is_a_sentence(change, error, message, route, monkeypatch):
    if route == "scattered":
        monkeypatch.setattr("kgat.ops.eager.sorts_edges", lambda value: False)
    kwargs = {"value": X, "edge_index": EDGES, **change}
    with pytest.raises(error, match=message):
        edge_attention(GRAM, kwargs.pop("value"), kwargs.pop("edge_index"), **kwargs)


def test_bad_softmax_input():
    with pytest.raises(ValueError, match=r"'index' of shape \[E=3\].*got \[2\]"):
        edge_softmax(torch.zeros(3), torch.tensor([0, 1]))
    with pytest.raises(ValueError, match="positive 'power'"):
        edge_softmax(torch.zeros(1), torch.tensor([0]), power=0.0)
    with pytest.raises(IndexError, match="got 4"):
        edge_softmax(torch.zeros(1), torch.tensor([4]), 3)


@pytest.mark.parametrize("name", ["rbf", "additive", "laplace", "spectral * magnitude", "rbf + dot"])
def test_dense_attention_equals_edge_attention_on_the_pairs_that_are_seen(name):
    torch.manual_seed(0)
    kernel = kernels.resolve(name, 4, 3).double()
    query, key, value = (torch.randn(n, 3, 4, dtype=torch.float64, requires_grad=True) for n in (5, 7, 7))
    mask = torch.rand(5, 7) < 0.5
    mask[2] = False  # sees nothing
    grad = torch.randn(5, 3, 4, dtype=torch.float64)
    for seen in (mask, None):
        row, col = (torch.ones(5, 7) if seen is None else seen).nonzero().T
        expected = edge_attention(kernel(query, key), value, torch.stack([col, row]))
        out = dense_attention(kernel(query, key), value, seen)
        torch.testing.assert_close(out, expected)
        leaves = [query, key, value, *kernel.parameters()]
        found = torch.autograd.grad(out, leaves, grad, allow_unused=True)
        wanted = torch.autograd.grad(expected, leaves, grad, allow_unused=True)
        torch.testing.assert_close(found, wanted)
    assert dense_attention(kernel(query, key), value, mask)[2].abs().max() == 0.0


def test_dense_attention_of_a_batch_and_of_nothing():
    kernel = kernels.RBF(4, 3)
    x = torch.randn(2, 5, 3, 4)
    mask = torch.ones(5, 5, dtype=torch.bool).tril()
    out = dense_attention(kernel(x, x), x, mask)
    torch.testing.assert_close(out[1], dense_attention(kernel(x[1], x[1]), x[1], mask))
    assert dense_attention(kernel(x, x[:, :0]), x[:, :0]).abs().max() == 0.0
    half = dense_attention(kernel(x.half(), x.half()), x.half())
    assert half.dtype == torch.float16
    torch.testing.assert_close(half.float(), dense_attention(kernel(x, x), x), rtol=1e-2, atol=1e-2)
    torch.manual_seed(0)
    ones = torch.ones(400, 1, 1)
    dropped = dense_attention(kernels.RBF(1)(ones, ones), ones, dropout=0.25)
    assert dropped.unique().numel() > 10
    assert abs(dropped.mean().item() - 1.0) < 0.01


def test_dense_attention_refuses_what_does_not_fit():
    x = torch.randn(5, 3, 4)
    gram = kernels.RBF(4, 3)(x, x)
    with pytest.raises(ValueError, match=r"'value' of shape \[..., M=5, H=3, C\]"):
        dense_attention(gram, x[:4])
    with pytest.raises(
        ValueError, match=r"bool 'mask' of shape \[..., N=5 or 1, M=5\] \(got float32 \[5, 5\]"
    ):
        dense_attention(gram, x, torch.ones(5, 5))
    with pytest.raises(ValueError, match=r"'dropout' in \[0, 1\] \(got 2\)"):
        dense_attention(gram, x, dropout=2)


# --- KSVD loss ---------------------------------------------------------------------------------------------


def ksvd_terms(*shape, heads=3, rank=2, rows=5, dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    shapes = [(*shape, heads, rank)] * 2 + [(heads, rank)] + [(heads, rows, rank)] * 2
    return [torch.randn(s, dtype=torch.float64, generator=generator).to(dtype) for s in shapes]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("masked", [False, True])
def test_ksvd_loss_by_loops(dtype, masked):
    terms = [x.requires_grad_() for x in ksvd_terms(2, 4, dtype=dtype)]
    e, r, lam, weight_e, weight_r = terms
    mask = torch.tensor([[1, 1, 1, 1], [0, 1, 0, 1]]).bool() if masked else torch.ones(2, 4).bool()
    expected = []
    for b in range(2):
        places = mask[b].nonzero().flatten().tolist()
        total = 0.0
        for h in range(3):
            for score in (e, r):
                scaled = [torch.diag(lam[h]) @ score[b, i, h] for i in places]
                total = total + sum(0.5 * y.dot(y) for y in scaled) / len(places)
            total = total - torch.trace(weight_e[h].T @ weight_r[h])
        expected.append(total / 3)
    expected = torch.stack(expected)
    found = ksvd_loss(*terms, mask if masked else None)
    torch.testing.assert_close(found, expected)
    grads, wanted = (
        torch.autograd.grad((j * torch.tensor([1.0, -2.0])).sum(), terms) for j in (found, expected)
    )
    torch.testing.assert_close(grads, wanted)


def test_ksvd_loss_has_any_batch():
    terms = ksvd_terms(2, 2, 4)
    j = ksvd_loss(*terms)
    assert j.shape == (2, 2)
    torch.testing.assert_close(ksvd_loss(*(x[1, 0] for x in terms[:2]), *terms[2:]), j[1, 0])


def test_ksvd_loss_of_nothing_is_zero():
    terms = [x.requires_grad_() for x in ksvd_terms(2, 0)]
    assert ksvd_loss(*terms).tolist() == [0.0, 0.0]
    assert ksvd_loss(*terms, torch.ones(2, 0).bool()).tolist() == [0.0, 0.0]
    terms = [x.requires_grad_() for x in ksvd_terms(2, 3)]
    mask = torch.tensor([[False] * 3, [True] * 3])
    with torch.no_grad():
        terms[0][0] = terms[1][0] = torch.nan  # absent tokens may hold anything
    j = ksvd_loss(*terms, mask)
    assert j[0] == 0.0
    torch.testing.assert_close(j[1:], ksvd_loss(*(x[1:] for x in terms[:2]), *terms[2:]))
    j.sum().backward()
    assert all(x.grad.isfinite().all() for x in terms)
    assert not terms[0].grad[0].any()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_ksvd_loss_of_half_precision_is_single(dtype):
    terms = [300.0 * x.to(dtype) for x in ksvd_terms(4)]  # squares are infinite in float16
    expected = ksvd_loss(*(x.double() for x in terms))
    with torch.autocast("cpu", torch.bfloat16):
        j = ksvd_loss(*terms)
    assert j.dtype == torch.float32
    torch.testing.assert_close(j.double(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({0: (4, 2, 2)}, r"'e' and 'r' of shape \[..., N, H, s\].*\(got \[4, 2, 2\], \[4, 3, 2\]"),
        ({1: (5, 3, 2)}, r"'e' and 'r' of shape .*\[5, 3, 2\]"),
        ({2: (3,)}, r"'lam' of shape \[H, s\].*and \[3\]\)"),
        ({0: (3, 2), 1: (3, 2)}, r"'e' and 'r' of shape .*\[3, 2\]"),
        ({3: (3, 4, 2)}, r"'weight_r' of shape \[H=3, n, s=2\] \(got \[3, 4, 2\] and \[3, 5, 2\]\)"),
        ({3: (3, 5, 1), 4: (3, 5, 1)}, r"'weight_r' of shape \[H=3, n, s=2\]"),
        ({3: (3, 2), 4: (3, 2)}, r"'weight_r' of shape \[H=3, n, s=2\]"),
    ],
)
def test_ksvd_loss_refuses_what_does_not_fit(change, message):
    terms = ksvd_terms(4)
    for place, shape in change.items():
        terms[place] = torch.zeros(shape)
    with pytest.raises(ValueError, match=message):
        ksvd_loss(*terms)


@pytest.mark.parametrize("mask", [torch.ones(4), torch.ones(3).bool(), torch.ones(4, 1).bool()])
def test_ksvd_loss_refuses_other_masks(mask):
    with pytest.raises(ValueError, match=r"bool 'mask' of shape \[4\] \(got .*\); True says"):
        ksvd_loss(*ksvd_terms(4), mask)


@pytest.mark.parametrize("flow", ["source_to_target", "target_to_source"])
@pytest.mark.parametrize("backend", ["cpu", "eager", "reference"])
@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_weights_belong_to_the_output(backend, dropout, flow):
    torch.manual_seed(0)
    kernel = kernels.RBF(4, 3).double() * kernels.Magnitude(4, 3).double()
    query, key, value = (torch.randn(n, 3, 4, dtype=torch.float64, requires_grad=True) for n in (5, 7, 7))
    row, col = torch.randint(0, 4, (20,)), torch.randint(0, 7, (20,))  # the last target has no edges
    edges = torch.stack([col, row] if flow == "source_to_target" else [row, col])
    given = {
        "edge_bias": torch.randn(20, 3, dtype=torch.float64),
        "edge_log_weight": torch.randn(20, dtype=torch.float64),
        "edge_weight": torch.randn(20, dtype=torch.float64),
        "base": torch.randn(3, 4, dtype=torch.float64),
    }
    given |= {"dropout": dropout, "flow": flow, "backend": backend}
    torch.manual_seed(1)
    expected = functional.edge_attention(kernel(query, key), value, edges, **given)
    torch.manual_seed(1)
    out, alpha = functional.edge_attention_with_weights(kernel(query, key), value, edges, **given)
    assert torch.equal(out, expected)
    message = (alpha * given["edge_weight"].unsqueeze(-1)).unsqueeze(-1) * value[col]
    again = torch.zeros(5, 3, 4, dtype=torch.float64).index_add(0, row, message) + given["base"]
    torch.testing.assert_close(again, out)
    # The weights carry gradients as the output does.
    slope = torch.randn_like(out)
    leaves = (query, key, value)
    grads = [torch.autograd.grad((o * slope).sum(), leaves, retain_graph=True) for o in (out, again)]
    torch.testing.assert_close(*grads)


def test_weights_of_no_edges_and_no_nodes():
    x, edges = torch.randn(3, 2, 4), torch.empty(2, 0, dtype=torch.long)
    kernel = kernels.RBF(4, 2)
    for backend in ("cpu", "eager", "reference"):
        for nodes in (x, x[:0]):
            out, alpha = functional.edge_attention_with_weights(
                kernel(nodes, nodes), nodes, edges, dropout=0.5, backend=backend
            )
            assert out.shape == nodes.shape
            assert not out.any()
            assert alpha.shape == (0, 2)
    with pytest.raises(IndexError, match="got 3"):
        functional.edge_attention_with_weights(kernel(x, x), x, torch.tensor([[0], [3]]))


@pytest.mark.parametrize("wrong", [float("nan"), float("inf")])
def test_logarithms_of_weights_that_are_none(wrong):
    x, edges = torch.randn(3, 2, 4), torch.tensor([[0, 1], [1, 2]])
    with pytest.raises(ValueError, match=r"'edge_log_weight' below infinity .* as 'edge_weight'"):
        functional.edge_attention(
            kernels.RBF(4, 2)(x, x), x, edges, edge_log_weight=torch.tensor([-torch.inf, wrong])
        )


OF_EDGES = {
    "edge_bias": (torch.zeros(2, 2), torch.zeros(3, 2)),
    "edge_log_weight": (torch.zeros(2), torch.zeros(3)),
    "edge_weight": (torch.zeros(2), torch.zeros(3)),
    "base": (torch.zeros(2, 4), torch.zeros(2, 3)),
    "flow": ("target_to_source", "upstream"),
    "dropout": (0.5, 7.0),
}
OF_PAIRS = {
    "mask": (torch.ones(3, 3).bool(), torch.ones(7)),
    "bias": (torch.zeros(3, 3, 2), torch.ones(9)),
    "causal": (True, None),
    "dropout": (0.5, 7.0),
}


@pytest.mark.parametrize("name", [*OF_EDGES, *OF_PAIRS])
def test_explain_takes_what_the_call_takes_and_nothing_else(name):
    questions = ((OF_EDGES, OF_PAIRS, (EDGES,)), (OF_PAIRS, OF_EDGES, ()))
    for own, other, edges in questions:
        if name in own:
            right, wrong = own[name]
            assert "ok" in functional.explain(GRAM, X, *edges, **{name: right}) or not edges
            if wrong is not None:
                with pytest.raises(ValueError, match=f"Expected .*'{name}'"):
                    functional.explain(GRAM, X, *edges, **{name: wrong})
        else:
            where = "beside 'edge_index'" if edges else "without 'edge_index'"
            with pytest.raises(ValueError, match=f"no '{name}' {where} .got one.; .*leave"):
                functional.explain(GRAM, X, *edges, **{name: other[name][0]})


def test_explain_knows_all_arguments_of_both_calls():
    known = set(inspect.signature(functional.explain).parameters)
    for call in (edge_attention, dense_attention):
        wanted = set(inspect.signature(call).parameters) - {"backend", "method"}  # it says what they choose
        assert wanted <= known


@pytest.mark.parametrize(
    "mask", [torch.ones(4).bool(), torch.ones(2, 3).bool(), torch.ones(3), torch.tensor(True)]
)
def test_a_mask_of_keys_is_refused_in_its_own_shape(mask):
    x = torch.randn(3, 2, 4)
    gram = kernels.FAVORPlus(4, 2)(x, x)
    got = re.escape(str(list(mask.shape)))
    said = rf"bool 'mask' of shape \[..., M=3\] \(got \w+ {got}\); True shows a key$"
    with pytest.raises(ValueError, match=said):
        functional.linear_attention(gram, x, mask)
    shown = functional.linear_attention(gram, x, torch.tensor([True, False, True]))
    wanted = dense_attention(gram, x, torch.tensor([[True, False, True]]), method="linear")
    assert torch.equal(shown, wanted)


def test_a_mask_of_pairs_may_be_one_row_and_the_error_says_so():
    with pytest.raises(
        ValueError, match=r"shape \[..., N=3 or 1, M=3\] \(got bool \[2, 3\]\); True shows a key to"
    ):
        dense_attention(GRAM, X, torch.ones(2, 3).bool())
    with pytest.raises(ValueError, match=r"shape \[..., N=3 or 1, M=3\] \(got bool \[3\]\)"):
        dense_attention(GRAM, X, torch.ones(3).bool())
    assert dense_attention(GRAM, X, torch.ones(1, 3).bool()).shape == X.shape
