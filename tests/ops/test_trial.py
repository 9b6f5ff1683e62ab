import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

CHECKS = Path(__file__).with_name("trial_checks.py")
# In two processes, one after the other.
TWICE = """
import os, torch
from kgat import rules
from kgat.functional import edge_attention
from kgat.score.gram import LazyGram
from kgat.ops import GPU, passes
from kgat.ops.gpu import launch, trial
passes.on = lambda device: GPU()
launch.HEAVY = 6
run = trial._failure
trial._failure = lambda *arguments: print("tried") or run(*arguments)
x, edge_index = torch.rand(3, 1, 2), torch.tensor([[0, 1], [1, 2]])
for _ in range(2):
    if (child := os.fork()) == 0:
        edge_attention(LazyGram.of(x, x, rules.ScoreRule(rules.MUL)), x, edge_index)
        print("done", flush=True)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
"""


def run(interpreted, *command, **more):
    # Not in this process: the interpreter must be on before the first import of triton, and stays on.
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PYTEST_", "TRITON_INTERPRET"))}
    if interpreted:
        environment["TRITON_INTERPRET"] = "1"
    command = [sys.executable, *command]
    done = subprocess.run(command, env=environment | more, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-10000:] + done.stderr[-2000:]
    return done.stdout


def test_in_the_interpreter():
    pytest.importorskip("triton", reason="needs triton")
    run(True, "-m", "pytest", "-p", "no:cacheprovider", str(CHECKS))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_device():
    pytest.importorskip("triton", reason="needs triton")
    run(False, "-m", "pytest", "-p", "no:cacheprovider", str(CHECKS))


def test_second_process_does_not_try_again(tmp_path):
    pytest.importorskip("triton", reason="needs triton")
    said = run(True, "-c", TWICE, TRITON_CACHE_DIR=str(tmp_path))
    assert said.split() == ["tried", "done", "done"]
