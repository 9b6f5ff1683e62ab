import pytest

from kgat.experiments.config import Config
from kgat.experiments.settings import SETTINGS
from kgat.experiments.space import Choices, Range, read_space


def test_the_declared_space_holds_settings_that_exist():
    space = read_space()
    assert {name for name in space if "." not in name} <= set(SETTINGS)
    assert space["spectral.num_features"] == Choices((8, 16, 32))
    assert space["lr"] == Range(0.001, 0.05)
    assert space["norm"] == Choices((None, "batch_norm", "layer_norm"))
    for name, dimension in space.items():
        for value in dimension.ends:
            if name != "heads" and "." not in name:
                assert getattr(Config.of("Cora", "rbf", overrides={"heads": 1, name: value}), name) == value


@pytest.mark.parametrize(
    ("name", "text", "expected", "said"),
    [
        ("lr", "0.001..0.1", Range(0.001, 0.1), "0.001..0.1 (log)"),
        ("lr", "1e-4 .. 5e-4", Range(1e-4, 5e-4), "0.0001..0.0005"),
        ("num_layers", "1..16", Range(1, 16), "1..16 (log)"),
        ("dropout", "0..1", Range(0.0, 1.0), "0..1"),
        ("clip", "0.5..2", Range(0.5, 2.0), "0.5..2"),  # a number, or none
        ("heads", "1, 4,8,4", Choices((1, 4, 8)), "1, 4 or 8"),
        ("rbf.lengthscale", "none,2", Choices((None, 2.0)), "none or 2"),
        ("residual", ["true", False], Choices((True, False)), "true or false"),
        ("norm", "none,graph_norm", Choices((None, "graph_norm")), "none or graph_norm"),
    ],
)
def test_ranges_and_choices(name, text, expected, said):
    dimension = read_space({name: text})[name]
    assert (dimension, str(dimension)) == (expected, said)


class Suggesting:
    r"""Suggests always the same."""

    def __init__(self, value):
        self.value = value

    def suggest_float(self, name, low, high, log):
        return self.value


def test_drawn_numbers_are_short_and_inside():
    assert Range(0.001, 0.1).suggested(Suggesting(0.0123456), "lr") == 0.0123
    assert Range(0.0012345, 0.1).suggested(Suggesting(0.0012346), "lr") == 0.0012345
