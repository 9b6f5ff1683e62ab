import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

import kgat
from kgat.experiments import ledger
from kgat.experiments.ledger import Ledger

ROOT = Path(kgat.__file__).resolve().parents[1]

# A process that says what it begins, and takes its time.
WORKER = """
import sys, time
from kgat.experiments.ledger import Ledger

path, count, seconds, stuck = sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4])
with Ledger(path) as results:
    def there(job):
        return any(record["job"] == job for record in results.records)
    for job in results.claim(range(count), str, there):
        print(job, flush=True)
        time.sleep(600 if job == stuck else seconds)
        results.append({"job": job, "long": "x" * 5000})
    assert sorted(record["job"] for record in results.records) == list(range(count))
print("all", flush=True)
"""

# The same with real runs.
COMPARISON = """
import sys
from kgat.experiments.compare import compare
found = compare("karate", ["gat", "rbf"], 4, sys.argv[1], rounds=0, figures=False,
                overrides={"max_epochs": 3, "hidden_channels": 8, "heads": 2})
print(sorted(record["key"] for record in found if record["kind"] == "run"))
"""


def start(code, *arguments):
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def end(process):
    out, err = process.communicate(timeout=300)
    return process.returncode, out.split("\n")[:-1], err


def test_processes_share_the_jobs(tmp_path):
    path = tmp_path / "results.jsonl"
    processes = [start(WORKER, path, 30, 0.02, -1) for _ in range(3)]
    begun = []
    for process in processes:
        code, out, err = end(process)
        assert (code, out[-1], err) == (0, "all", "")
        begun.append([int(job) for job in out[:-1]])
    assert sorted(job for jobs in begun for job in jobs) == list(range(30))
    assert Counter(record["job"] for record in ledger.read(path)) == Counter(range(30))
    assert [file.name for file in tmp_path.iterdir()] == ["results.jsonl"]


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs POSIX signals")
def test_the_job_of_a_process_that_was_killed_is_done_by_another(tmp_path):
    path = tmp_path / "results.jsonl"
    first = start(WORKER, path, 6, 0.02, 3)
    try:
        for _ in range(4):
            last = first.stdout.readline()
        assert last == "3\n"  # it has claimed this one and will not come back from it
        second = start(WORKER, path, 6, 0.02, -1)
        while path.read_bytes().count(b"\n") < 5:  # all but that one
            assert second.poll() is None
            time.sleep(0.02)
        time.sleep(0.2)
        assert second.poll() is None  # it waits for the result
    finally:
        first.kill()
        first.communicate()
    code, out, err = end(second)
    assert (code, out, err) == (0, ["4", "5", "3", "all"], "")
    assert sorted(record["job"] for record in ledger.read(path)) == list(range(6))


def test_comparisons_of_two_processes_share_the_runs(tmp_path):
    processes = [start(COMPARISON, tmp_path) for _ in range(2)]
    answers = [end(process) for process in processes]
    assert [code for code, _, _ in answers] == [0, 0], answers
    assert answers[0][1] == answers[1][1]
    keys = [record["key"] for record in ledger.read(tmp_path / "results.jsonl")]
    assert len(keys) == len(set(keys)) == 8
    assert answers[0][1] == [str(sorted(keys))]


def test_claims_hold_within_a_process_too(tmp_path):
    path = tmp_path / "results.jsonl"
    with Ledger(path) as one, Ledger(path) as other:
        claimed = one.claim_many([1, 2], str, lambda job: False, idle=lambda: False)
        assert [next(claimed), next(claimed)] == [1, 2]
        assert next(other.claim_many([2, 1], str, lambda job: False, idle=lambda: False)) is None
        one.release("2")
        assert next(other.claim_many([2, 1], str, lambda job: False, idle=lambda: False)) == 2
    assert list(tmp_path.iterdir()) == [path]


def test_lines_of_others_arrive(tmp_path):
    path = tmp_path / "results.jsonl"
    path.write_bytes(b'{"job": 0}\n{"job": 1}')  # whole, without its line end
    with Ledger(path) as results:
        assert [record["job"] for record in results.records] == [0, 1]
        ledger.append(path, {"job": 2})
        results.append({"job": 3})
        assert [record["job"] for record in results.records] == [0, 1, 2, 3]
    assert [json.loads(line)["job"] for line in path.read_text().splitlines()] == [0, 1, 2, 3]
