import copy
import functools
import itertools

import pytest
import torch
from torch.utils.checkpoint import checkpoint

from kgat import positions
from kgat.nn import (
    FourierAttention,
    KernelAttention,
    KernelDecoderLayer,
    KernelEncoderLayer,
    PrimalAttention,
    SegmentMemory,
)
from kgat.nn.attention import accepts, resolve

B, N, F, H = 3, 5, 12, 3


def grads(layer, out, *inputs):
    torch.manual_seed(1)
    (out * torch.randn_like(out)).sum().backward()
    found = {name: p.grad for name, p in layer.named_parameters()}
    assert all(grad is not None for grad in found.values())
    return found | {f"input {i}": x.grad for i, x in enumerate(inputs)}


def masks():
    hidden = torch.rand(N, N) < 0.3
    hidden.fill_diagonal_(False)
    padding = torch.zeros(B, N, dtype=torch.bool)
    padding[0, 3:] = padding[1, 1] = True
    causal = torch.nn.Transformer.generate_square_subsequent_mask(N, dtype=torch.float64)
    return {
        "none": {},
        "bool": {"src_mask": hidden},
        "float": {"src_mask": torch.randn(N, N, dtype=torch.float64)},
        "per head": {"src_mask": torch.randn(B * H, N, N, dtype=torch.float64)},
        "padding": {"src_key_padding_mask": padding},
        "causal": {"src_mask": causal, "is_causal": True},
        "causal and padding": {"src_mask": causal > -1, "src_key_padding_mask": padding & False},
    }


@pytest.mark.parametrize("mask", masks())
@pytest.mark.parametrize("norm_first", [False, True])
def test_equals_torch(norm_first, mask):
    torch.manual_seed(0)
    given = masks()[mask]
    if mask == "causal and padding":
        given["src_mask"] = ~torch.ones(N, N).tril().bool()
        given["src_key_padding_mask"][0, 3:] = True
    options = {"norm_first": norm_first, "batch_first": True, "bias": mask != "bool", "dtype": torch.float64}
    act = "gelu" if mask == "none" else "relu"
    stock = torch.nn.TransformerEncoderLayer(F, H, 7, 0.0, act, 1e-3, **options)
    torch.nn.init.normal_(stock.self_attn.out_proj.weight)
    ours = KernelEncoderLayer(F, H, 7, 0.0, act, 1e-3, norm_first=norm_first, bias=options["bias"]).double()
    ours.load_state_dict(stock.state_dict(), strict=True)
    x = torch.randn(B, N, F, dtype=torch.float64)
    x_stock, x_ours = x.clone().requires_grad_(), x.clone().requires_grad_()
    expected = stock(x_stock, **given)
    if given.get("is_causal"):
        given = {"is_causal": True}  # needs no mask here
    out = ours(x_ours, **given)
    torch.testing.assert_close(out, expected, rtol=1e-12, atol=1e-12)
    found, wanted = grads(ours, out, x_ours), grads(stock, expected, x_stock)
    assert found.keys() == wanted.keys()
    for name in wanted:
        torch.testing.assert_close(found[name], wanted[name], rtol=1e-10, atol=1e-12, msg=name)


@pytest.mark.parametrize("norm_first", [False, True])
def test_equals_torch_in_layout(norm_first):
    torch.manual_seed(0)
    stock = torch.nn.TransformerEncoderLayer(F, H, 7, norm_first=norm_first)
    ours = KernelEncoderLayer(F, H, 7, batch_first=False, norm_first=norm_first)
    ours.load_state_dict(stock.state_dict())
    x = torch.randn(N, B, F)
    torch.testing.assert_close(ours.eval()(x), stock.eval()(x))
    torch.testing.assert_close(ours(x[:, 0]), stock(x[:, 0]))
    assert ours.self_attn.dropout == 0.1


@pytest.mark.parametrize("norm_first", [False, True])
def test_dropout_is_where_torch_has_it(norm_first):
    options = {"batch_first": True, "norm_first": norm_first}
    stock = torch.nn.TransformerEncoderLayer(F, H, 7, 0.5, **options)
    stock.self_attn.dropout = 0.0  # torch draws that of the weights in another order
    ours = KernelEncoderLayer(F, H, 7, 0.5, **options, attention_kwargs={"dropout": 0.0})
    ours.load_state_dict(stock.state_dict())
    x, outs = torch.randn(N, F), []  # one sequence: masks of several depend on the layout in memory
    for layer in (stock, ours):
        torch.manual_seed(1)
        outs.append(layer(x))
    torch.testing.assert_close(*outs)
    assert not torch.allclose(ours(x), outs[1])


