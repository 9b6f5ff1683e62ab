r"""Numbers of another type than the weights: one sentence, and nothing where types mix."""

import pytest
import torch

from kgat import FourierAttention, KernelAttention, KernelGAT, KernelGATConv, PrimalAttention
from kgat.models import KernelTransformer, SequenceClassifier
from kgat.nn import GlobalAttention, KernelDecoderLayer, KernelEncoderLayer

EDGES = torch.tensor([[0, 1, 2, 3], [1, 2, 3, 0]])
X = torch.randn(4, 8, generator=torch.Generator().manual_seed(0))


def conv(**kwargs):
    return KernelGATConv(8, 4, **kwargs)


@pytest.mark.parametrize(
    ("build", "part", "name"),
    [
        (lambda: KernelGATConv(8, 4), "lin", "weight"),
        (lambda: KernelAttention(8, 2, batch_first=True), "", "in_proj_weight"),
    ],
    ids=["conv", "attention"],
)
def test_a_parametrised_weight_is_computed_once_per_pass(build, part, name):
    class Counted(torch.nn.Module):
        passes = 0

        def forward(self, weight):
            self.passes += 1
            return weight

    layer, counted = build(), Counted()
    torch.nn.utils.parametrize.register_parametrization(layer.get_submodule(part), name, counted)
    counted.passes = 0  # it was called when it was registered
    layer(X, EDGES) if part else layer(X[None])
    assert counted.passes == 1


# What is built, and how it is called with x of another type.
LAYERS = {
    "conv": (conv, lambda layer, x: layer(x, EDGES)),
    "lazy": (lambda: KernelGATConv(-1, 4), lambda layer, x: layer(x, EDGES)),
    "coo": (conv, lambda layer, x: layer(x.to_sparse(), EDGES)),
    "targets": (lambda: KernelGATConv((8, 8), 4), lambda layer, x: layer((X, x), EDGES)),
    "edge_attr": (lambda: conv(edge_dim=8), lambda layer, x: layer(X, EDGES, x)),
    "position": (lambda: conv(position_dim=8), lambda layer, x: layer(X, EDGES, position=x)),
    "model": (lambda: KernelGAT(8, 8, 2, 3), lambda layer, x: layer(x, EDGES)),
    "query": (lambda: KernelAttention(8, 2), lambda layer, x: layer(x[None])),
    "key": (lambda: KernelAttention(8, 2), lambda layer, x: layer(X[None], x[None], X[None])),
    "value": (lambda: KernelAttention(8, 2), lambda layer, x: layer(X[None], X[None], x[None])),
    "shared_qk": (lambda: KernelAttention(8, 2, projections="shared_qk"), lambda layer, x: layer(x[None])),
    "nested": (
        lambda: KernelAttention(8, 2, batch_first=True),
        lambda layer, x: layer(torch.nested.nested_tensor([x, x[:2]], layout=torch.jagged)),
    ),
    "fourier": (lambda: FourierAttention(8, 2), lambda layer, x: layer(x[None])),
    "primal": (lambda: PrimalAttention(8, 2), lambda layer, x: layer(x[None])),
    "encoder": (lambda: KernelEncoderLayer(8, 2), lambda layer, x: layer(x[None])),
    "norm_first": (lambda: KernelEncoderLayer(8, 2, norm_first=True), lambda layer, x: layer(x[None])),
    "memory": (lambda: KernelDecoderLayer(8, 2), lambda layer, x: layer(X[None], x[None])),
    "transformer": (lambda: KernelTransformer(8, 2, 1), lambda layer, x: layer(x[None])),
    "classifier": (lambda: SequenceClassifier(2, 8, embed_dim=8), lambda layer, x: layer(x[None])),
    "global": (
        lambda: GlobalAttention(KernelGATConv(8, 8), KernelAttention(8, 2)),
        lambda layer, x: layer(x, EDGES),
    ),
}


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", LAYERS)
def test_another_type_is_refused_with_what_to_do(name, dtype):
    build, call = LAYERS[name]
    got = str(dtype).removeprefix("torch.")
    says = rf"of float32 numbers, as .* \(got {got} of shape .*'\.to\(torch.float32\)'.*'\.to\({dtype}\)'"
    with pytest.raises(ValueError, match=f"^Expected .*{says}"):
        call(build(), X.to(dtype))
    call(build(), X.to(dtype).to(torch.float32))  # which helps
    if name in ("conv", "query", "fourier", "primal", "encoder", "classifier"):
        call(build().to(dtype), X.to(dtype))  # and so does this


@pytest.mark.quick
def test_the_operand_is_named():
    for name in ("query", "key", "value"):
        build, call = LAYERS[name]
        with pytest.raises(ValueError, match=f"^Expected '{name}' of float32"):
            call(build(), X.double())


def test_integers_are_told_to_be_converted_and_nothing_else():
    with pytest.raises(ValueError, match=r"got int64 .*; convert them with '\.to\(torch.float32\)'$"):
        conv()(torch.ones(4, 8, dtype=torch.long), EDGES)


@pytest.mark.parametrize("name", [name for name in LAYERS if name not in ("coo", "nested")])
def test_autocast_mixes_types(name):
    build, call = LAYERS[name]
    with torch.autocast("cpu", torch.bfloat16):
        call(build(), X.bfloat16())
        with pytest.raises(ValueError, match=r"of float32 numbers.*got float64"):  # which it leaves alone
            call(build(), X.double())


def test_sparse_features_bring_their_type_as_before():
    layer = conv(residual=True)
    out = layer(X.double().to_sparse_csr(), EDGES)
    assert out.dtype == torch.float64
    torch.testing.assert_close(out, layer.double()(X.double(), EDGES), rtol=1e-5, atol=1e-6)


def test_modules_that_convert_are_let_be():
    class Converting(torch.nn.Linear):
        def forward(self, x):
            return super().forward(x.to(self.weight.dtype))

    def convert(module, inputs):
        return (inputs[0].to(module.weight.dtype),)

    layer, primal, encoder = conv(), PrimalAttention(8, 2), KernelEncoderLayer(8, 2, norm_first=True)
    layer.lin.register_forward_pre_hook(convert)
    primal.lin_query, primal.lin_key = Converting(8, 8), Converting(8, 8)
    encoder.norm1.register_forward_pre_hook(convert)
    layer(X.double(), EDGES)
    primal(X.bfloat16()[None])
    encoder(X.bfloat16()[None])


def test_normalisations_may_stay_in_float32():
    encoder = KernelEncoderLayer(8, 2, norm_first=True).bfloat16()
    for norm in (encoder.norm1, encoder.norm2):
        norm.float()
    assert encoder(X.bfloat16()[None]).dtype == torch.bfloat16


def test_compiled_layers_stay_one_graph():
    layer, attention = conv(), KernelAttention(8, 2)
    for module, inputs in ((layer, (X.bfloat16(), EDGES)), (attention, (X.bfloat16()[None],))):
        compiled = torch.compile(module, backend="eager", fullgraph=True)
        with torch.autocast("cpu", torch.bfloat16):
            compiled(*inputs)


def test_meta_tensors_are_told_too():
    with pytest.raises(ValueError, match="of float32 numbers"):
        KernelAttention(8, 2, device="meta")(X.double()[None].to("meta"))
