import functools

import pytest
import torch

from kgat import KernelTransformer
from kgat.models import LanguageModel, SequenceClassifier, Translator
from kgat.models.token_embedding import TokenEmbedding
from kgat.nn import KernelAttention, PrimalAttention
from kgat.positions import Sum, TransformerXL

B, N, M, F, H = 2, 5, 7, 12, 3
DOUBLE = {"dtype": torch.float64}
POSITIONS = [None, "sum", "table", "table-S", "txl", "symmetric", "kerple", "rope", "alibi"]
ATTENTIONS = {
    "dot": {},
    "rbf": {"kernel": "rbf", "magnitude": 2.0},
    "fourier": {"attention": "fourier"},
    "primal": {"attention": "primal", "attention_kwargs": {"rank": 2, "rank_multi": 2}},
    "primal last": {"attention": ["kernel", "primal"], "position": "symmetric"},
}


def padding(length, tokens):
    return (torch.arange(length) >= tokens).expand(B, -1)


def build(*args, **kwargs):
    torch.manual_seed(0)
    return KernelTransformer(F, H, *args, dropout=0.0, **kwargs).double().eval()


@pytest.mark.filterwarnings("ignore:enable_nested_tensor is True")
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("norm_first", [False, True])
def test_equals_torch(norm_first, masked):
    torch.manual_seed(0)
    options = {"norm_first": norm_first, "batch_first": True}
    stock = torch.nn.Transformer(F, H, 2, 3, 4 * F, 0.0, "gelu", **options, **DOUBLE)
    ours = KernelTransformer(F, H, 2, 3, dropout=0.0, act="gelu", norm_first=norm_first).double()
    renamed = {
        name.replace("coder.layers.", "coder.").replace("coder.norm.", "coder_norm."): value
        for name, value in stock.state_dict().items()
    }
    ours.load_state_dict(renamed, strict=True)
    x, y = torch.randn(B, M, F, **DOUBLE), torch.randn(B, N, F, **DOUBLE)
    mask, target_mask = (padding(M, 4), padding(N, 3)) if masked else (None, None)
    inputs = [[t.clone().requires_grad_() for t in (x, y)] for _ in range(2)]
    later = torch.ones(N, N).triu(1).bool()
    expected = stock(
        *inputs[0],
        tgt_mask=later,
        src_key_padding_mask=mask,
        tgt_key_padding_mask=target_mask,
        memory_key_padding_mask=mask,
    )
    out = ours(*inputs[1], mask, target_mask)
    torch.testing.assert_close(out, expected)
    seed = torch.randn_like(out)
    (expected * seed).sum().backward()
    (out * seed).sum().backward()
    for theirs, own in zip(*inputs, strict=True):
        torch.testing.assert_close(own.grad, theirs.grad)
    wanted = {
        name.replace("coder.layers.", "coder.").replace("coder.norm.", "coder_norm."): p.grad
        for name, p in stock.named_parameters()
    }
    for name, p in ours.named_parameters():
        torch.testing.assert_close(p.grad, wanted[name], msg=name)


@pytest.mark.parametrize("position", POSITIONS)
@pytest.mark.parametrize("attention", ["dot", "rbf"])
def test_tokens_see_no_later_ones(attention, position):
    model = build(2, 2, **ATTENTIONS[attention], position=position, causal=True)
    x, y = torch.randn(B, M, F, **DOUBLE), torch.randn(B, N, F, **DOUBLE)
    memory, out = model.encode(x), model(x, y)
    changed, other = x.clone(), y.clone()
    changed[:, 4:], other[:, 3:] = 5.0, 5.0
    torch.testing.assert_close(model.encode(changed)[:, :4], memory[:, :4])
    torch.testing.assert_close(model(x, other)[:, :3], out[:, :3])
    assert not torch.allclose(model.encode(changed)[:, 4:], memory[:, 4:])
    assert not torch.allclose(model.encode(x, causal=False)[:, :4], memory[:, :4])


