import pytest
import torch

from kgat.ops.dropout import dropout

pytestmark = pytest.mark.quick


@pytest.mark.parametrize("p", [0.1, 0.5, 0.6, 0.9])
def test_keep_rate_and_scale(p):
    torch.manual_seed(0)
    n = 200_001  # no multiple of the four values of a word
    out = dropout(torch.ones(n), p)
    kept = out != 0
    deviation = (p * (1 - p) / n) ** 0.5
    assert abs(kept.float().mean().item() - (1 - p)) < 5 * deviation
    torch.testing.assert_close(out[kept], torch.full_like(out[kept], 1 / (1 - p)), rtol=1e-4, atol=0)
    # The four values that share a random word are independent.
    lanes = kept[: n // 4 * 4].view(-1, 4).double()
    off_diagonal = torch.corrcoef(lanes.t()) - torch.eye(4)
    assert off_diagonal.abs().max() < 5 / (n / 4) ** 0.5


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_gradient_passes_where_the_value_does(dtype):
    x = torch.ones(5, 7, 3, dtype=dtype, requires_grad=True)
    out = dropout(x, 0.5)
    out.sum().backward()
    assert torch.equal(x.grad, out.detach())


def test_limits_and_seed():
    x = torch.randn(10)
    assert dropout(x, 0.0) is x
    assert dropout(x, 1.0).abs().sum() == 0
    assert dropout(torch.empty(0, 3), 0.5).shape == (0, 3)
    torch.manual_seed(1)
    first = dropout(x, 0.5)
    torch.manual_seed(1)
    assert torch.equal(first, dropout(x, 0.5))
