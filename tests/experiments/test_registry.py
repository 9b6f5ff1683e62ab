import json
import re
from pathlib import Path

import pytest
import torch
from made_tasks import make_config, make_task

from kgat import kernels
from kgat.experiments import registry, training
from kgat.experiments.config import Config
from kgat.experiments.registry import MODELS, resolve_model
from kgat.experiments.settings import SETTINGS
from kgat.experiments.trainer import inputs_of

ROOT = Path(__file__).parents[2]
ABSENT = {"gp-rbf", "gp-sm"}  # Gaussian processes, of 'kgat regress' alone


@pytest.mark.parametrize(
    ("given", "name", "kwargs"),
    [
        ("GAT", "gat", {}),
        ("Dot Product", "dot", {}),
        ("sinc_product", "sinc", {}),
        ("agnn", "scaled_cosine", {}),
        ("rbf*l2", "rbf*l2", {}),
        ("RBF * L1.50", "rbf*l1.5", {}),
        ("rbf*l2.0000001", "rbf*l2.0000001", {}),
        ("spectral*lp", "spectral*lp", {}),
        ("rbf*laplace", "rbf*laplace", {}),
        ("rbf+dot", "rbf+dot", {}),
        ("rbf + dot * l2", "rbf+dot*l2", {}),
        ("(rbf + dot) * lp", "(rbf+dot)*lp", {}),
        ("rbf@separate", "rbf@separate", {"projections": "separate"}),
        ("RBF * laplace @ Shared-QK", "rbf*laplace@shared_qk", {"projections": "shared_qk"}),
        ("rbf@Projections = shared_qk", "rbf@shared_qk", {"projections": "shared_qk"}),
        ("spectral[num_features=4]", "spectral[num_features=4]", {}),
        ("rbf[lengthscale=2]*spectral[num_features=4]", "rbf[lengthscale=2]*spectral[num_features=4]", {}),
        ("random_fourier[squared=true]", "random_fourier[squared=true]", {}),
        (
            "IKAN[ Stationary = True, num-features=32 ] * L1.50",
            "implicit[num_features=32,stationary=true]*l1.5",
            {},
        ),
        (
            "spectral[eps=0.0000001,init=official]*lp@shared",
            "spectral[init=official,eps=1e-07]*lp@shared",
            {"projections": "shared"},
        ),
        ("rbf[lengthscale=2.0]", "rbf[lengthscale=2]", {}),
        ("favor_plus[num_features=none]", "favor_plus[num_features=none]", {}),
        ("additive_v2*l2", "additive_v2*l2", {"projections": "shared_kv", "projection_bias": True}),
        ("additive_v2*rbf", "additive_v2*rbf", {}),
        (
            "additive_v2@separate",
            "additive_v2@separate",
            {"projections": "separate", "projection_bias": True},
        ),
    ],
)
def test_names_of_models(given, name, kwargs):
    model = resolve_model(given)
    if model.has_kernel:
        kwargs = {"kernel": name.partition("@")[0], **kwargs}
        torch.manual_seed(0)
        kernels.resolve(model.kwargs["kernel"], 2)
    assert (model.name, dict(model.kwargs)) == (name, kwargs)
    assert resolve_model(model.name) == model


def test_committed_records_name_their_models_as_today():
    names = set()
    for folder in ("results", "ablation", "benchmarks", "evidence/questions"):
        for path in (ROOT / folder).rglob("*.jsonl"):
            for line in path.read_text(encoding="utf8").splitlines():
                record = json.loads(line)
                if record.get("kind") == "approximation":  # of feature maps, whose names say of what
                    continue
                names |= {record.get("model"), record.get("config", {}).get("model")}
    names = {name for name in names if isinstance(name, str)} - ABSENT
    assert {"gat", "rbf*l1.5", "rbf@shared_qk", "spectral*l2"} <= names
    assert {name: resolve_model(name).name for name in names} == {name: name for name in names}


def test_every_kernel_is_a_model_or_can_be_negative():
    built = {
        type(kernels.resolve(model.kwargs["kernel"], 4)).__name__ for model in MODELS.values() if model.kwargs
    }
    x = torch.randn(9, 1, 4)
    signed = {name for name in kernels.names() if kernels.resolve(name, 4)(x, x).signed}
    assert built == set(kernels.names()) - signed


@pytest.mark.parametrize(
    ("name", "canonical", "settings"),
    [
        ("RBF @ Kernel-LR = 10.0", "rbf@kernel_lr=10", {"kernel_lr": 10.0}),
        ("gat@lr=0.010@heads=1", "gat@heads=1@lr=0.01", {"heads": 1, "lr": 0.01}),
        ("rbf@start=median@separate", "rbf@separate@start=median", {"start": "median"}),
        (
            "rbf*lp@norm=layer_norm[mode=node]",
            "rbf*lp@norm=layer_norm[mode=node]",
            {"norm": "layer_norm[mode=node]"},
        ),
        ("appnp[K=5]@dropout=0", "appnp[K=5]@dropout=0", {"dropout": 0.0}),
    ],
)
def test_settings_in_a_name_go_before_those_of_all(name, canonical, settings):
    of_all = {"lr": 0.5, "heads": 2}
    config = Config.of("Cora", name, overrides=of_all)
    assert config.model == canonical == Config.of("Cora", canonical).model
    assert {setting: getattr(config, setting) for setting in settings} == settings
    usual = Config.of("Cora", canonical.partition("@")[0], overrides=of_all)
    differing = {s for s in SETTINGS if getattr(config, s) != getattr(usual, s)}
    assert differing == set(settings)
    assert resolve_model(canonical).build(config, 5, 3) is not None


