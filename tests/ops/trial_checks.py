"""Checks of the trial of compiled code, on a GPU or in Triton's interpreter; :mod:`test_trial` runs them."""

import copy
import logging
import os
import threading
from pathlib import Path

import pytest
import torch
import triton_interpreter
from torch.utils.checkpoint import checkpoint

from kgat.functional import edge_attention
from kgat.ops import GPU, eager, passes
from kgat.ops.gpu import launch as gpu
from kgat.ops.gpu import trial
from kgat.ops.notice import warn_once
from kgat.ops.recipe import BackendError, Recipe
from kgat.score import rules
from kgat.score.gram import LazyGram
from kgat.score.rules import Link, ScoreRule
from kgat.score.scalar import where

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cpu" if INTERPRETED else "cuda"
if INTERPRETED:
    triton_interpreter.patch_once()
FUSED = "cpu" if INTERPRETED else "gpu"  # what chooses tensors of the device
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")


@pytest.fixture(autouse=True)
def folder(monkeypatch, tmp_path):
    r"""A process that has tried nothing, of tiny blocks and with an empty folder for compiled code."""
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / "triton"))
    for name in ("_passed", "_failed"):
        monkeypatch.setattr(trial, name, type(getattr(trial, name))())
    warn_once.cache_clear()
    if INTERPRETED:
        monkeypatch.setattr(passes, "on", lambda device: GPU())
    monkeypatch.setattr(gpu, "HEAVY", 6)
    return tmp_path / "triton"


@pytest.fixture
def trials(monkeypatch):
    r"""The trials that are run, not those that are remembered."""
    run, found = trial._failure, []

    def failure(*arguments):
        found.append(arguments[0])
        return run(*arguments)

    monkeypatch.setattr(trial, "_failure", failure)
    return found


def case(rule, dtype=torch.float32):
    draw = torch.Generator().manual_seed(0)
    scores = torch.float32 if dtype == torch.bfloat16 else dtype
    q, k = (torch.rand(n, 3, 5, generator=draw, dtype=scores) for n in (4, 5))
    v = torch.rand(5, 3, 7, generator=draw, dtype=scores).to(dtype)
    leaves = [x.to(DEVICE).requires_grad_() for x in (q, k, v)]
    edge_index = torch.tensor([[0, 1, 2, 3, 4, 0, 1, 1], [0, 0, 0, 1, 1, 2, 2, 2]], device=DEVICE)
    return leaves, edge_index, rule


def attend(rule, backend=None, dtype=torch.float32, dropout=0.0):
    r"""The output and the gradients."""
    leaves, edge_index, _ = case(rule, dtype)
    q, k, v = leaves
    out = edge_attention(LazyGram.of(q, k, rule), v, edge_index, dropout=dropout, backend=backend)
    return [out, *torch.autograd.grad(out.square().sum(), leaves)]


def records(folder):
    return sorted((folder / "kgat").glob("*")) if (folder / "kgat").exists() else []


def steep(t, slope):
    return where(t > 0.7, t, slope * t)


def d_steep(t, slope):
    return where(t > 0.7, 1.0, slope)


def d_wrong(t, slope):
    return where(t > 0.7, 1.01, slope)


def function(t, slope):
    return torch.where(t > 0.7, t, slope * t)


def rule_of(derivative):
    return ScoreRule(link=Link("steep", function, derivative=derivative, scalar=steep), link_args=(0.3,))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_right_code_is_tried_once(trials, folder, caplog, dtype):
    rule = rule_of(d_steep)
    for _ in range(2):
        results, wanted = attend(rule, dtype=dtype), attend(rule, "eager", dtype)
        for one, other in zip(results, wanted, strict=True):
            tolerance = 2e-2 if dtype == torch.bfloat16 else 1e-5
            torch.testing.assert_close(one, other, rtol=tolerance, atol=tolerance)
    assert len(trials) == 1
    assert len(records(folder)) == 1
    assert not caplog.records
    trial._passed.clear()  # as another process would begin
    attend(rule, dtype=dtype)
    assert len(trials) == 1
    attend(rule, dtype=torch.float64)
    attend(rule, dtype=dtype, dropout=0.5)
    assert len(trials) == len(records(folder)) == 3


