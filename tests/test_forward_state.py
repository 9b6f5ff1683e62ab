r"""A forward pass writes nothing on a module: calls of several threads cannot mix, none depends on others."""

import concurrent.futures
import copy
import threading

import pytest
import torch

from kgat import KernelGAT, KernelGATConv, kernels, nn, positions
from kgat.experiments.stock import StockGAT, StockGATv2
from kgat.models import (
    KernelTransformer,
    LanguageModel,
    SequenceClassifier,
    Translator,
)

torch.manual_seed(0)
X = torch.randn(12, 16)
EDGES = torch.randint(0, 12, (2, 40))
ATTR = torch.randn(40, 3)
PLACES = torch.randn(12, 4)
TOKENS = torch.randn(2, 5, 16)
WORDS = torch.randint(1, 20, (2, 5))
ALL = {"edge_attr": ATTR, "edge_weight": torch.rand(40), "position": PLACES}

# name -> (module, what it is called with); '...' is the place of a list for penalties.
CASES = {
    "KernelGATConv": lambda: (KernelGATConv(16, 4, heads=4, dropout=0.5), (X, EDGES), {}),
    "all of KernelGATConv": lambda: (
        KernelGATConv(
            *(16, 4, 4),
            kernel="implicit_spectral",
            residual=True,
            edge_dim=3,
            position_dim=4,
            dropout=0.5,
            value_dropout=0.5,
        ),
        (X, EDGES),
        {**ALL, "losses": ..., "return_attention_weights": True},
    ),
    "edge vectors": lambda: (
        KernelGATConv(16, 4, heads=4, kernel="additive_v2", edge_dim=3, edge_mode="key_value"),
        (X, EDGES, ATTR),
        {},
    ),
    "KernelGAT": lambda: (
        KernelGAT(
            *(16, 8, 2, 3),
            heads=4,
            kernel="implicit_spectral",
            norm="layer_norm",
            jk="cat",
            dropout=0.5,
            input_dropout=0.5,
            edge_dim=3,
            position_dim=4,
        ),
        (X, EDGES),
        {**ALL, "losses": ..., "batch": torch.arange(12) // 6},
    ),
    "StockGAT": lambda: (StockGAT(16, 8, 2, 3, heads=4, value_dropout=0.5), (X, EDGES), {}),
    "StockGATv2": lambda: (StockGATv2(16, 8, 2, 3, heads=4, value_dropout=0.5), (X, EDGES), {}),
    "GlobalAttention": lambda: (
        nn.GlobalAttention(KernelGATConv(16, 4, heads=4), nn.PrimalAttention(16, 4, rank=3)),
        (X, EDGES),
        {"batch": torch.arange(12) // 6, "losses": ...},
    ),
    "FourierAttention": lambda: (nn.FourierAttention(16, 4), (TOKENS,), {"need_weights": False}),
    "PrimalAttention": lambda: (
        nn.PrimalAttention(16, 4, rank=3, causal=True),
        (TOKENS,),
        {"need_weights": False, "losses": ...},
    ),
    "KernelEncoderLayer": lambda: (nn.KernelEncoderLayer(16, 4, 32, attention="rbf"), (TOKENS,), {}),
    "KernelDecoderLayer": lambda: (nn.KernelDecoderLayer(16, 4, 32), (TOKENS, TOKENS.flip(1)), {}),
    "KernelTransformer": lambda: (KernelTransformer(16, 4, 1, 1, 32), (TOKENS, TOKENS.flip(1)), {}),
    "SequenceClassifier": lambda: (SequenceClassifier(3, 16, None, 16, 4, 1), (TOKENS,), {}),
    "LanguageModel": lambda: (LanguageModel(20, 16, 4, 1), (WORDS,), {}),
    "Translator": lambda: (Translator(20, 20, 16, 4, 1, 1), (WORDS, WORDS), {}),
}
for name in positions.names():
    if name != "none":
        CASES[f"KernelAttention with {name}"] = lambda name=name: (
            nn.KernelAttention(16, 4, kernel="rbf", position=name),
            (TOKENS,),
            {"is_causal": True},
        )
for name in kernels.names():
    CASES[name] = lambda name=name: (kernels.resolve(name, 4, 4), (X.view(12, 4, 4), X.view(12, 4, 4)), {})


def state(module):
    r"""All that hangs on a module and its submodules, with the numbers of tensors."""
    found = {}
    for path, part in module.named_modules():
        for name, value in part.__dict__.items():
            if isinstance(value, dict):
                found[path, name] = {key: kept(item) for key, item in value.items()}
            else:
                found[path, name] = kept(value)
    return found


def kept(value):
    if isinstance(value, torch.Tensor):
        return id(value), value.detach().clone().tolist()
    if isinstance(value, int | float | str | None | tuple | frozenset):
        return value
    return id(value), copy.copy(value) if isinstance(value, list | set) else None


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", CASES)
def test_forward_writes_nothing(name, training):
    torch.manual_seed(0)
    module, args, kwargs = CASES[name]()
    module.train(training)
    before = state(module)
    module(*args, **{key: [] if value is ... else value for key, value in kwargs.items()})
    after = state(module)
    assert after.keys() == before.keys()
    for key in before:
        assert after[key] == before[key], key


def attended(module, *args, **kwargs):
    with torch.no_grad():
        out = module(*args, **kwargs)
    return out[0] if isinstance(out, tuple) else out


def calls():
    r"""A module in evaluation mode, and eight different calls of it."""
    graphs = [torch.randint(0, n, (2, 3 * n)) for n in (7, 40, 300, 7, 40, 300, 900, 12)]
    of_nodes = [
        {
            "x": torch.randn(int(e.max()) + 1, 16),
            "edge_index": e,
            "edge_attr": torch.randn(e.size(1), 3),
            "edge_weight": torch.rand(e.size(1)),
            "position": torch.randn(int(e.max()) + 1, 4),
            "batch": torch.arange(int(e.max()) + 1) // 5,
        }
        for e in graphs
    ]
    options = {"edge_dim": 3, "position_dim": 4, "heads": 4}
    for kernel in ("additive", "rbf+dot_product", "implicit_spectral"):
        yield KernelGATConv(16, 4, kernel=kernel, residual=True, **options), of_nodes
    yield KernelGATConv(16, 4, kernel="additive_v2", edge_mode="key", **options), of_nodes
    yield KernelGAT(16, 16, 3, 5, kernel="implicit_spectral", norm="graph_norm", **options), of_nodes
    tokens = [{"query": torch.randn(2, n, 16), "is_causal": n % 2 == 0} for n in (3, 8, 50, 3, 64, 9, 1, 30)]
    for kernel in ("rbf", "laplace", "spectral"):
        yield nn.KernelAttention(16, 4, kernel=kernel, position="transformer_xl"), tokens
    yield nn.PrimalAttention(16, 4, rank=3), [{"query": c["query"], "need_weights": False} for c in tokens]


@pytest.mark.parametrize(("module", "given"), list(calls()), ids=lambda x: type(x).__name__)
def test_threads_do_not_meet(module, given):
    module.eval()
    expected = [attended(module, **call) for call in given]
    start = threading.Barrier(4)

    def work(first):
        start.wait()
        order = [(first + 2 * k) % 8 if first % 2 else (first + k) % 8 for k in range(8)] * 3
        return [(k, attended(module, **given[k])) for k in order]

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        for results in pool.map(work, range(4)):
            for k, out in results:
                assert torch.equal(out, expected[k])


def test_threads_have_their_own_penalties_and_gradients():
    torch.manual_seed(0)
    model = KernelGAT(16, 16, 2, 5, heads=4, kernel="implicit_spectral", position_dim=4).eval()
    given = [(torch.randn(9, 16), torch.randint(0, 9, (2, 30)), torch.randn(9, 4)) for _ in range(4)]

    def work(k):
        x, edges, position = given[k]
        results = []
        for _ in range(5):
            losses = []
            leaf = x.clone().requires_grad_()
            out = model(leaf, edges, position=position, losses=losses)
            (grad,) = torch.autograd.grad(out.square().sum() + sum(losses), leaf)
            results.append((grad, torch.stack(losses).detach()))
        return results

    expected = [work(k)[0] for k in range(4)]
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        for results, (grad, losses) in zip(pool.map(work, range(4)), expected, strict=True):
            for found in results:
                assert torch.equal(found[0], grad)
                assert torch.equal(found[1], losses)