@pytest.mark.parametrize("attention", ["fourier", "primal", "primal last"])
def test_other_attentions_see_no_later_tokens(attention):
    model = build(2, **ATTENTIONS[attention], causal=True)
    x = torch.randn(B, M, F, **DOUBLE)
    changed = x.clone()
    changed[:, 4:] = 5.0
    torch.testing.assert_close(model(changed)[:, :4], model(x)[:, :4])


@pytest.mark.parametrize("position", POSITIONS)
def test_cached_steps_equal_the_whole(position):
    cross = None if position == "sum" else position
    model = build(2, 2, kernel="rbf", position=position, cross_position=cross, causal=True)
    x, y = torch.randn(B, M, F, **DOUBLE), torch.randn(B, N, F, **DOUBLE)
    memory, mask = model.encode(x), padding(M, 4)
    cache = model.empty_cache()
    steps = [
        model.decode(part, memory, memory_padding_mask=mask, cache=cache)
        for part in y.split([2, 1, 2], dim=1)
    ]
    whole = model.decode(y, memory, memory_padding_mask=mask)
    torch.testing.assert_close(torch.cat(steps, dim=1), whole)
    alone = build(2, kernel="rbf", position=position, causal=True)
    cache = alone.empty_cache()
    steps = [alone.encode(part, cache=cache) for part in x.split([1, 1, 3, 2], dim=1)]
    torch.testing.assert_close(torch.cat(steps, dim=1), alone(x))


@pytest.mark.parametrize("attention", ATTENTIONS)
def test_padding_has_no_influence(attention):
    model = build(2, **ATTENTIONS[attention])
    x = torch.randn(B, M, F, **DOUBLE)
    changed = x.clone()
    changed[:, 4:] = 5.0
    mask = padding(M, 4)
    torch.testing.assert_close(model(changed, padding_mask=mask)[:, :4], model(x, padding_mask=mask)[:, :4])
    if attention != "primal last":
        torch.testing.assert_close(model(x, padding_mask=mask)[:, :4], model(x[:, :4]))


@pytest.mark.parametrize("attention", ATTENTIONS)
@pytest.mark.parametrize("length", [0, 1, 4])
def test_sequences_of_nothing(attention, length):
    model = build(2, **ATTENTIONS[attention]).train()
    x = torch.randn(B, length, F, **DOUBLE, requires_grad=True)
    mask = torch.zeros(B, length, dtype=torch.bool)
    mask[0] = True
    out = model(x, padding_mask=mask)
    out.sum().backward()
    assert out.shape == x.shape
    assert out.isfinite().all()
    assert x.grad.isfinite().all()


def test_sum_enters_once_where_tokens_enter():
    model, plain = build(2, 1, position="sum"), build(2, 1)
    plain.load_state_dict(model.state_dict())
    x, y = torch.randn(B, M, F, **DOUBLE), torch.randn(B, N, F, **DOUBLE)
    place = Sum(F, H).double()
    torch.testing.assert_close(model(x, y), plain(place.add(x, range(M)), place.add(y, range(N))))
    assert all(layer.self_attn.position is None for layer in (*model.encoder, *model.decoder))


def test_positions_are_parts_of_layers():
    model = build(2, 1, position=["txl", None, "sum"], cross_position="table", position_kwargs={})
    attentions = [layer.self_attn for layer in (*model.encoder, *model.decoder)]
    assert [type(attention.position).__name__ for attention in attentions] == [
        "TransformerXL",
        "NoneType",
        "Sum",
    ]
    assert type(model.decoder[0].multihead_attn.position).__name__ == "RelativeTable"
    assert model.position is None
    with_limit = build(2, position="table", position_kwargs={"max_offset": 3})
    assert {layer.self_attn.position.max_offset for layer in with_limit.encoder} == {3}
    assert build(2, position="sum", position_kwargs={"max_length": 9}).position.t.shape == (9, F)
    shared = build(2, position=TransformerXL(F, H))
    assert shared.encoder[0].self_attn.position is shared.encoder[1].self_attn.position
    assert build(2, position="none").encoder[0].self_attn.position is None