def expect_eager(rule, folder, caplog, dtype=torch.float32):
    wanted = attend(rule, "eager", dtype)
    with caplog.at_level(logging.WARNING, logger="kgat"):
        for _ in range(2):
            for one, other in zip(attend(rule, dtype=dtype), wanted, strict=True):
                assert torch.equal(one, other)
    # A rule that is not written in scalars has a line of its own, beside that of the code that was tried.
    tried = [line for line in caplog.messages if "not written in scalars" not in line]
    assert len(tried) == 1
    assert "runs on the eager backend: Expected Triton's code for" in tried[0]
    with pytest.raises(BackendError, match="pass backend='eager'"):
        attend(rule, FUSED, dtype)
    assert not records(folder)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
def test_wrong_derivative_falls_back(trials, folder, caplog, dtype):
    expect_eager(rule_of(d_wrong), folder, caplog, dtype)
    assert len(trials) == 1


def planted(monkeypatch, kernel, name):
    # One per cent more in one result of one kernel.
    launch = gpu._launch

    def wrong(launched, programs, **arguments):
        launch(launched, programs, **arguments)
        if launched.__name__ == kernel and arguments.get(name) is not None:
            arguments[name].mul_(1.01)

    monkeypatch.setattr(gpu, "_launch", wrong)


@pytest.mark.parametrize(
    ("kernel", "result"),
    [
        ("attend", "out"),
        ("attend", "lse"),
        ("attend", "out_parts"),
        ("dot_rows", "out"),
        ("merge", "out"),
        ("merge_sums", "d_value"),
        ("merge_sums", "d_query"),
        ("by_source", "d_key"),
        ("by_source", "d_value"),
        ("by_source", "d_key_parts"),
        ("by_target", "d_query"),
    ],
)
def test_wrong_kernel_falls_back(monkeypatch, folder, caplog, kernel, result):
    planted(monkeypatch, kernel, result)
    expect_eager(ScoreRule(rules.MUL), folder, caplog)


@pytest.mark.parametrize(
    ("kernel", "result"), [("sum_pairs", "total"), ("by_source", "d_key"), ("by_target", "d_query")]
)
def test_wrong_kernel_of_scores_falls_back(monkeypatch, folder, caplog, kernel, result):
    planted(monkeypatch, kernel, result)
    expect_eager(ScoreRule(rules.MUL, Link("plain", torch.tanh)), folder, caplog)


def test_wrong_mask_falls_back(monkeypatch, caplog):
    planted(monkeypatch, "write_mask", "mask")
    with caplog.at_level(logging.WARNING, logger="kgat"):
        attend(ScoreRule(rules.MUL), dropout=0.5)
    assert len(caplog.records) == 1
    assert "a dropout mask of" in caplog.text


def test_numbers_that_are_not_finite_fall_back(monkeypatch, folder, caplog):
    launch = gpu._launch

    def wrong(launched, programs, **arguments):
        launch(launched, programs, **arguments)
        if launched.__name__ == "by_target":
            arguments["d_query"][-1, -1, -1] = torch.nan

    monkeypatch.setattr(gpu, "_launch", wrong)
    expect_eager(ScoreRule(rules.MUL), folder, caplog)
    assert "numbers in the gradient of query that are not finite" in caplog.text


def test_error_of_the_compiler_falls_back(monkeypatch, folder, caplog):
    def broken(*_, **__):
        raise RuntimeError("PassManager::run failed")

    monkeypatch.setattr(gpu, "_launch", broken)
    expect_eager(ScoreRule(rules.MUL), folder, caplog)
    assert "RuntimeError: PassManager::run failed" in caplog.text


@pytest.mark.parametrize("damage", [lambda x: x[:-20], lambda x: b"", lambda x: x.replace(b"1", b"2", 1)])
def test_damaged_record_is_made_again(trials, folder, damage):
    rule = ScoreRule(rules.MUL)
    attend(rule)
    (path,) = records(folder)
    whole = path.read_bytes()
    path.write_bytes(damage(whole))
    trial._passed.clear()
    attend(rule)
    assert len(trials) == 2
    assert path.read_bytes() == whole
    assert records(folder) == [path]


def test_other_code_is_tried_again(trials, monkeypatch, folder):
    attend(rule_of(d_steep))
    trial._passed.clear()
    attend(rule_of(d_steep))  # another link of the same name and code
    assert len(trials) == 1
    trial._passed.clear()
    monkeypatch.setattr(trial, "_circumstances", lambda device: ["another triton"])
    attend(rule_of(d_steep))
    assert len(trials) == len(records(folder)) == 2


