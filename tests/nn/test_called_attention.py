r"""Our attention modules inside of torch's own transformer layers, which have ways around the module."""

import copy
import functools
import itertools
import warnings

import pytest
import torch

from kgat.nn import FourierAttention, KernelAttention, PrimalAttention

pytestmark = pytest.mark.quick

B, N, M, F, H = 3, 5, 4, 16, 4
DOUBLE = {"dtype": torch.float64}

# As self-attention; an even number of heads and biases are what torch's fast path asks for.
MODULES = {
    "dot_product": KernelAttention,
    "rbf": functools.partial(KernelAttention, kernel="rbf"),
    "shared_qk": functools.partial(KernelAttention, kernel="rbf", projections="shared_qk"),
    "grouped": functools.partial(KernelAttention, kernel="laplace", num_kv_heads=2),
    "without bias": functools.partial(KernelAttention, kernel="rbf", bias=False),
    "fourier": FourierAttention,
    "primal": functools.partial(PrimalAttention, rank=2, rank_multi=2),
    "primal without bias": functools.partial(PrimalAttention, rank=2, bias=False),
}
CROSS = [name for name in MODULES if "primal" not in name]


def attention(name, batch_first=True):
    torch.manual_seed(1)
    return MODULES[name](F, H, batch_first=batch_first).double()


def numbers(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), **DOUBLE)


def padding(size):
    hidden = torch.zeros(B, size, dtype=torch.bool)
    hidden[0, 3:] = hidden[1, 1:] = True
    return hidden


def causal_mask():
    return torch.nn.Transformer.generate_square_subsequent_mask(N, **DOUBLE)


def encoder_masks(name):
    yield {}
    yield {"src_key_padding_mask": padding(N)}
    yield {"src_key_padding_mask": torch.zeros(B, N, **DOUBLE).masked_fill(padding(N), -torch.inf)}
    if "primal" not in name:
        yield {"src_mask": numbers(N, N)}
        yield {"src_mask": numbers(B * H, N, N), "src_key_padding_mask": padding(N)}
        yield {"src_mask": causal_mask(), "is_causal": True}
        yield {"src_mask": causal_mask().isinf(), "is_causal": True, "src_key_padding_mask": padding(N)}


def called(module, *args, grad, **kwargs):
    with torch.set_grad_enabled(grad):
        return module(*args, **kwargs).detach()


def encoder_layer(name, batch_first=True, norm_first=False):
    torch.manual_seed(0)
    layer = torch.nn.TransformerEncoderLayer(
        F, H, 7, 0.0, batch_first=batch_first, norm_first=norm_first, **DOUBLE
    )
    layer.self_attn = attention(name, batch_first)
    return layer


def blocks(layer, x, given):
    r"""An encoder layer written down."""

    def attend(x):
        masks = {
            "attn_mask": given.get("src_mask"),
            "key_padding_mask": given.get("src_key_padding_mask"),
            "is_causal": given.get("is_causal", False),
        }
        return layer.self_attn(x, x, x, need_weights=False, **masks)[0]

    def feed_forward(x):
        return layer.linear2(torch.relu(layer.linear1(x)))

    if layer.norm_first:
        x = x + attend(layer.norm1(x))
        return x + feed_forward(layer.norm2(x))
    x = layer.norm1(x + attend(x))
    return layer.norm2(x + feed_forward(x))


@pytest.mark.parametrize("name", MODULES)
@pytest.mark.parametrize("batch_first", [True, False])
def test_encoder_layers_call_it_in_training_and_evaluation(name, batch_first):
    for norm_first in (False, True):
        layer = encoder_layer(name, batch_first, norm_first)
        x = numbers(B, N, F) if batch_first else numbers(B, N, F).transpose(0, 1)
        for given in encoder_masks(name):
            wanted = blocks(layer, x, given).detach()
            for training, grad, frozen in itertools.product((True, False), repeat=3):
                layer.train(training).requires_grad_(not frozen)
                torch.testing.assert_close(called(layer, x, grad=grad, **given), wanted)
        torch.testing.assert_close(
            called(layer, x[0], grad=False), blocks(layer, x[0], {})
        )  # without a batch


def test_the_dot_product_is_what_torch_computes():
    for norm_first in (False, True):
        torch.manual_seed(0)
        stock = torch.nn.TransformerEncoderLayer(
            F, H, 7, 0.0, batch_first=True, norm_first=norm_first, **DOUBLE
        ).eval()
        ours = copy.deepcopy(stock)
        ours.self_attn = KernelAttention.from_torch(stock.self_attn)
        for given in encoder_masks("dot_product"):
            x = numbers(B, N, F)
            wanted = called(stock, x, grad=True, **given)  # its fast path gives NaN for masks of numbers
            found = called(ours, x, grad=False, **given)
            seen = ~padding(N) if "src_key_padding_mask" in given else torch.ones(B, N, dtype=torch.bool)
            torch.testing.assert_close(found[seen], wanted[seen])


