import pytest
import torch

from kgat.ops.precision import HALF, at_least_single, score_dtype

F16, BF16, F32, F64 = torch.float16, torch.bfloat16, torch.float32, torch.float64


@pytest.mark.parametrize(
    ("types", "expected"),
    [
        ([F16], F32),
        ([BF16], F32),
        ([F16, BF16], F32),
        ([BF16, F32], F32),
        ([F32], F32),
        ([F16, F64], F64),
        ([F64, None, F32], F64),
    ],
    ids=str,
)
def test_scores_are_in_single_precision_at_least(types, expected):
    tensors = [None if dtype is None else torch.ones(2, dtype=dtype) for dtype in types]
    assert score_dtype(*tensors) is expected


@pytest.mark.parametrize("dtype", [F16, BF16, F32, F64, torch.int64])
def test_half_becomes_single(dtype):
    x = torch.ones(2, dtype=dtype)
    found = at_least_single(x)
    assert found.dtype is (F32 if dtype in HALF else dtype)
    assert (found is x) is (dtype not in HALF)
