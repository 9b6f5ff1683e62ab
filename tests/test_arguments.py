import copy
import inspect
import pickle

import pytest

from kgat import KernelGAT
from kgat.kernels import RBF, Kernel

pytestmark = pytest.mark.quick


def test_signatures_stay_those_of_constructors():
    class Plain(Kernel):
        pass

    class Wide(Kernel):
        def __init__(self, channels, heads=1, *, width=2):
            super().__init__(channels, heads)

    assert list(inspect.signature(Plain).parameters) == ["channels", "heads"]
    assert list(inspect.signature(Wide).parameters) == ["channels", "heads", "width"]
    assert next(iter(inspect.signature(KernelGAT).parameters)) == "in_channels"


def test_arguments_are_kept_with_defaults_and_in_copies():
    kernel = RBF(4, lengthscale=2.0)
    for twin in (kernel, copy.deepcopy(kernel), pickle.loads(pickle.dumps(kernel))):
        assert twin._arguments == {"channels": 4, "heads": 1, "lengthscale": 2.0}
