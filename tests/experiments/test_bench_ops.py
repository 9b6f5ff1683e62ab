r"""``kgat bench ops`` on a tiny graph, most of it in the process of the test and with nothing compiled."""

import dataclasses
import gc
import itertools
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import warm_process

from kgat import cli
from kgat.experiments import ledger
from kgat.experiments.bench import contest, measure, ops, report, rivals, scenarios, worker
from kgat.experiments.bench.contest import BOTH, FORWARD, MEMORY, Question
from kgat.experiments.bench.measure import Candidate
from kgat.experiments.bench.ops import Plan, run
from kgat.experiments.bench.rivals import DGL, OURS, STYLE, SUBJECTS
from kgat.experiments.bench.scenarios import SCENARIOS, Scenario
from kgat.experiments.ledger import Interrupted
from kgat.experiments.plots.ops import ops as figure
from kgat.ops import CPU

TINY = SCENARIOS["tiny"]
LINUX = pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux's /proc")
CORE = Plan(["tiny"], ["rbf core"], [STYLE], seconds=0)


def make_quick(patch):
    patch.setattr(torch, "compile", lambda function, **_: function)
    patch.setattr(CPU, "available", staticmethod(lambda: "left out of this test"))
    patch.setattr(gc, "collect", lambda: 0)  # a quarter of a second, as all of torch is looked through


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    make_quick(monkeypatch)


def here(question, environment):
    return contest.answers(question)


@pytest.fixture(scope="module")
def everything(tmp_path_factory):
    path = tmp_path_factory.mktemp("bench") / "ops.jsonl"
    with pytest.MonkeyPatch.context() as patch:
        make_quick(patch)
        found = run(Plan(["tiny"], seconds=0), path, launch=here)
    return found, path


def test_every_case_is_measured(everything):
    found, path = everything
    assert found == ledger.read(path)
    there = {(r["subject"], r["candidate"], r["what"], r["regime"]) for r in found}
    assert len(there) == len(found)
    assert there == {
        (subject.name, name, what, regime)
        for subject in SUBJECTS.values()
        for name in subject.candidates
        if rivals.fits(name, TINY)
        for what, regime in (
            *itertools.product((FORWARD, BOTH), ("R1", "R2")),
            (MEMORY, "memory"),
        )
    }
    for record in found:
        if rivals.not_here(record["candidate"], "cpu") is None:
            assert "skipped" not in record, record


@pytest.fixture(scope="module")
def molecules():
    return SCENARIOS["molecules"].load(None, "cpu")


@pytest.mark.parametrize("name", [rivals.SDPA, rivals.FLEX])
@pytest.mark.parametrize("subject", ["dot layer", "dot core", "rbf core"])
def test_all_pairs_of_each_graph_of_a_batch_are_a_rival(molecules, subject, name):
    batch = SCENARIOS["molecules"]
    assert name in SUBJECTS[subject].candidates
    built = rivals.build(SUBJECTS[subject], batch, molecules, [OURS, name])
    if name == rivals.FLEX:  # which has no backward on the CPU
        outs = [candidate.forward() for candidate in built.values()]
        torch.testing.assert_close(*outs, rtol=1e-4, atol=1e-5)
    else:
        assert_equal(*built.values(), torch.randn(2048, 64))