class Counting(KernelAttention):
    calls = 0

    def forward(self, *args, **kwargs):
        Counting.calls += 1
        return super().forward(*args, **kwargs)


@pytest.mark.parametrize("training", [True, False])
def test_attention_is_never_skipped(training):
    layer = KernelEncoderLayer(F, H, 7, attention=functools.partial(Counting, kernel="rbf")).train(training)
    x = torch.randn(B, N, F)
    stack = torch.nn.TransformerEncoder(layer, 2, enable_nested_tensor=False).train(training)
    padding = torch.zeros(B, N, dtype=torch.bool)
    padding[:, 4] = True
    with torch.no_grad():
        for call, number in ((lambda: layer(x), 1), (lambda: stack(x, src_key_padding_mask=padding), 2)):
            Counting.calls = 0
            call()
            assert Counting.calls == number


@pytest.mark.parametrize("attention", ["kernel", "rbf", "fourier", "primal"])
@pytest.mark.parametrize("training", [True, False])
def test_padded_and_empty_sequences(attention, training):
    torch.manual_seed(0)
    kwargs = {"rank": 2, "rank_multi": 2} if attention == "primal" else {}
    layer = KernelEncoderLayer(F, H, 7, 0.0, attention=attention, attention_kwargs=kwargs).train(training)
    for length in (0, 1, N):
        x = torch.randn(2, length, F, requires_grad=True)
        padding = torch.zeros(2, length, dtype=torch.bool)
        padding[0] = True
        out = layer(x, src_key_padding_mask=padding)
        assert out.shape == x.shape
        out.sum().backward()
        assert out.isfinite().all()
        assert x.grad.isfinite().all()
        assert all(p.grad is None or p.grad.isfinite().all() for p in layer.parameters())
        # What is padding has no influence on what is not.
        y = x.detach().clone()
        y[0] = 7.0
        torch.testing.assert_close(layer(y, src_key_padding_mask=padding)[1], out[1])


@pytest.mark.parametrize("attention", ["kernel", "primal", "implicit_spectral"])
def test_padding_of_a_stack_of_torch(attention):
    # Which hands masks to its layers as numbers.
    torch.manual_seed(0)
    kwargs = {"primal": {"rank": 2}, "implicit_spectral": {"kernel_kwargs": {"data_dependent": True}}}
    layer = KernelEncoderLayer(F, H, 7, attention=attention, attention_kwargs=kwargs.get(attention))
    stack = torch.nn.TransformerEncoder(layer, 2, enable_nested_tensor=False).eval()
    x, padding = torch.randn(2, N, F), torch.zeros(2, N, dtype=torch.bool)
    padding[0, 3:] = True
    wanted = x
    for part in stack.layers:
        wanted = part(wanted, src_key_padding_mask=padding)
    torch.testing.assert_close(stack(x, src_key_padding_mask=padding), wanted)


def test_padding_tokens_have_no_influence():
    torch.manual_seed(0)
    layer = KernelEncoderLayer(F, H, 7, 0.0, attention="rbf").double()
    x = torch.randn(2, N, F, dtype=torch.float64)
    padding = torch.zeros(2, N, dtype=torch.bool)
    padding[:, 3:] = True
    torch.testing.assert_close(layer(x, src_key_padding_mask=padding)[:, :3], layer(x[:, :3]))


def test_losses_reach_the_list():
    losses = []
    x = torch.randn(2, N, F)
    KernelEncoderLayer(F, H, 7, attention="primal")(x, losses=losses)
    assert len(losses) == 1
    KernelEncoderLayer(F, H, 7, attention="copula_spectral")(x, losses=losses)
    assert len(losses) == 2
    assert all(loss.dim() == 0 and loss.requires_grad for loss in losses)


def test_cached_steps_equal_the_whole():
    torch.manual_seed(0)
    layer = KernelEncoderLayer(F, H, 7, 0.0, attention="rbf", attention_kwargs={"position": "txl"}).double()
    x = torch.randn(B, N, F, dtype=torch.float64)
    cache = layer.empty_cache()
    parts = [layer(part, is_causal=True, cache=cache) for part in x.split([2, 1, 2], dim=1)]
    torch.testing.assert_close(torch.cat(parts, dim=1), layer(x, is_causal=True))
    assert KernelEncoderLayer(F, H, 7, attention="primal").empty_cache() is None


