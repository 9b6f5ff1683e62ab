import copy
import functools
import json
import pickle

import pytest
import safetensors.torch
import torch

from kgat import KernelGAT
from kgat.kernels import RBF, DotProduct, ImplicitSpectral, Laplace, Magnitude, Product, Sum
from kgat.models import KernelTransformer, LanguageModel, SequenceClassifier, Translator
from kgat.nn import KernelAttention

pytestmark = pytest.mark.quick

MODELS = {
    "transformer": lambda: KernelTransformer(8, 2, decoder_layers=1, kernel="rbf", position="txl"),
    "classifier": lambda: SequenceClassifier(
        3,
        2,
        None,
        8,
        2,
        attention=("rbf", "primal"),
        pooling="cls",
        position="sum",
        attention_kwargs={"rank": 3},
    ),
    "language model": lambda: LanguageModel(
        5,
        8,
        2,
        tied=True,
        kernel="implicit_spectral",
        kernel_kwargs={"num_features": 4},
        magnitude=float("inf"),
    ),
    "translator": lambda: Translator(5, 6, 8, 2, projections="shared_qk", cross_position="symmetric"),
}


def local_kernel():
    class Local(RBF):
        pass

    return Local


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", MODELS)
def test_round_trip(tmp_path, name, dtype):
    model = MODELS[name]().to(dtype)
    model.save_pretrained(tmp_path / "new" / "folder")
    loaded = type(model).from_pretrained(tmp_path / "new" / "folder")
    assert not loaded.training
    state, wanted = loaded.state_dict(), model.state_dict()
    assert state.keys() == wanted.keys()
    assert all(
        torch.equal(state[key], wanted[key]) and state[key].dtype == wanted[key].dtype for key in wanted
    )
    assert all(p.requires_grad for p in loaded.parameters())
    assert repr(loaded.train()) == repr(model)
    loaded.save_pretrained(tmp_path / "again")
    files = [(tmp_path / folder / "config.json").read_bytes() for folder in ("new/folder", "again")]
    assert files[0] == files[1]


def test_configuration_is_whole():
    config = SequenceClassifier(3, 2, kernel="rbf", dropout=0.3).config
    assert config["kernel"] == "rbf"
    assert config["dropout"] == 0.3
    assert config["pooling"] == "mean"
    assert config["method"] == "auto"  # a default of the transformer inside
    assert "decoder_layers" not in config
    again = SequenceClassifier(**config)
    assert again.config == config
    assert "causal" not in LanguageModel(3).config
    assert Translator(3, 4).config["cross_attention"] is None


def test_files_are_plain(tmp_path):
    MODELS["language model"]().save_pretrained(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "model.safetensors"]
    content = json.loads((tmp_path / "config.json").read_text())
    assert content["class"] == "LanguageModel"
    assert content["arguments"]["magnitude"] == float("inf")
    tensors = safetensors.torch.load_file(tmp_path / "model.safetensors")
    assert tensors["embed.weight"].shape == (5, 8)


def test_loading_is_strict(tmp_path):
    model = KernelTransformer(8, 2)
    model.save_pretrained(tmp_path)
    config, weights = tmp_path / "config.json", tmp_path / "model.safetensors"
    with pytest.raises(ValueError, match=r"'KernelTransformer\.from_pretrained'"):
        LanguageModel.from_pretrained(tmp_path)
    content = json.loads(config.read_text())
    for arguments, error, message in (
        ({"num_layers": 3}, RuntimeError, "Missing key"),
        ({"num_layers": 1}, RuntimeError, "Unexpected key"),
        ({"feedforward_channels": 7}, RuntimeError, "size mismatch"),
        ({"depth": 7}, ValueError, r"takes in line 1 .*got 'depth'"),
    ):
        config.write_text(json.dumps(content | {"arguments": content["arguments"] | arguments}))
        with pytest.raises(error, match=message):
            KernelTransformer.from_pretrained(tmp_path)
    for broken in ("", json.dumps(content)[:40], "[]", "{}", json.dumps({**content, "arguments": None})):
        config.write_text(broken)
        with pytest.raises(ValueError, match=rf"Expected '{config}' as 'save_pretrained' writes it"):
            KernelTransformer.from_pretrained(tmp_path)
    config.write_text(json.dumps(content))
    KernelTransformer.from_pretrained(tmp_path)
    damaged = bytearray(weights.read_bytes())
    damaged[-1] ^= 1
    weights.write_bytes(damaged)
    with pytest.raises(ValueError, match="saved with"):
        KernelTransformer.from_pretrained(tmp_path)
    weights.unlink()
    with pytest.raises(FileNotFoundError):
        KernelTransformer.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("kwargs", "name"),
    [
        ({"kernel": functools.partial(RBF, lengthscale=2.0)}, "kernel"),
        ({"kernel": local_kernel()}, "kernel"),
        ({"attention": ["rbf", functools.partial(KernelAttention, kernel="rbf")]}, "attention"),
        ({"act": torch.nn.ELU()}, "act"),
        ({"kernel": "rbf", "kernel_kwargs": {1: 2}}, "kernel_kwargs"),
    ],
)
def test_what_json_does_not_hold(tmp_path, kwargs, name):
    if name == "kernel_kwargs":
        model = KernelTransformer(8, 2)
        model._arguments["kernel_kwargs"] = kwargs["kernel_kwargs"]
    else:
        model = KernelTransformer(8, 2, **kwargs)
    with pytest.raises(TypeError, match=rf"arguments that JSON holds .*\(got {name}=[^@]*'kernel_kwargs'"):
        model.save_pretrained(tmp_path)
    assert not list(tmp_path.iterdir())


