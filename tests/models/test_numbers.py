r"""The law of layers and models: numbers that serve no one are refused where they come in."""

import inspect
import math

import numpy as np
import pytest
import torch
from torch_geometric.nn import GATConv

from kgat import models, nn
from kgat.models.token_embedding import TokenEmbedding
from kgat.nn.numbers import read_channels

pytestmark = pytest.mark.quick


class Stack(models.AttentionGNN):
    conv_class = GATConv


METADATA = (["a", "b"], [("a", "to", "b"), ("b", "to", "b")])
SIZES = {"in_channels": 4, "hidden_channels": 8, "num_layers": 2}
TOKENS = {"embed_dim": 4, "num_heads": 2}
# Everything public in both rooms, and the least that it takes to build it.
BUILT = {
    nn.FourierAttention: TOKENS,
    nn.GlobalAttention: {"local": nn.KernelGATConv(4, 2, 2), "attention": nn.KernelAttention(4, 2)},
    nn.KernelAttention: TOKENS,
    nn.KernelDecoderLayer: TOKENS,
    nn.KernelEncoderLayer: TOKENS,
    nn.KernelGATConv: {"in_channels": 4, "out_channels": 2},
    nn.KeyValueCache: {},
    nn.PrimalAttention: TOKENS,
    nn.SegmentMemory: {"size": 3},
    models.AttentionGNN: SIZES,
    models.GraphReadout: {"encoder": torch.nn.Identity(), "channels": 4, "out_channels": 2},
    models.HeteroGNN: {"stack": models.KernelGAT, **SIZES, "metadata": METADATA},
    models.KernelGAT: SIZES,
    models.KernelHeteroGAT: {**SIZES, "metadata": METADATA},
    models.KernelTransformer: TOKENS,
    models.LanguageModel: {"vocab_size": 5},
    models.LinkPredictor: {"encoder": torch.nn.Identity(), "channels": 4},
    models.SequenceClassifier: {"num_classes": 3, "in_channels": 4},
    models.StandardizedOutput: {"model": torch.nn.Identity(), "channels": 1},
    models.TargetOutput: {"model": torch.nn.Identity(), "target": "a", "out_channels": 2},
    models.Translator: {"source_vocab": 5, "target_vocab": 6},
    TokenEmbedding: {"vocab_size": 5, "embed_dim": 4},
}
# Whose arguments they take by **kwargs.
PASSED_ON = {
    nn.FourierAttention: [nn.KernelAttention],
    models.HeteroGNN: [models.AttentionGNN, nn.KernelGATConv],
    models.KernelGAT: [nn.KernelGATConv],
    models.KernelHeteroGAT: [models.HeteroGNN, models.AttentionGNN, nn.KernelGATConv],
}
MAY_BE_ZERO = {"decoder_layers", "memory", "size"}
OF_KERNELS = {"magnitude", "fill_value"}  # numbers or names
NOT_OF_TYPES = {"position_dim"}  # of a model of several types of nodes


def numbers_of(cls):
    r"""The arguments that are numbers: their names, and whether they are whole."""
    found = {}
    for one in (cls, *PASSED_ON.get(cls, [])):
        for parameter in inspect.signature(one).parameters.values():
            said = str(parameter.annotation)
            is_number = any(kind in said for kind in ("int", "float")) and "bool" not in said
            but = OF_KERNELS | (NOT_OF_TYPES if issubclass(cls, models.HeteroGNN) else set())
            if is_number and parameter.name not in but:
                found.setdefault(parameter.name, "float" not in said)
    return found.items()


CASES = [(cls, name, whole) for cls in BUILT for name, whole in numbers_of(cls)]
IDS = [f"{cls.__name__}-{name}" for cls, name, _ in CASES]


def build(cls, **change):
    cls, arguments = (Stack if cls is models.AttentionGNN else cls), dict(BUILT[cls])
    if change.get("vocab_size") is not None and cls is models.SequenceClassifier:
        arguments["in_channels"] = None
    return cls(**{**arguments, **change})


def test_all_that_is_public_is_here():
    public = {getattr(room, name) for room in (nn, models) for name in room.__all__}
    assert {item for item in public if isinstance(item, type)} == BUILT.keys() - {TokenEmbedding}
    assert len(CASES) > 100


@pytest.mark.parametrize(("cls", "name", "whole"), CASES, ids=IDS)
def test_numbers_that_serve_no_one_are_refused_in_a_sentence(cls, name, whole):
    wrong = [math.nan, math.inf, "2", [], 2j]
    if whole:
        wrong += [2.5, True, -2] + [0] * (name not in MAY_BE_ZERO)
    elif name.endswith("dropout"):
        wrong += [True, -0.1, 1.5]
    elif name in ("layer_norm_eps", "ksvd_weight"):
        wrong += [True, -0.1]
    for value in wrong:
        with pytest.raises(ValueError, match=rf"^Expected .*'{name}.*\(got .*; ") as caught:
            build(cls, **{name: value})
        assert "got" in str(caught.value), value


@pytest.mark.parametrize(("cls", "name", "whole"), CASES, ids=IDS)
def test_numbers_of_numpy_are_taken(cls, name, whole):
    default = inspect.signature(build(cls).__class__).parameters.get(name)
    default = None if default is None or default.default is default.empty else default.default
    value = BUILT[cls].get(name, default)
    value = (2 if whole else 0.5) if value is None else value
    build(cls, **{name: np.int64(value) if whole else np.float32(value)})


def test_sizes_of_the_first_input_and_of_two_sides():
    for size in (-1, np.int64(-1), (3, 4), [3, 4], (-1, -1)):
        conv = nn.KernelGATConv(size, 2)
        assert conv.in_channels == (tuple(size) if isinstance(size, list) else size)
        assert models.KernelGAT(size, 8, 2).in_channels == conv.in_channels
    assert type(read_channels(np.int64(3))) is int
    for size in ((3,), (3, 4, 5), (3, 2.5), (3, 0), "34", None, {3: 4}, (True, 3)):
        with pytest.raises(ValueError, match="Expected 'in_channels' as a positive whole number, or -1"):
            nn.KernelGATConv(size, 2)
    types = {"a": 3, "b": -1}
    models.KernelHeteroGAT(types, 8, 2, metadata=METADATA, edge_dim={METADATA[1][0]: 2})
    for change in ({"in_channels": {**types, "a": 0}}, {"edge_dim": {METADATA[1][0]: 2.5}}):
        name = next(iter(change))
        with pytest.raises(ValueError, match=f"whole '{name}' of at least 1"):
            models.KernelHeteroGAT(
                **{"in_channels": types, "hidden_channels": 8, "num_layers": 2, **change}, metadata=METADATA
            )


def test_numbers_of_a_call_are_refused_too():
    tokens = torch.zeros(1, 2, dtype=torch.long)
    model = models.LanguageModel(5, 4, 2, 1)
    for steps in (-1, 1.5, True):
        with pytest.raises(ValueError, match="whole 'steps' of at least 0"):
            model.generate(tokens, steps)
    translator = models.Translator(5, 6, 4, 2, 1)
    for name, value in (("beam", 0), ("max_len", 1.5), ("length_penalty", math.nan)):
        with pytest.raises(ValueError, match=f"'{name}'"):
            translator.translate(tokens, **{"bos": 0, "eos": 1, "max_len": 3, name: value})
