import gc

import pytest
import torch

from kgat.nn.linear import Linear, drop_features
from kgat.ops.graph import memory, structure

pytestmark = pytest.mark.quick


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("bias", [True, False])
def test_sparse_features_equal_dense_ones(dtype, bias):
    torch.manual_seed(0)
    dense = (torch.randn(7, 5) * (torch.rand(7, 5) > 0.6)).to(dtype)
    x = dense.to_sparse_csr()
    lin = Linear(5, 3, bias=bias).to(dtype)
    slope = torch.randn(7, 3, dtype=dtype)
    grads = []
    for features in (dense, x, drop_features(x, 0.0)):
        lin.zero_grad()
        out = lin(features)
        torch.testing.assert_close(out, lin(dense))
        (out * slope).sum().backward()
        grads.append([p.grad.clone() for p in lin.parameters()])
    for found in grads[1:]:
        for f, expected in zip(found, grads[0], strict=True):
            torch.testing.assert_close(f, expected)


def test_dropped_features_share_the_transpose(monkeypatch):
    torch.manual_seed(0)
    x = (torch.randn(7, 5) * (torch.rand(7, 5) > 0.6)).to_sparse_csr()
    lin = Linear(5, 3)
    built = []
    of = structure.Transpose.of
    monkeypatch.setattr(structure.Transpose, "of", lambda matrix: built.append(1) or of(matrix))
    for _ in range(3):
        dropped = drop_features(x, 0.5)
        slope = torch.randn(7, 3)
        lin.zero_grad()
        (lin(dropped) * slope).sum().backward()
        torch.testing.assert_close(lin.weight.grad, slope.t() @ dropped.to_dense())
    assert len(built) == 1


def test_nothing_is_kept_after_the_features_are_gone():
    x = torch.eye(4).to_sparse_csr()
    lin = Linear(4, 2)
    lin(drop_features(x, 0.5)).sum().backward()
    key = id(x)
    assert key in memory._MEMORY
    del x
    gc.collect()
    assert key not in memory._MEMORY


def test_lazy():
    lin = Linear(-1, 2)
    assert lin(torch.eye(4).to_sparse_csr()).shape == (4, 2)
    assert lin.weight.shape == (2, 4)
