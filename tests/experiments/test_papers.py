import dataclasses
import math
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from kgat import cli
from kgat.datasets import SequenceTask
from kgat.datasets.sequence_task import Labelled, Padded, Pairs, Stream
from kgat.datasets.sequences import resolve_source
from kgat.datasets.vocabulary import SPECIALS, Words
from kgat.experiments import ledger, loop, sequences
from kgat.experiments.sequences import (
    PAPERS,
    Setting,
    arguments,
    build,
    compare,
    evaluate,
    fit,
    fitting,
    papers,
    run,
    runs,
    table,
)
from kgat.experiments.sequences.fitting import answer, batches
from kgat.experiments.statistics import holm, wilcoxon
from kgat.nn import PrimalAttention

needs_sacrebleu = pytest.mark.skipif(find_spec("sacrebleu") is None, reason="sacrebleu is not installed")

TINY = Setting(
    embed_dim=8,
    num_heads=2,
    feedforward_channels=8,
    num_features=4,
    epochs=2,
    batch_size=4,
    block=5,
    warmup=0,
    options={"lengths": (3, 12), "sizes": (24, 6, 9)},
)
WORDS = Words([*SPECIALS, "a", "b", "c", "d"])
SOFTMAX = {"kernel": "dot_product"}


def tokens(*lengths, generator=None, first=4):
    return [torch.randint(first, 8, (n,), generator=generator) for n in lengths]


def series(seed=0):
    generator = torch.Generator().manual_seed(seed)

    def part(*lengths):
        x = [torch.randn(n, 3, generator=generator) for n in lengths]
        return Labelled(Padded.of(x), torch.arange(len(lengths)) % 2)

    parts = part(4, 7, 2, 5, 5, 3, 6), part(3, 5, 2), part(6, 4, 4, 1)
    return SequenceTask("ERing", "classification", *parts, "", "", num_classes=2)


def language(seed=0):
    generator = torch.Generator().manual_seed(seed)
    parts = (Stream(tokens(n, generator=generator)[0]) for n in (83, 31, 17))
    return SequenceTask("PTB", "language_model", *parts, "", "", vocabulary=WORDS)


def translation(seed=0):
    generator = torch.Generator().manual_seed(seed)
    bos, eos = torch.tensor([2]), torch.tensor([3])

    def part(*lengths):
        said = tokens(*lengths, generator=generator)
        source = [torch.cat([x.flip(0), x[:1], eos]) for x in said]
        target = Padded.of([torch.cat([bos, x, eos]) for x in said])
        return Pairs(Padded.of(source), target, tuple(WORDS.decode(x.tolist()) for x in said))

    parts = part(4, 6, 2, 5, 5, 3, 9), part(3, 5, 2), part(6, 4, 5, 1)
    return SequenceTask("Multi30k", "translation", *parts, "", "", vocabulary=WORDS, target_vocabulary=WORDS)


TASKS = {"classification": series, "language_model": language, "translation": translation}


# --- Settings and papers ----------------------------------------------------------------------------------


@pytest.mark.parametrize("paper", PAPERS)
def test_papers_compare_with_softmax_on_known_data(paper):
    found = PAPERS[paper]
    assert next(iter(found.variants)) == "softmax"
    assert found.variants["softmax"] == SOFTMAX
    for dataset in found.datasets:
        for scale in ("small", "full"):
            setting = sequences.settings_of(dataset, scale)
            known = resolve_source(dataset).options
            assert set(setting.options) <= set(known)
    with pytest.raises(ValueError, match=r"got 'primel'.*dissection.*did you mean 'primal'"):
        sequences.resolve_paper("primel")
    with pytest.raises(ValueError, match="got 'large'"):
        sequences.settings_of("PTB", "large")


CHEAP = {
    "l2 distance",
    "intersection",
    "fourier + R per layer",
    "fourier + R per head",
}  # compiled at first use


@pytest.mark.parametrize(
    ("paper", "variant"),
    [(paper, variant) for paper in PAPERS for variant in PAPERS[paper].variants if variant not in CHEAP],
)
@pytest.mark.parametrize("kind", TASKS)
def test_every_attention_is_trained(paper, variant, kind):
    if paper == "primal" and variant != "softmax" and kind == "translation":
        pytest.skip("the paper has no translation")
    task = TASKS[kind]()
    torch.manual_seed(0)
    model = build(task, arguments(task.name, PAPERS[paper].variants[variant], TINY), TINY)
    losses = []
    logits, y = answer(model, next(iter(batches(task.train, TINY))), losses=losses)
    sum(losses, F.cross_entropy(logits, y)).backward()
    assert all(p.grad is None or bool(p.grad.isfinite().all()) for p in model.parameters())
    assert sum(p.grad is not None and bool(p.grad.any()) for p in model.parameters()) > 5
    penalised = variant.startswith(("primal", "implicit", "copula"))
    assert bool(losses) == penalised


