import math

import pytest
import torch
from made_tasks import make_config, make_graph_task, make_task

from kgat.experiments import training
from kgat.experiments.checkpoint import Checkpoint, Interval
from kgat.experiments.schedulers import build_scheduler

pytestmark = pytest.mark.quick


@pytest.fixture(autouse=True)
def traced(monkeypatch):
    r"""Compiles without the C++ compiler, which takes long: what is traced is what runs."""
    compiled = []

    def compile_eagerly(model):
        compiled.append(model)
        return original(model, backend="eager")

    original = torch.compile
    monkeypatch.setattr(torch, "compile", compile_eagerly)
    yield compiled
    torch._dynamo.reset()


def trainer_of(task, **settings):
    torch.manual_seed(0)
    config = make_config("rbf", **{"dropout": 0.0, "input_dropout": 0.0, **settings})
    model = training.build(task, config)
    return training.trainer_of(model, task.visible(task.split(0)), config)


def weights(trainer):
    return torch.cat([parameter.detach().flatten() for parameter in trainer.module.parameters()])


CHANGES = [{"clip": 1e-3}, {"scheduler": "cosine"}, {"precision": "bf16"}, {"accumulate": 2}]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: next(iter(change)))
def test_each_setting_changes_a_run_and_its_key(change):
    settings = {"batch_size": 8, "max_epochs": 4}
    plain, changed = (make_config("rbf", **settings, **more) for more in ({}, change))
    assert plain.key != changed.key
    assert {**plain.as_dict(), **change} == changed.as_dict()
    curves = [training.run(make_graph_task(), config)["curve"] for config in (plain, changed)]
    assert curves[0] != curves[1]


STATES = [
    {"scheduler": "cosine", "clip": 0.1},
    {"scheduler": "plateau[patience=0, factor=0.5]", "lr": 0.5},
    {"scheduler": "linear_with_warmup", "precision": "bf16"},
    {"scheduler": "one_cycle", "accumulate": 2, "batch_size": 8},
    {"compile": True, "model": "gat"},
]


@pytest.mark.parametrize("settings", STATES, ids=lambda settings: next(iter(settings.values())))
def test_a_stopped_run_goes_on_with_each_of_them(tmp_path, settings):
    settings = dict(settings)
    config = make_config(settings.pop("model", "rbf"), max_epochs=6, **settings)
    task = make_graph_task() if "batch_size" in settings else make_task()

    def stop(epoch, *_):
        if epoch == 4:
            raise KeyboardInterrupt

    whole, model = training.train(task, config)
    checkpoint = Checkpoint(tmp_path, Interval(epochs=1))
    with pytest.raises(KeyboardInterrupt):
        training.train(task, config, on_epoch=stop, checkpoint=checkpoint)
    resumed, other = training.train(task, config, checkpoint=checkpoint)
    assert resumed["curve"] == whole["curve"]
    for name, value in other.state_dict().items():
        assert torch.equal(value, model.state_dict()[name])


def test_clip_bounds_the_gradient_of_a_step(monkeypatch):
    norms = []

    def step(self, closure=None):
        gradients = [p.grad for group in self.param_groups for p in group["params"] if p.grad is not None]
        norms.append(float(torch.nn.utils.get_total_norm(gradients)))

    monkeypatch.setattr(torch.optim.Adam, "step", step)
    for clip in (None, 0.01):
        trainer_of(make_task(), clip=clip).step()
    assert norms[0] > 0.1
    assert math.isclose(norms[1], 0.01, rel_tol=1e-4)


def test_schedulers_are_stepped_once_an_epoch():
    trainer = trainer_of(make_task(), scheduler="cosine", lr=0.1, max_epochs=4)
    rates = []
    for _ in range(4):
        rates.append(trainer.optimizer.param_groups[0]["lr"])
        trainer.step()
        trainer.schedule(1.0)
    assert rates == pytest.approx([0.05 * (1 + math.cos(math.pi * epoch / 4)) for epoch in range(4)])


def test_plateau_follows_the_validation_loss():
    trainer = trainer_of(make_task(), scheduler="plateau[patience=1]", lr=0.1)
    rates = []
    for loss in (1.0, 0.5, 0.6, 0.6, 0.6):
        trainer.schedule(loss)
        rates.append(trainer.optimizer.param_groups[0]["lr"])
    assert rates == pytest.approx([0.1, 0.1, 0.1, 0.01, 0.01])


@pytest.mark.parametrize("name", ["onecycle", "onecycle[max_lr=0.5]", "cyclic[base_lr=0.01, max_lr=0.2]"])
def test_cycles_leave_kernels_their_own_rate(name):
    config = make_config("rbf", kernel_lr=0.25, scheduler=name, lr=0.1, max_epochs=5)
    visible = make_task().visible(make_task().split(0))
    trainer = training.trainer_of(training.build(visible, config), visible, config)
    for _ in range(5):
        slower, others = sorted(group["lr"] for group in trainer.optimizer.param_groups)
        assert slower == pytest.approx(0.25 * others)
        trainer.step()
        trainer.schedule(1.0)


