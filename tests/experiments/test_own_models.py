r"""Models and kernels of one's own, by path and as factories, and those of PyG."""

import functools
import importlib
import sys

import pytest
import torch
from made_tasks import make_task

from kgat.experiments import ledger, tuning
from kgat.experiments.compare import compare
from kgat.experiments.config import Config
from kgat.experiments.registry import KEPT_NAMES, _resolved, named, resolve_model
from kgat.experiments.source_digest import digest
from kgat.experiments.training import restore, save, train
from kgat.kernels import RBF

FAST = {"max_epochs": 2, "hidden_channels": 8, "heads": 2}
NETS = """
import torch
from kgat.kernels import RBF, resolve

SCALE = 1.0

def scaled(x):
    return SCALE * x

class Net(torch.nn.Module):
    def __init__(self, in_channels, out_channels, hidden_channels=4, depth: int = 1):
        super().__init__()
        self.hidden_channels, self.depth = hidden_channels, depth
        self.lin = torch.nn.Linear(in_channels, out_channels)

    def forward(self, x, edge_index):
        return scaled(self.lin(x))

class Wide(Net):
    def forward(self, x, edge_index):
        return torch.cat([self.lin(x), self.lin(x)], dim=1)

class NotANumber(Net):
    def forward(self, x, edge_index):
        return self.lin(x) * float("nan")

class NoEdges(Net):
    def forward(self, x):
        return self.lin(x)

class NoParameters(torch.nn.Module):
    def forward(self, x, edge_index):
        return x

class Raises(Net):
    def __init__(self, in_channels, out_channels):
        raise KeyError("no")

class Breaks(Net):
    def forward(self, x, edge_index):
        return self.lin(x[:, 1:])

class Detached(Net):
    def forward(self, x, edge_index):
        return self.lin(x).detach()

class Needs(Net):
    def __init__(self, in_channels, out_channels, width):
        super().__init__(in_channels, out_channels)

class Needy(Net):
    def __init__(self, in_channels, out_channels, width: int):
        super().__init__(in_channels, out_channels)

class Slow(Net):
    def __init__(self, in_channels, out_channels, kernel_lr):
        super().__init__(in_channels, out_channels)

class Large(Net):
    def forward(self, x, edge_index):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

class Elsewhere(Net):
    def forward(self, x, edge_index):
        raise RuntimeError("Expected all tensors to be on the same device, but found at least two")

class Asks(Net):
    def forward(self, x, edge_index):
        return resolve(torch.nn.Linear, x.size(1))

class Near(RBF):
    pass
"""


class Net(torch.nn.Module):
    def __init__(self, in_channels, out_channels, dropout):
        super().__init__()
        self.lin = torch.nn.Linear(in_channels, out_channels)

    def forward(self, x, edge_index, batch):
        assert batch.shape == x.shape[:1]
        return self.lin(x)


@pytest.fixture
def nets(tmp_path, monkeypatch):
    r"""The name of a new module in the current directory."""
    name = f"nets_{abs(hash(str(tmp_path)))}"
    (tmp_path / f"{name}.py").write_text(NETS)
    monkeypatch.chdir(tmp_path)
    return name


def test_a_class_by_path(nets):
    model = resolve_model(f"{nets}:Net[depth=3]")
    assert model.name == f"{nets}:Net[depth=3]"
    assert model.takes == ("hidden_channels",)
    record, net = train(make_task(), Config.of("made", model.name, overrides=FAST))
    assert (net.hidden_channels, net.depth) == (8, 3)
    assert record["config"]["code"] == model.code
    assert model.code.startswith(f"{nets}:Net ")


