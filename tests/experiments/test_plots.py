import json
import math
import sys
from itertools import pairwise

import matplotlib as mpl
import numpy as np
import pytest
from made_runs import make_run
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from kgat.experiments import plots
from kgat.experiments.plots import look

LONG = "my.package.kernels:AVeryLongNameOfAKernel*l1.5"
NINE = ["gat", "gatv2", "additive", "dot", "rbf*lp", "rbf", "scaled_cosine", LONG, "spectral"]
VERSIONS = {"kgat": "0.1.0", "torch": "2.13.0"}


def run_record(model, seed, test, dataset="Cora", epochs=50, **more):
    epoch = np.arange(1, epochs + 1, 5)
    curve = {
        "epoch": epoch.tolist(),
        "train_loss": np.exp(-epoch / 20).tolist(),
        "val_loss": (0.5 + np.exp(-epoch / 15)).tolist(),
        "val": (0.8 - 0.3 * np.exp(-epoch / 10)).tolist(),
    }
    return {
        "kind": "run", "dataset": dataset, "model": model, "seed": seed, "split": "public",
        "config": {"lr": 0.005}, "metric": "accuracy", "train": 0.99, "val": 0.8, "test": test,
        "best_epoch": 30, "epochs": epochs, "seconds": 1.5, "parameters": 92373, "curve": curve,
        "versions": VERSIONS, "commit": "abc1234",
    } | more  # fmt: skip


def attention_record(model, dataset="Cora", heads=8, kernel=True):
    distance = np.linspace(0, 4, 9)
    curves = [np.exp(-(distance**2) / (1 + head)).tolist() for head in range(heads)]
    neighbours = 12
    edges = [[i, 0] for i in range(1, neighbours + 1)] + [[0, 0], [1, 2], [2, 1]]
    weights = np.linspace(1, 2, len(edges)) / (1.5 * (neighbours + 1))
    return {
        "kind": "attention", "dataset": dataset, "model": model, "seed": 0,
        "layers": [
            {"heads": heads, "entropy": np.linspace(0.7, 0.95, heads).tolist(),
             "histogram": [0] * 10 + [1, 2, 4, 8, 9, 12, 20, 30, 40, 50]},
            {"heads": 1, "entropy": [0.99], "histogram": [0] * 19 + [100]},
        ],
        "profile": {"distance": distance.tolist(), "kernel": curves, "low": curves,
                    "high": curves, "normalised": "zero"} if kernel else None,
        "spectrum": [np.exp(-np.arange(30) / 3).tolist()] * heads if kernel else None,
        "effective_rank": [3.5] * heads,
        "nodes_sampled": 256,
        "image": {"values": [(np.eye(6) + 0.1 * head).tolist() for head in range(min(4, heads))],
                  "labels": [0, 0, 1, 1, 2, 2]} if kernel else None,
        "law": {"frequencies": [[[0.1 * i - 0.5, 0.02 * i * head - 0.1] for i in range(10)]
                                for head in range(heads)], "share": 0.7} if kernel else None,
        "head_correlation": np.full((heads, heads), 0.3).tolist() if kernel else None,
        "importance": {"value": [0.1 * i for i in range(20)], "degree": [1 + i * i for i in range(20)],
                       "labels": [i % 7 - 1 for i in range(20)]} if kernel else None,
        "neighbourhood": {
            "center": 0, "nodes": list(range(neighbours + 1)), "targets": [0], "hops": 1,
            "degree": neighbours, "edges": edges, "alpha": [[w] * heads for w in weights.tolist()],
            "labels": [i % 7 - 1 for i in range(neighbours + 1)],
        },
    }  # fmt: skip


def cost_record(models, dataset="Cora"):
    return {
        "kind": "cost", "dataset": dataset, "baseline": "gat", "rounds": 20, "versions": VERSIONS,
        "models": {
            model: {"seconds_ratio": [1 + i / 5, 0.9 + i / 5, 1.2 + i / 5],
                    "memory_ratio": 1 + i / 10, "epoch_seconds": 0.01, "peak_bytes": 10**8}
            for i, model in enumerate(models)
        },
    }  # fmt: skip