@pytest.mark.parametrize(
    ("size", "rows", "block"), [(83, 4, 5), (31, 4, 30), (7, 4, 2), (3, 4, 5), (9, 1, 3)]
)
def test_segments_go_on_where_those_before_ended(size, rows, block):
    setting = dataclasses.replace(TINY, batch_size=rows, block=block)
    text = torch.arange(size)
    texts = {}
    for batch in batches(Stream(text), setting, segments=True):
        assert 2 <= batch.size(1) <= block + 1
        of_rows = texts.setdefault(len(batch), [[] for _ in batch])
        for seen, row in zip(of_rows, batch, strict=True):
            assert not seen or int(row[0]) == seen[-1]
            seen += row[1:].tolist()
    predicted = sorted(token for of_rows in texts.values() for seen in of_rows for token in seen)
    assert predicted == list(range(1, size))


def test_a_memory_of_all_scores_each_row_as_a_whole():
    task = language()
    torch.manual_seed(0)
    attention = {"kernel": "rbf", "position": "transformer_xl", "memory": 99}
    model = build(task, arguments("PTB", attention, TINY), TINY)
    in_segments = evaluate(model, task.train, TINY)
    rows = dataclasses.replace(TINY, block=99)
    assert in_segments == pytest.approx(evaluate(model, task.train, rows), rel=1e-5)
    model.memory = 0
    assert in_segments != pytest.approx(evaluate(model, task.train, TINY), rel=1e-3)
    model.memory = 2
    fitted = fit(model, task.train, task.val, TINY, generator=torch.Generator().manual_seed(0))
    assert len(fitted.curve) == TINY.epochs


def test_images_have_a_token_of_their_class():
    setting = dataclasses.replace(TINY, pooling="cls")
    model = build(series(), arguments("digits", SOFTMAX, setting), setting)
    assert model.cls.shape == (TINY.embed_dim,)
    assert model.transformer.position.t.size(0) == series().max_len + 1
    logits, y = answer(model, series().test)
    assert logits.shape == (len(y), 2)
    for scale in ("small", "full"):
        assert sequences.settings_of("digits", scale).pooling == "cls"
    assert sequences.settings_of("ERing").pooling == "flatten"


def test_arguments_are_those_of_the_paper():
    wide = dataclasses.replace(TINY, embed_dim=512, num_heads=8, num_layers=3)
    assert arguments("Handwriting", {"attention": "primal+"}, wide) == {
        "position": "sum",
        "attention": ["kernel", "kernel", "primal"],
        "attention_kwargs": {"rank": 20, "ksvd_weight": 0.5, "rank_multi": 5},
    }
    found = arguments("JapaneseVowels", {"attention": "primal"}, TINY)
    assert found["attention"] == "primal"
    weight = 0.5 / TINY.num_layers  # the scripts take the mean over layers
    assert found["attention_kwargs"] == {"rank": 4, "ksvd_weight": weight, "rank_multi": 5}
    assert arguments("ERing", {"attention": "primal"}, wide)["attention_kwargs"]["rank"] == 30
    assert arguments("SST2", {"kernel": "implicit_spectral"}, TINY)["kernel_kwargs"] == {"num_features": 4}
    assert arguments("SST2", {"kernel": "rbf", "position": None}, TINY) == {"kernel": "rbf", "position": None}