def test_a_kernel_by_path(nets, tmp_path):
    name = f"{nets}:Near[lengthscale=2]*l2@separate"
    model = resolve_model(name)
    assert (model.name, model.has_kernel) == (name, True)
    assert model.code.startswith(f"{nets}:Near ")
    record, net = train(make_task(), Config.of("made", name, overrides=FAST))
    save(tmp_path / "saved", net, make_task(), record)
    assert restore(tmp_path / "saved").convs[0].kernel.kernels[0].__class__.__name__ == "Near"


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("absent_package.nets:Net", ImportError, "a module that imports .*ModuleNotFoundError"),
        ("{}:Ent", ValueError, r"name of a class in .*did you mean 'Net'\?"),
        ("{}:SCALE", TypeError, "torch.nn.Module or a factory"),
        ("{}:", ValueError, "package.module:Class"),
        ("{}:Needs", ValueError, "'width' without a default.*in brackets"),
        ("{}:Needy", ValueError, "'width' without a default.*in brackets"),
        # Of training, not of a constructor.
        ("{}:Slow", ValueError, "among .*, value_dropout .got 'kernel_lr' without a default"),
        ("{}:Net[deep=3]", ValueError, r"got 'deep=3'.*Net takes .*did you mean 'depth'\?"),
        ("{}:Net@separate", ValueError, "a kernel before '@'"),
        ("rbf*{}:Net", ValueError, "a concrete subclass of 'Kernel'"),
    ],
)
def test_paths_that_name_no_model(nets, name, error, message):
    with pytest.raises(error, match=f"Expected .*{message}"):
        resolve_model(name.format(nets))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Wide", r"shape \[N, out_channels\]"),
        ("NotANumber", "finite.*'the model'|finite.*the model"),
        ("NoEdges", r"called as model\(x, edge_index\).*forward\(x\)"),
        ("NoParameters", "parameters with sizes .*none"),
        ("Raises", "to be built with .*KeyError"),
        ("Breaks", "to be trained .got RuntimeError: .* in .*py, line [0-9]+.; correct it"),
        ("Detached", "to be trained .got RuntimeError: .*; correct it"),
        # Torch, too, begins so.
        ("Elsewhere", "to be trained .got RuntimeError: Expected all tensors .* line [0-9]+.; correct it"),
    ],
)
def test_models_that_cannot_be_trained(nets, name, message):
    with pytest.raises(ValueError, match=f"Expected .*{message}"):
        train(make_task(), Config.of("made", f"{nets}:{name}", overrides=FAST))


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("Large", torch.OutOfMemoryError, "^CUDA out of memory"),
        ("Asks", TypeError, "^Expected a concrete subclass of 'Kernel'"),
    ],
)
def test_what_is_not_to_be_corrected_in_a_model(nets, name, error, message):
    with pytest.raises(error, match=message):
        train(make_task(), Config.of("made", f"{nets}:{name}", overrides=FAST))


@pytest.mark.parametrize("name", ["Net", "Near", "Net[depth=2]", "Near*l2@separate"])
def test_a_class_that_is_loaded_again_is_another(nets, tmp_path, name):
    name = f"{nets}:{name}"
    resolve_model(name)  # which imports it
    assert (before := resolve_model(name)) is resolve_model(name)
    path = tmp_path / f"{nets}.py"
    path.write_text(NETS.replace("SCALE = 1.0", "SCALE = 10.0").replace("    pass", "    wider = True"))
    importlib.invalidate_caches()
    importlib.reload(sys.modules[nets])
    after = resolve_model(name)
    assert (after.name, after.takes) == (before.name, before.takes)
    assert after.code != before.code
    if not after.has_kernel:
        assert after.cls is sys.modules[nets].Net


def test_not_all_names_that_trials_suggest_are_kept():
    for number in range(KEPT_NAMES + 2):
        resolve_model(f"appnp[K={number + 1}]")
    assert _resolved.cache_info().currsize == KEPT_NAMES