def test_compiles_whole():
    layer = KernelEncoderLayer(F, H, 7, 0.0, attention="rbf", norm_first=True)
    x = torch.randn(B, N, F)
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x, is_causal=True), layer(x, is_causal=True))


def test_autocast():
    layer = KernelEncoderLayer(F, H, 7, 0.0, attention="rbf")
    x = torch.randn(B, N, F)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = layer(x)
    torch.testing.assert_close(out.float(), layer(x), rtol=0.05, atol=0.05)


@pytest.mark.parametrize("act", ["gelu", torch.nn.ELU(), torch.tanh])
def test_activation(act):
    layer = KernelEncoderLayer(F, H, 7, 0.0, act=act)
    x = torch.randn(B, N, F)
    torch.nn.init.zeros_(layer.self_attn.out_proj.weight)
    y = layer.norm1(x)
    function = torch.nn.functional.gelu if act == "gelu" else act
    torch.testing.assert_close(layer(x), layer.norm2(y + layer.linear2(function(layer.linear1(y)))))


def test_what_attention_may_be():
    assert resolve("kernel") is KernelAttention
    assert resolve(" Primal") is PrimalAttention
    assert resolve("rbf * magnitude")(F, H).kernel.parts[1].channels == F // H
    made = KernelEncoderLayer(F, H, attention=lambda size, heads, **kw: KernelAttention(size, heads, **kw))
    assert made.self_attn.dropout == 0.1
    with pytest.raises(TypeError, match=r"a name or a factory .*of type 'KernelAttention'"):
        KernelEncoderLayer(F, H, attention=KernelAttention(F, H))
    with pytest.raises(TypeError, match="Expected 'attention'"):
        KernelEncoderLayer(F, H, attention=3)
    with pytest.raises(ValueError, match=r"attention='rbf' \(got 'kernel'\)"):
        KernelEncoderLayer(F, H, attention="rbf", attention_kwargs={"kernel": "laplace"})
    with pytest.raises(ValueError, match=r"\(got 'ranks'\)"):
        KernelEncoderLayer(F, H, attention="primal", attention_kwargs={"ranks": 3})
    with pytest.raises(ValueError, match="Expected the name of an attention or a kernel"):
        KernelEncoderLayer(F, H, attention="rfb")


def test_arguments_that_a_module_accepts():
    assert accepts(lambda size, heads, **kw: None, "anything")
    assert not accepts(functools.partial(KernelAttention, position="txl"), "position")
    assert all(accepts("fourier", name) for name in ("per", "position", "dropout"))
    assert not any(accepts("fourier", name) for name in ("kernel", "kernel_kwargs", "rank"))
    layer = KernelEncoderLayer(F, H, dropout=0.3, attention_kwargs={"dropout": 0.0})
    assert layer.self_attn.dropout == 0.0
    assert layer.dropout.p == 0.3


def modules_with_hooks(layer):
    # Lists of modules and positions are never called as such: their methods are.
    return {
        name: module
        for name, module in layer.named_modules()
        if type(module).forward is not torch.nn.Module.forward and name
    }


LAYERS = {
    "kernel": lambda: KernelEncoderLayer(F, H, 7, 0.0, attention="rbf * magnitude"),
    "maps": lambda: KernelEncoderLayer(
        *(F, H, 7, 0.0),
        attention_kwargs={"query_map": torch.nn.Linear(F, F), "key_map": torch.nn.Linear(F, F)},
    ),
    "symmetric": lambda: KernelEncoderLayer(F, H, 7, 0.0, attention_kwargs={"position": "symmetric"}),
    "txl": lambda: KernelEncoderLayer(F, H, 7, 0.0, attention_kwargs={"position": "txl"}),
    "fourier": lambda: KernelEncoderLayer(F, H, 7, 0.0, attention="fourier", norm_first=True),
    "primal": lambda: KernelEncoderLayer(F, H, 7, 0.0, attention="primal", attention_kwargs={"rank": 2}),
    "primal rbf": lambda: KernelEncoderLayer(
        *(F, H, 7, 0.0),
        attention="primal",
        attention_kwargs={"rank": 2, "kernel": "favor_plus * magnitude", "causal": True},
    ),
    "implicit": lambda: KernelEncoderLayer(F, H, 7, 0.0, attention="implicit_spectral"),
    "gated": lambda: KernelEncoderLayer(F, H, 7, 0.0, attention="gated_additive"),
    "kan": lambda: KernelEncoderLayer(F, H, 7, 0.0, attention="kan_score"),
    "decoder": lambda: KernelDecoderLayer(F, H, 7, 0.0, attention="rbf", cross_attention="laplace"),
}