def comparison(models, seeds=5, dataset="Cora"):
    records = [
        run_record(model, seed, 0.8 + 0.01 * math.sin(3 * i + seed), dataset, 40 + 5 * seed)
        for i, model in enumerate(models)
        for seed in range(seeds)
    ]
    records += [attention_record(model, dataset, kernel=model != "gat") for model in models]
    records.append(cost_record(models, dataset))
    return json.loads(json.dumps(records))


FULL = comparison(NINE)


@pytest.mark.parametrize("name", plots.FIGURES)
@pytest.mark.parametrize("models", [["gat", "rbf"], NINE], ids=["two", "nine"])
def test_nothing_is_clipped(name, models):
    figure = plots.FIGURES[name](comparison(models))
    assert isinstance(figure, Figure)
    FigureCanvasAgg(figure).draw()
    box = figure.get_tightbbox()
    width, height = figure.get_size_inches()
    assert box.x0 > -0.02
    assert box.y0 > -0.02
    assert box.x1 < width + 0.02
    assert box.y1 < height + 0.02


@pytest.mark.parametrize("name", plots.FIGURES)
def test_row_labels_do_not_overlap(name):
    figure = plots.FIGURES[name](FULL)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            boxes = [
                label.get_window_extent(canvas.get_renderer())
                for label in axis.get_ticklabels()
                if label.get_visible() and label.get_text() and axes.axison
            ]
            for left, right in pairwise(boxes):
                assert not left.overlaps(right)


@pytest.mark.parametrize("name", plots.FIGURES)
@pytest.mark.parametrize(
    "records",
    [
        [],
        [{"kind": "note", "dataset": "Cora"}],
        [{"kind": "cost", "dataset": "Cora", "models": {}}],
        [run_record("gat", 0, None, curve=None)],
        [attention_record("gat", kernel=False) | {"layers": [], "neighbourhood": None}],
    ],
    ids=["empty", "foreign", "no models", "no values", "no attention"],
)  # fmt: skip
def test_no_figure_of_nothing(name, records):
    assert plots.FIGURES[name](records) is None


@pytest.mark.parametrize("name", plots.FIGURES)
@pytest.mark.parametrize(
    "records",
    [
        comparison(["gat"], seeds=1),
        comparison(["rbf"], seeds=3),
        comparison(["gat", "$\\frac{a$ <b>\n_x^2"], seeds=2),
        [record for record in FULL if record.get("model") != "gat"],
        [run_record("gat", 0, 0.8, curve={}), run_record("rbf", 0, 0.8, epochs=1)],
        [run_record("gat", 0, 0.8, epochs=10), run_record("gat", 1, 0.8, epochs=90)],
        [attention_record("rbf", heads=1)],
        comparison([f"kernel-{i}" for i in range(23)], seeds=2),
    ],
    ids=["one", "no baseline", "odd name", "baseline gone", "no curve", "early", "head", "many"],
)
def test_odd_records(name, records):
    figure = plots.FIGURES[name](records)
    if figure is not None:
        content = plots.png(figure)
        assert content.startswith(b"\x89PNG")
        assert b"Matplotlib" not in content


def test_accuracy_shows_every_seed_and_the_interval():
    records = [run_record("gat", seed, test) for seed, test in enumerate((0.80, 0.82, 0.84))]
    axes = plots.accuracy(records).axes[0]
    baseline, seeds, interval, mean = axes.lines
    assert baseline.get_xdata() == pytest.approx([82, 82])
    assert seeds.get_xdata() == pytest.approx([80, 82, 84])
    # Student's t with two degrees of freedom: 4.302653 * 2 / sqrt(3)
    assert interval.get_xdata() == pytest.approx([82 - 4.96828, 82 + 4.96828], abs=1e-4)
    assert mean.get_xdata() == pytest.approx([82])
    assert axes.get_xlabel() == "test accuracy (%)"