def test_a_batch_of_molecules_is_one():
    batch = SCENARIOS["molecules"]
    edge_index = batch.load(None, "cpu").edge_index
    assert_whole(edge_index, batch.nodes, batch.edges)
    assert torch.equal(*(edge_index // (batch.nodes // batch.graphs)))
    subjects = {q.candidates[-1] for q in Plan(["tiny"], ["dot core"], [rivals.SDPA]).jobs()}
    assert subjects == {OURS}


def test_records_say_what_they_are(everything):
    for record in everything[0]:
        if "skipped" in record:
            continue
        assert record["kind"] == "ops"
        assert (record["nodes"], record["edges"], record["graph"]) == (50, 250, "synthetic")
        assert (record["in_channels"], record["heads"], record["out_channels"]) == (16, 2, 4)
        assert {"versions", "commit", "device", "threads", "date", "processor"} <= set(record)
        if record["what"] == MEMORY:
            assert record["first_seconds"] > 0
            assert ("structure_seconds" in record) == (record["candidate"] == OURS)
            assert {"forward_bytes", "both_bytes"} <= set(record)
            continue
        middle, low, high = record["seconds"]
        assert 0 < low <= middle <= high
        assert record["rounds"] == measure.LEAST
        assert len(record["linear_seconds"]) == 3
        ours = record["candidate"] == OURS
        assert ("ratio" in record) == ("contended" in record) == (not ours)
        assert ("ceiling" in record) == ("own_part" in record) == (not ours and not record["core"])
        assert (record["clock"], record["repeats"]) == ("CPU", 1)
        assert ("copy_fraction" in record) == (ours and record["core"])
    noted = {r.get("note") for r in everything[0] if r["candidate"] == rivals.SEGMENTS}
    assert noted <= set(rivals.FORMULATIONS)
    assert noted


def test_unequal_outputs_are_not_timed(monkeypatch, tmp_path):
    stock = rivals.softmax
    monkeypatch.setattr(rivals, "softmax", lambda *args, **kwargs: 1.01 * stock(*args, **kwargs))
    with pytest.raises(ops.UnequalError, match=r"PyG style of tiny, rbf core: Expected equal gradients"):
        run(CORE, tmp_path / "ops.jsonl", launch=here)
    found = [r for r in ledger.read(tmp_path / "ops.jsonl") if r["what"] != MEMORY]
    assert {r["candidate"] for r in found if "seconds" in r} == {OURS}
    assert {r["candidate"] for r in found if "skipped" in r} == {STYLE}


def test_unequal_gradients_are_not_timed():
    x = torch.ones(3, requires_grad=True)
    ours = Candidate(lambda x: 2 * x, (x,), ())
    rival = Candidate(lambda x: 2 * x.detach() + 0 * x, (x,), ())
    grad = torch.ones(3)
    expected = measure.run_once(ours, grad)

    def exact():
        return [x.double() for x in expected]

    assert measure.check_equal(expected, expected, exact) is None
    found = measure.run_once(rival, grad)
    text = "gradients of input 0 .*got 1 of the largest apart; from double precision 1, ours 0"
    assert re.search(text, measure.check_equal(found, expected, exact))
    assert x.grad is None


def test_rounding_is_no_difference():
    r"""Of a steep kernel two right answers differ; a wrong one is farther from the truth than ours."""
    truth = [torch.ones(3, dtype=torch.double)] * 2  # one has no backward
    ours, other, wrong = ([torch.ones(3) + error] for error in (0.002, -0.006, 0.02))
    assert measure.check_equal(other, ours, lambda: truth) is None
    assert "from double precision 0.02, ours 0.002" in measure.check_equal(wrong, ours, lambda: truth)
    assert "from double precision 0.002, ours 0.02" in measure.check_equal(ours, wrong, lambda: truth)
    # Two that are as wrong as each other are not right.
    assert "0.03, ours 0.02" in measure.check_equal([1.03 * truth[0]], [0.98 * truth[0]], lambda: truth)


@pytest.mark.parametrize("subject", SUBJECTS)
def test_double_precision_is_near(subject):
    graph = TINY.load(None, "cpu")
    ours, exact = rivals.build(SUBJECTS[subject], TINY, graph, [OURS, rivals.EXACT]).values()
    assert exact.inputs[0].dtype == torch.double
    assert_equal(ours, exact, torch.randn(50, 8, dtype=torch.double))


def assert_equal(ours, other, grad):
    found = [measure.run_once(one, grad.to(one.inputs[0].dtype)) for one in (other, ours)]
    error, what = measure.difference(*([x.double() for x in values] for values in found))
    assert error < 1e-4, what


@pytest.mark.parametrize("name", rivals.FORMULATIONS)
@pytest.mark.parametrize("subject", ["gat core", "dot core"])
def test_every_formulation_computes_the_same(monkeypatch, subject, name):
    monkeypatch.setattr(rivals, "FORMULATIONS", {name: rivals.FORMULATIONS[name]})
    graph = TINY.load(None, "cpu")
    grad = torch.randn(50, 8)
    built = [rivals.build(SUBJECTS[subject], TINY, graph, [n])[n] for n in (OURS, rivals.SEGMENTS)]
    assert built[1].note == name
    assert_equal(*built, grad)


@pytest.mark.parametrize(
    ("subject", "name", "package"),
    [
        ("gat layer", DGL, "dgl"),
        ("gat layer", rivals.SPARSE_TENSOR, "torch_sparse"),
        ("gat layer", rivals.PYG_LIB, "torch"),  # without pyg-lib it computes the same, slower
        ("gat core", rivals.XLA, "jax"),
        ("dot core", rivals.XLA, "jax"),
    ],
)
def test_rivals_of_other_packages_compute_the_same(subject, name, package):
    pytest.importorskip(package, reason=f"{package} is not installed")
    graph = TINY.load(None, "cpu")
    built = [rivals.build(SUBJECTS[subject], TINY, graph, [each])[each] for each in (OURS, name)]
    assert_equal(*built, torch.randn(50, 8))


def test_who_has_no_backward_is_timed_forward(monkeypatch, tmp_path):
    def flex(*_):
        def attend(gram, value):
            if torch.is_grad_enabled():
                raise NotImplementedError("no backward on CPU")
            return attention(gram, value)

        attention = rivals.dense.sdpa(*_)
        return attend

    monkeypatch.setattr(rivals.dense, "flex", flex)
    found = run(
        Plan(["molecules"], ["dot core"], [rivals.FLEX], seconds=0), tmp_path / "ops.jsonl", launch=here
    )
    of_flex = {(r["what"], r["regime"]): r for r in found if r["candidate"] == rivals.FLEX}
    assert "ratio" in of_flex[FORWARD, "R1"]
    assert of_flex[BOTH, "R2"]["skipped"] == "NotImplementedError: no backward on CPU"
    assert of_flex[MEMORY, "memory"]["both_bytes"] is None
    assert not {FORWARD, BOTH} - {r["what"] for r in found if "seconds" in r and r["candidate"] == OURS}


def test_what_is_there_is_not_measured_again(tmp_path):
    path = tmp_path / "deep/ops.jsonl"
    asked = []

    def launch(question, environment):
        asked.append(question)
        return here(question, environment)

    first = run(CORE, path, launch=launch)
    assert len(first) == 2 + 2 * 2 * 2
    assert run(CORE, path, launch=launch) == []
    assert len(asked) == 4
    assert len(run(CORE, path, launch=launch, fresh=True)) == len(first)
    assert len(asked) == 8
    assert ledger.read(path)[: len(first)] == first
    with_one_more = Plan(["tiny"], ["rbf core"], [], seconds=0)
    new = run(with_one_more, path, launch=launch)
    assert {r["candidate"] for r in new if r["what"] == MEMORY} == {rivals.COMPILED_STYLE}


@pytest.mark.parametrize("lost", [1, 3, 4])
def test_a_stopped_run_goes_on(tmp_path, lost):
    path = tmp_path / "ops.jsonl"

    def stopped(question, environment):
        for answer in here(question, environment):
            yield answer
            if path.read_bytes().count(b"\n") == lost:
                raise KeyboardInterrupt

    whole = {1: 1, 3: 2, 4: 2}[lost]  # a process that times two candidates gives four records
    with pytest.raises(Interrupted, match=rf"{whole} of 4 runs are kept in .*ops.jsonl; run the same"):
        run(CORE, path, launch=stopped)
    kept = ledger.read(path)
    assert len(kept) == lost
    run(CORE, path, launch=here)
    after = ledger.read(path)
    assert after[:lost] == kept
    assert len({ops._key(r) for r in after}) == 10
    assert len(after) <= 12  # a subject that was stopped between its two candidates is measured whole again


def test_who_is_not_here_is_asked_again_when_there(monkeypatch, tmp_path):
    plan = Plan(["tiny"], ["gat layer"], [DGL])
    path = tmp_path / "ops.jsonl"

    def answer(question, environment):
        for name, what in itertools.product(question.candidates, question.whats):
            yield {"record": {**question.key(name, what), "seconds": [1.0, 1.0, 1.0], "first_seconds": 1.0}}

    monkeypatch.setattr(rivals, "not_here", lambda name, device: "gone" if name == DGL else None)
    run(plan, path, launch=answer)
    assert {r["skipped"] for r in ledger.read(path) if r["candidate"] == DGL} == {"gone"}
    assert run(plan, path, launch=answer) == []
    monkeypatch.setattr(rivals, "not_here", lambda name, device: None)
    assert {r["candidate"] for r in run(plan, path, launch=answer)} == {OURS, DGL}


def test_large_graphs_are_for_a_gpu(tmp_path):
    def launch(*_):
        raise AssertionError("2.4 million nodes on a CPU")

    found = run(Plan(["products"], ["dot layer"]), tmp_path / "ops.jsonl", launch=launch)
    assert {r["skipped"] for r in found} == {"126 M edges are for a GPU: --device cuda"}
    assert SCENARIOS["products"].not_here("cuda:1") is None


def test_a_process_that_dies_is_a_reason(tmp_path):
    def dies(question, environment):
        raise ChildProcessError("the process ended with signal SIGKILL")

    found = run(CORE, tmp_path / "ops.jsonl", launch=dies)
    assert len(found) == 10
    assert {r["skipped"] for r in found} == {"the process ended with signal SIGKILL"}


def test_running_out_of_memory_is_a_reason(monkeypatch, tmp_path):
    def full(*_, **__):
        raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried 9 bytes")

    monkeypatch.setattr(rivals, "scatter", full)
    found = run(CORE, tmp_path / "ops.jsonl", launch=here)
    assert {r["skipped"] for r in found if r["candidate"] == STYLE} == {"out of memory"}
    assert not [r for r in found if r["candidate"] == OURS and "skipped" in r]


def test_regimes_may_be_chosen():
    asked = [question.regime for question in dataclasses.replace(CORE, regimes=["R2", "memory"]).jobs()]
    assert asked == ["memory", "memory", "R2"]
    assert [question.regime for question in dataclasses.replace(CORE, regimes=["R1"]).jobs()] == ["R1"]


def test_names_that_are_unknown(tmp_path):
    for plan, message in (
        (Plan(["tiny"], regimes=["R3"]), "regimes that exist .got R3.*memory, R1, R2"),
        (Plan(["huge"]), "got huge.*tiny, molecule, molecules, cora"),
        (Plan(["tiny"], ["gta layer"]), "got gta layer.*gat layer"),
        (Plan(["tiny"], [], ["PYG"]), "got PYG.*PyG"),
    ):
        with pytest.raises(ValueError, match=message):
            run(plan, tmp_path / "ops.jsonl", launch=here)


# --- Processes --------------------------------------------------------------------------------------------


def question(**changes):
    fields = {"scenario": "tiny", "subject": "dot core", "candidates": (OURS,), "whats": (MEMORY,)}
    fields |= {"regime": "memory", "device": "cpu", "threads": 1, "seconds": 0.0}
    return Question(**{**fields, **changes})


def test_a_fresh_process_answers():
    told = list(ops._launch(question(candidates=(STYLE,)), {}))
    assert [answer["record"]["candidate"] for answer in told if "record" in answer] == [STYLE]
    with pytest.raises(ChildProcessError, match="exit code 1: KeyError: 'nowhere'"):
        list(ops._launch(question(scenario="nowhere"), {}))


def test_a_process_leaves_with_its_parent():
    asked = json.dumps(dataclasses.asdict(question()))
    code = "from kgat.experiments.bench.worker import main; main()"
    done = warm_process.run(code, contest.__name__, asked, check=False)
    assert done.returncode == worker.ORPHANED


def test_processes_get_their_regime(monkeypatch, tmp_path):
    monkeypatch.setenv("MALLOC_ARENA_MAX", "1")
    asked = {}

    def popen(command, env, **_):
        asked[json.loads(command[-1])["regime"]] = env
        raise ChildProcessError("not started")

    monkeypatch.setattr(subprocess, "Popen", popen)
    run(Plan(["tiny"], ["rbf core"], [STYLE], threads=3), tmp_path / "ops.jsonl")
    tuned = {
        regime: {n: v for n, v in env.items() if n.startswith("MALLOC")} for regime, env in asked.items()
    }
    assert tuned == {
        "R1": {},
        "R2": {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": "68719476736"},
        "memory": {"MALLOC_MMAP_THRESHOLD_": "65536"},
    }
    assert {env["OMP_NUM_THREADS"] for env in asked.values()} == {"3"}
    assert len({env["NUMBA_CACHE_DIR"] for env in asked.values()}) == 1


@LINUX
def test_a_process_fails_before_memory_does():
    code = (
        "import torch; from kgat.experiments.bench import contest, measure\n"
        "tenth = 1024 * measure.kilobytes('/proc/meminfo', 'MemAvailable') // 10\n"
        "torch.empty(tenth, dtype=torch.uint8)\n"  # which costs nothing, as nothing is written
        "measure.limit_memory(0.05)\n"
        "try: torch.empty(tenth, dtype=torch.uint8)\n"
        "except contest.FAILURES as error: print(contest._reason(error))"
    )
    assert warm_process.run(code).stdout == "out of memory\n"


# --- Measuring --------------------------------------------------------------------------------------------


def clocked(monkeypatch):
    clock, order = [0.0], []
    monkeypatch.setattr(measure.time, "perf_counter", lambda: clock[0])
    monkeypatch.setattr(measure, "CLOCKS", {"wall": lambda: clock[0], "CPU": lambda: clock[0] / 2})

    def takes(name, seconds):
        def step():
            order.append(name)
            clock[0] += seconds

        return step

    return takes, order


def test_turns_are_reversed_every_other_round(monkeypatch):
    takes, order = clocked(monkeypatch)
    prepared = []
    steps = {"a": takes("a", 1.0), "b": takes("b", 2.0), "c": takes("c", 4.0)}
    found = measure.take_turns(steps, lambda: prepared.append(1), 0.0, "cpu")
    assert "".join(order) == "abccbaabc"
    assert found == {"a": [1.0] * 3, "b": [2.0] * 3, "c": [4.0] * 3}
    assert len(prepared) == 9


def test_short_steps_are_repeated(monkeypatch):
    takes, order = clocked(monkeypatch)
    steps = {"a": takes("a", 1.0), "b": takes("b", 2.0)}
    found = measure.take_turns(steps, lambda: None, 0.0, "cpu", clock="CPU", repeats=2)
    assert "".join(order) == "aabbbbaaaabb"
    assert found == {"a": [0.5] * 3, "b": [1.0] * 3}


@pytest.mark.parametrize(
    ("cost", "budget", "rounds"),
    [(0.001, 10.0, measure.MOST), (1.0, 10.0, 10), (2.0, 10.0, 7), (10.0, 10.0, 3), (100.0, 10.0, 3)],
)
def test_rounds_adapt_to_their_cost(monkeypatch, cost, budget, rounds):
    takes, order = clocked(monkeypatch)
    measure.take_turns({"a": takes("a", cost)}, lambda: None, budget, "cpu")
    assert len(order) == rounds


def test_compulsory_bytes_by_hand():
    sizes = {"nodes": 3, "edges": 5, "heads": 2, "channels": 4, "features": 1}
    forward = 5 * (2 * 5 + 1) + 3 * 2 * (1 + 4 + 1)
    assert measure.compulsory_bytes(**sizes, backward=False) == 4 * forward
    by_target = 5 * (2 * 5 + 1) + 3 * 2 * (2 * 1 + 2 * 4 + 1) + 2 * 5 * 2
    by_source = 5 * (2 * 5 + 1) + 3 * 2 * (1 + 4) + 2 * 5 * 2
    assert measure.compulsory_bytes(**sizes, backward=True) == 4 * (forward + by_target + by_source)


def test_features_of_kernels():
    size = Scenario("", 2, 2, 1, 3, 8)
    found = {
        name: rivals.features(SUBJECTS[name], size) for name in ("gat core", "dot core", "spectral core")
    }
    assert found == {"gat core": 1, "dot core": 8, "spectral core": 32}


@LINUX
def test_peak_is_above_what_was_in_use():
    # In a process of its own with the allocator that measurements get: this one may have pages to spare.
    script = """
import torch
from kgat.experiments.bench import measure

kept = []
torch.ones(50_000_000)  # a larger peak, which is over

def step():
    kept.append(torch.ones(5_000_000))  # 20 MB that stay and 40 MB that go
    torch.ones(10_000_000).sum()

print(measure.peak_bytes(step, "cpu"))
"""
    root = Path(ops.__file__).resolve().parents[3]
    environment = {**os.environ, **worker.REGIMES["memory"], "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) == pytest.approx(60e6, rel=0.1)


# --- Graphs -----------------------------------------------------------------------------------------------


def assert_whole(edge_index, nodes, edges):
    key = edge_index[1] * nodes + edge_index[0]
    assert edge_index.size(1) == edges
    assert (key.diff() >= 0).all()  # sorted by target
    assert torch.equal((edge_index[0] * nodes + edge_index[1]).sort().values, key)
    assert (edge_index[0] == edge_index[1]).sum() == nodes


def test_drawn_graphs():
    scenario = SCENARIOS["cora"]
    graph = scenario.load("no-such-folder", "cpu")
    assert graph.source == "synthetic"
    assert graph.x.shape == (2708, 1433)
    assert_whole(graph.edge_index, scenario.nodes, scenario.edges)
    assert torch.bincount(graph.edge_index[1]).max() > 20 * scenario.edges / scenario.nodes
    assert torch.equal(scenario.load("no-such-folder", "cpu").edge_index, graph.edge_index)


@pytest.mark.parametrize(("name", "source"), [("cora", "Cora"), ("arxiv", "ogbn-arxiv")])
def test_real_graphs(data_root, name, source):
    scenario = SCENARIOS[name]
    graph = scenario.load(data_root, "cpu")
    assert graph.source == source
    assert graph.x.shape == (scenario.nodes, scenario.in_channels)
    assert_whole(graph.edge_index, scenario.nodes, scenario.edges)


def test_benchmarks_do_not_download(monkeypatch, tmp_path):
    def refuse(*_, **__):
        raise AssertionError("a benchmark asked for a data set that is not there")

    monkeypatch.setattr(scenarios, "load", refuse)
    assert SCENARIOS["cora"].load(tmp_path, "cpu").source == "synthetic"


# --- Tables and figure ------------------------------------------------------------------------------------


def timed(candidate, what, regime, ratio=None, seconds=0.1, **more):
    key = question(scenario="arxiv/10", subject="gat layer", regime=regime).key(candidate, what)
    sizes = {"nodes": 17000, "edges": 250000, "in_channels": 128, "heads": 4, "out_channels": 64}
    given = {**key, **sizes, "graph": "synthetic", "core": False, "commit": "abc", "processor": "Some CPU"}
    given |= {"versions": {"torch": "2.13", "torch_geometric": "2.8", "numba": "0.68"}, "device": "cpu"}
    if what != MEMORY:
        given |= {"seconds": [seconds] * 3, "linear_seconds": [0.02] * 3}
    if ratio is not None:
        given |= {"ratio": ratio, "contended": ratio[2] / ratio[1] > 1.6}
    return {**given, **more}


@pytest.fixture
def made():
    return [
        *(timed(OURS, what, regime) for what in (FORWARD, BOTH) for regime in ("R1", "R2")),
        timed("PyG", FORWARD, "R1", [99.0, 98.0, 100.0]),
        timed("PyG", FORWARD, "R1", [12.0, 11.5, 12.5], seconds=1.2),  # the last one counts
        timed("PyG", FORWARD, "R2", [4.0, 2.0, 5.0], seconds=0.4),
        timed("PyG", BOTH, "R2", [4.2, 4.1, 4.3], seconds=0.42),
        timed(OURS, MEMORY, "memory", forward_bytes=50_000_000, both_bytes=70_000_000, first_seconds=3.0,
              structure_seconds=0.057),
        timed("PyG", MEMORY, "memory", forward_bytes=550_000_000, both_bytes=700_000_000, first_seconds=0.5),
        {**question(scenario="arxiv/10", subject="gat layer", regime="R1").key(DGL, FORWARD),
         "skipped": "dgl is not installed.", "absent": True},
    ]  # fmt: skip


def test_table_has_ratios_bars_and_reasons(made):
    text = report.tables(made)
    (line,) = [line for line in text.splitlines() if line.startswith("| gat layer | PyG |")]
    assert [cell.strip() for cell in line.split("|")[3:-1]] == [
        "12.00 [11.50, 12.50]<br>bar 11: met",
        "4.00† [2.00, 5.00]<br>bar 4.5: **not met**",
        "–",
        "4.20 [4.10, 4.30]<br>bar 4.2: met",
        "11.0<br>bar 10: met",
        "10.0<br>bar 14: **not met**",
    ]
    assert "| gat layer | 100 | 100 | 100 | 100 | 20 / 20 | – | 50 / 70 | 3 | 0.057 |" in text
    assert "Not measured, DGL (gat layer): dgl is not installed." in text
    assert (
        "17,000 nodes, 250,000 edges with loops, 128 → 4 × 64. Some CPU, 1 thread; wall time; torch" in text
    )


def test_of_layers_the_attention_is_judged_alone(made):
    cora = [{**record, "scenario": "cora"} for record in made]
    given = {"ceiling": [1.7, 1.6, 1.8], "own_part": [2.1, 2.0, 2.2], "clock": "CPU"}
    cora.append({**timed("PyG", FORWARD, "R2", [1.2, 1.1, 1.3], **given), "scenario": "cora"})
    text = report.tables(cora)
    assert "| 1.20 [1.10, 1.30]<br>ceiling 1.70, attention 2.10<br>bar 2: met |" in text
    assert "1 thread; wall and CPU time; torch" in text


def test_bars_name_what_is_measured():
    for bar in report.bars():
        assert bar["scenario"] in SCENARIOS
        copy = bar["rival"].startswith("kgat ")
        assert copy or bar["rival"] in SUBJECTS[bar["subject"]].candidates
        assert bar.get("part", "attention") == "attention"
        for regime in set(bar) - {"scenario", "subject", "rival", "part"}:
            assert regime in worker.REGIMES
            assert len(bar[regime]) == 2


def test_tables_and_figure_of_a_run(everything):
    text = report.tables(everything[0])
    for subject in SUBJECTS.values():
        assert f"| {subject.name} | {subject.candidates[1]} |" in text
    drawn = figure(everything[0])
    titles = [axes.get_title(loc="left") for axes in drawn.axes]
    assert [title for title in titles if title] == list(SUBJECTS)


def test_figure_of_several_sizes(made):
    small = [{**record, "scenario": "cora", "edges": 13264} for record in made]
    drawn = figure(small + made)
    time, memory = drawn.axes
    assert time.get_xscale() == time.get_yscale() == memory.get_yscale() == "log"
    assert [list(line.get_xdata()) for line in time.lines] == [[13264, 250000]] * len(time.lines)
    assert {tuple(line.get_ydata()) for line in memory.lines} == {(70.0, 70.0), (700.0, 700.0)}
    assert figure([]) is None


def test_command_line(capsys, monkeypatch, tmp_path, made):
    monkeypatch.setattr(ops, "_launch", here)
    path = tmp_path / "ops.jsonl"
    command = ["bench", "ops", "--scenarios", "tiny", "--subjects", "dot layer", "--rivals", "PyG"]
    assert cli.main([*command, "--seconds", "0", "--out", str(path)]) == 0
    out, err = capsys.readouterr()
    assert out == f"{path}: 10 new; for the tables: kgat bench table {path}\n"
    assert "4/4 tiny, dot layer, R2" in err
    assert "tiny  dot layer  PyG  forward+backward  R2" in err

    path.write_text("".join(json.dumps(record) + "\n" for record in made))
    readme, picture = tmp_path / "README.md", tmp_path / "ops.png"
    readme.write_text("# Title\n<!-- ops:begin -->\n<!-- ops:end -->\nEnd.\n")
    assert cli.main(["bench", "table", str(path), "--readme", str(readme), "--figure", str(picture)]) == 0
    assert capsys.readouterr().out == f"{readme}: results replaced\n{picture}\n"
    text = readme.read_text()
    assert text.endswith("End.\n")
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert cli.main(["bench", "table", str(path)]) == 0
    assert f"\n{capsys.readouterr().out.strip()}\n" in text

    path.write_text("")
    assert cli.main(["bench", "table", str(path)]) == 2
    assert "Expected records of 'kgat bench ops'" in capsys.readouterr().err
    assert cli.main(["bench"]) == 0
    assert "layers" in capsys.readouterr().out