@pytest.mark.parametrize("name", LAYERS)
def test_hooks_of_every_module_fire_and_count(name):
    torch.manual_seed(0)
    layer = LAYERS[name]().double().eval()
    x = torch.randn(2, N, F, dtype=torch.float64)
    inputs = (x, torch.randn(2, 4, F, dtype=torch.float64)) if name == "decoder" else (x,)
    wanted = layer(*inputs)
    for path, module in modules_with_hooks(layer).items():
        calls = []
        hooks = [
            module.register_forward_pre_hook(lambda *_, calls=calls: calls.append("before")),
            module.register_forward_hook(lambda *_, calls=calls: calls.append("after")),
        ]
        torch.testing.assert_close(layer(*inputs), wanted)
        assert {"before", "after"} <= set(calls), path
        for hook in hooks:
            hook.remove()
        if isinstance(module, torch.nn.Linear):
            hook = module.register_forward_hook(lambda module, args, out: 3.0 * out)
            changed = layer(*inputs)
            hook.remove()
            # The same weights three times as large, biases too.
            with torch.no_grad():
                for p in module.parameters():
                    p.mul_(3.0)
                torch.testing.assert_close(layer(*inputs), changed, msg=path)
                for p in module.parameters():
                    p.div_(3.0)


@pytest.mark.filterwarnings("ignore:.*weight_norm.* is deprecated")
@pytest.mark.parametrize("name", ["symmetric", "txl", "primal", "kernel"])
def test_reparametrised_weights_train_for_several_steps(name):
    # Weights that a hook makes before each call are those of the last step if nothing calls the module.
    torch.manual_seed(0)
    layer = LAYERS[name]().double()
    plain = copy.deepcopy(layer)
    linears = [path for path, m in layer.named_modules() if type(m) is torch.nn.Linear]
    for path in linears:
        torch.nn.utils.weight_norm(layer.get_submodule(path))
    x = torch.randn(2, N, F, dtype=torch.float64)
    for queries in (N, 1):  # one query has a way of its own in a position
        for _ in range(2):
            layer.zero_grad()
            layer(x[:, :queries]).square().sum().backward()
            with torch.no_grad():
                for p in layer.parameters():
                    if p.grad is not None:
                        p.sub_(0.01 * p.grad)
        with torch.no_grad():
            for path, module in plain.named_modules():
                own = layer.get_submodule(path)
                for key, p in module.named_parameters(recurse=False):
                    if hasattr(own, f"{key}_g"):
                        v = getattr(own, f"{key}_v")
                        p.copy_(getattr(own, f"{key}_g") * v / v.norm(dim=1, keepdim=True))
                    else:
                        p.copy_(getattr(own, key))
        torch.testing.assert_close(layer(x[:, :queries]), plain(x[:, :queries]))


ROUTES = ["auto", "sdpa", "edges", "dense"]
DROPPING = {
    "dot_product": ROUTES,
    "rbf": ROUTES,
    "laplace": ["auto", "edges", "dense"],
    "rbf * laplace": ["auto", "edges", "dense"],
    "rbf + laplace": ["auto", "dense"],
    "elu_plus_one": ["auto", "edges", "dense"],
    "implicit_spectral": ["auto"],
    "fourier": ["auto"],
    "primal": [None],
}


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("name", DROPPING)
def test_checkpoints_with_dropout_have_the_same_gradients(name, reentrant):
    for method, position in itertools.product(DROPPING[name], (None, "rope", "symmetric")):
        kwargs = {} if method is None else {"method": method, "position": position}
        torch.manual_seed(0)
        layer = KernelEncoderLayer(F, H, 7, 0.4, attention=name, attention_kwargs=kwargs).double()
        x = torch.randn(2, N, F, dtype=torch.float64, requires_grad=True)
        leaves = [x, *layer.parameters()]
        found = []
        again = functools.partial(checkpoint, layer, use_reentrant=reentrant)
        for run in (layer, again):
            torch.manual_seed(3)
            for leaf in leaves:
                leaf.grad = None
            out = run(x)
            out.square().sum().backward()
            found.append([out, *(leaf.grad for leaf in leaves)])
        torch.testing.assert_close(found[1], found[0], msg=f"{method} {position}")