def test_one_seed_has_no_interval():
    axes = plots.accuracy([run_record("gat", 0, 0.8)]).axes[0]
    assert len(axes.lines) == 3


def test_a_repeated_run_replaces_the_first():
    records = [run_record("gat", 0, 0.5), run_record("gat", 0, 0.8)]
    assert plots.accuracy(records).axes[0].lines[1].get_xdata() == pytest.approx([80])


def test_difference_is_paired_by_seed():
    gat = [run_record("gat", seed, test) for seed, test in ((0, 0.7), (1, 0.8), (2, 0.9))]
    rbf = [run_record("rbf", seed, test) for seed, test in ((2, 0.93), (1, 0.81), (7, 0.2))]
    rbf.append(run_record("rbf", 0, 0.1, split="another"))
    axes = plots.difference(gat + rbf).axes[0]
    assert axes.lines[1].get_xdata() == pytest.approx([3, 1])
    assert [label.get_text() for label in axes.get_yticklabels()] == ["rbf"]


def test_curves_keep_the_last_value_of_early_runs():
    runs = [
        run_record("gat", seed, 0.8, curve={"epoch": epoch, "train_loss": loss})
        for seed, epoch, loss in (
            (0, [1, 2], [4.0, 2.0]),
            (1, [1, 2, 3, 4], [4.0, 2.0, 1.0, 1.0]),
            (2, [1, 2, 3, 4, 5], [4.0, 2.0, 0.0, 0.0, 9.0]),
        )
    ]
    line = plots.learning_curves(runs).axes[0].lines[0]
    assert line.get_xdata().tolist() == [1, 2, 3, 4]  # one of three still runs at 5
    assert line.get_ydata() == pytest.approx([4, 2, 1, 1])


def test_missing_values_are_left_out():
    curve = {"epoch": [1, 2, 3], "train_loss": [3.0, None, 1.0], "val_loss": [], "val": [math.nan]}
    figure = plots.learning_curves([run_record("gat", 0, 0.8, curve=curve)])
    assert figure.axes[0].lines[0].get_xdata().tolist() == [1, 3]
    assert not figure.axes[1].lines


def test_a_model_has_one_colour():
    looks = plots.styles(FULL)
    assert len(set(looks.values())) == len(NINE)
    assert looks["gat"].color == look.INK
    colors = {to_hex(line.get_color()) for line in plots.learning_curves(FULL).axes[0].lines}
    assert colors == {look.color for look in looks.values()}
    profile = plots.profile(FULL)
    panel = next(axes for axes in profile.axes if axes.get_title() == "rbf")
    assert to_hex(panel.collections[0].get_facecolor()[0], keep_alpha=False) == looks["rbf"].color
    many = plots.styles([{"kind": "run", "model": f"m{i}"} for i in range(40)])
    assert len(set(many.values())) == 41


def test_a_models_colour_depends_on_its_name_alone():
    names = ["gat", "rbf", "my:Kernel", "dot", "implicit"]
    looks = plots.styles([{"kind": "run", "model": name} for name in names])
    other = plots.styles([{"kind": "run", "model": name} for name in ("dot", "my:Kernel", "spectral", "rbf")])
    for name in ("gat", "rbf", "my:Kernel", "dot"):
        assert looks[name] == other[name]
    curve = {"x": [1, 2], "y": [1, 2], "mean": [1, 2], "std": None, "part": ["train", "test"]}
    fit = {"kind": "regression", "dataset": "nile", "model": "dot", "unit": "m", "curve": curve}
    assert plots.fits([fit]).axes[0].lines[0].get_color() == looks["dot"].color


def test_no_interval_passes_the_largest_score():
    records = [run_record("gat", seed, test) for seed, test in enumerate((0.9, 0.99, 1.0))]
    axes = plots.accuracy(records).axes[0]
    interval = axes.lines[2].get_xdata()
    assert interval[0] > 0
    assert interval[1] == 100
    assert axes.get_xlim()[1] < 101
    difference = plots.difference([*records, *(r | {"model": "rbf", "test": 0.0} for r in records)])
    assert difference.axes[0].lines[2].get_xdata()[0] < -100  # of a difference it says how sure it is


