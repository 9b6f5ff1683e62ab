r"""``kgat bench ops --against``: another copy of the package as a rival."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import kgat
from kgat import cli
from kgat.experiments.bench import against, contest, ops, worker
from kgat.experiments.bench.contest import BOTH, FORWARD, MEMORY, Question
from kgat.experiments.bench.ops import Plan, run
from kgat.experiments.bench.rivals import OURS
from kgat.ops import CPU


class Here:
    r"""A process that is none; of another copy it computes ``factor`` times what is right."""

    factor = 1.0

    def __init__(self, benchmark, question, regime, environment, other):
        self.path = question.told if other is not None else None
        self.working = contest.answers(question)
        self.places = environment

    def tell(self, word):
        worker.TOLD.put(word)

    def answers(self):
        for answer in self.working:
            if self.path is not None and "versions" in answer:
                told = torch.load(self.path)
                torch.save({**told, "values": [x * self.factor for x in told["values"]]}, self.path)
            yield answer

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.working.close()


@pytest.fixture
def other(monkeypatch, tmp_path):
    monkeypatch.setattr(CPU, "available", staticmethod(lambda: "left out of this test"))
    monkeypatch.setattr(worker, "Process", Here)
    folder = tmp_path / "before"
    (folder / "kgat").mkdir(parents=True)
    (folder / "kgat" / "__init__.py").touch()
    return str(folder)


def test_two_copies_take_turns(other, tmp_path):
    plan = Plan(["tiny"], ["rbf core"], seconds=0, other=other)
    records = run(plan, tmp_path / "ops.jsonl")
    shown = {(record["candidate"], record["what"], record["regime"]) for record in records}
    names = (OURS, "kgat before")
    assert shown == {
        *((name, what, regime) for name in names for what in (FORWARD, BOTH) for regime in ("R1", "R2")),
        *((name, MEMORY, "memory") for name in names),
    }
    for record in records:
        assert (record["nodes"], record["edges"], record["core"]) == (50, 250, True)
        if record["what"] != MEMORY:
            starts = (
                3 if record["regime"] == "R1" else 1
            )  # of malloc as it comes, one says little of the next
            assert (record["clock"], record["starts"], record["rounds"]) == ("CPU", starts, 3 * starts)
            assert ("ratio" in record) == (record["candidate"] != OURS)
    assert run(plan, tmp_path / "ops.jsonl") == []


@pytest.mark.parametrize("subject", ["spectral layer", "implicit spectral layer", "random fourier core"])
def test_a_copy_takes_the_weights_of_ours(tmp_path, subject):
    question = Question("tiny", subject, [OURS], [FORWARD], "R1", "cpu", 1, 0)

    def told(name, weights=None):
        path = str(tmp_path / name)
        next(a for a in contest.answers(replace(question, told=path, weights=weights)) if "versions" in a)
        return torch.load(path)

    ours = told("ours")
    others = [1.5 * weight for weight in ours["weights"]]
    torch.save({**ours, "weights": others}, tmp_path / "others")
    taken = told("taken", str(tmp_path / "others"))
    assert all(map(torch.equal, taken["weights"], others))
    assert not torch.allclose(taken["values"][0], ours["values"][0])
    torch.save({**ours, "weights": others[1:]}, tmp_path / "fewer")  # of a copy that has others
    assert all(map(torch.equal, told("kept", str(tmp_path / "fewer"))["weights"], ours["weights"]))


def test_copies_that_differ_are_not_timed(other, tmp_path, monkeypatch):
    monkeypatch.setattr(Here, "factor", 1.1)
    plan = Plan(["tiny"], ["rbf core"], seconds=0, other=other)
    with pytest.raises(ops.UnequalError, match=r"kgat before of tiny, rbf core: .*precision 0\.1, ours"):
        run(plan, tmp_path / "ops.jsonl")


def test_what_measures_another_copy_is_the_code_of_this_one(tmp_path):
    package = Path(kgat.__file__).parent
    shutil.copytree(package, tmp_path / "kgat", ignore=shutil.ignore_patterns("__pycache__", "rivals.py"))
    (tmp_path / "whose.py").write_text(
        "import kgat; from kgat.experiments.bench import rivals\n"
        "def answers(question): yield {'package': kgat.__file__, 'rivals': rivals.__file__}\n"
        "class Question(dict): device = 'cpu'; threads = 1\n"
    )
    question = Question("tiny", "dot core", [OURS], [MEMORY], "memory", "cpu", 1, 0.0)
    with worker.Process("whose", question, "memory", other=str(tmp_path)) as process:
        (whose,) = process.answers()
    assert whose == {
        "package": str(tmp_path / "kgat" / "__init__.py"),
        "rivals": str(package / "experiments" / "bench" / "rivals.py"),
    }


def test_a_copy_is_named_by_its_commit():
    root = Path(kgat.__file__).parents[1]
    if not (root / ".git").exists():
        pytest.skip("no clone")
    assert against.name_of(str(root)).startswith("kgat ")
    assert against.name_of(str(root)) != f"kgat {root.name}"


def test_what_is_no_copy(tmp_path, other, capsys):
    command = ["bench", "ops", "--scenarios", "tiny", "--out", str(tmp_path / "ops.jsonl"), "--against"]
    assert cli.main([*command, str(tmp_path)]) == 2
    assert f"another copy of the package (got '{tmp_path}'); e.g." in capsys.readouterr().err.replace(
        "\n", " "
    )
    assert cli.main([*command, other, "--rivals", "PyG"]) == 2
    assert "Expected another copy as the only rival (got PyG)" in capsys.readouterr().err
