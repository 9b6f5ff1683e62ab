r"""A key that mask, bias and order of the tokens hide together is one that nobody sees."""

import pytest
import torch

from kgat.functional import dense_attention, dense_softmax
from kgat.hidden import hide_unseen
from kgat.kernels import RBF

pytestmark = pytest.mark.quick


def test_keys_that_are_hidden_together():
    torch.manual_seed(0)
    some, order = torch.rand(3, 4, 5) > 0.6, torch.ones(4, 5, dtype=torch.bool).tril(1)
    bias = torch.zeros(3, 4, 5, 2).masked_fill(torch.rand(3, 4, 5, 2) > 0.5, -torch.inf)
    for mask in (None, some, some[:, :1], some[:1]):
        for numbers in (None, bias, bias[:, :1], bias[..., :1]):
            for causal in (False, True):
                seen = torch.ones(3, 4, 5, dtype=torch.bool)
                seen = seen if mask is None else seen & mask
                seen = seen if numbers is None else seen & (numbers > -torch.inf).any(dim=-1)
                seen = seen & order if causal else seen
                found = hide_unseen(mask, numbers, causal, 4, 5)
                # What is hidden from some queries alone stays with those who hide it.
                hidden = torch.zeros(3, 5, dtype=torch.bool) if found is None else ~found.any(dim=-2)
                by_bias = False if numbers is None else (numbers == -torch.inf).all(dim=-1).all(dim=-2)
                assert torch.equal((hidden | by_bias).expand(3, 5), ~seen.any(dim=-2))
                if mask is not None:
                    assert torch.equal(found & seen, seen)
                    assert not (found & ~mask).any()
                elif found is not None:
                    assert torch.equal(found & seen, seen)


def test_one_row_for_all_queries_is_not_looked_at():
    # A mask of padding stays what it is, so that no route gets slower.
    mask, bias = torch.rand(3, 1, 5) > 0.5, torch.randn(3, 1, 5, 2)
    for causal in (False, True):
        assert hide_unseen(mask, bias, causal, 4, 5) is mask
        assert hide_unseen(None, bias, causal, 4, 5) is None
    assert hide_unseen(mask, torch.randn(4, 5, 2), False, 4, 5) is mask
    assert hide_unseen(None, None, True, 4, 5) is None


@pytest.mark.parametrize("method", ["auto", "sdpa", "dense", "edges"])
def test_what_a_function_is_given_of_nobody(method):
    torch.manual_seed(0)
    query, key, value = torch.randn(3, 4, 2, 5).unbind()
    mask = torch.ones(4, 4, dtype=torch.bool).index_put(
        (torch.tensor(3), torch.tensor(3)), torch.tensor(False)
    )
    kernel, results = RBF(5, 2), []
    for number in (0.5, torch.nan):
        k, v = (x.index_fill(0, torch.tensor(3), number) for x in (key, value))
        q = query.clone().requires_grad_()
        out = dense_attention(kernel(q, k), v, mask, causal=True, method=method)
        alpha = dense_softmax(kernel(q, k), mask, causal=True)
        results.append((out, alpha, *torch.autograd.grad(out.sum() + alpha.square().sum(), q)))
    torch.testing.assert_close(*results)