def test_a_figure_is_one_file(tmp_path, monkeypatch):
    (tmp_path / "count.py").write_text(
        "from matplotlib.figure import Figure\n"
        "from kgat.experiments.plots.plot import plot\n"
        "from kgat.experiments.plots.selection import runs_of\n"
        "@plot(runs_of, order=15)\n"
        "def counted(runs, looks, dataset):\n"
        "    'Count.'\n"
        "    return Figure()\n"
    )
    monkeypatch.setattr(plots, "__path__", [*plots.__path__, str(tmp_path)])
    try:
        names = list(plots._found())
        assert names[names.index("accuracy") :][:3] == ["accuracy", "count", "difference"]
        assert isinstance(plots._found()["count"](FULL), Figure)
        assert plots._found()["count"].title == "Count"
    finally:
        del sys.modules["kgat.experiments.plots.count"]


def test_attention_draws_the_weights_into_the_center():
    record = attention_record("gat", heads=2)
    figure = plots.attention([record])
    panel = figure.axes[0]
    arrows = [patch for patch in panel.patches if hasattr(patch, "get_arrowstyle")]
    assert len(arrows) == 12  # the loop is the ring of the center, the others are grey lines
    widths = [arrow.get_linewidth() for arrow in arrows]
    assert widths == sorted(widths)
    assert widths[0] < widths[-1]


def test_save_all_writes_one_file_per_figure_and_data_set(tmp_path):
    records = comparison(["gat", "rbf"], 2) + comparison(["gat", "rbf"], 2, "a/b c")
    paths = plots.save_all(records, tmp_path / "new")
    expected = {f"{dataset}-{name}.png" for dataset in ("Cora", "a_b_c") for name in plots.FIGURES}
    assert {path.name for path in paths} == expected
    assert {path.name for path in (tmp_path / "new").iterdir()} == expected
    first = paths[0].read_bytes()
    assert plots.save_all(records, tmp_path / "new")[0].read_bytes() == first


HEADS = {"png": b"\x89PNG", "svg": b"<?xml", "pdf": b"%PDF"}


def test_figures_have_the_formats_that_are_asked_for(tmp_path):
    records = [run_record("gat", seed, 0.8) for seed in range(2)]
    paths = plots.save_all(records, tmp_path / "two", ["pdf", "svg"])
    assert {path.suffix for path in paths} == {".pdf", ".svg"}
    assert [path.stem for path in paths[::2]] == [path.stem for path in paths[1::2]]
    assert all(path.read_bytes().startswith(HEADS[path.suffix[1:]]) for path in paths)
    for form, head in HEADS.items():
        one, other = (
            plots.save(tmp_path / f"{i}.{form}", plots.accuracy(records)).read_bytes() for i in range(2)
        )
        assert one == other
        assert one.startswith(head)
        assert not any(word in one for word in (b"Matplotlib", b"<dc:date>", b"CreationDate"))
    plain = plots.png(plots.accuracy(records))
    assert plots.save(tmp_path / "plain", plots.accuracy(records)).read_bytes() == plain
    paths = {path.name: path for path in plots.save_all(records, tmp_path, ["svg", "png"])}
    assert paths["Cora-accuracy.png"].read_bytes() == plain


def test_other_formats_of_figures_are_refused(tmp_path):
    for formats in (["gif"], [], ["png", "svgz"]):
        with pytest.raises(ValueError, match=r"Expected a format of figures .*png, svg, pdf"):
            plots.save_all(FULL, tmp_path / "none", formats)
    with pytest.raises(ValueError, match=r"got 'jpg'"):
        plots.save(tmp_path / "none.jpg", plots.accuracy(FULL))
    assert not list(tmp_path.iterdir())