def test_settings_are_checked():
    changed = TINY.with_changes(
        {"epochs": "3", "lr": "0.5", "norm_first": "true", "clip": "none", "schedule": "linear"}
    )
    assert (changed.epochs, changed.lr, changed.norm_first, changed.clip) == (3, 0.5, True, None)
    assert changed.options == TINY.options
    for changes, message in (
        ({"width": "3"}, "a setting .*got 'width'.*embed_dim"),
        ({"epoch": "3"}, "a setting .*got 'epoch'.*did you mean 'epochs'"),
        ({"options": "3"}, "got 'options'"),
        ({"epochs": "x"}, "'epochs' as a whole number .*got 'x'.*--set epochs=VALUE"),
        ({"epochs": "none"}, "'epochs' as a whole number"),
        ({"epochs": "0"}, "'epochs' of at least 1"),
        ({"max_train": "0"}, "'max_train' of at least 1 .*got 0"),
        ({"embed_dim": "0"}, "'embed_dim' of at least 1"),
        ({"warmup": "-1"}, "'warmup' of at least 0"),
        ({"label_smoothing": "2"}, r"'label_smoothing' in \[0, 1\) .*got 2"),
        ({"dropout": "nan"}, r"'dropout' in \[0, 1\) .*got nan"),
        ({"beta2": "1"}, r"'beta2' in \[0, 1\)"),
        ({"lr": "inf"}, "finite 'lr' of at least 0 .*got inf"),
        ({"weight_decay": "-1"}, "finite 'weight_decay' of at least 0"),
        ({"clip": "nan"}, "finite 'clip' above 0, or none .*got nan"),
        ({"clip": "0"}, "finite 'clip' above 0, or none"),
        ({"norm_first": "1"}, "'norm_first' as true or false"),
        ({"schedule": "step"}, "'schedule' as one of .*got 'step'"),
        ({"pooling": "max"}, "'pooling' as one of .*got 'max'"),
        ({"optimizer": "sgd"}, "'optimizer' as one of .*got 'sgd'"),
    ):
        with pytest.raises(ValueError, match=message):
            TINY.with_changes(changes)


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("constant", [0.5, 1, 1, 1, 1]),
        ("linear", [0.5, 1, 1, 0.5, 0]),
        ("cosine", [0.5, 1, 1, 0.5, 0]),
        ("inverse_sqrt", [0.5, 1, math.sqrt(2 / 3), math.sqrt(2 / 7), math.sqrt(2 / 11)]),
    ],
)
def test_learning_rates(schedule, expected):
    setting = dataclasses.replace(TINY, warmup=2, schedule=schedule)
    found = [fitting.rate(step, 10, setting) for step in (0, 1, 2, 6, 10)]
    assert found == pytest.approx(expected)


def test_parts_of_a_paper_are_chosen():
    found = sequences.choose(PAPERS["primal"], ["listops", "ERing"], ["Primal+"])
    assert found.datasets == ("ERing", "ListOps")
    assert list(found.variants) == ["primal+"]
    assert sequences.choose(PAPERS["primal"], [], []) == dataclasses.replace(
        PAPERS["primal"], variants=dict(PAPERS["primal"].variants)
    )
    with pytest.raises(ValueError, match=r"data set of this paper .*got 'PTB'.*ListOps"):
        sequences.choose(PAPERS["primal"], ["PTB"], [])
    with pytest.raises(ValueError, match=r"attention of this paper .*got 'rbf'.*softmax, primal"):
        sequences.choose(PAPERS["primal"], [], ["rbf"])


# --- Batches and answers ----------------------------------------------------------------------------------


@pytest.mark.parametrize("order", [None, 0])
def test_every_sequence_is_in_one_batch(order):
    lengths = torch.randint(1, 30, (103,), generator=torch.Generator().manual_seed(0)).tolist()
    part = Labelled(
        Padded.of([torch.full((n, 1), float(i)) for i, n in enumerate(lengths)]), torch.arange(103) % 2
    )

    def drawn(seed):
        generator = None if seed is None else torch.Generator().manual_seed(seed)
        return [batch.inputs.x[:, 0, 0].int().tolist() for batch in batches(part, TINY, generator)]

    found = drawn(order)
    assert sorted(i for batch in found for i in batch) == list(range(103))
    assert max(map(len, found)) == 4
    # Of about one length: far closer than four at random.
    spread = [max(lengths[i] for i in batch) - min(lengths[i] for i in batch) for batch in found]
    assert np.mean(spread) < 3
    assert drawn(order) == found
    if order is not None:
        assert {frozenset(batch) for batch in drawn(1)} != {frozenset(batch) for batch in found}
        assert [lengths[batch[0]] for batch in found] != sorted(lengths[batch[0]] for batch in found)


@pytest.mark.parametrize("length", [2, 5, 6, 7, 11, 44])
def test_every_token_but_the_first_is_predicted_once(length):
    part = Stream(torch.arange(length))
    rows = [row for batch in batches(part, TINY) for row in batch]
    assert torch.equal(torch.cat([row[1:] for row in rows]), torch.arange(1, length))
    assert all(torch.equal(row[1:], row[:-1] + 1) for row in rows)
    assert max(map(len, rows)) <= TINY.block + 1


def test_training_cuts_a_stream_elsewhere_each_time():
    part, generator = Stream(torch.arange(60)), torch.Generator().manual_seed(0)
    begins, order = set(), set()
    for _ in range(20):
        rows = [row for batch in batches(part, TINY, generator) for row in batch]
        begins.add(min(int(row[0]) for row in rows))
        order.add(tuple(int(row[0]) for row in rows))
        predicted = sorted(int(token) for row in rows for token in row[1:])
        assert predicted == list(range(min(int(row[0]) for row in rows) + 1, 60))
    assert begins == set(range(5))
    assert len(order) == 20


