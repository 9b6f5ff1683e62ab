from importlib.util import find_spec

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from matplotlib.backends.backend_agg import FigureCanvasAgg
from typer.testing import CliRunner

from kgat import cli
from kgat.experiments import ledger, plots, regression
from kgat.experiments.regression import Points, Regressor, Setting, compare, run, split, table

SMALL = Setting(width=8, heads=2, num_features=4, epochs=5)
MODELS = ["dot", "spectral*l2", "copula*l1.5"]
needs_gpytorch = pytest.mark.skipif(find_spec("gpytorch") is None, reason="gpytorch is not installed")


def wave(nodes: int = 40) -> Points:
    x = np.linspace(0.0, 6.0, nodes)[:, None]
    return Points("wave", x, 10.0 + np.sin(2.0 * x[:, 0]), "m")


def test_attention_is_over_all_points():
    torch.manual_seed(0)
    net = Regressor(3, Setting(width=12, heads=3), kernel="dot_product").eval()
    x = torch.randn(7, 3)
    h = net.lin_in(x)
    q, k, v = (part.transpose(0, 1) for part in net.attention.project(h))
    attended = F.scaled_dot_product_attention(q, k, v).transpose(0, 1).flatten(1)
    h = net.norms[0](h + net.lin_attention(attended))
    h = net.norms[1](h + net.feed_forward(h))
    torch.testing.assert_close(net(x), net.lin_out(h).squeeze(-1), rtol=1e-4, atol=1e-5)
    assert net(x[:4]).shape == (4,)  # another number of points


@pytest.mark.parametrize("model", MODELS)
def test_no_model_sees_the_targets_of_the_test(model):
    points = wave()
    test = split(40, 1)[2].numpy()
    other = points._replace(y=np.where(test, 1e3, points.y))
    found, again = (run(p, model, 1, SMALL, curve=True) for p in (points, other))
    assert found["curve"]["mean"] == again["curve"]["mean"]
    assert found["val"] == again["val"]
    assert found["test"] < 2.0
    assert again["test"] > 900.0


def test_errors_are_in_units_of_the_target():
    found, scaled = (run(p, "dot", 0, SMALL) for p in (wave(), wave()._replace(y=100.0 * wave().y)))
    assert scaled["test"] == pytest.approx(100.0 * found["test"], rel=1e-3)
    assert scaled["val"] == pytest.approx(100.0 * found["val"], rel=1e-3)


def test_the_kept_epoch_is_that_of_the_smallest_validation_error():
    short, long = (run(wave(), "dot", 0, Setting(8, 2, epochs=epochs)) for epochs in (5, 30))
    assert long["val"] <= short["val"]
    assert 1 <= long["best_epoch"] <= 30


def test_only_sampled_kernels_have_a_band():
    bands = {model: run(wave(), model, 0, SMALL, curve=True)["curve"]["std"] for model in MODELS}
    assert bands["dot"] is None
    assert bands["spectral*l2"] is None
    assert min(bands["copula*l1.5"]) > 0.0


def test_a_comparison_goes_on_where_it_stopped(tmp_path):
    path, said = tmp_path / "results.jsonl", []
    compare(wave(), MODELS[:2], 2, path, SMALL, said.append)
    assert len(said) == 4
    assert ledger.read(path) == said
    assert [("curve" in record) for record in said] == [True, True, False, False]
    compare(wave(), MODELS, 2, path, SMALL, said.append)
    assert [(r["model"], r["seed"]) for r in said[4:]] == [("copula*l1.5", 0), ("copula*l1.5", 1)]
    compare(wave(), MODELS, 2, path, Setting(8, 2, 4, epochs=1), said.append)
    assert len(said) == 12  # another setting is another run
    figure = plots.fits(ledger.read(path))
    FigureCanvasAgg(figure).draw()
    assert [axes.get_title(loc="left") for axes in figure.axes] == MODELS


def test_table_by_hand():
    found = [
        {"kind": "regression", "dataset": "wave", "unit": "m", "model": model, "seed": seed, "test": value}
        for model, values in {"dot": [1, 2, 3, 4, 5, 6], "rbf": [0.5, 1.5, 2.5, 3.5, 4.5, 5.5]}.items()
        for seed, value in enumerate(values)
    ]
    assert table(found).splitlines() == [
        "| model | wave, m, 6 seeds |",
        "| --- | ---: |",
        "| `dot` | 3.5 ± 1.9 |",
        "| `rbf` | 3.0 ± 1.9 (p = 0.031) |",  # the smallest there is with six pairs
    ]
    with pytest.raises(ValueError, match="records of 'kgat regress'"):
        table([])
    other = {**found[0], "setting": {"epochs": 9}}
    with pytest.raises(ValueError, match=r"'dot' on 'wave' of one setting \(got epochs=None and epochs=9\)"):
        table([*found, other])


@needs_gpytorch
@pytest.mark.parametrize("model", regression.GAUSSIAN_PROCESSES)
def test_gaussian_processes_find_a_wave(model):
    record = run(wave(80), model, 0, Setting(epochs=150), curve=True)
    assert record["test"] < 0.1
    assert min(record["curve"]["std"]) > 0.0


@needs_gpytorch
def test_a_spectral_mixture_takes_the_start_that_validates_best(monkeypatch):
    found = []
    for starts in (1, 2, 3):
        monkeypatch.setattr(regression, "PROCESS_STARTS", starts)
        found.append(run(wave(80), "gp-sm", 1, Setting(epochs=10))["val"])
    assert found == sorted(found, reverse=True)
    assert found[-1] < found[0]


