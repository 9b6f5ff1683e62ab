import pytest
import torch

from kgat.ops.require import check_that

pytestmark = pytest.mark.quick


def test_on_the_cpu_it_raises_at_once():
    check_that(torch.tensor(True), "Expected this")
    with pytest.raises(ValueError, match="Expected this"):
        check_that(torch.tensor(False), "Expected this")


def test_what_holds_no_numbers_passes():
    check_that(torch.zeros((), dtype=torch.bool, device="meta"), "Expected this")


def test_inside_of_vmap_and_compiled_code():
    def positive(x):
        check_that((x > 0).all(), "Expected positive numbers")
        return x + 1

    torch._dynamo.reset()
    compiled = torch.compile(positive, fullgraph=True, backend="aot_eager")
    x = torch.tensor([[1.0, 2.0], [3.0, -1.0]])
    for function in (positive, compiled, torch.vmap(positive)):
        torch.testing.assert_close(function(x[:1]), x[:1] + 1)
        with pytest.raises((ValueError, RuntimeError), match="Expected positive numbers"):
            function(x)