@pytest.mark.parametrize("kind", TASKS)
def test_padding_changes_no_answer(kind):
    task = TASKS[kind]()
    torch.manual_seed(0)
    model = build(task, arguments(task.name, SOFTMAX, TINY), TINY).eval()
    together, alone = (
        sequences.evaluate(model, task.val, dataclasses.replace(TINY, batch_size=size)) for size in (3, 1)
    )
    assert together == pytest.approx(alone, rel=1e-5)


def test_translations_are_scored_token_by_token():
    task = translation()
    torch.manual_seed(0)
    model = build(task, arguments(task.name, SOFTMAX, TINY), TINY).eval()
    nats, hits, count = 0.0, 0, 0
    for i in range(len(task.val)):
        source = task.val.source.x[i, : task.val.source.lengths[i]].unsqueeze(0)
        target = task.val.target.x[i, : task.val.target.lengths[i]].unsqueeze(0)
        with torch.no_grad():
            logits = model(source, target[:, :-1])[0].log_softmax(-1)
        for step, token in enumerate(target[0, 1:]):
            nats -= float(logits[step, token])
            hits += int(logits[step].argmax() == token)
            count += 1
    assert evaluate(model, task.val, TINY) == pytest.approx((nats / count, hits / count), rel=1e-5)


class Fixed(nn.Module):
    r"""Says the same of everything."""

    def __init__(self, logits):
        super().__init__()
        self.logits = nn.Parameter(torch.tensor(logits))

    def forward(self, x, padding_mask=None, losses=None):
        return self.logits.expand(*x.shape[:1], -1) if x.dim() == 3 else self.logits.expand(*x.shape, -1)


def test_perplexity_is_that_of_all_tokens():
    task = language()
    logits = [0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7]
    _, _, test = runs._prepared(task, TINY)
    assert test.tokens.tolist() == [WORDS.id("<eos>"), *task.test.tokens.tolist()]
    nats, _ = evaluate(Fixed(logits), test, TINY)
    log_p = torch.tensor(logits, dtype=torch.float64).log_softmax(-1)
    assert nats == pytest.approx(-float(log_p[task.test.tokens].mean()), rel=1e-5)


# --- Training ---------------------------------------------------------------------------------------------


class Scripted(nn.Module):
    r"""Gives the true class of so many of four sequences, with so much confidence, epoch by epoch."""

    def __init__(self, hits, confidence):
        super().__init__()
        self.hits, self.confidence = hits, confidence
        self.weight = nn.Parameter(torch.zeros(()))
        self.register_buffer("epoch", torch.tensor(-1))

    def train(self, mode=True):
        if mode and not self.training:
            self.epoch += 1
        return super().train(mode)

    def forward(self, x, padding_mask=None, losses=None):
        truth = torch.tensor([0, 1, 0, 1])[: len(x)]
        epoch = int(self.epoch.clamp(max=len(self.hits) - 1))
        said = truth.where(torch.arange(len(x)) < self.hits[epoch], 1 - truth)
        return self.confidence[epoch] * F.one_hot(said, 2) + self.weight * 0


def four():
    return Labelled(Padded.of([torch.ones(2, 1)] * 4), torch.tensor([0, 1, 0, 1]))


@pytest.mark.parametrize(
    ("hits", "confidence", "best"),
    [
        ([1, 3, 2], [1.0, 1.0, 1.0], 2),
        ([3, 3, 3], [1.0, 0.1, 0.2], 1),
        ([3, 3, 3], [4.0, 1.0, 4.0], 2),
        ([1, 3, 3], [1.0, 1.0, 1.0], 2),
        ([2, 2, 4], [1.0, 1.0, 1.0], 3),
    ],
)
def test_the_best_epoch_is_kept(hits, confidence, best):
    model = Scripted(hits, confidence).eval()
    setting = dataclasses.replace(TINY, epochs=3)
    found = fit(model, four(), four(), setting, generator=torch.Generator())
    assert found.curve == [n / 4 for n in hits]
    assert (found.best_epoch, found.val) == (best, hits[best - 1] / 4)
    assert int(model.epoch) == best - 1


def test_a_language_model_is_chosen_by_its_perplexity():
    task = language()
    torch.manual_seed(0)
    model = build(task, arguments(task.name, SOFTMAX, TINY), TINY)
    setting = dataclasses.replace(TINY, epochs=12, lr=0.1)
    found = fit(model, task.train, task.val, setting, generator=torch.Generator())
    assert found.val == min(found.curve)
    assert found.best_epoch < 12  # it learns noise by heart
    assert math.exp(evaluate(model, task.val, setting)[0]) == pytest.approx(found.val, rel=1e-5)