def test_the_users_style_is_neither_used_nor_changed():
    plain = plots.png(plots.accuracy(FULL))
    with mpl.rc_context():
        mpl.rcParams.update({"axes.facecolor": "black", "axes.titleweight": "bold"})
        before = dict(mpl.rcParams)
        assert plots.png(plots.accuracy(FULL)) == plain
        assert dict(mpl.rcParams) == before


def test_uniform_attention_looks_moderate():
    record = attention_record("gat", heads=1)
    cut = record["neighbourhood"]
    cut["alpha"] = [[1 / 13]] * len(cut["edges"])
    widths = [patch.get_linewidth() for patch in plots.attention([record]).axes[0].patches]
    assert widths == pytest.approx([0.8 + 4.2 / 2] * 12)


def test_attention_calls_nodes_and_classes_by_their_names():
    record = attention_record("gat")
    figure = plots.attention([record])
    assert [text.get_text() for text in figure.legends[0].get_texts()][:2] == ["class 0", "class 1"]
    record["neighbourhood"] |= {"name": "ann", "classes": {"0": "red", "1": "green"}}
    figure = plots.attention([record])
    shown = [text.get_text() for text in figure.legends[0].get_texts()]
    assert shown[:3] == ["red", "green", "class 2"]
    assert "node ann and" in "".join(text.get_text() for text in figure.findobj(mpl.text.Text))
    assert plots.png(figure).startswith(b"\x89PNG")


def test_images_name_their_heads():
    titles = [axes.get_title() for axes in plots.image(FULL).axes if axes.get_title()]
    assert titles == ["head 1", "head 2", "head 3", "head 4"]  # above the first model alone


def spectra_record(model, layers, dataset="drawn"):
    return {"kind": "spectra", "dataset": dataset, "model": model, "seed": 0, "layers": layers}


@pytest.mark.parametrize(
    ("draws", "inside"), [("uniform", 1.0), ("standard_normal", 1.0), ("standard_cauchy", 0.9)]
)
def test_frequencies_are_in_the_frame(draws, inside):
    frequencies = getattr(np.random.default_rng(0), draws)(size=(4, 64, 2))
    record = attention_record("spectral")
    record["law"] = {"frequencies": frequencies.tolist(), "share": 0.7}
    main = plots.law([record]).axes[0]
    shown = (np.abs(frequencies) < main.get_xlim()[1]).all(axis=-1).mean()
    assert main.get_xlim() == main.get_ylim()
    assert inside <= shown  # a law with heavy tails does not make the others one point
    assert main.get_xlim()[1] < 200


def test_spectra_have_a_line_per_layer():
    curves = [(1 - np.exp(-np.arange(1, 40) / scale)).tolist() for scale in (9, 5, 1)]
    records = [spectra_record("transformer", curves), spectra_record("primal+", [*curves[:2], [1.0]])]
    figure = plots.spectra(records)
    first, second = figure.axes
    assert [line.get_ydata().tolist() for line in first.lines] == curves
    assert second.lines[2].get_ydata().tolist() == [1.0]
    assert [text.get_text() for text in second.get_legend().get_texts()] == ["layer 1", "layer 3"]
    assert first.get_xlim() == second.get_xlim() == (0, 40)
    assert plots.png(figure).startswith(b"\x89PNG")
    assert plots.spectra([*records[:1], spectra_record("rbf", [])]).axes[0].get_title() == "transformer"
    assert plots.spectra([spectra_record("rbf", [])]) is None
    assert plots.spectra(records, "Cora") is None


def test_errors_have_no_bounds_and_no_percentages():
    runs = [
        {**make_run(model, seed, 150.0 + seed), "metric": "rmse"}
        for model in ("gat", "rbf")
        for seed in (0, 1)
    ]
    figure = plots.FIGURES["accuracy"](runs)
    assert figure.axes[0].get_xlabel() == "test RMSE (less is better)"
    assert figure.axes[0].get_xlim()[1] > 151
    figure = plots.FIGURES["difference"](runs)
    assert figure.axes[0].get_xlabel() == "difference to gat in test RMSE (less is better)"