@pytest.mark.parametrize("exchanged", ["before", "after"])
@pytest.mark.parametrize("name", MODULES)
def test_encoders_call_it_with_nested_tensors_enabled(name, exchanged):
    if exchanged == "before":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # that nested tensors are off, which is right
            stack = torch.nn.TransformerEncoder(encoder_layer(name), 2, enable_nested_tensor=True)
    else:  # torch makes nested tensors of padded ones
        plain = torch.nn.TransformerEncoderLayer(F, H, 7, 0.0, batch_first=True, **DOUBLE)
        stack = torch.nn.TransformerEncoder(plain, 2, enable_nested_tensor=True)
        for layer in stack.layers:
            layer.self_attn = attention(name)
    x = numbers(B, N, F)
    for given in encoder_masks(name):
        given = {name.removeprefix("src_") if name == "src_mask" else name: m for name, m in given.items()}
        wanted = x
        for layer in stack.layers:
            layer_given = {"src_mask" if name == "mask" else name: m for name, m in given.items()}
            wanted = blocks(layer, wanted, layer_given).detach()
        seen = ~padding(N) if "src_key_padding_mask" in given else torch.ones(B, N, dtype=torch.bool)
        for training, grad in itertools.product((True, False), repeat=2):
            found = called(stack.train(training), x, grad=grad, **given)
            torch.testing.assert_close(found[seen], wanted[seen])


@pytest.mark.parametrize("layout", [torch.strided, torch.jagged], ids=str)
@pytest.mark.parametrize("name", ["rbf", "shared_qk", "fourier", "primal"])
def test_encoder_layers_take_nested_tensors(name, layout):
    layer = encoder_layer(name)
    parts = [numbers(size, F, seed=size) for size in (3, 0, 5)]
    nested = torch.nested.as_nested_tensor(parts, layout=layout)
    for training, grad in itertools.product((True, False), repeat=2):
        out = called(layer.train(training), nested, grad=grad)
        for part, found in zip(parts, out.unbind(), strict=True):
            torch.testing.assert_close(found, blocks(layer, part.unsqueeze(0), {}).squeeze(0).detach())


@pytest.mark.parametrize("cross", CROSS)
@pytest.mark.parametrize("batch_first", [True, False])
def test_decoder_layers_call_both(cross, batch_first):
    y, x = numbers(B, N, F), numbers(B, M, F, seed=1)
    if not batch_first:
        y, x = y.transpose(0, 1), x.transpose(0, 1)
    for own, norm_first in itertools.product((cross, "primal"), (False, True)):
        torch.manual_seed(0)
        layer = torch.nn.TransformerDecoderLayer(
            F, H, 7, 0.0, batch_first=batch_first, norm_first=norm_first, **DOUBLE
        )
        layer.self_attn, layer.multihead_attn = attention(own, batch_first), attention(cross, batch_first)
        given = {"tgt_key_padding_mask": padding(N), "memory_key_padding_mask": padding(M)}
        if own != "primal":
            given |= {
                "tgt_mask": causal_mask().isinf(),
                "tgt_is_causal": True,
                "memory_mask": numbers(N, M) > 1,
            }

        def attend(y, layer=layer, given=given):
            mask, causal = given.get("tgt_mask"), given.get("tgt_is_causal", False)
            return layer.self_attn(y, y, y, padding(N), False, mask, is_causal=causal)[0]

        def attend_cross(y, layer=layer, given=given):
            return layer.multihead_attn(y, x, x, padding(M), False, given.get("memory_mask"))[0]

        def feed_forward(y, layer=layer):
            return layer.linear2(torch.relu(layer.linear1(y)))

        wanted = y
        for norm, block in ((layer.norm1, attend), (layer.norm2, attend_cross), (layer.norm3, feed_forward)):
            wanted = wanted + block(norm(wanted)) if norm_first else norm(wanted + block(wanted))
        for training, grad in itertools.product((True, False), repeat=2):
            torch.testing.assert_close(
                called(layer.train(training), y, x, grad=grad, **given), wanted.detach()
            )


@pytest.mark.parametrize("name", ["rbf", "grouped", "fourier"])
def test_a_whole_transformer_of_torch(name):
    torch.manual_seed(0)
    model = torch.nn.Transformer(F, H, 2, 1, 7, 0.0, batch_first=True, **DOUBLE)
    for layer in (*model.encoder.layers, *model.decoder.layers):
        layer.self_attn = attention(name)
    for layer in model.decoder.layers:
        layer.multihead_attn = attention(name)
    y, x = numbers(B, N, F), numbers(B, M, F, seed=1)
    given = {"tgt_mask": causal_mask(), "tgt_is_causal": True}
    given |= {"src_key_padding_mask": padding(M).double().masked_fill(padding(M), -torch.inf)}
    given["memory_key_padding_mask"] = given["src_key_padding_mask"]
    wanted = called(model, x, y, grad=True, **given)
    for grad in (True, False):
        torch.testing.assert_close(called(model.eval(), x, y, grad=grad, **given), wanted)


def test_causal_primal_attention_takes_the_mask_of_its_order():
    layer = encoder_layer("primal")
    layer.self_attn = PrimalAttention(F, H, rank=2, causal=True).double()
    stack = torch.nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
    x = numbers(B, N, F)
    changed = x.clone()
    changed[:, 3:] += 1.0
    for training in (True, False):
        out, other = (stack.train(training)(t, mask=causal_mask(), is_causal=True) for t in (x, changed))
        torch.testing.assert_close(out[:, :3], other[:, :3], rtol=0, atol=0)
    with pytest.raises(ValueError, match="attn_mask=None"):
        layer(x, src_mask=causal_mask())


def test_stands_for_weights_are_no_state():
    for name in MODULES:
        module = attention(name)
        assert all(isinstance(x, torch.Tensor) for x in module.state_dict().values())
        assert not module._qkv_same_embed_dim
        assert copy.deepcopy(module).state_dict().keys() == module.state_dict().keys()
    assert attention("primal").out_proj is not None
    assert "out_proj.weight" not in attention("primal").state_dict()
