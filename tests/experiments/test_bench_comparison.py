r"""``kgat bench comparison``: whole comparisons beside those of another copy."""

import json
from pathlib import Path

import pytest

from kgat import cli
from kgat.experiments.bench import comparison, report

# A package that only pretends: it writes what a comparison does, and works for as long as it is told.
PRETENDS = """
import json, pathlib, sys, time
*_, out = sys.argv
seeds = int(sys.argv[len(sys.argv) - 1 - sys.argv[::-1].index("--seeds") + 1])
end = time.process_time() + {seconds} * (seeds > 1)
while time.process_time() < end:
    pass
lines = [json.dumps({{"kind": "run", "epochs": {epochs}, "seed": seed}}) for seed in range(seeds)]
pathlib.Path(out, "results.jsonl").write_text("".join(line + chr(10) for line in lines))
{last}
"""


@pytest.fixture
def copies(monkeypatch, tmp_path):
    def make(name, seconds=0.05, epochs=3, last=""):
        package = tmp_path / name / "kgat"
        package.mkdir(parents=True)
        (package / "__init__.py").touch()
        (package / "__main__.py").write_text(PRETENDS.format(seconds=seconds, epochs=epochs, last=last))
        return package.parent

    monkeypatch.setattr(comparison.kgat, "__file__", str(make("ours") / "kgat" / "__init__.py"))
    return make


def test_whole_comparisons_take_turns(copies, tmp_path, capsys):
    path = tmp_path / "comparison.jsonl"
    before = copies("before", seconds=1.0, epochs=4)
    options = ["--dataset", "Cora", "--root", str(tmp_path), "--seeds", "2"]
    command = ["bench", "comparison", "--against", str(before), "--rounds", "2", "--out", str(path), "--"]
    assert cli.main([*command, *options]) == 0
    (record,) = (json.loads(line) for line in path.read_text().splitlines())
    assert record["work"] == {"runs": 2, "epochs": 6}
    assert record["candidate_work"] == {"runs": 2, "epochs": 8}
    assert record["candidate"] == "kgat before"
    assert record["cpu"]["ratio"][0] > 1
    assert record["wall"]["seconds"][0] > 0
    out = capsys.readouterr().out
    assert "| `kgat compare --dataset Cora --seeds 2` | kgat before | 2 / 2 | 6 / 8 |" in out
    assert report.TABLES["comparison"]([record]) in out


def test_time_of_servers_that_outlive_the_command_counts(copies):
    work = "import time; end = time.process_time() + 0.5\nwhile time.process_time() < end: pass"
    outlives = f"import subprocess; subprocess.Popen([sys.executable, '-c', {work!r}])"
    record = comparison.bench_comparison(["--seeds", "1"], copies("before", last=outlives), rounds=1)
    assert record["cpu"]["seconds"][0] * record["cpu"]["ratio"][0] > 0.5


def test_a_comparison_that_fails_says_why(copies):
    before = copies("before", last="sys.exit('kgat: error: Expected more')")
    with pytest.raises(ChildProcessError, match=r"before' ends well .got kgat: error: Expected more"):
        comparison.bench_comparison(["--seeds", "1"], before)


def test_a_folder_without_the_package_is_refused(copies, tmp_path):
    with pytest.raises(ValueError, match="Expected a folder with another copy"):
        comparison.bench_comparison([], Path(tmp_path / "nothing"))