def test_copies_and_pickles():
    model = MODELS["classifier"]()
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert twin.config == model.config
        assert all(map(torch.equal, twin.state_dict().values(), model.state_dict().values()))


def test_a_view_is_saved_whole(tmp_path):
    model = KernelTransformer(8, 2)
    weight = model.encoder[0].linear1.weight
    weight.data = torch.randn(8, 32).t()
    model.save_pretrained(tmp_path)
    torch.testing.assert_close(KernelTransformer.from_pretrained(tmp_path).encoder[0].linear1.weight, weight)


@pytest.mark.parametrize("name", MODELS)
def test_an_unknown_argument_is_named_with_its_line(tmp_path, name):
    model = MODELS[name]()
    model.save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    text = path.read_text().replace('"dropout":', '"dropuot":')
    path.write_text(text)
    line = 1 + [row.strip().startswith('"dropuot"') for row in text.splitlines()].index(True)
    with pytest.raises(ValueError, match=rf"in line {line} of '.*config.json' \(got 'dropuot'\)"):
        type(model).from_pretrained(tmp_path)


# --- Graph attention --------------------------------------------------------------------------------------


class Shifted(RBF):
    def __init__(self, channels, heads=1, *, shift=0.0, **kwargs):
        super().__init__(channels, heads, **kwargs)
        self.shift = shift

    def score(self, query, key):
        return super().score(query, key + self.shift)


GRAPH_MODELS = {
    "named": {"kernel": "rbf*lp", "norm": "BatchNorm", "residual": True, "jk": "cat", "out_heads": 1},
    "sized": {"kernel": "spectral[num_features=4]", "start": "unit"},
    "class": {"kernel": RBF, "kernel_kwargs": {"lengthscale": 2.0}},
    "object": {"kernel": RBF(4, 4, lengthscale=2.0)},
    "product": {"kernel": Product(RBF(4, 4), Magnitude(4, heads=4, p=1.5))},
    "nested": {"kernel": ImplicitSpectral(4, 4) * Sum(Laplace(4, 4), DotProduct(4, 4))},
    "own": {"kernel": Shifted(4, 4, shift=0.5, lengthscale=3.0), "position_dim": 2, "position_kernel": RBF},
}
EDGES = torch.tensor([[0, 1, 2, 3, 4, 0], [1, 2, 3, 4, 5, 5]])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", GRAPH_MODELS)
def test_graph_attention_round_trip(tmp_path, name, dtype):
    torch.manual_seed(0)
    model = KernelGAT(8, 16, 2, 4, heads=4, **GRAPH_MODELS[name]).to(dtype)
    inputs = {"x": torch.randn(6, 8, dtype=dtype), "edge_index": EDGES}
    if "position_dim" in GRAPH_MODELS[name]:
        inputs["position"] = torch.randn(6, 2, dtype=dtype)
    model(**inputs)  # running statistics and scales are buffers
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter))
    model.eval().save_pretrained(tmp_path)
    loaded = KernelGAT.from_pretrained(tmp_path)
    state, wanted = loaded.state_dict(), model.state_dict()
    assert state.keys() == wanted.keys()
    assert all(
        torch.equal(state[key], wanted[key]) and state[key].dtype == wanted[key].dtype for key in wanted
    )
    assert repr(loaded) == repr(model)
    assert [repr(conv) for conv in loaded.convs] == [repr(conv) for conv in model.convs]
    assert torch.equal(loaded(**inputs), model(**inputs))
    files = [path.read_bytes() for path in sorted(tmp_path.iterdir())]
    loaded.save_pretrained(tmp_path)
    assert files == [path.read_bytes() for path in sorted(tmp_path.iterdir())]


def test_layers_still_share_a_kernel(tmp_path):
    model = KernelGAT(8, 16, 2, 4, heads=4, kernel=RBF(4, 4))
    model.save_pretrained(tmp_path)
    one, other = (conv.kernel for conv in KernelGAT.from_pretrained(tmp_path).convs)
    assert one is other
    assert len(set(map(id, model.parameters()))) == len(list(model.parameters()))


def test_graph_attention_with_late_sizes_and_two_sides(tmp_path):
    late = KernelGAT(-1, 16, 2, 4, heads=4, kernel="rbf")
    late(torch.randn(6, 8), EDGES)
    for model in (late, KernelGAT((8, 8), 16, 2, 4, heads=4, kernel="rbf")):
        model.eval().save_pretrained(tmp_path)
        x = torch.randn(6, 8)
        assert torch.equal(KernelGAT.from_pretrained(tmp_path)(x, EDGES), model(x, EDGES))


def test_what_a_folder_of_graph_attention_lacks_is_named(tmp_path):
    KernelGAT(8, 16, 2, 4, heads=4, kernel=RBF(4, 4)).save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    content = json.loads(path.read_text())
    arguments = content["arguments"]
    lacking = {name: value for name, value in arguments.items() if name not in ("in_channels", "num_layers")}
    for changed, message in (
        (lacking, r"all arguments of 'KernelGAT' .*\(got none of the name in_channels, num_layers\)"),
        (arguments | {"haeds": 4}, r"takes in line 1 .*\(got 'haeds'\)"),
        (arguments | {"kernel": {"kernel class": "os:system"}}, r"class of a kernel .*\(got 'os:system'\)"),
        (arguments | {"kernel": {"kernel class": "RBG"}}, r"class of a kernel .*\(got 'RBG'\)"),
    ):
        path.write_text(json.dumps(content | {"arguments": changed}))
        with pytest.raises(ValueError, match=message):
            KernelGAT.from_pretrained(tmp_path)
