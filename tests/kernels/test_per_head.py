import pytest
import torch

from kgat import KernelAttention, KernelGAT, KernelGATConv
from kgat.experiments.registry import resolve_model
from kgat.functional import dense_attention, dense_softmax, edge_attention, explain, linear_attention
from kgat.kernels import RBF, Additive, Kernel, Laplace, PerHead, resolve
from kgat.testing import check_kernel

pytestmark = pytest.mark.quick

EDGES = torch.tensor([[0, 1, 2, 3, 4, 0, 2, 2], [1, 2, 3, 4, 0, 0, 0, 2]])


def sides(heads, nodes=5, channels=3, dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(nodes, heads, channels, dtype=dtype, generator=generator) for _ in range(3)]


def test_it_keeps_the_laws():
    check_kernel(lambda channels, heads=1: resolve("rbf|additive|dot*l2", channels, max(heads, 3)))


@pytest.mark.parametrize(("heads", "dealt"), [(3, [1, 1, 1]), (4, [2, 1, 1]), (5, [2, 2, 1]), (8, [3, 3, 2])])
def test_heads_are_dealt(heads, dealt):
    kernel = resolve("rbf | additive | (rbf+laplace)*l2", 4, heads)
    assert ([part.heads for part in kernel.parts], kernel.heads) == (dealt, heads)


def test_names_and_errors():
    assert repr(resolve("rbf|laplace", 4, 2)) == "PerHead(RBF(4, heads=1) | Laplace(4, heads=1))"
    assert resolve_model(" RBF | Additive * L2 @separate").name == "rbf|additive*l2@separate"
    assert resolve_model("rbf|(laplace+dot)").name == "rbf|(laplace+dot)"
    with pytest.raises(ValueError, match=r"heads for each of 2 kernels that stand between '\|' \(got 1\)"):
        resolve("rbf|laplace", 4, 1)
    with pytest.raises(ValueError, match=r"name of a kernel at each place of 'rbf\|'"):
        resolve("rbf|", 4, 2)
    with pytest.raises(ValueError, match="equal channels"):
        PerHead(RBF(4), Laplace(5))
    with pytest.raises(ValueError, match="at least one kernel"):
        PerHead()


@pytest.mark.parametrize("backend", ["eager", "cpu", "reference"])
@pytest.mark.parametrize("per_head", [True, False])
def test_edges_are_those_of_each_kernel_alone(backend, per_head):
    q, k, v = sides(3, dtype=torch.float32)
    kernel = PerHead(RBF(3, heads=2), Additive(3, heads=1))
    shape = (8, 3) if per_head else (8,)
    options = {
        "edge_log_weight": torch.rand(shape),
        "edge_weight": torch.rand(shape),
        "base": torch.rand(3, 3),
    }
    options["edge_bias"] = torch.rand(8, 3)
    leaves = [x.requires_grad_() for x in (q, k, v, *options.values())]
    out = edge_attention(kernel(q, k), v, EDGES, backend=backend, **options)
    expected = []
    for part, heads in zip(kernel.parts, (slice(0, 2), slice(2, 3)), strict=True):
        own = {
            n: x[..., heads] if per_head or n == "edge_bias" else x for n, x in options.items() if n != "base"
        }
        gram = part(q[:, heads], k[:, heads])
        expected.append(
            edge_attention(gram, v[:, heads], EDGES, base=options["base"][heads], backend=backend, **own)
        )
    wanted = torch.cat(expected, dim=1)
    torch.testing.assert_close(out, wanted, rtol=0, atol=0)
    leaves += list(kernel.parameters())
    weights = torch.rand_like(out)
    torch.testing.assert_close(
        torch.autograd.grad((out * weights).sum(), leaves),
        torch.autograd.grad((wanted * weights).sum(), leaves),
    )


@pytest.mark.parametrize("method", ["dense", "edges", "auto"])
@pytest.mark.parametrize("columns", [1, 3])
def test_all_pairs_are_those_of_each_kernel_alone(method, columns):
    q, k, v = (x.expand(2, -1, -1, -1).clone() for x in sides(3))
    kernel = PerHead(Laplace(3, heads=1), RBF(3, heads=2)).double()
    mask = torch.ones(5, 5, dtype=torch.bool).tril()
    bias = torch.rand(5, 5, columns, dtype=torch.float64)
    out = dense_attention(kernel(q, k), v, mask, bias=bias, method=method)
    alpha = dense_softmax(kernel(q, k), mask, bias=bias)
    torch.testing.assert_close(out, torch.einsum("bnmh,bmhc->bnhc", alpha, v))
    assert explain(kernel(q, k), v).count("dense:") == 2
    assert explain(kernel(q[0], k[0]), v[0], EDGES).count("eager: ok") == 2