def test_attention_of_each_layer():
    model = build(
        2,
        2,
        attention=["rbf", "primal", "primal", functools.partial(KernelAttention, kernel="laplace")],
        attention_kwargs={"rank": 4, "num_kv_heads": 1},
        magnitude=2.0,
    )
    first, second = (layer.self_attn for layer in model.encoder)
    assert [type(part).__name__ for part in first.kernel.parts] == ["RBF", "Magnitude"]
    assert first.num_kv_heads == 1
    assert isinstance(second, PrimalAttention)
    assert second.rank == 4
    assert not second.causal
    third, fourth = model.decoder
    assert third.self_attn.causal
    assert type(third.multihead_attn.kernel.parts[0]).__name__ == "DotProduct"
    assert type(fourth.multihead_attn.kernel.parts[0]).__name__ == "Laplace"
    assert all(layer.linear1.out_features == 4 * F for layer in model.encoder)
    cross = build(1, 1, cross_attention="rbf").decoder[0]
    assert [type(a.kernel).__name__ for a in (cross.self_attn, cross.multihead_attn)] == ["DotProduct", "RBF"]


def test_options_reach_every_kernel_attention():
    options = {
        "kernel": "implicit_spectral",
        "kernel_kwargs": {"num_features": 4},
        "projections": "shared_qk",
    }
    model = build(1, 1, **options, method="dense", attention_kwargs={"dropout": 0.25})
    attentions = [model.encoder[0].self_attn, model.decoder[0].self_attn, model.decoder[0].multihead_attn]
    for attention in attentions:
        assert attention.kernel.num_features == 4
        assert (attention.projections, attention.method) == ("shared_qk", "dense")
        assert attention.dropout == 0.25


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"attention": "rbf", "kernel": "laplace"}, "'kernel'"),
        ({"attention": "primal", "magnitude": 2.0}, "'magnitude'"),
        ({"attention": "primal", "kernel": "rbf"}, "'kernel'"),
        ({"attention_kwargs": {"rank": 3}}, "'rank'"),
        ({"attention": "primal", "position": "txl"}, "position='sum'"),
        ({"attention": "primal", "position": ["txl", None]}, "'position'"),
        ({"attention": ["primal"]}, r"one 'attention' for each of 2 layers.*got 1"),
        ({"position": ["txl", None, None]}, r"one 'position' for each of 2 layers.*got 3"),
        ({"num_layers": 0}, "'num_layers' of at least 1"),
        ({"cross_attention": "rbf"}, "'cross_attention' .*without a decoder"),
        ({"cross_position": "txl"}, "'cross_position' .*without a decoder"),
        ({"position_kwargs": {"max_offset": 3}, "position": "txl"}, "'max_offset'"),
    ],
)
def test_arguments_that_lead_nowhere(kwargs, message):
    with pytest.raises(ValueError, match=message):
        KernelTransformer(F, H, **kwargs)


def test_decoder_and_tokens_come_together():
    x = torch.randn(B, N, F)
    with pytest.raises(ValueError, match="tokens of a decoder iff there is one"):
        KernelTransformer(F, H)(x, x)
    with pytest.raises(ValueError, match="got 1 decoder layers and none"):
        KernelTransformer(F, H, decoder_layers=1)(x)


def test_losses_reach_the_list():
    x, y = torch.randn(B, M, F), torch.randn(B, N, F)
    model = KernelTransformer(F, H, 2, 1, attention=["primal", "copula_spectral", "copula_spectral"])
    losses = []
    model(x, y, losses=losses)
    assert len(losses) == 4
    assert model.penalised
    assert not KernelTransformer(F, H).penalised