@pytest.mark.parametrize("name", LAYERS)
def test_forward_changes_nothing_on_a_module(name):
    torch.manual_seed(0)
    layer = LAYERS[name]().eval()
    x = torch.randn(2, N, F)
    inputs = (x, torch.randn(2, 4, F)) if name == "decoder" else (x,)

    def state():
        return {
            path: {
                key: value.clone() if isinstance(value, torch.Tensor) else value
                for key, value in vars(module).items()
            }
            for path, module in layer.named_modules()
        }

    before, tensors = state(), {k: v.clone() for k, v in layer.state_dict().items()}
    layer(*inputs, losses=[]).sum().backward()
    after = state()
    assert before.keys() == after.keys()
    for path in before:
        assert before[path].keys() == after[path].keys(), path
        for key, value in before[path].items():
            if not isinstance(value, torch.Tensor):
                assert after[path][key] is value or after[path][key] == value, (path, key)
    assert all(torch.equal(tensors[k], v) for k, v in layer.state_dict().items())


def made_with(device=None, dtype=None):
    given = {"device": device, "dtype": dtype}
    yield KernelAttention(F, H, kernel="rbf", position="txl", **given)
    yield FourierAttention(F, H, **given)
    yield PrimalAttention(F, H, rank=2, **given)
    yield KernelEncoderLayer(F, H, 7, attention="implicit_spectral", **given)
    yield KernelEncoderLayer(F, H, 7, 0.1, "relu", 1e-5, True, False, True, device, dtype)  # as in torch
    yield KernelDecoderLayer(F, H, 7, **given)
    yield KernelDecoderLayer(F, H, 7, 0.1, "relu", 1e-5, True, False, True, device, dtype)


def test_device_and_type_of_every_layer():
    for layer in made_with("meta", torch.float64):
        assert {p.device.type for p in (*layer.parameters(), *layer.buffers())} == {"meta"}
        assert {p.dtype for p in layer.parameters()} == {torch.float64}
    for layer in made_with():
        assert {(p.device.type, p.dtype) for p in layer.parameters()} == {("cpu", torch.float32)}


@pytest.mark.parametrize("norm_first", [True, False])
def test_a_memory_of_tokens_that_come_first(norm_first):
    options = {"norm_first": norm_first, "dropout": 0.0}
    first = KernelEncoderLayer(12, 3, 16, batch_first=True, **options).double()
    second = KernelEncoderLayer(12, 3, 16, batch_first=False, **options).double()
    second.load_state_dict(first.state_dict())
    one, other = SegmentMemory(3), SegmentMemory(3)
    for segment in torch.randn(3, 2, 4, 12).double():
        expected = first(segment, is_causal=True, memory=one)
        out = second(segment.transpose(0, 1), is_causal=True, memory=other)
        torch.testing.assert_close(out.transpose(0, 1), expected)
        torch.testing.assert_close(other.states, one.states)
    with pytest.raises(ValueError, match=r"shape \[B, N, F\] \(got \[4, 12\]\); give them a batch"):
        first(torch.randn(4, 12).double(), is_causal=True, memory=SegmentMemory(3))


@pytest.mark.parametrize("norm_first", [False, True])
def test_memory_is_the_set_filter_of_transformer_xl(norm_first):
    torch.manual_seed(0)
    layer = KernelEncoderLayer(12, 3, 8, dropout=0.0, norm_first=norm_first, attention="rbf").double()
    before, size, after = 5, 3, 4
    x, memory = torch.randn(2, before + after, 12).double(), SegmentMemory(size)
    layer(x[:, :before], is_causal=True, memory=memory)
    places = range(-before, after)
    out = [
        layer(x[:, before:], is_causal=True, memory=memory),
        layer(x, src_mask=~positions.memory(size)(places, places))[:, before:],
    ]
    torch.testing.assert_close(*out)
    weights = layer.self_attn.in_proj_weight
    torch.testing.assert_close(*(torch.autograd.grad(o.square().sum(), weights)[0] for o in out))
