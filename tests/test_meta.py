r"""On the meta device there are shapes alone: enough to ask what a model would return."""

import pytest
import torch

from kgat import kernels, positions
from kgat.models import KernelTransformer, SequenceClassifier
from kgat.nn import KernelAttention, PrimalAttention

SIGNED = {"Cosine", "Linear", "RFA", "RandomFourier"}  # which attention does not normalise


@pytest.mark.parametrize("position", [None, *positions.names()])
@pytest.mark.parametrize("name", sorted(set(kernels.names()) - SIGNED))
def test_every_kernel_with_every_position(name, position):
    attention = KernelAttention(12, 3, kernel=name, position=position, device="meta")
    x = torch.empty(2, 5, 12, device="meta", requires_grad=True)
    for need_weights in (True, False):
        out, weights = attention(x, need_weights=need_weights)
        assert out.is_meta
        assert out.shape == x.shape
    assert weights is None
    out.sum().backward()
    assert x.grad is not None


@pytest.mark.parametrize("options", [{}, {"data_dependent": False}, {"causal": True}], ids=str)
def test_primal_attention(options):
    x = torch.empty(2, 5, 12, device="meta")
    losses = []
    out, _ = PrimalAttention(12, 3, device="meta", **options)(x, losses=losses)
    assert out.is_meta
    assert out.shape == x.shape
    assert losses[0].shape == ()


def test_models():
    x = torch.empty(2, 5, 12, device="meta")
    transformer = KernelTransformer(12, 3, num_layers=1, decoder_layers=1, position="txl", device="meta")
    assert transformer(x, x[:, :4]).shape == (2, 4, 12)
    assert SequenceClassifier(7, 12, embed_dim=6, num_heads=2, device="meta")(x).shape == (2, 7)