@pytest.mark.parametrize("position", POSITIONS)
@pytest.mark.parametrize("attention", ["dot", "rbf", "primal"])
def test_every_parameter_has_a_gradient(attention, position):
    if attention == "primal" and position not in (None, "sum"):
        position = ["table", None, "table", None]
    kwargs = ATTENTIONS[attention] | (
        {"attention": ["kernel", "primal"] * 2} if attention == "primal" else {}
    )
    model = KernelTransformer(F, H, 2, 2, **kwargs, position=position).double()
    losses = []
    out = model(torch.randn(B, M, F, **DOUBLE), torch.randn(B, N, F, **DOUBLE), losses=losses)
    (out.square().sum() + sum(losses)).backward()
    assert not [name for name, p in model.named_parameters() if p.grad is None]


def test_compiles_whole():
    model = KernelTransformer(
        *(F, H, 1, 1), dropout=0.0, kernel="rbf", position=["txl", "symmetric"], cross_position="sum"
    )
    x, y = torch.randn(B, M, F), torch.randn(B, N, F)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x, y, padding(M, 4)), model(x, y, padding(M, 4)))


def test_dropout_where_tokens_enter():
    model = KernelTransformer(F, H, 1, dropout=0.5, attention_kwargs={"dropout": 0.0})
    for p in (*model.encoder[0].self_attn.out_proj.parameters(), *model.encoder[0].linear2.parameters()):
        torch.nn.init.zeros_(p)
    x = torch.randn(4, 50, F)
    assert not torch.allclose(model(x), model(x))  # all that is left is at the entry
    torch.testing.assert_close(model.eval()(x), model(x))


@pytest.mark.parametrize("layout", [torch.strided, torch.jagged], ids=str)
@pytest.mark.parametrize("position", [None, "sum", "rope"])
def test_nested_tensors_are_padded_ones(layout, position):
    torch.manual_seed(0)
    model = KernelTransformer(12, 3, 2, 1, kernel="rbf", position=position, dropout=0.0).double()
    x = [torch.randn(n, 12, dtype=torch.float64) for n in (3, 0, 5)]
    y = [torch.randn(n, 12, dtype=torch.float64) for n in (2, 4, 0)]
    out = model(*(torch.nested.as_nested_tensor(parts, layout=layout) for parts in (x, y)))
    for found, source, target in zip(out.unbind(), x, y, strict=True):
        torch.testing.assert_close(found, model(source.unsqueeze(0), target.unsqueeze(0))[0])
    nested = torch.nested.as_nested_tensor(x, layout=layout)
    with pytest.raises(ValueError, match="no 'padding_mask' beside nested"):
        model.encode(nested, torch.zeros(3, 5, dtype=torch.bool))


def test_device_and_type_of_every_model(tmp_path):
    def made(**given):
        yield KernelTransformer(8, 2, 1, 1, position="txl", **given)
        yield LanguageModel(9, 8, 2, 1, position="alibi", **given)
        yield Translator(9, 9, 8, 2, 1, position="rope", **given)
        yield SequenceClassifier(3, 4, None, 8, 2, 1, pooling="cls", **given)
        yield SequenceClassifier(3, None, 9, 8, 2, 1, attention="primal", **given)
        yield TokenEmbedding(9, 8, **given)

    for model in made(device="meta", dtype=torch.float64):
        assert {p.device.type for p in (*model.parameters(), *model.buffers())} == {"meta"}
        assert {p.dtype for p in model.parameters()} == {torch.float64}
    for model in made():
        assert {(p.device.type, p.dtype) for p in model.parameters()} == {("cpu", torch.float32)}
    for i, model in enumerate(made(device="cpu", dtype=torch.bfloat16)):
        if isinstance(model, TokenEmbedding):
            continue
        assert not {"device", "dtype"} & set(model.config)
        model.save_pretrained(tmp_path / str(i))
        loaded = type(model).from_pretrained(tmp_path / str(i))
        assert loaded.config == model.config
        assert {p.dtype for p in loaded.parameters()} == {torch.bfloat16}
