r"""Runs with their records: one, and many that go on where they stopped."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch_geometric import seed_everything

from kgat.datasets import SequenceTask, load_sequences
from kgat.datasets.sequence_task import Stream
from kgat.datasets.sequences import resolve_source
from kgat.datasets.vocabulary import EOS
from kgat.experiments.circumstances import circumstances
from kgat.experiments.engine import Engine, Job
from kgat.experiments.ledger import read_results
from kgat.experiments.loop import Diverged
from kgat.experiments.sequences.fitting import OnEpoch, bleu, build, evaluate, fit, perplexity
from kgat.experiments.sequences.layers import ksvd, layers_record
from kgat.experiments.sequences.papers import Setting, arguments, completed

Record = dict[str, Any]
Variants = Mapping[str, Mapping[str, Any]]  # names and arguments of attentions
Settings = Mapping[str, Setting]  # of data sets
Run = tuple[str, str, int]  # data set, variant and seed


def run(
    task: SequenceTask,
    name: str,
    attention: Mapping[str, Any],
    seed: int,
    setting: Setting,
    *,
    device: str = "cpu",
    layers: bool = False,
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
        layers (bool, optional): Whether the record has :obj:`layers` too, what the trained attention modules
            do (:func:`layers_record`), and :obj:`ksvd`, J of primal layers per epoch.
            (default: :obj:`False`)
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
    kwargs = arguments(task.name, attention, setting)
    model = build(task, kwargs, setting).to(device)
    train, val, test = _prepared(task, setting)
    generator = torch.Generator().manual_seed(seed)
    record: Record = {
        "kind": "sequence",
        "dataset": task.name,
        "metric": task.metric,
        "variant": name,
        "seed": seed,
        "attention": _plain(kwargs),
        "setting": _plain(asdict(setting)),
        "sizes": [len(train), len(task.val), len(task.test)],
        "val": None,
        "test": None,
    }
    objective: list[float] = []  # J of each epoch

    def epoch_done(epoch: int, score: float) -> None:
        if layers and (j := ksvd(model, val, setting, device)) is not None:
            objective.append(_rounded(j))
        if on_epoch is not None:
            on_epoch(epoch, score)

    try:
        fitted = fit(model, train, val, setting, generator=generator, device=device, on_epoch=epoch_done)
    except Diverged as error:
        record["diverged"] = str(error)
    else:
        nats, accuracy = evaluate(model, test, setting, device)
        if task.kind == "translation":
            score = bleu(model, task, test, setting, device)
        else:
            score = accuracy if task.kind == "classification" else perplexity(nats)
        record.update(
            val=_rounded(fitted.val),
            test=_rounded(score),
            best_epoch=fitted.best_epoch,
            epochs=len(fitted.curve),
            seconds=round(fitted.seconds, 2),
            curve=[_rounded(value) for value in fitted.curve],
        )
        if layers:
            record["layers"] = layers_record(model, val, setting, device)
            record |= {"ksvd": objective} if objective else {}
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
        words: Any = task.vocabulary
        # Something to predict the first token from: the end of a sentence before it.
        begin = torch.tensor([words.id(EOS)])
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
    variants: Variants,
    settings: Settings,
    seeds: int,
    path: str | Path,
    root: str | Path | None = None,
    *,
    device: str = "cpu",
    shown: bool = False,
    layers: bool = False,
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
        shown (bool, optional): Whether to show a progress bar. (default: :obj:`False`)
        layers (bool, optional): As in :func:`run`. (default: :obj:`False`)
        on_run (callable, optional): Called with each new record. (default: :obj:`None`)
        on_epoch (callable, optional): Called with data set, variant, seed, epoch and validation score.
            (default: :obj:`None`)

    Returns:
        list of dict: The records of these runs, old and new.

    Raises:
        Interrupted: On Ctrl-C.
    """
    settings = {resolve_source(name).name: setting for name, setting in settings.items()}
    # One task at a time: jobs of a data set and seed stand together.
    task = lru_cache(1)(lambda dataset, seed: load(dataset, root, seed, settings[dataset]))

    def work(dataset: str, name: str, seed: int, note: Callable[[str], None]) -> Iterator[Record]:
        def epoch_done(epoch: int, score: float) -> None:
            note(f"epoch {epoch} of {settings[dataset].epochs}: {score:.4g}")
            if on_epoch is not None:
                on_epoch(dataset, name, seed, epoch, score)

        of_run = (task(dataset, seed), name, variants[name], seed, settings[dataset])
        record = run(*of_run, device=device, layers=layers, on_epoch=epoch_done)
        yield record
        if on_run is not None:
            on_run(record)

    keys = _keys(datasets, variants, settings, seeds)
    jobs = [
        Job(key, f"{d}, {name}, seed {seed}", work, (d, name, seed)) for (d, name, seed), key in keys.items()
    ]
    with Engine(
        path, len(jobs), kinds=["sequence"], key_of=_key_of, shown=shown, describe=_described
    ) as engine:
        engine.run(jobs)
    kept = _chosen(engine.records, keys)
    names = [resolve_source(name).name for name in datasets]
    return [kept[job] for job in itertools.product(names, variants, range(seeds))]


def finished(
    path: str | Path, datasets: Sequence[str], variants: Variants, settings: Settings, seeds: int
) -> dict[Run, Record]:
    r"""Returns those of the runs that a file holds already, by data set, variant and seed."""
    records = read_results(path, ["sequence"]) if Path(path).exists() else []
    return _chosen(records, _keys(datasets, variants, settings, seeds))


def _keys(datasets: Sequence[str], variants: Variants, settings: Settings, seeds: int) -> dict[Run, Hashable]:
    # Runs in their order, by the names that records have, with what tells them from others.
    keys: dict[Run, Hashable] = {}
    by_name = {resolve_source(name).name: setting for name, setting in settings.items()}
    names = [resolve_source(name).name for name in datasets]
    for dataset, seed, variant in itertools.product(names, range(seeds), variants):
        setting = by_name[dataset]
        kwargs = arguments(dataset, variants[variant], setting)
        keys[dataset, variant, seed] = _key(dataset, variant, seed, asdict(setting), kwargs)
    return keys


def _key(dataset: str, name: str, seed: int, setting: Any, attention: Any) -> Hashable:
    return ("sequence", dataset, name, seed, json.dumps([setting, attention], sort_keys=True))


def _key_of(record: Record) -> Hashable:
    if record.get("kind") != "sequence":
        return None
    names = (record["dataset"], record["variant"], record["seed"])
    return _key(*names, completed(record["setting"]), record["attention"])


def _chosen(records: Sequence[Record], keys: Mapping[Run, Hashable]) -> dict[Run, Record]:
    by_key = {_key_of(record): record for record in records}
    return {job: by_key[key] for job, key in keys.items() if key in by_key}


def _described(records: Sequence[Record]) -> Iterator[str]:
    for record in records:
        if record["test"] is None:
            yield "diverged"
        else:
            yield f"{record['epochs']} epochs, {record['seconds']:.1f} s, val {record['val']:.4g}"


def check(datasets: Sequence[str], root: str | Path | None, settings: Settings) -> None:
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
