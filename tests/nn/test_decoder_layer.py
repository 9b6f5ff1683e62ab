import pytest
import torch

from kgat.nn import KernelDecoderLayer

B, N, M, F, H = 3, 4, 6, 12, 3
DOUBLE = {"dtype": torch.float64}


def padding(length):
    mask = torch.zeros(B, length, dtype=torch.bool)
    mask[0, 2:] = mask[1, 1] = True
    return mask


def masks():
    causal = torch.nn.Transformer.generate_square_subsequent_mask(N, **DOUBLE)
    return {
        "none": {},
        "float": {"tgt_mask": torch.randn(N, N, **DOUBLE), "memory_mask": torch.randn(N, M, **DOUBLE)},
        "per head": {"memory_mask": torch.randn(B * H, N, M, **DOUBLE)},
        "padding": {"tgt_key_padding_mask": padding(N), "memory_key_padding_mask": padding(M)},
        "causal": {"tgt_mask": causal, "tgt_is_causal": True},
    }


@pytest.mark.parametrize("mask", masks())
@pytest.mark.parametrize("norm_first", [False, True])
def test_equals_torch(norm_first, mask):
    torch.manual_seed(0)
    given = masks()[mask]
    options = {"norm_first": norm_first, "batch_first": True, "bias": mask != "none"}
    stock = torch.nn.TransformerDecoderLayer(F, H, 7, 0.0, "gelu", 1e-3, **options, **DOUBLE)
    ours = KernelDecoderLayer(F, H, 7, 0.0, "gelu", 1e-3, **options).double()
    ours.load_state_dict(stock.state_dict(), strict=True)
    y, x = torch.randn(B, N, F, **DOUBLE), torch.randn(B, M, F, **DOUBLE)
    seed = torch.randn(B, N, F, **DOUBLE)
    results = []
    for layer in (stock, ours):
        if layer is ours and mask == "causal":
            given = {"tgt_is_causal": True}
        inputs = [y.clone().requires_grad_(), x.clone().requires_grad_()]
        out = layer(*inputs, **given)
        (out * seed).sum().backward()
        results.append(
            [out, *(i.grad for i in inputs), *(p.grad for _, p in sorted(layer.named_parameters()))]
        )
    for expected, found in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("norm_first", [False, True])
def test_dropout_is_where_torch_has_it(norm_first):
    options = {"batch_first": True, "norm_first": norm_first}
    stock = torch.nn.TransformerDecoderLayer(F, H, 7, 0.5, **options)
    stock.self_attn.dropout = stock.multihead_attn.dropout = 0.0
    none = {"dropout": 0.0}
    ours = KernelDecoderLayer(F, H, 7, 0.5, **options, attention_kwargs=none, cross_attention_kwargs=none)
    ours.load_state_dict(stock.state_dict())
    y, x, outs = torch.randn(N, F), torch.randn(M, F), []
    for layer in (stock, ours):
        torch.manual_seed(1)
        outs.append(layer(y, x))
    torch.testing.assert_close(*outs)
    layer = KernelDecoderLayer(F, H, 7, 0.3)
    assert (layer.self_attn.dropout, layer.multihead_attn.dropout) == (0.3, 0.3)


def test_memory_is_causal():
    torch.manual_seed(0)
    layer = KernelDecoderLayer(F, H, 7, 0.0).double()
    y, x = torch.randn(B, N, F, **DOUBLE), torch.randn(B, N, F, **DOUBLE)
    later = torch.ones(N, N).triu(1).bool()
    torch.testing.assert_close(layer(y, x, memory_is_causal=True), layer(y, x, memory_mask=later))


def test_losses_of_both_attentions():
    layer = KernelDecoderLayer(F, H, 7, attention="primal", attention_kwargs={"causal": True, "rank": 2})
    y, x = torch.randn(B, N, F), torch.randn(B, M, F)
    losses = []
    layer(y, x, losses=losses)
    assert len(losses) == 1
    layer = KernelDecoderLayer(F, H, 7, attention="copula_spectral", cross_attention="copula_spectral")
    layer(y, x, losses=losses)
    assert len(losses) == 3


@pytest.mark.parametrize("padded", [False, True])
def test_cached_steps_equal_the_whole(padded):
    torch.manual_seed(0)
    layer = KernelDecoderLayer(F, H, 7, 0.0, attention="rbf", cross_attention="rbf", norm_first=True).double()
    y, x = torch.randn(B, N, F, **DOUBLE), torch.randn(B, M, F, **DOUBLE)
    given = {"tgt_is_causal": True, "memory_key_padding_mask": padding(M) if padded else None}
    cache = layer.empty_cache()
    parts = [layer(part, x, **given, cache=cache) for part in y.split([2, 1, 1], dim=1)]
    torch.testing.assert_close(torch.cat(parts, dim=1), layer(y, x, **given))
    assert cache[1].fixed
    assert len(cache[1]) == M
    primal = KernelDecoderLayer(F, H, 7, attention="primal", attention_kwargs={"causal": True})
    assert primal.empty_cache() is None


def test_without_anything_to_see():
    layer = KernelDecoderLayer(F, H, 7, 0.0)
    for tokens, sources in ((0, M), (N, 0), (1, 1)):
        y, x = torch.randn(B, tokens, F, requires_grad=True), torch.randn(B, sources, F)
        hidden = torch.ones(B, sources, dtype=torch.bool)
        out = layer(y, x, memory_key_padding_mask=hidden, tgt_is_causal=True)
        out.sum().backward()
        assert out.shape == y.shape
        assert out.isfinite().all()
        assert y.grad.isfinite().all()


def test_compiles_whole():
    layer = KernelDecoderLayer(F, H, 7, 0.0, attention="rbf")
    y, x = torch.randn(B, N, F), torch.randn(B, M, F)
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(y, x, tgt_is_causal=True), layer(y, x, tgt_is_causal=True))


def test_arguments_reach_each_attention():
    kwargs = {"attention_kwargs": {"position": "txl"}, "cross_attention_kwargs": {"magnitude": 1.5}}
    layer = KernelDecoderLayer(F, H, 7, attention="rbf", cross_attention="laplace", **kwargs)
    assert type(layer.self_attn.kernel).__name__ == "RBF"
    assert [type(part).__name__ for part in layer.multihead_attn.kernel.parts] == ["Laplace", "Magnitude"]
    assert layer.self_attn.position is not None
    assert layer.multihead_attn.position is None


def test_cross_attention_that_would_tell_of_later_tokens_is_refused():
    options = {"kernel": "implicit", "kernel_kwargs": {"data_dependent": True}}
    with pytest.raises(ValueError, match="Expected a 'cross_attention' that sees one pair at a time"):
        KernelDecoderLayer(12, 3, cross_attention_kwargs=options)
