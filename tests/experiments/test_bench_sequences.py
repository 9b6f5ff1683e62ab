import math

import pytest

from kgat import cli
from kgat.experiments import ledger
from kgat.experiments.bench import measure, sequences
from kgat.experiments.bench.report import costs as table
from kgat.experiments.bench.sequences import SUBJECTS, Question, answer, run
from kgat.experiments.plots.sequence_costs import sequence_costs as figure


@pytest.fixture
def cost(monkeypatch):
    r"""A clock in place of processes: linear or quadratic seconds, and what was asked."""
    asked = []

    def ask(question):
        asked.append((question.subject, question.length, question.what))
        if question.subject == "rbf" and question.length == 64:
            return {"failed": "no memory"}
        if question.what == "memory":
            return {"bytes": 1000 * question.length}
        seconds = question.length / 16 if question.subject == "primal" else (question.length / 16) ** 2
        return {"seconds": [seconds, seconds, seconds], "speed": [2.0, 1.0, 3.0]}

    monkeypatch.setattr(sequences, "ask", ask)
    return asked


def test_slow_attention_is_not_measured_on_longer_sequences(tmp_path, cost):
    path = tmp_path / "a" / "costs.jsonl"
    given = ([64, 16, 32], ["softmax", "rbf", "primal"], path)
    found = run(*given, seconds=3.0)
    lengths = {"softmax": [16, 32], "rbf": [16, 32], "primal": [16, 32, 64]}
    assert [(r["subject"], r["length"]) for r in found] == [(s, n) for s in lengths for n in lengths[s]]
    assert ledger.read(path) == found
    assert cost[:2] == [("softmax", 16, "time"), ("softmax", 16, "memory")]
    count = len(cost)
    assert run(*given, seconds=3.0) == found  # what the file holds is not measured again
    assert len(cost) == count
    run(*given, seconds=100.0)  # another limit is another measurement
    assert cost[count] == ("softmax", 16, "time")
    assert ("softmax", 64, "time") in cost


def test_nobody_waits_for_softmax_attention_that_is_too_slow(tmp_path, monkeypatch):
    paired = {}

    def ask(question):
        if question.what == "time":
            paired[question.subject, question.length] = question.paired
        seconds = (question.length / 16) ** 2 if question.subject == "torch softmax" else 1.0
        return {"seconds": [seconds] * 3, "bytes": 1}

    monkeypatch.setattr(sequences, "ask", ask)
    path = tmp_path / "costs.jsonl"
    run([16, 32, 64], ["torch softmax", "primal"], path, seconds=3.0)
    assert [paired["primal", length] for length in (16, 32, 64)] == [True, False, False]
    run([32], ["rbf"], tmp_path / "other.jsonl", seconds=3.0)  # nothing is known there
    assert paired["rbf", 32]
    alone = Question("primal", 16, "time", 8, 2, "cpu", 1, 1.0, paired=False)
    assert "speed" not in answer(alone)


def test_a_failure_is_kept_and_ends_the_growth(tmp_path, cost):
    found = run([16, 64, 128], ["rbf"], tmp_path / "costs.jsonl", seconds=100.0)
    assert [r["length"] for r in found] == [16, 64]
    assert found[1]["failed"] == "no memory"
    assert table(found).splitlines()[2] == "| rbf | 1,000, 2×, 0 | failed |"
    figure(found)


def test_long_times_are_shown_in_whole_milliseconds():
    records = [{"subject": "rbf", "length": 2, "seconds": [t], "bytes": None} for t in (12.488, 0.0123456)]
    assert [table([record]).splitlines()[2] for record in records] == [
        "| rbf | 12,488, –, – |",
        "| rbf | 12.3, –, – |",
    ]


def test_table_and_figure(tmp_path, cost):
    found = run([16, 32], ["softmax", "primal"], tmp_path / "costs.jsonl")
    found[0]["bytes"] = None
    del found[0]["speed"]
    assert table(found).splitlines() == [
        "| ms, speed, MB | 16 | 32 |",
        "| --- | ---: | ---: |",
        "| softmax | 1,000, –, – | 4,000, 2×, 0 |",
        "| primal | 1,000, 2×, 0 | 2,000, 2×, 0 |",
    ]
    time, speed, memory = figure(found).axes
    assert [list(line.get_ydata()) for line in time.lines] == [[1000.0, 4000.0], [1000.0, 2000.0]]
    assert [list(line.get_xdata()) for line in speed.lines[:2]] == [[32], [16, 32]]
    assert speed.get_title(loc="left") == f"speed, {sequences.BASELINE} = 1"
    assert [list(line.get_xdata()) for line in memory.lines] == [[32], [16, 32]]


@pytest.mark.parametrize("subject", [name for name in SUBJECTS if name != "sinc product"])
def test_every_attention_is_measured(subject):
    found = answer(Question(subject, 20, "time", 8, 2, "cpu", 1, 9.0))
    assert list(found) == ["seconds"] + ["speed"] * (subject != sequences.BASELINE)
    for middle, low, high in found.values():
        assert 0.0 < low <= middle <= high < math.inf


def test_speed_is_that_of_turns_with_torch(monkeypatch):
    def take(*seconds):
        turns = iter(seconds)
        for module in (sequences, measure):
            monkeypatch.setattr(module, "seconds_of", lambda step, device, clock="wall": next(turns))

    # In reversed order every other round.
    take(0.1, 0.1, *(0.4, 0.1), *(0.1, 0.2), *(0.4, 0.1), *(0.1, 0.4), *(0.4, 0.2))
    found = answer(Question("rbf", 4, "time", 4, 2, "cpu", 1, 1.0))
    assert found == {"seconds": [0.1, 0.1, 0.2], "speed": [4.0, 2.0, 4.0]}
    take(0.1, 2.0, *[0.1] * 5)  # the other one is too slow to wait for
    assert answer(Question("rbf", 4, "time", 4, 2, "cpu", 1, 1.0)) == {"seconds": [0.1, 0.1, 0.1]}


def test_a_measurement_in_its_own_process(warm_workers):
    for what in ("time", "memory"):
        found = sequences.ask(Question("primal", 20, what, 8, 2, "cpu", 1, 60.0))
        assert list(found) == {"time": ["seconds", "speed"], "memory": ["bytes"]}[what]
    assert "failed" in sequences.ask(Question("primal", 20, "time", 7, 2, "cpu", 1, 1.0))


def test_command(tmp_path, cost, capsys):
    out, drawn = tmp_path / "costs.jsonl", tmp_path / "costs.png"
    given = ["bench", "sequences", "--lengths", "16,32", "--subjects", "primal", "--out", str(out)]
    assert cli.main([*given, "--figure", str(drawn)]) == 0
    assert table(ledger.read(out)) in capsys.readouterr().out
    assert drawn.read_bytes().startswith(b"\x89PNG")
    assert cli.main([*given, "--figure", str(tmp_path / "new" / "costs.png")]) == 0
    assert (tmp_path / "new" / "costs.png").is_file()
    for change, message in (
        (["--lengths", "16,x"], "Expected numbers of tokens (got '16,x')"),
        (["--lengths", "0"], "Expected positive lengths (got [0])"),
        (
            ["--subjects", "prymal"],
            "Expected subjects that exist (got prymal); choose from: torch softmax, softmax, rbf",
        ),
        (["--subjects", "prymal"], "did you mean 'primal'"),
    ):
        assert cli.main([*given, *change]) == 2
        assert message in capsys.readouterr().err
