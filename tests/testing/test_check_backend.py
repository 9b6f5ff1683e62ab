import itertools

import pytest
import torch

from kgat.kernels import RBF
from kgat.ops.eager import Eager
from kgat.testing import check_backend

CALLS = itertools.count()
RIGHT = Eager.edge_attention


def test_a_right_backend_passes():
    check_backend(RBF, "eager")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda out: 1.001 * out,
            "Law 'value' fails for RBF.*eager in torch.float64 is .* off the reference",
        ),
        (lambda out: out if out.dtype == torch.float64 else out + 0.1, "Law 'value' .*in torch.float32"),
        (lambda out: out * torch.nan if len(out) == 5 else out, "Law 'value' .*on a hub .*is inf off"),
        (lambda out: out + 1e-12 * next(CALLS), "Law 'repeat' .*two runs of eager differ"),
    ],
)
def test_planted_errors_are_named(monkeypatch, change, message):
    monkeypatch.setattr(Eager, "edge_attention", lambda self, call: change(RIGHT(self, call)))
    with pytest.raises(AssertionError, match=message):
        check_backend(RBF, "eager")
