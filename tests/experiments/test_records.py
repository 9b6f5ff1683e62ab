import json
import math

import pytest

from kgat.atomic import write_atomically
from kgat.experiments import ledger


def test_records_come_back(tmp_path):
    path = tmp_path / "results.jsonl"
    written = [{"kind": "run", "model": "rbf*lp", "std": None}, {"kind": "cost", "name": "König"}]
    for record in written:
        ledger.append(path, record)
    assert ledger.read(path) == written
    assert path.read_bytes().count(b"\n") == 2


def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError):
        ledger.read(tmp_path / "results.jsonl")


@pytest.mark.parametrize("cut", [1, 5, 20])
def test_unfinished_last_line_is_dropped_and_cut_off(tmp_path, cut):
    path = tmp_path / "results.jsonl"
    for seed in range(3):
        ledger.append(path, {"kind": "run", "seed": seed})
    path.write_bytes(path.read_bytes()[: -1 - cut])
    with pytest.warns(UserWarning, match=r"unfinished last line 3 of .*its run is repeated"):
        kept = ledger.read(path)
    assert [record["seed"] for record in kept] == [0, 1]
    ledger.append(path, {"kind": "run", "seed": 7})
    assert [record["seed"] for record in ledger.read(path)] == [0, 1, 7]


def test_unfinished_only_line(tmp_path):
    path = tmp_path / "results.jsonl"
    path.write_bytes(b'{"kind": "ru')
    with pytest.warns(UserWarning, match=r"unfinished"):
        assert ledger.read(path) == []
    ledger.append(path, {"seed": 0})
    assert ledger.read(path) == [{"seed": 0}]


def test_whole_last_line_without_line_end_is_kept(tmp_path):
    path = tmp_path / "results.jsonl"
    path.write_bytes(b'{"seed": 0}\n{"seed": 1}')
    assert len(ledger.read(path)) == 2
    ledger.append(path, {"seed": 2})
    assert [record["seed"] for record in ledger.read(path)] == [0, 1, 2]


@pytest.mark.parametrize("line", [b"{", b"[1, 2]", b"3", b"\xff\xfe"])
def test_broken_line_within_is_an_error(tmp_path, line):
    path = tmp_path / "results.jsonl"
    path.write_bytes(b'{"seed": 0}\n' + line + b'\n{"seed": 1}\n')
    with pytest.raises(ValueError, match=r"Expected a JSON object in line 2 of .*delete that line"):
        ledger.read(path)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_numbers_that_json_does_not_know_are_refused(tmp_path, value):
    path = tmp_path / "results.jsonl"
    with pytest.raises(ValueError, match=r"JSON compliant"):
        ledger.append(path, {"test": value})
    assert not path.exists()


def test_lines_are_json(tmp_path):
    path = tmp_path / "results.jsonl"
    ledger.append(path, {"text": "two\nlines"})
    (line,) = path.read_text().splitlines()
    assert json.loads(line) == {"text": "two\nlines"}


def test_atomic_write_is_all_or_nothing(tmp_path, monkeypatch):
    path = tmp_path / "README.md"
    write_atomically(path, b"first")
    path.chmod(0o640)
    write_atomically(path, b"second")
    assert path.read_bytes() == b"second"
    assert path.stat().st_mode & 0o777 == 0o640

    def full(handle):
        raise OSError("no space left")

    monkeypatch.setattr(ledger.os, "fsync", full)
    with pytest.raises(OSError, match=r"no space"):
        write_atomically(path, b"third")
    assert path.read_bytes() == b"second"
    assert list(tmp_path.iterdir()) == [path]
