import pytest
import torch

from kgat import cli
from kgat.ops.eager import Eager
from kgat.testing import installation
from kgat.testing.installation import DROPOUT, check_installation

KERNELS = ("RBF", "Additive", "Linear")


@pytest.fixture
def few(monkeypatch):
    r"""Some kernels on the backend that compiles nothing."""
    monkeypatch.setattr(
        installation, "checks", lambda backends=None: [(name, "eager") for name in (*KERNELS, DROPOUT)]
    )


def plant(monkeypatch, change):
    right = Eager.edge_attention
    monkeypatch.setattr(Eager, "edge_attention", lambda self, call: change(call, right(self, call)))


@pytest.mark.quick
def test_all_kernels_and_backends_are_checked():
    pairs = installation.checks()
    assert len(pairs) == len(set(pairs))
    assert {"RBF", "KANScore", "SincProduct", DROPOUT} <= {what for what, _ in pairs}
    assert {"cpu", "eager"} <= {backend for _, backend in pairs}
    assert all(backend == "eager" for _, backend in installation.checks(["eager"]))
    assert any(graph[0] > 10_000 for graph in installation.GRAPHS.values())


def test_the_eager_backend_agrees():
    outcomes = list(check_installation(["eager"]))
    assert [outcome.wrong for outcome in outcomes if outcome.wrong] == []
    assert {outcome.kernel for outcome in outcomes if not outcome.errors} <= {
        *("Cosine", "Linear", "RFA", "RandomFourier")  # kernels that can be negative have no scores
    }


class WrongGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, grad):
        return 1.01 * grad


@pytest.mark.parametrize(
    ("change", "kernels", "wrong"),
    [
        (lambda call, out: 1.001 * out, "RBF Additive", "output, "),
        (lambda call, out: WrongGradient.apply(out), "RBF Additive", "gradient of "),
        (lambda call, out: out if out.size(0) < 10_000 else out + 1, "RBF Additive", "10,000 rows"),
        (lambda call, out: out if out.dtype == torch.float64 else out + 0.01, "RBF Additive", "float32"),
        (lambda call, out: out.nan_to_num() * torch.nan if len(out) == 40 else out, "RBF Additive", "hubs"),
        (lambda call, out: 2 * out if call.dropout else out, DROPOUT, "divided by"),
        (lambda call, out: out.roll(1, 0).where(out > 0, 0) if call.dropout else out, DROPOUT, "keeps"),
    ],
)
def test_planted_errors_are_found(few, monkeypatch, change, kernels, wrong):
    plant(monkeypatch, change)
    found = {outcome.kernel: outcome.wrong for outcome in check_installation() if outcome.wrong}
    assert set(kernels.split()) <= set(found) <= {*kernels.split(), DROPOUT}  # which may see it too
    assert all(wrong in found[kernel] for kernel in kernels.split()), found


def test_the_command_prints_a_table_and_an_exit_code(few, monkeypatch, capsys):
    assert cli.main(["info", "--check"]) == 0
    out = capsys.readouterr().out
    assert "RBF" in out
    assert "3 checks: all agree with the formulas" in out
    plant(monkeypatch, lambda call, out: out + 1e-3)
    assert cli.main(["info", "--check"]) == 1
    out = capsys.readouterr().out
    assert any(line.startswith("RBF") and "DIFFERS: output" in line for line in out.splitlines())
    assert "from the formulas" in out