def test_a_digest_follows_the_code(tmp_path):
    def of(text, name="Net"):
        (path := tmp_path / f"n{abs(hash((text, name)))}.py").write_text(text)
        scope = {"__name__": path.stem, "__file__": str(path)}
        exec(compile(text, str(path), "exec"), scope)
        import sys
        import types

        sys.modules[path.stem] = module = types.ModuleType(path.stem)
        vars(module).update(scope)
        return digest(scope[name])

    assert of(NETS) == of(NETS + "\n\nclass Another:\n    pass\n")
    assert of(NETS) == of(NETS.replace("return scaled", "# why\n        return scaled"))
    for old, new in (
        ("self.lin(x))", "2 * self.lin(x))"),
        ("SCALE = 1.0", "SCALE = 2.0"),
        ("SCALE * x", "x"),
    ):
        assert of(NETS) != of(NETS.replace(old, new)), old
    assert of(NETS, "Wide") != of(NETS.replace("depth: int = 1", "depth: int = 2"), "Wide")  # its base


def test_factories_in_a_comparison(warm_workers, tmp_path):
    models = {"mine": lambda in_channels, out_channels: Net(in_channels, out_channels, 0.0), "rbf": "rbf"}
    run = functools.partial(compare, make_task(), seeds=2, out=tmp_path, overrides=FAST, rounds=2)
    records = run(models)
    assert [r["model"] for r in records if r["kind"] == "run"] == ["mine", "rbf"] * 2
    assert [r["model"] for r in records if r["kind"] == "attention"] == ["rbf"]
    assert records[-1]["kind"] == "cost"
    assert {"mine", "rbf", "gat"} == set(records[-1]["models"])
    assert records == run(models) == ledger.read(tmp_path / "results.jsonl")
    changed = lambda in_channels, out_channels: Net(in_channels, out_channels, 0.5)  # noqa: E731
    with pytest.raises(ValueError, match="Expected runs of 'mine' with the code as it is"):
        run({"mine": changed, "rbf": "rbf"})
    with pytest.raises(ValueError, match=r"several jobs can import .*mine"):
        run(models, jobs=2)


def test_rows_of_models_without_attention(tmp_path):
    records = compare("karate", ["gcn", Net, RBF], 1, tmp_path, overrides=FAST, rounds=0)
    assert [r["model"] for r in records if r["kind"] == "run"] == [
        *("gcn", f"{__name__}:Net", "kgat.kernels.rbf:RBF")
    ]
    assert records == compare("karate", ["gcn", Net, RBF], 1, tmp_path, overrides=FAST, rounds=0)
    assert (tmp_path / "report.html").exists()


def test_own_models_in_several_processes(tmp_path, nets):
    out = tmp_path / "out"
    records = compare(
        "karate", [f"{nets}:Net", "mlp"], 1, out, overrides={"max_epochs": 2}, rounds=0, figures=False, jobs=2
    )
    assert [record["model"] for record in records] == [f"{nets}:Net", "mlp"]


def test_names_of_factories():
    with pytest.raises(TypeError, match="Expected a name for"):
        named([lambda in_channels: None])
    with pytest.raises(TypeError, match="that is built"):
        named({"mine": Net(3, 2, 0.0)})
    with pytest.raises(ValueError, match="got 'gat', which there is already"):
        named({"gat": Net})
    names, own = named({"wide": "rbf*l2"})
    assert (names, own["wide"].code) == (["wide"], "rbf*l2")


def test_settings_that_a_model_does_not_take(tmp_path):
    with pytest.raises(ValueError, match="Expected a model that takes 'heads' because it is set"):
        compare("karate", ["gcn", "mlp"], 1, tmp_path, overrides={"heads": 4})
    config = Config.of("karate", "gcn", overrides={"heads": 4})
    assert (config.heads, config.key) == (1, Config.of("karate", "gcn").key)


def test_as_many_distinct_settings_for_a_model_that_takes_fewer():
    budget = tuning.Budget(8, 1)
    for model in ("rbf", "sgformer", f"{__name__}:Net"):
        keys = {config.key for configs in budget.configs("karate", model) for config in configs}
        assert len(keys) == 8, model
    assert budget.drawn("karate", None, "rbf") == budget.drawn("karate")
