r"""What ``make gpu`` plans, refuses and keeps, none of which needs a device."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest
import torch

from kgat.experiments.bench.ops import Plan
from kgat.experiments.bench.rivals import COMPILED, PYG, SUBJECTS, TURBO

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "on_gpu.py"
HERE = {"commit": "abc", "device": "a GPU", "date": "today"}


@pytest.fixture(scope="module")
def on_gpu():
    spec = importlib.util.spec_from_file_location("on_gpu", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules["on_gpu"] = module  # dataclasses look there
    spec.loader.exec_module(module)
    yield module
    del sys.modules["on_gpu"]


def option(part, name):
    return part.arguments[part.arguments.index(name) + 1]


def test_plan_fits_into_eight_minutes_and_names_what_there_is(on_gpu, capsys):
    parts = on_gpu.plan()
    assert sum(part.seconds for part in parts) <= on_gpu.BUDGET < 8 * 60
    compared = [part for part in parts if "--subjects" in part.arguments]
    assert [option(part, "--scenarios") for part in compared] == ["cora", "arxiv"]
    rivals = set()
    for part in compared:
        subjects = option(part, "--subjects").split(",")
        assert list(Plan([option(part, "--scenarios")], subjects, device="cuda").jobs())
        rivals |= {name for subject in subjects for name in SUBJECTS[subject].candidates}
    assert {PYG, COMPILED, TURBO} <= rivals
    tested = {argument for part in parts for argument in part.arguments if argument.startswith("tests/")}
    root = SCRIPT.parents[1]
    marked = (
        str(path.relative_to(root)) for path in root.glob("tests/**/test_*.py") if path != Path(__file__)
    )
    assert tested == {path for path in marked if "@pytest.mark.gpu" in (root / path).read_text()}
    assert on_gpu.main(["--plan"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == len(parts)


def test_refuses_without_a_device(on_gpu, monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert on_gpu.main(["--out", str(tmp_path / "gpu.jsonl")]) == 2
    assert capsys.readouterr().err.startswith("Expected a CUDA device (got none that torch ")
    assert not list(tmp_path.iterdir())


def test_goes_on_with_what_has_not_passed(on_gpu, tmp_path, capsys):
    path = tmp_path / "gpu.jsonl"
    marks = [tmp_path / name for name in ("one", "two", "three")]
    touch = "import pathlib, sys; pathlib.Path(sys.argv[1]).open('a').write('x'); "
    parts = [
        on_gpu.Part("right", ("-c", touch, str(marks[0])), 60.0),
        on_gpu.Part("wrong", ("-c", touch + "sys.exit('it is wrong')", str(marks[1])), 60.0),
        on_gpu.Part(
            "slow", ("-c", touch + "print('hm', flush=True); import time; time.sleep(60)", str(marks[2])), 5.0
        ),
    ]
    assert on_gpu.run(parts, path, HERE) == 2
    records = [json.loads(line) for line in path.read_text().splitlines()]
    assert [record["code"] for record in records] == [0, 1, None]
    assert "it is wrong" in records[1]["said"]
    assert "hm" in records[2]["said"]
    assert records[0]["device"] == "a GPU"
    shown = capsys.readouterr().out
    assert "passed" in shown
    assert "FAILED" in shown
    assert "was stopped" in shown
    assert on_gpu.run(parts[:2], path, HERE | {"date": "tomorrow"}) == 1
    assert [mark.read_text() for mark in marks] == ["x", "xx", "x"]
    assert on_gpu.run(parts[:1], path, HERE | {"commit": "def"}) == 0
    assert on_gpu.run(parts[:1], path, HERE, fresh=True) == 0
    assert marks[0].read_text() == "xxx"


def test_no_part_begins_without_time(on_gpu, monkeypatch, tmp_path):
    monkeypatch.setattr(on_gpu, "BUDGET", 0.5)
    path = tmp_path / "gpu.jsonl"
    assert on_gpu.run([on_gpu.Part("late", ("-c", "raise SystemExit(0)"), 60.0)], path, HERE) == 1
    assert json.loads(path.read_text())["said"] == "no time was left"
