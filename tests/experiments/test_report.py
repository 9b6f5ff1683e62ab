import base64
import re
import shutil
import subprocess
from html.parser import HTMLParser

import numpy as np
import pytest
from matplotlib.image import imread

from kgat.experiments import plots, report

BAD = "rbf<script>alert(1)</script>\"'&"
VOID = {"meta", "img", "br"}


def run_record(model, seed, test, dataset="Cora"):
    return {
        "kind": "run", "key": f"{model}{seed}", "dataset": dataset, "model": model, "seed": seed,
        "split": "public", "config": {"lr": 0.005, "kernel": model}, "metric": "accuracy",
        "train": 0.99, "val": 0.81, "test": test, "best_epoch": 2, "epochs": 3, "seconds": 5.1,
        "epoch_seconds": 0.011, "parameters": 92373,
        "curve": {"epoch": [1, 2, 3], "train_loss": [3.0, 2.0, 1.0], "val_loss": [3.0, 2.0, 1.5],
                  "val": [0.2, 0.7, 0.8]},
        "versions": {"kgat": "0.1.0", "torch": "2.13.0+cpu"}, "commit": "abc1234",
        "device": "cpu", "threads": 2, "date": "2026-01-02T03:04:05Z",
    }  # fmt: skip


def comparison(*models, dataset="Cora"):
    return [
        run_record(model, seed, 0.8 + 0.001 * seed + 0.01 * i, dataset)
        for i, model in enumerate(models)
        for seed in (0, 1, 2, 41)
    ]


def test_what_is_drawn_already_is_not_drawn_again(tmp_path):
    records = comparison("gat", "rbf")
    drawn = tmp_path / "Cora-accuracy.png"
    drawn.write_bytes(b"a picture")
    data = base64.b64encode(b"a picture").decode()
    text = report.page(records, [drawn])
    assert text.count(f"base64,{data}") == 1
    assert text.count("<figure>") == report.page(records).count("<figure>") > 1
    written = plots.save_all(records, tmp_path)
    assert report.page(records, written) == report.page(records)


class Tags(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.open, self.seen, self.links = [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.seen.append(tag)
        self.links += [value for name, value in attrs if name in ("src", "href", "srcset")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_page_is_self_contained(tmp_path):
    path = report.write(comparison("gat", "rbf"), tmp_path / "new")
    assert path == tmp_path / "new" / "report.html"
    assert list(path.parent.iterdir()) == [path]
    text = path.read_text(encoding="utf-8")
    tags = Tags(text)
    assert not tags.open
    assert not {"script", "link", "iframe", "object", "a"} & set(tags.seen)
    assert len(tags.links) == 3  # accuracy, difference, curves
    for link in tags.links:
        head, data = link.split(",", 1)
        assert head == "data:image/png;base64"
        assert base64.b64decode(data, validate=True).startswith(b"\x89PNG")
    without_images = re.sub(r'src="[^"]*"', "", text)
    assert not re.search(r"https?:|//|@import|url\(", without_images)
    assert "default-src 'none'" in text


def test_every_text_is_escaped():
    records = comparison("gat", BAD) + comparison("gat", dataset="<b>Cora</b>")
    for record in records:
        record["config"]["note"] = "<img src=x onerror=alert(2)>"
        record["versions"]["<i>"] = "<u>"
        record["commit"] = record["split"] = record["metric"] = "</td><script>"
    text = report.page(records)
    tags = Tags(text)
    assert not tags.open
    assert not {"script", "b", "i", "u"} & set(tags.seen)
    assert all(link.startswith("data:image/png;base64,") for link in tags.links)
    assert "rbf&lt;script&gt;alert(1)&lt;/script&gt;&quot;&#x27;&amp;" in text


def test_page_says_what_was_run():
    text = report.page(comparison("gat", "rbf"))
    assert "2 models, 4 seeds, 8 runs." in text
    assert text.count("0, 1, 2, 41") == 2
    for fact in ("abc1234", "2.13.0+cpu", "2026-01-02T03:04:05Z", "0.005", "public", "92,373"):
        assert fact in text
    # The mean of 80.0, 80.1, 80.2 and 84.1, and the paired difference of one point.
    assert "81.1 ± 2.0" in text
    assert "+1.0 [+1.0, +1.0]" in text
    for head in (plots.FIGURES[name].title for name in ("accuracy", "difference", "curves")):
        assert f"<strong>{head}.</strong>" in text


def test_every_figure_has_a_caption():
    assert all(figure.title and figure.caption for figure in plots.FIGURES.values())


def test_colours_of_table_and_figures_agree():
    records = comparison("gat", "rbf", "dot") + comparison("gat", "dot", dataset="Actor")
    text = report.page(records)
    color = plots.styles(records)["dot"].color
    assert text.count(f'style="background:{color}"></span>dot') == 2


def test_page_of_one_seed_and_one_model():
    text = report.page([run_record("rbf", 0, 0.8)])
    assert "1 model, 1 seed, 1 runs." not in text
    assert "1 model, 1 seed, 1 run." in text
    assert "nan" not in re.sub(r'src="[^"]*"', "", text)


def test_page_of_no_runs(tmp_path):
    assert "No runs yet" in report.write([], tmp_path).read_text(encoding="utf-8")


def test_size_is_that_of_its_figures():
    models = ["gat", *(f"kernel-{i}" for i in range(8))]
    assert len(report.page(comparison(*models))) < 1_000_000


@pytest.mark.parametrize("width", [1200, 400])
def test_page_in_a_browser(tmp_path, width):
    names = ("chromium", "chromium-browser", "google-chrome")
    browser = next((found for found in map(shutil.which, names) if found), None)
    if browser is None:
        pytest.skip("needs Chromium on the path (chromium, chromium-browser or google-chrome)")
    path = report.write(comparison("gat", "rbf"), tmp_path)
    shot = tmp_path / "shot.png"
    options = (
        "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking",
        f"--user-data-dir={tmp_path / 'profile'}", f"--window-size={width},1600",
        f"--screenshot={shot}",
    )  # fmt: skip
    subprocess.run([browser, *options, path.as_uri()], check=True, timeout=120, capture_output=True)
    pixels = imread(shot)[..., :3]
    assert pixels.shape[:2] == (1600, width)
    # Text at the top, and figures in colour below: not one flat ground.
    assert pixels[:200].std() > 0.02
    saturation = pixels.max(axis=-1) - pixels.min(axis=-1)
    assert np.mean(saturation > 0.3) > 1e-4


def test_small_p_values_are_not_zero():
    runs = [run_record("gat", seed, 0.8) for seed in range(14)]
    runs += [run_record("rbf", seed, 0.9 + 0.001 * seed) for seed in range(14)]  # p = 2^-13
    assert "<td>&lt; 0.001</td>" in report.page(runs)
    assert "<td>0.000</td>" not in report.page(runs)