@pytest.mark.parametrize(
    ("name", "package", "size"),
    [
        ("airline", "sktime", 144),
        ("co2", "statsmodels", 521),
        ("nile", "statsmodels", 100),
        ("sunspots", "statsmodels", 309),
    ],
)
def test_series(name, package, size):
    pytest.importorskip(package)
    points = regression.load(name)
    assert points.x.shape == (size, 1)
    assert points.y.shape == (size,)
    assert (np.diff(points.x[:, 0]) > 0).all()
    assert np.isfinite(points.y).all()


def test_months_stay_apart_in_a_curve():
    months = Points("months", 1949.0 + np.arange(24)[:, None] / 12, np.arange(24.0), "spots")
    curve = run(months, "dot", 0, Setting(8, 2, epochs=1), curve=True)["curve"]
    np.testing.assert_array_equal(curve["x"], months.x[:, 0])


def test_arguments_of_a_kernel_go_before_the_setting():
    given, by_setting = (
        run(wave(), name, 0, Setting(8, 2, num_features=number, epochs=1))["parameters"]
        for name, number in (("spectral[num_features=6]", 4), ("spectral", 6))
    )
    assert given == by_setting


def test_bad_input():
    with pytest.raises(
        ValueError, match=r"kernel model .got 'dot@separate'.; .*projections and settings in a name"
    ):
        regression.check_models(["dot@separate"])
    with pytest.raises(
        ValueError, match=r"regression set \(got 'diabetis'\); choose from: airline.*mean 'diabetes'"
    ):
        regression.load("diabetis")
    with pytest.raises(ValueError, match=r"kernel model \(got 'gat'\)"):
        run(wave(), "gat", 0, SMALL)
    with pytest.raises(ValueError, match=r"'width' divisible by 'heads=3' \(got 8\)"):
        Regressor(1, Setting(width=8, heads=3))
    with pytest.raises(ValueError, match=r"finite loss of 'dot'"):
        run(wave()._replace(y=np.full(40, np.inf)), "dot", 0, SMALL)


def test_command(tmp_path):
    arguments = ["regress", "--datasets", "diabetes", "--models", "dot", "--seeds", "1", "--epochs", "2"]
    result = CliRunner().invoke(cli.app, [*arguments, "--out", str(tmp_path), "--threads", "1"])
    assert result.exit_code == 0, result.output
    assert "| `dot` |" in result.output
    assert len(ledger.read(tmp_path / "results.jsonl")) == 1


def test_a_table_has_runs_of_one_setting(tmp_path, capsys):
    arguments = ["regress", "--datasets", "diabetes", "--models", "dot", "--out", str(tmp_path)]
    assert cli.main([*arguments, "--seeds", "2", "--epochs", "1"]) == 0
    assert cli.main([*arguments, "--seeds", "1", "--epochs", "2"]) == 0
    longer = ledger.read(tmp_path / "results.jsonl")[-1]
    assert longer["setting"]["epochs"] == 2
    head, _, row = capsys.readouterr().out.splitlines()[-3:]
    assert head == "| model | diabetes, progression, 1 seed |"
    assert row == f"| `dot` | {longer['test']:.3g} |"


def test_models_go_by_one_name_each(tmp_path):
    found = compare(wave(), ["DOT", "dot", "RBF * L2"], 1, tmp_path / "results.jsonl", SMALL)
    assert [record["model"] for record in found] == ["dot", "rbf*l2"]
    assert run(wave(), "RBF*l2.0", 0, SMALL)["model"] == "rbf*l2"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--models", ""], "Expected at least one model (got none); pass --models dot,rbf*l2"),
        (["--datasets", ""], "Expected at least one data set (got none); choose from: airline, co2"),
        (["--out", "FILE"], "Expected a folder that can be written (got 'FILE'"),
        (["--readme", "FILE"], "Expected the lines '<!-- regression:begin -->' and"),
    ],
)
def test_errors_of_the_command(arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(regression, "run", lambda *_, **__: pytest.fail("ran"))
    (tmp_path / "FILE").write_text("")
    given = ["regress", "--datasets", "diabetes", "--models", "dot", "--seeds", "1", "--epochs", "1"]
    assert cli.main([*given, *arguments]) == 2
    assert message in capsys.readouterr().err


def test_what_cannot_run_is_said_before_anything_runs(tmp_path, monkeypatch):
    monkeypatch.setattr(regression, "find_spec", lambda name: None)
    monkeypatch.setattr(regression, "run", lambda *_, **__: pytest.fail("ran"))
    for model, error in (("gp-rbf", ImportError), ("gat", ValueError), ("rbg", ValueError)):
        with pytest.raises(error, match=f"got .*{'none' if model == 'gp-rbf' else model}"):
            compare(wave(), ["dot", model], 1, tmp_path / "results.jsonl", SMALL)


def test_a_stop_says_what_is_kept(tmp_path, monkeypatch, capsys):
    real = regression.run
    seen = []

    def stopped(points, model, seed, *rest, **kwargs):
        if seen:
            raise KeyboardInterrupt
        seen.append(model)
        return real(points, model, seed, *rest, **kwargs)

    monkeypatch.setattr(regression, "run", stopped)
    arguments = ["regress", "--datasets", "diabetes", "--models", "dot", "--seeds", "3", "--epochs", "1"]
    assert cli.main([*arguments, "--out", str(tmp_path)]) == 130
    path = tmp_path / "results.jsonl"
    assert len(ledger.read(path)) == 1
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert said == f"kgat: interrupted: 1 of 3 runs are kept in {path}; run the same command again to go on"