@pytest.mark.parametrize("place", ["file", "folder", "full"])
def test_disk_that_takes_nothing_costs_time_alone(trials, monkeypatch, tmp_path, caplog, place):
    rule = ScoreRule(rules.MUL)
    if place == "full":

        def full(*_):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "replace", full)
    elif INTERPRETED:  # a GPU's own code has nowhere to go then
        (tmp_path / "file").write_text("")
        monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / "file" / "below"))
        if place == "folder":
            monkeypatch.setattr(trial, "_path", lambda text: None)
    for _ in range(2):
        trial._passed.clear()
        attend(rule)
    assert len(trials) == 2
    assert not caplog.records


def test_whatever_mode_the_caller_is_in(trials):
    rule = ScoreRule(rules.MUL)
    wanted = attend(rule, "eager")
    state = torch.get_rng_state()
    (q, k, v), edge_index, _ = case(rule)

    def out(q, k, v):
        return edge_attention(LazyGram.of(q, k, rule), v, edge_index)

    for mode in (torch.inference_mode, torch.no_grad, lambda: torch.autocast(DEVICE, torch.bfloat16)):
        trial._passed.clear()
        trial_folder = Path(os.environ["TRITON_CACHE_DIR"]) / "kgat"
        for path in trial_folder.glob("*"):
            path.unlink()
        with mode():
            torch.testing.assert_close(out(q, k, v), wanted[0], rtol=1e-5, atol=1e-6)
    for path in trial_folder.glob("*"):
        path.unlink()
    trial._passed.clear()
    result = checkpoint(out, q, k, v, use_reentrant=False)
    gradients = torch.autograd.grad(result.square().sum(), (q, k, v))
    for one, other in zip(gradients, wanted[1:], strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)
    trial._passed.clear()
    torch.testing.assert_close(
        torch.compile(out, backend="aot_eager")(q, k, v), wanted[0], rtol=1e-5, atol=1e-6
    )
    assert len(trials) == 4
    assert torch.equal(torch.get_rng_state(), state)


def test_few_are_remembered(trials, monkeypatch, folder):
    monkeypatch.setattr(trial, "PASSED", 2)
    monkeypatch.setattr(trial, "FAILED", 1)
    for dtype, dropout in ((torch.float32, 0.0), (torch.float32, 0.5), (torch.float64, 0.0)):
        attend(ScoreRule(rules.MUL), dtype=dtype, dropout=dropout)
    assert len(trial._passed) == 2
    assert len(trials) == 3
    attend(ScoreRule(rules.MUL))  # the oldest, of which the disk knows
    assert len(trials) == 3
    for wrong in (1.01, 1.02):
        rule = Link("steep", function, derivative=lambda t, slope: where(t > 0.7, wrong, slope), scalar=steep)  # noqa: B023
        attend(ScoreRule(link=rule, link_args=(0.3,)))
    assert len(trial._failed) == 1
    assert len(trials) == 5


def test_threads_try_once(trials):
    rule, results = ScoreRule(rules.MUL), []
    threads = [threading.Thread(target=lambda: results.append(attend(rule))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 4
    assert len(trials) == 1


def test_graph_has_every_kind_of_node(monkeypatch):
    monkeypatch.undo()
    edge_index = trial.edges()
    for index, size in ((edge_index[1], trial.TARGETS), (edge_index[0], trial.SOURCES)):
        degree = index.bincount(minlength=size)
        assert (degree == 0).any()
        assert ((degree > 0) & (degree <= 8)).any()
        assert ((degree > 8) & (degree <= gpu.HEAVY)).any()
        assert (degree > gpu.HEAVY).any()
    assert edge_index.unique(dim=1).size(1) < edge_index.size(1)


def test_call_of_a_pass_takes_scale_and_weight():
    x = trial.draw_operands(
        trial.Trial(
            *(Recipe(rules.MUL, rules.IDENTITY, weighted=True).text, True, torch.device("cpu")),
            *(torch.float64, torch.float64, 3, 5, 0, ("query", "key", "weight"), False),
        ),
        *(8, [[0.0] * 3] * 2, [[0.0] * 3] * 2, False),
    )
    edge_index = torch.tensor([[0, 1, 2], [0, 0, 1]])
    recipe = Recipe(rules.MUL, rules.IDENTITY, weighted=True)
    call = eager.call_of(recipe, x, edge_index, 1, trial.TARGETS)
    wanted = (x.scale * x.query[call.row] * x.key[call.col] * x.weight).sum(-1)
    torch.testing.assert_close(copy.copy(call).scores(), wanted)
