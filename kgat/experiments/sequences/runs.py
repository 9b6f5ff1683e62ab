r"""Runs with their records: one, and many that go on where they stopped."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch_geometric import seed_everything

from kgat.datasets import SequenceTask, load_sequences
from kgat.datasets.sequence_task import Stream
from kgat.datasets.sequences import resolve_source
from kgat.datasets.vocabulary import EOS
from kgat.experiments import ledger as record_file
from kgat.experiments.circumstances import circumstances
from kgat.experiments.ledger import Ledger
from kgat.experiments.sequences.fitting import DivergedError, OnEpoch, bleu, build, evaluate, fit, perplexity
from kgat.experiments.sequences.papers import Setting, arguments, completed

Record = dict[str, Any]


def run(
    task: SequenceTask,
    name: str,
    attention: Mapping[str, Any],
    seed: int,
    setting: Setting,
    *,
    device: str = "cpu",
    on_epoch: OnEpoch | None = None,
) -> Record:
    r"""Trains one model with one seed and reads the test once.

    Args:
        task (SequenceTask): The task.
        name (str): What the attention is called.
        attention (dict): One of the variants of a :class:`Paper`.
        seed (int): Decides initial weights, dropout and the order of the sequences.
        setting (Setting): How to build and train.
        device (str, optional): Where to train. (default: :obj:`"cpu"`)
        on_epoch (callable, optional): As in :func:`fit`. (default: :obj:`None`)

    Returns:
        dict: A record of kind :obj:`"sequence"`; if the model diverged, its scores are :obj:`None` and
        :obj:`"diverged"` says how.

    Example:
        >>> task = load_sequences("ListOps", lengths=(5, 9), sizes=(40, 10, 10))
        >>> record = run(task, "rbf", {"kernel": "rbf"}, 0, Setting(embed_dim=8, num_heads=2, epochs=2))
        >>> record["metric"], 0.0 <= record["test"] <= 1.0, record["epochs"]
        ('accuracy', True, 2)
    """
    seed_everything(seed)
    made = arguments(task.name, attention, setting)
    model = build(task, made, setting).to(device)
    train, val, test = _prepared(task, setting)
    generator = torch.Generator().manual_seed(seed)
    record: Record = {
        "kind": "sequence",
        "dataset": task.name,
        "metric": task.metric,
        "variant": name,
        "seed": seed,
        "attention": _plain(made),
        "setting": _plain(asdict(setting)),
        "sizes": [len(train), len(task.val), len(task.test)],
        "val": None,
        "test": None,
    }
    try:
        found = fit(model, train, val, setting, generator=generator, device=device, on_epoch=on_epoch)
    except DivergedError as error:
        record["diverged"] = str(error)
    else:
        nats, accuracy = evaluate(model, test, setting, device)
        if task.kind == "translation":
            score = bleu(model, task, test, setting, device)
        else:
            score = accuracy if task.kind == "classification" else perplexity(nats)
        record.update(
            val=_rounded(found.val),
            test=_rounded(score),
            best_epoch=found.best_epoch,
            epochs=len(found.curve),
            seconds=round(found.seconds, 2),
            curve=[_rounded(value) for value in found.curve],
        )
    record.update(
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        preprocessing=task.preprocessing,
        **circumstances(device),
    )
    return record


def _prepared(task: SequenceTask, setting: Setting) -> tuple[Any, Any, Any]:
    train, val, test = task.train, task.val, task.test
    if setting.max_train is not None and setting.max_train < len(train):
        train = train.take(torch.arange(setting.max_train))
    if task.kind == "language_model":
        assert task.vocabulary is not None
        # Something to predict the first token from: the end of a sentence before it.
        begin = torch.tensor([task.vocabulary.id(EOS)])
        val, test = (Stream(torch.cat([begin, part.tokens])) for part in (val, test))
    return train, val, test


def _plain(value: Any) -> Any:
    return json.loads(json.dumps(value))  # as it will be read again


def _rounded(value: float) -> float:
    return float(f"{value:.6g}")


def load(dataset: str, root: str | Path | None, seed: int, setting: Setting) -> SequenceTask:
    r"""Loads the task of a seed, which draws what the data set does not fix: the validation part of series,
    the expressions of ListOps."""
    options = dict(setting.options)
    if "seed" in resolve_source(dataset).options:
        options["seed"] = seed
    return load_sequences(dataset, root, **options)


def compare(
    datasets: Sequence[str],
    variants: Mapping[str, Mapping[str, Any]],
    settings: Mapping[str, Setting],
    seeds: int,
    path: str | Path,
    root: str | Path | None = None,
    *,
    device: str = "cpu",
    on_run: Callable[[Record], None] | None = None,
    on_epoch: Callable[[str, str, int, int, float], None] | None = None,
) -> list[Record]:
    r"""Runs all attentions with all seeds and appends each run to a file as soon as it is done; what is there
    with the same attention and setting is not repeated.

    Args:
        datasets (list of str): Names of data sets.
        variants (dict): Names and arguments of attentions, as in a :class:`Paper`.
        settings (dict): The setting of each data set.
        seeds (int): Number of seeds, counted from 0.
        path (str or Path): The file of JSON lines.
        root (str or Path, optional): The folder of data sets. (default: :obj:`None`)
        device (str, optional): Where to train. (default: :obj:`"cpu"`)
        on_run (callable, optional): Called with each new record. (default: :obj:`None`)
        on_epoch (callable, optional): Called with data set, variant, seed, epoch and validation score.
            (default: :obj:`None`)

    Returns:
        list of dict: The records of these runs, old and new.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.open("ab").close()  # it can be written: better known now than after the first run
    datasets, settings = _canonical(datasets, settings)
    order = [(d, name, seed) for d in datasets for seed in range(seeds) for name in variants]
    with Ledger(path, ["sequence"]) as results:

        def kept() -> dict[tuple[str, str, int], Record]:
            return _finished(results.records, datasets, variants, settings, seeds)

        def there(job: tuple[str, str, int]) -> bool:
            return job in kept()

        task, loaded = None, None
        for job in results.claim([job for job in order if not there(job)], _claim, there):
            dataset, name, seed = job
            if loaded != (dataset, seed):
                task, loaded = load(dataset, root, seed, settings[dataset]), (dataset, seed)
            assert task is not None

            def epoch_done(epoch: int, score: float, job: tuple[str, str, int] = job) -> None:
                if on_epoch is not None:
                    on_epoch(*job, epoch, score)

            record = run(
                *(task, name, variants[name], seed, settings[dataset]), device=device, on_epoch=epoch_done
            )
            results.append(record)
            if on_run is not None:
                on_run(record)
        found = kept()
    return [found[d, name, seed] for d in datasets for name in variants for seed in range(seeds)]