def test_features_of_kernels_that_have_some():
    q, k, v = sides(2)
    kernel = resolve("elu_plus_one|polynomial", 3, 2).double()
    gram = kernel(q, k)
    f, g = gram.features()
    torch.testing.assert_close(torch.einsum("nhr,mhr->nmh", f, g), gram.dense().exp())
    torch.testing.assert_close(linear_attention(gram, v), dense_attention(gram, v))


@pytest.mark.parametrize("backend", [None, "eager"])
def test_products_across_heads_and_with_other_kernels(backend):
    q, k, v = sides(2, dtype=torch.float32)
    alone = PerHead(RBF(3), Laplace(3))(q, k)
    for other in (PerHead(Laplace(3), RBF(3)), resolve("lp", 3, 2), resolve("rbf+dot", 3, 2)):
        for product in (alone * other(q, k), other(q, k) * alone):
            torch.testing.assert_close(product.dense(), alone.dense() + other(q, k).dense())
            index = EDGES[1], EDGES[0]
            torch.testing.assert_close(product.at(*index), alone.at(*index) + other(q, k).at(*index))
            out = edge_attention(product, v, EDGES, backend=backend)
            torch.testing.assert_close(out, edge_attention(product, v, EDGES, backend="reference"))


def test_layers_and_models_take_it():
    x = torch.randn(5, 6)
    conv = KernelGATConv(6, 4, heads=2, kernel="gat|rbf", edge_dim=2, bias=False)
    stock = KernelGATConv(6, 4, heads=1, kernel="gat", edge_dim=2, bias=False)
    state = {"lin.weight": conv.lin.weight[:4], "lin_edge.weight": conv.lin_edge.weight[:4]}
    state |= {"att_edge": conv.att_edge[:, :1], "att_src": conv.kernel.kernels[0].att_key[None]}
    stock.load_state_dict({**state, "att_dst": conv.kernel.kernels[0].att_query[None]})
    edge_attr = torch.randn(8, 2)
    out, (_, alpha) = conv(x, EDGES, edge_attr, return_attention_weights=True)
    expected, (_, wanted) = stock(x, EDGES, edge_attr, return_attention_weights=True)
    torch.testing.assert_close(out[:, :4], expected)
    torch.testing.assert_close(alpha[:, :1], wanted)
    model = KernelGAT(6, 8, 2, 3, heads=4, kernel="rbf|additive|dot|spectral", jk="last")
    model(x, EDGES).sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    assert KernelAttention(8, num_heads=2, kernel="rbf|dot")(torch.randn(2, 5, 8))[0].shape == (2, 5, 8)


def test_parts_have_starts_of_their_own():
    x = torch.randn(40, 6)
    edges = torch.randint(0, 40, (2, 300))
    layers = [
        KernelGATConv(6, 4, heads=h, kernel=k, start="unit") for h, k in ((3, "rbf|laplace"), (2, "rbf"))
    ]
    layers.append(KernelGATConv(6, 4, heads=1, kernel="laplace", start="unit"))
    mixed, *alone = layers
    for layer, rows in zip(alone, (slice(0, 8), slice(8, 12)), strict=True):
        layer.lin.weight.data.copy_(mixed.lin.weight[rows])
    for layer in layers:
        layer(x, edges)
    scales = [part.input_scale for part in mixed.kernel.parts]
    for scale, layer in zip(scales, alone, strict=True):
        torch.testing.assert_close(scale, layer.kernel.input_scale, rtol=0, atol=0)
    again = KernelGATConv(6, 4, heads=3, kernel="rbf|laplace", start="unit")
    again.load_state_dict(mixed.state_dict())
    torch.testing.assert_close(again(x, edges), mixed(x, edges))


def test_what_is_said_of_all_parts_alone_holds_of_it():
    assert PerHead(RBF(3), Laplace(3)).translation_invariant
    assert not PerHead(RBF(3), Additive(3)).translation_invariant
    assert isinstance(PerHead(RBF(3)), Kernel)