class Penalised(nn.Module):
    def __init__(self, primal):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(2))
        self.attention = PrimalAttention(4, 2) if primal else None
        self.grads = []
        self.weight.register_hook(self.grads.append)

    def forward(self, x, padding_mask=None, losses=None):
        if losses is not None:
            losses.append(3.0 * self.weight.sum())
        return torch.zeros(len(x), 2)


@pytest.mark.parametrize(("primal", "expected"), [(True, 3.0), (False, 3.0 / 4)])
def test_penalties_have_their_weight(primal, expected):
    model = Penalised(primal)
    fit(model, four(), four(), dataclasses.replace(TINY, epochs=1), generator=torch.Generator())
    torch.testing.assert_close(model.grads[0], torch.full((2,), expected))


@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize("name", ["primal", "primal+"])
def test_ksvd_losses_weigh_as_the_mean_over_layers(layers, name):
    setting = dataclasses.replace(TINY, num_layers=layers)
    task = TASKS["classification"]()
    model = build(task, arguments("Handwriting", {"attention": name}, setting), setting).eval()
    eta = papers.PRIMAL["Handwriting"][name][1]
    scores = []
    for module in model.modules():
        if isinstance(module, PrimalAttention):
            weight, module.ksvd_weight = module.ksvd_weight, 1.0
            scores.append((module, weight))
    assert len(scores) == (layers if name == "primal" else 1)
    batch = next(iter(batches(task.train, setting)))
    squares = []
    answer(model, batch, losses=squares)
    for module, weight in scores:
        module.ksvd_weight = weight
    losses = []
    answer(model, batch, losses=losses)
    torch.testing.assert_close(sum(losses), eta * torch.stack(squares).mean())


def test_penalties_of_two_kinds_are_refused():
    task = TASKS["classification"]()
    attention = {"attention": ["copula_spectral", "primal"], "attention_kwargs": {"rank": 2}}
    setting = dataclasses.replace(TINY, num_layers=2)
    model = build(task, attention, setting)
    with pytest.raises(ValueError, match="penalties of one kind"):
        fit(model, task.train, task.val, setting, generator=torch.Generator())


def test_full_scale_of_listops_is_that_of_the_published_code():
    setting = sequences.settings_of("ListOps", "full")
    wanted = {"embed_dim": 64, "num_heads": 2, "num_layers": 2, "feedforward_channels": 128, "dropout": 0.1}
    wanted |= {"norm_first": True, "learned_positions": True, "steps": 5000, "warmup": 1000, "batch_size": 32}
    wanted |= {"optimizer": "adamw", "lr": 1e-4, "eps": 1e-6, "schedule": "linear"}
    assert {name: getattr(setting, name) for name in wanted} == wanted
    small = dataclasses.replace(setting, options={"lengths": (5, 9), "sizes": (20, 5, 5)})
    task = sequences.load("ListOps", None, 0, small)
    model = build(task, arguments("ListOps", SOFTMAX, small), small)
    assert model.transformer.position.t.shape == (task.max_len, 64)
    assert all(layer.norm_first for layer in model.transformer.encoder)
    assert model.pooling == "mean"


def test_full_scales_of_text_are_those_of_the_papers():
    setting = sequences.settings_of("PTB", "full")
    found = arguments("PTB", {"kernel": "sinc_product"}, setting)
    assert found["attention_kwargs"] == {"dropout": 0.0, "bias": False}
    small = dataclasses.replace(setting, num_layers=1, embed_dim=16, feedforward_channels=8)
    model = build(TASKS["language_model"](), found, small)
    attention = model.transformer.encoder[0].self_attn
    assert (attention.dropout, attention.in_proj_bias, attention.out_proj.bias) == (0.0, None, None)
    assert model.transformer.encoder[0].dropout.p == 0.1
    setting = dataclasses.replace(sequences.settings_of("Multi30k", "full"), num_layers=1, embed_dim=8)
    assert build(TASKS["translation"](), arguments("Multi30k", SOFTMAX, setting), setting).out is None