@pytest.mark.parametrize(
    "name", ["cosine[eta_min=0.05]", "onecycle", "plateau[patience=0, min_lr=0.01]", None]
)
def test_kernels_without_a_rate_stay_as_they_are(name):
    # Whatever floor a scheduler has.
    config = make_config("rbf", kernel_lr=0.0, scheduler=name, lr=0.1, max_epochs=5)
    visible = make_task().visible(make_task().split(0))
    trainer = training.trainer_of(model := training.build(visible, config), visible, config)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    for _ in range(4):
        trainer.step()
        trainer.schedule(1.0)
    changed = {key for key, value in model.state_dict().items() if not torch.equal(value, before[key])}
    assert [key for key in before if key.endswith("log_lengthscale")]
    assert changed == {key for key in before if not key.endswith("log_lengthscale")}


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("sometimes", "Could not resolve"),
        ("step", "step_size"),
        ("step[50]", "has no name"),
        ("cosine[T=3]", "'T'"),
        ("cosine[T_max=x]", "malformed"),
        ("step[step_size", "not of the form"),
        ("lambda", "lr_lambda"),
        ("step[step_size=0]", "modulo"),
        ("cosine[T_max=0]", "zero"),
        ("constant[factor=0]", "factor"),
        ("onecycle[total_steps=3]", "Tried to step 4 times"),
    ],
)
def test_schedulers_that_are_none(name, reason):
    with pytest.raises(ValueError, match=rf"Expected 'scheduler' as cosine, .*{reason}.*--set scheduler="):
        make_config(scheduler=name)


def test_names_of_schedulers_are_those_of_pyg_and_torch():
    optimizer = torch.optim.Adam([torch.zeros(1)], lr=1.0)
    for name in (
        "cosine",
        "CosineAnnealingLR",
        "plateau",
        "exponential[gamma=0.9]",
        "polynomial_with_warmup",
    ):
        build_scheduler(name, optimizer, 10)


def test_half_precision_is_of_products_and_not_of_what_is_kept():
    outputs = {}
    for precision in ("fp32", "bf16"):
        trainer = trainer_of(make_task(sparse=True), precision=precision)
        seen = []
        trainer.module.convs[0].register_forward_hook(
            lambda *_, seen=seen: seen.append(torch.is_autocast_enabled("cpu"))
        )
        outputs[precision] = trainer.step()
        trainer.validate()
        assert seen == [precision == "bf16"] * 2
        assert all(value.dtype is not torch.bfloat16 for value in trainer.module.state_dict().values())
    assert outputs["fp32"] != outputs["bf16"]
    assert outputs["bf16"] == pytest.approx(outputs["fp32"], rel=0.02)


def test_compiled_it_is_the_same_model(traced):
    plain, compiled = (trainer_of(make_task(), compile=flag) for flag in (False, True))
    assert traced == [compiled.module]
    torch._dynamo.utils.counters.clear()
    for _ in range(2):
        assert compiled.step() == pytest.approx(plain.step(), rel=1e-5)
    assert compiled.validate() == pytest.approx(plain.validate(), rel=1e-5)
    assert torch._dynamo.utils.counters["stats"]["calls_captured"] > 0
    torch.testing.assert_close(weights(compiled), weights(plain))


def test_compiling_without_a_compiler_is_refused(monkeypatch):
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setattr("kgat.experiments.trainer.shutil.which", lambda name: None)
    with pytest.raises(ValueError, match=r"Expected a C\+\+ compiler .*compile=false"):
        trainer_of(make_task(), compile=True)


def test_accumulated_batches_step_as_one_batch():
    task = make_graph_task("rmse")  # 18 training graphs: batches of 5 end with one of 3
    whole, parts, apart = (
        trainer_of(task, norm="none", batch_size=size, accumulate=count)
        for size, count in ((18, 1), (5, 4), (5, 1))
    )
    for trainer in (whole, parts, apart):
        torch.manual_seed(1)
        trainer.step()
    torch.testing.assert_close(weights(parts), weights(whole))
    assert (weights(apart) - weights(whole)).abs().max() > 1e-3


def test_steps_accumulate_to_the_end_of_an_epoch(monkeypatch):
    steps = []
    trainer = trainer_of(make_graph_task(), batch_size=4, accumulate=2)
    monkeypatch.setattr(trainer, "_update", steps.append)
    trainer.step()
    assert steps == [8, 8, 2]


@pytest.mark.parametrize("task", [make_task, make_graph_task])
def test_one_batch_has_nothing_to_accumulate(task):
    with pytest.raises(ValueError, match=r"Expected several batches .*accumulate=2.*one of all .*batch_size"):
        trainer_of(task(), accumulate=2)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("clip", 0, "'clip' above 0, or none"),
        ("precision", "fp16", "'precision' as one of fp32, bf16"),
        ("accumulate", 0, "'accumulate' of at least 1"),
        ("compile", "often", "'compile' as true or false"),
    ],
)
def test_impossible_values(name, value, message):
    with pytest.raises(ValueError, match=f"Expected {message}.*--set {name}="):
        make_config(**{name: value})
