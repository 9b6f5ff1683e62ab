import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.interpolate import BSpline

from kgat.kernels import KANScore
from kgat.kernels.kan import b_splines
from kgat.ops.call import Call
from kgat.ops.fused import _scores
from kgat.score.gram import LazyGram

H, D = 3, 4


@pytest.mark.parametrize("order", [1, 2, 3])
@pytest.mark.parametrize("grid", [1, 4])
def test_b_splines_equal_scipy(order, grid):
    steps = torch.arange(-order, grid + order + 1)
    knots = (2.0 / grid * steps - 1.0).double()
    x = torch.linspace(-0.999, 0.999, 101).double()
    expected = BSpline.design_matrix(x.numpy(), knots.numpy(), order).toarray()
    basis = b_splines(x, knots, order)
    assert basis.shape == (101, grid + order)
    np.testing.assert_allclose(basis.numpy(), expected, atol=1e-12)
    torch.testing.assert_close(basis.sum(-1), torch.ones(101).double())


def test_splines_vanish_far_outside_the_grid():
    knots = torch.arange(-7.0, 8.0)
    assert (b_splines(torch.tensor([-100.0, 100.0]), knots, 3) == 0).all()


@pytest.mark.parametrize("num_layers", [1, 2, 3])
def test_score_equals_the_network_on_the_concatenated_pair(num_layers):
    torch.manual_seed(0)
    kernel = KANScore(D, H, num_layers=num_layers, grid_size=3, spline_order=2).double()
    q, k = torch.randn(5, H, D).double(), torch.randn(6, H, D).double()
    score = kernel(q, k).dense()
    for i in range(5):
        for j in range(6):
            x = torch.cat([q[i], k[j]], dim=-1)  # [H, 2 D]
            for layer in kernel.layers:
                basis = b_splines(x, layer.knots(x), 2)
                x = sum(
                    F.silu(x[:, c, None]) * layer.base[:, c]
                    + torch.einsum("hg,hgo->ho", basis[:, c], layer.spline[:, c])
                    for c in range(x.size(1))
                )
            torch.testing.assert_close(score[i, j], x.squeeze(-1), rtol=1e-12, atol=1e-12)


# REF 2: one layer on [i; j] is f(i) + g(j), so every query ranks the keys alike.
def test_one_layer_is_static_attention_and_two_are_not():
    torch.manual_seed(0)
    q, k = torch.randn(5, H, D), torch.randn(6, H, D)
    rows = KANScore(D, H, num_layers=1)(q, k).dense().softmax(dim=1)
    torch.testing.assert_close(rows, rows[:1].expand_as(rows))
    rows = KANScore(D, H, num_layers=2)(q, k).dense().softmax(dim=1)
    assert (rows - rows[:1]).abs().max() > 1e-3


def test_widths_and_bad_options():
    kernel = KANScore(D, H, num_layers=3, grid_size=4, spline_order=3)
    shapes = [tuple(layer.spline.shape) for layer in kernel.layers]
    assert shapes == [(H, 2 * D, 7, D), (H, D, 7, D), (H, D, 7, 1)]
    with pytest.raises(ValueError, match="a whole, positive"):
        KANScore(4, num_layers=0)


@pytest.mark.parametrize("order", [1, 2, 3, 4])
@pytest.mark.parametrize("grid", [1, 4, 7])
def test_two_layers_as_a_rule_of_pairs_are_the_network(order, grid):
    torch.manual_seed(0)
    kernel = KANScore(D, H, grid_size=grid, spline_order=order).double()
    for scale in (1e-3, 1.0, 30.0):  # inside of the grid, across its ends, and mostly outside
        q, k = (scale * torch.randn(n, H, D).double() for n in (5, 6))
        q, k = q.requires_grad_(), k.requires_grad_()
        found = kernel(q, k)
        assert len(found.terms) == (1 if order == 4 else 2)
        first = kernel.layers[0]
        u, v = first(q, slice(None, D)), first(k, slice(D, None))
        expected = LazyGram.of(u, v, kernel._rest)
        row, col = torch.cartesian_prod(torch.arange(5), torch.arange(6)).T
        edges, slope = torch.stack([col, row]), torch.randn(30, H).double()
        wanted = [q, k, *kernel.parameters()]
        values, grads = [], []
        for score in (
            found.dense().flatten(0, 1),
            found.at(row, col),
            _scores(found, Call(found, k, edges, 5)),
            expected.at(row, col),
        ):
            values.append(score)
            grads.append(torch.autograd.grad((score * slope).sum(), wanted, retain_graph=True))
        for value, grad in zip(values[:-1], grads[:-1], strict=True):
            torch.testing.assert_close(value, values[-1], rtol=1e-11, atol=1e-11)
            torch.testing.assert_close(grad, grads[-1], rtol=1e-11, atol=1e-11)


def test_knots_are_those_of_the_precision_at_hand():
    torch.manual_seed(0)
    kernel = KANScore(D, H, grid_size=7)
    steps = torch.arange(-3, 11).double()
    assert torch.equal(kernel.double().layers[0].knots(steps), 2 / 7 * steps - 1)
    q, k = torch.randn(5, H, D), torch.randn(6, H, D)
    half = kernel.bfloat16()
    torch.testing.assert_close(half(q, k).dense(), copy.deepcopy(half).float()(q, k).dense())


@pytest.mark.parametrize("num_layers", [1, 2, 3])
@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_gradients_of_numbers_far_outside_the_grid(order, num_layers):
    torch.manual_seed(0)
    kernel = KANScore(D, H, num_layers=num_layers, spline_order=order)
    q, k = torch.randn(5, H, D), torch.randn(6, H, D)
    q[2] *= 1e20  # the square of which is none of single precision
    grads = []
    for own in (kernel, copy.deepcopy(kernel).double()):
        leaves = [x.to(own.layers[0].base.dtype).requires_grad_() for x in (q, k)]
        score = own(*leaves).dense()
        assert score.isfinite().all()
        slope = torch.linspace(-1.0, 1.0, score.numel()).view_as(score)
        grads.append(torch.autograd.grad((score * slope.to(score)).sum(), leaves))
    for found, wanted in zip(*grads, strict=True):
        torch.testing.assert_close(found.double(), wanted, rtol=1e-3, atol=1e-4)