def _claim(job: tuple[str, str, int]) -> tuple[str, ...]:
    return ("sequence", *map(str, job))


def finished(
    path: str | Path,
    datasets: Sequence[str],
    variants: Mapping[str, Mapping[str, Any]],
    settings: Mapping[str, Setting],
    seeds: int,
) -> dict[tuple[str, str, int], Record]:
    r"""Returns those of the runs that a file holds already, by data set, variant and seed."""
    datasets, settings = _canonical(datasets, settings)
    records = record_file.read_results(path, ["sequence"]) if Path(path).exists() else []
    return _finished(records, datasets, variants, settings, seeds)


def _finished(
    records: Sequence[Record],
    datasets: Sequence[str],
    variants: Mapping[str, Mapping[str, Any]],
    settings: Mapping[str, Setting],
    seeds: int,
) -> dict[tuple[str, str, int], Record]:
    found = {}
    for record in records:
        if record.get("kind") != "sequence":
            continue
        dataset, name, seed = key = record["dataset"], record["variant"], record["seed"]
        if dataset not in datasets or name not in variants or seed >= seeds:
            continue
        setting = settings[dataset]
        made = arguments(dataset, variants[name], setting)
        if _plain(completed(record["setting"])) == _plain(asdict(setting)) and record["attention"] == _plain(
            made
        ):
            found[key] = record
    return found


def _canonical(
    datasets: Sequence[str], settings: Mapping[str, Setting]
) -> tuple[list[str], dict[str, Setting]]:
    # The names that records have.
    named = {resolve_source(name).name: setting for name, setting in settings.items()}
    return [resolve_source(name).name for name in datasets], named


def check(datasets: Sequence[str], root: str | Path | None, settings: Mapping[str, Setting]) -> None:
    r"""Says whether data sets can be read and scored, before anything is trained.

    Raises:
        ValueError: If one is unknown or corrupt.
        FileNotFoundError: If raw files are missing.
        ImportError: If a package of the extra :obj:`sequences` is missing.
    """
    for dataset in datasets:
        if load(dataset, root, 0, settings[dataset]).metric == "bleu" and find_spec("sacrebleu") is None:
            raise ImportError(
                f"Expected the package 'sacrebleu' to score '{dataset}' (got none); run: pip install "
                "'kgat[sequences]'"
            )
