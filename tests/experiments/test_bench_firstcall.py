"""First calls in fresh processes."""

import pytest

from kgat.experiments.bench.firstcall import NEW_RULE, bench_firstcall
from kgat.experiments.ledger import read


def test_the_second_process_compiles_nothing(tmp_path):
    path, said = tmp_path / "firstcall.jsonl", []
    records = bench_firstcall([NEW_RULE], path, said.append)
    assert said == records == read(path)
    (record,) = records
    assert record["kind"] == "firstcall"
    assert record["cold"]["compiled"] > 0
    assert record["warm"]["compiled"] == 0
    assert all(record[run][way] > 0 for run in ("cold", "warm") for way in ("forward", "backward"))


def test_unknown_kernel(tmp_path):
    path = tmp_path / "firstcall.jsonl"
    with pytest.raises(ValueError, match="rfb"):
        bench_firstcall(["rbf", "rfb"], path)
    assert not path.exists()