@pytest.mark.parametrize("name", ["", "*", "gta", "cosine", "rff", "rbf*", "rbf*cosine"])
def test_unknown_models(name):
    with pytest.raises(ValueError, match=r"Expected .* model .*gat, gatv2"):
        resolve_model(name)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "gat[negative_slope=0.1]",
            "name of a kernel .*stock layer.*use 'gat' alone, or its kernel, 'additive'$",
        ),
        (
            "gatv2@separate",
            "name of a kernel .*stock layer.*use 'gatv2' alone, or its kernel, 'additive_v2'$",
        ),
        ("gat*l2", "name of a kernel .*stock layer.*use 'gat' alone"),
        ("gta@separate", r"name of a model .*choose from: gat, gatv2.*did you mean 'gat'\?$"),
        ("rbf*laplac", r"name of a model .*did you mean 'laplace'\?$"),
        ("rbf@apart", r"projections after '@' .*choose from: shared, shared_qk, shared_kv, separate"),
        ("rbf@seperate", r"projections after '@' .*did you mean 'separate'\?$"),
        ("rbf@", "projections after '@'"),
        ("rbf@separate@shared", "projections after '@'"),
        ("rbf@separate*l2", "projections after '@'"),
        ("rbf@sart=unit", r"settings after '@' that 'rbf' leaves open, each once .*did you mean 'start'\?$"),
        ("rbf@separate@projections=shared", "that 'rbf@separate' leaves open"),
        ("gat@start=unit", "that 'gat' leaves open"),
        ("rbf@lr=1@LR=2", "each once"),
        ("rbf@keep=loss", "that 'rbf' leaves open"),  # one table has one rule
        ("rbf@lr=fast", r"'lr' as a number .got 'fast'.*@lr=VALUE in 'rbf@lr=fast'"),
        ("rbf[lengthscale=1", r"NAME\[ARGUMENT=VALUE"),
        ("rb[lengthscale=1]f", "name of a model"),
        ("[lengthscale=1]", "name of a model"),
        ("rbf[]", "RBF takes lengthscale$"),
        ("rbf[lengthscale]", "ARGUMENT=VALUE.*got 'lengthscale'"),
        ("rbf[lengthscale=]", "ARGUMENT=VALUE"),
        ("spectral[features=4]", "got 'features=4'.*Spectral takes num_features, stationary, init, eps;"),
        ("spectral[channels=4]", "got 'channels=4'"),
        ("spectral[num_features=4,num_features=8]", "each once .got 'num_features=8'"),
        ("dot[offset=1]", "DotProduct takes no arguments"),
        ("spectral[num_features=4.5]", r"a whole number .*spectral\[num_features=VALUE\]"),
        ("spectral[stationary=yes]", "true or false"),
        ("implicit[num_features=3]", "even, positive 'num_features'"),
        ("rbf*l0.5", "'p' of at least 1"),
        ("rbf[lengthscale=1]*l0.5", "'p' of at least 1"),
        ("random_fourier[squared=false]", "nowhere negative .got 'random_fourier.squared=false.'"),
    ],
)
def test_arguments_and_projections_that_cannot_be(name, message):
    with pytest.raises(ValueError, match=f"Expected .*{message}"):
        resolve_model(name)


STACKS = [name for name, model in MODELS.items() if not model.has_kernel]


@pytest.mark.parametrize("name", [*STACKS, "rbf"])
def test_a_model_sees_edge_features_or_is_said_not_to(name):
    task = make_task(edge_dim=2)
    model = training.build(task, make_config(name)).eval()
    x, edge_index, _ = inputs_of(task.data)
    drawn = torch.randn(2, edge_index.size(1), 2)
    with torch.no_grad():
        one, other = (model(x, edge_index, edge_attr=values) for values in drawn)
    assert torch.equal(one, other) != resolve_model(name).sees_edge_attr


def test_unseen_edge_features_are_told(recwarn):
    registry.warn_of_unseen_edges(["gat", "rbf", "gcn", "pna", "sgformer"], make_task(edge_dim=2))
    registry.warn_of_unseen_edges(["gat", "gcn"], make_task())
    registry.warn_of_unseen_edges(["gat", "rbf"], make_task(edge_dim=2))
    (warning,) = recwarn
    assert re.search(r"edge features of 'made' are not seen by gcn, sgformer", str(warning.message))