@pytest.mark.parametrize(("steps", "epochs"), [(1, 1), (3, 2), (4, 2), (5, 3), (99, 3)])
def test_training_ends_after_so_many_steps(steps, epochs):
    task = TASKS["classification"]()
    size = -(-len(task.train) // 2)
    setting = dataclasses.replace(TINY, epochs=3, steps=steps, batch_size=size, schedule="linear", warmup=0)
    model = build(task, SOFTMAX, setting)
    taken = []
    model.register_forward_pre_hook(lambda module, _: taken.append(1) if module.training else None)
    found = fit(model, task.train, task.val, setting, generator=torch.Generator())
    assert len(found.curve) == epochs
    assert len(taken) == min(steps, 6)


def test_records_from_before_a_setting_was_added_count(tmp_path):
    path = tmp_path / "runs.jsonl"
    task = TASKS["classification"]()
    record = run(task, "softmax", SOFTMAX, 0, TINY)
    for name in ("steps", "eps", "attention_dropout", "learned_positions"):
        del record["setting"][name]
    ledger.append(path, record)
    settings = {task.name: TINY}
    assert len(sequences.finished(path, [task.name], {"softmax": SOFTMAX}, settings, 1)) == 1
    changed = {task.name: dataclasses.replace(TINY, steps=7)}
    assert not sequences.finished(path, [task.name], {"softmax": SOFTMAX}, changed, 1)
    again = run(task, "softmax", SOFTMAX, 1, TINY)
    assert "| softmax |" in sequences.table([record, again])


@pytest.mark.parametrize("kind", TASKS)
def test_training_does_not_see_the_test(kind):
    if kind == "translation" and find_spec("sacrebleu") is None:
        pytest.skip("sacrebleu is not installed")
    task = TASKS[kind]()
    other = dataclasses.replace(task, test=TASKS[kind](seed=1).test)
    found, again = (run(t, "softmax", SOFTMAX, 0, TINY) for t in (task, other))
    for name in ("val", "curve", "best_epoch", "parameters"):
        assert found[name] == again[name]
    if kind == "language_model":
        assert found["test"] != again["test"]
    same = run(task, "softmax", SOFTMAX, 0, TINY)
    assert found["test"] == same["test"]
    if kind != "classification":  # whose few scores are often equal
        assert run(task, "softmax", SOFTMAX, 1, TINY)["curve"] != found["curve"]
    metrics = {"classification": "accuracy", "language_model": "perplexity", "translation": "bleu"}
    assert found["metric"] == metrics[kind]


def test_the_test_is_what_is_scored(monkeypatch):
    monkeypatch.setattr(runs, "bleu", lambda model, task, part, *given: float(len(part)))
    assert run(translation(), "softmax", SOFTMAX, 0, TINY)["test"] == 4.0  # and not the 3 pairs of validation
    sure = dataclasses.replace(
        series(), test=Labelled(series().test.inputs, torch.zeros(4, dtype=torch.int64))
    )
    monkeypatch.setattr(runs, "build", lambda *given: Fixed([9.0, 0.0]))
    record = run(sure, "softmax", SOFTMAX, 0, dataclasses.replace(TINY, epochs=1, lr=1e-6))
    assert (record["val"], record["test"]) == (0.666667, 1.0)


def test_a_seed_draws_the_weights(monkeypatch):
    drawn = []

    def stop(model, *given, **options):
        drawn.append(torch.cat([p.detach().flatten() for p in model.parameters()]))
        raise loop.Diverged("training loss", math.nan)

    monkeypatch.setattr(runs, "fit", stop)
    for seed in (0, 1, 0):
        run(series(), "softmax", SOFTMAX, seed, TINY)
    assert torch.equal(drawn[0], drawn[2])
    assert not torch.equal(drawn[0], drawn[1])


def test_series_are_classified_as_the_paper_does():
    model = build(series(), arguments("ERing", SOFTMAX, TINY), TINY)
    assert (model.pooling, model.max_len) == ("flatten", 7)
    assert model.input_scale == pytest.approx(8**0.5)
    assert build(series(), {"position": None}, TINY).pooling == "flatten"


def test_sizes_are_reduced_on_request():
    task = language()
    record = run(task, "softmax", SOFTMAX, 0, dataclasses.replace(TINY, max_train=40))
    assert record["sizes"] == [40, 31, 17]
    assert run(task, "softmax", SOFTMAX, 0, dataclasses.replace(TINY, max_train=999))["sizes"][0] == 83


def test_a_text_of_one_token_trains_nothing():
    with pytest.raises(ValueError, match=r"a text of at least 2 tokens.*got 1"):
        run(language(), "softmax", SOFTMAX, 0, dataclasses.replace(TINY, max_train=1))


def test_a_model_that_diverges_is_recorded():
    setting = dataclasses.replace(TINY, lr=1e30, clip=None, epochs=3)
    record = run(series(), "softmax", SOFTMAX, 0, setting)
    assert record["test"] is None
    assert record["val"] is None
    assert "finite training loss (got nan in epoch 1)" in record["diverged"]
    assert "1 of 1 diverged" in table([record])


@needs_sacrebleu
def test_translations_are_compared_in_their_order():
    task = translation()

    class Oracle:
        def translate(self, source, bos, eos, max_len, source_padding, beam):
            assert (bos, eos, max_len, beam) == (2, 3, 11, 1)
            rows = [
                row if source_padding is None else row[~source_padding[i]] for i, row in enumerate(source)
            ]
            return [row[:-2].flip(0).tolist() for row in rows]

    long = dataclasses.replace(task, test=task.train)
    assert fitting.bleu(Oracle(), long, long.test, TINY, "cpu") == pytest.approx(100.0)
    wrong = dataclasses.replace(task.train, references=task.train.references[::-1])
    assert fitting.bleu(Oracle(), long, wrong, TINY, "cpu") < 60.0


# --- Comparisons ------------------------------------------------------------------------------------------

TWO = {"softmax": SOFTMAX, "rbf": {"kernel": "rbf"}}


def test_a_comparison_goes_on_where_it_stopped(tmp_path):
    path, said = tmp_path / "a" / "results.jsonl", []
    settings = {"ListOps": TINY}
    compare(["ListOps"], {"softmax": SOFTMAX}, settings, 2, path, on_run=said.append)
    assert [(r["variant"], r["seed"]) for r in said] == [("softmax", 0), ("softmax", 1)]
    assert ledger.read(path) == said
    epochs = []
    found = compare(
        ["ListOps"],
        TWO,
        settings,
        2,
        path,
        on_run=said.append,
        on_epoch=lambda *given: epochs.append(given[:4]),
    )
    assert [(r["variant"], r["seed"]) for r in said[2:]] == [("rbf", 0), ("rbf", 1)]
    assert epochs == [("ListOps", "rbf", seed, epoch) for seed in (0, 1) for epoch in (1, 2)]
    assert [(r["variant"], r["seed"]) for r in found] == [
        ("softmax", 0),
        ("softmax", 1),
        ("rbf", 0),
        ("rbf", 1),
    ]
    assert len(sequences.finished(path, ["ListOps"], TWO, settings, 5)) == 4
    assert len(sequences.finished(path, ["ListOps"], TWO, settings, 1)) == 2
    # Another setting, or another attention of that name, is another run.
    other = {"ListOps": dataclasses.replace(TINY, lr=0.5)}
    assert not sequences.finished(path, ["ListOps"], TWO, other, 5)
    assert not sequences.finished(path, ["ListOps"], {"rbf": {"kernel": "laplace"}}, settings, 5)


def test_a_data_set_may_be_called_by_any_of_its_names(tmp_path):
    path, said = tmp_path / "results.jsonl", []
    given = (["list-ops"], {"softmax": SOFTMAX}, {"listops": TINY}, 1, path)
    for _ in range(2):
        (record,) = compare(*given, on_run=said.append)
        assert record["dataset"] == "ListOps"
    assert len(said) == 1


def test_a_seed_draws_what_the_data_leave_open():
    one, other = (sequences.load("ListOps", None, seed, TINY) for seed in (0, 1))
    assert not torch.equal(one.test.inputs.lengths, other.test.inputs.lengths)
    assert len(one.train) == 24


def records_of(dataset, metric, **scores):
    setting = runs._plain(dataclasses.asdict(TINY))
    return [
        {"kind": "sequence", "dataset": dataset, "metric": metric, "variant": name, "seed": seed,
         "test": score, "setting": setting}
        for name, values in scores.items() for seed, score in enumerate(values)
    ]  # fmt: skip


def test_tables_have_means_and_p_values():
    base, ours, lost = [0.5, 0.6, 0.7, 0.6, 0.55], [0.55, 0.67, 0.79, 0.68, 0.6], [0.2, None, 0.4, 0.3, 0.25]
    found = records_of("ERing", "accuracy", softmax=base, rbf=ours, primal=lost, laplace=ours[::-1])
    found += records_of(
        "PTB", "perplexity", softmax=[120.0, 124.0, None], primal=[None, None, None], rbf=[1.0, 2.0, 3.0]
    )
    lines = table(found).splitlines()
    assert lines[0] == "| attention | ERing, accuracy in %, 5 seeds | PTB, perplexity, 3 seeds |"
    p = holm({
        "rbf": wilcoxon(np.subtract(ours, base)),
        "laplace": wilcoxon(np.subtract(ours[::-1], base)),
        "primal": wilcoxon(np.array([-0.3, -0.3, -0.3, -0.3])),
    })  # fmt: skip
    assert p["primal"] is None
    assert p["rbf"] == 2 * wilcoxon(np.subtract(ours, base))  # there are two of them
    assert (
        lines[2]
        == f"| softmax | 59.00 ± {np.std(base, ddof=1) * 100:.2f} | 122.00 ± 2.83 (1 of 3 diverged) |"
    )
    assert (
        lines[3] == f"| rbf | 65.80 ± {np.std(ours, ddof=1) * 100:.2f} (p = {p['rbf']:.2g}) | 2.00 ± 1.00 |"
    )
    assert lines[4] == "| primal | 28.75 ± 8.54 (1 of 5 diverged) | 3 of 3 diverged |"
    assert lines[5].endswith(" | – |")
    assert lines[7].startswith("- ERing, PTB: 2 layers of 8 channels, 2 heads, 8 hidden; Adam, learning rate")
    with pytest.raises(ValueError, match="records of 'kgat paper'"):
        table([])
    found[0]["setting"] = {**found[0]["setting"], "lr": 1.0}
    with pytest.raises(ValueError, match="one setting of 'ERing'"):
        table(found)


# --- The command ------------------------------------------------------------------------------------------


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setitem(papers.SCALES["small"], "listops", TINY)


def test_command(tmp_path, small, monkeypatch, capsys):
    page = tmp_path / "README.md"
    page.write_text("before\n<!-- primal:begin -->\nold\n<!-- primal:end -->\nafter\n")
    given = ["paper", "primal", "--datasets", "ListOps", "--variants", "softmax,primal", "--seeds", "2",
             "--set", "epochs=1",
             "--out", str(tmp_path), "--readme", str(page)]  # fmt: skip
    assert cli.main(given) == 0
    said = capsys.readouterr().out
    found = ledger.read(tmp_path / "primal.jsonl")
    assert [(r["variant"], r["seed"], r["epochs"]) for r in found] == [
        ("softmax", 0, 1), ("primal", 0, 1), ("softmax", 1, 1), ("primal", 1, 1),
    ]  # fmt: skip
    text = page.read_text()
    assert table(found) in said
    assert table(found) in text
    assert "old" not in text
    assert text.startswith("before")
    assert text.endswith("after\n")
    monkeypatch.setattr(runs, "load", lambda *_: pytest.fail("read data to print a table"))
    assert cli.main(given) == 0
    assert len(ledger.read(tmp_path / "primal.jsonl")) == 4


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["primer"], "the name of a paper (got 'primer')"),
        (["primal", "--datasets", "PTB"], "a data set of this paper (got 'PTB')"),
        (["primal", "--variants", "rbf"], "an attention of this paper (got 'rbf')"),
        (["primal", "--set", "width=3"], "Expected a setting (got 'width')"),
        (["primal", "--scale", "huge"], "Expected 'scale'"),
        (["primal", "--datasets", "Libras"], "raw file of 'Libras'"),
        (["primal", "--device", "tpu"], "a device that is here"),
    ],
)
def test_command_says_what_is_wrong(tmp_path, given, message, capsys):
    assert cli.main(["paper", *given, "--root", str(tmp_path), "--out", str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_an_interrupted_command_keeps_what_is_done(tmp_path, small, monkeypatch, capsys):
    original, calls = runs.run, []

    def stopped(*given, **options):
        if len(calls) == 2:
            raise KeyboardInterrupt
        calls.append(given)
        return original(*given, **options)

    monkeypatch.setattr(runs, "run", stopped)
    given = ["paper", "primal", "--datasets", "ListOps", "--seeds", "1", "--out", str(tmp_path)]
    assert cli.main(given) == 130
    assert "2 of 3 runs are kept" in capsys.readouterr().err
    assert len(ledger.read(tmp_path / "primal.jsonl")) == 2
    monkeypatch.setattr(runs, "run", original)
    assert cli.main(given) == 0
    assert len(ledger.read(tmp_path / "primal.jsonl")) == 3


@pytest.mark.parametrize("page", [None, "no markers\n"])
def test_a_page_is_looked_at_before_anything_is_trained(tmp_path, small, monkeypatch, page, capsys):
    monkeypatch.setattr(runs, "run", lambda *given, **options: pytest.fail("trained"))
    readme = tmp_path / "README.md"
    if page is not None:
        readme.write_text(page)
    given = ["paper", "primal", "--datasets", "ListOps", "--out", str(tmp_path), "--readme", str(readme)]
    assert cli.main(given) == 2
    assert "README.md" in capsys.readouterr().err


def test_a_file_that_cannot_be_written_is_found_before_anything_is_trained(tmp_path, monkeypatch):
    monkeypatch.setattr(runs, "run", lambda *given, **options: pytest.fail("trained"))
    original = Path.open

    def refused(self, mode="r", *given, **options):
        if self.name == "results.jsonl" and "a" in mode:
            raise PermissionError("refused")
        return original(self, mode, *given, **options)

    monkeypatch.setattr(Path, "open", refused)
    with pytest.raises(PermissionError):
        compare(["ListOps"], TWO, {"ListOps": TINY}, 1, tmp_path / "results.jsonl")


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setattr(runs, "load", lambda *given: translation())
    monkeypatch.setattr(runs, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"'sacrebleu' to score 'Multi30k' .*kgat\[sequences\]"):
        sequences.check(["Multi30k"], None, {"Multi30k": TINY})
