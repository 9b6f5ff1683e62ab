r"""What is claimed, and the records that it is judged by: ``claims.toml``."""

from __future__ import annotations

import dataclasses
import json
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kgat.experiments import regression, sequences
from kgat.experiments.claims import approximation, density
from kgat.experiments.engine import Engine
from kgat.experiments.ledger import read_results
from kgat.experiments.sequences.papers import Setting, completed, plain
from kgat.names import unknown

Record = dict[str, Any]

MEASURED: dict[str, Any] = {"approximation": approximation, "density": density}
POINTS = regression.Setting(epochs=300)


@dataclass(frozen=True)
class Claim:
    r"""What a paper claims, and what is trained for it.

    Args:
        name (str): What it is called here.
        title (str): Its headline.
        paper (str): Where it is claimed.
        says (str): The claim.
        seeds (int, optional): Number of seeds. (default: :obj:`3`)
        datasets (tuple of str, optional): Sets of sequences. (default: :obj:`()`)
        variants (dict, optional): Attentions, as of a :class:`~kgat.experiments.sequences.Paper`.
            (default: :obj:`{}`)
        settings (dict, optional): What is other than usual in the setting of a data set.
            (default: :obj:`{}`)
        regression (tuple of str, optional): Sets of points. (default: :obj:`()`)
        models (tuple of str, optional): Their models. (default: :obj:`()`)
    """

    name: str
    title: str
    paper: str
    says: str
    seeds: int = 3
    datasets: tuple[str, ...] = ()
    variants: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)
    settings: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)
    regression: tuple[str, ...] = ()
    models: tuple[str, ...] = ()

    def setting(self, dataset: str) -> Setting:
        r"""Returns how models are trained on a set of sequences."""
        return dataclasses.replace(sequences.settings_of(dataset), **self.settings.get(dataset, {}))


_FILE = tomllib.loads(Path(__file__).with_name("claims.toml").read_text(encoding="utf8"))
CLAIMS = {name: Claim(name, **plain(claim)) for name, claim in _FILE.items()}


def resolve_claim(name: str) -> Claim:
    r"""Returns a claim by its name.

    Example:
        >>> resolve_claim("degrees").datasets
        ('Multi30k',)
    """
    if name not in CLAIMS:
        unknown("the name of a claim", name, CLAIMS)
    return CLAIMS[name]


def train(
    claim: Claim,
    folder: Path,
    root: str | Path | None = None,
    datasets: Sequence[str] = (),
    seeds: int | None = None,
    changes: Mapping[str, str] | None = None,
    *,
    shown: bool = False,
) -> None:
    r"""Trains or measures what a folder does not hold yet, one line per run in ``NAME.jsonl``.

    Args:
        claim (Claim): The claim.
        folder (Path): Where its records are.
        root (str or Path, optional): The folder of data sets. (default: :obj:`None`)
        datasets (list of str, optional): Some of its data sets; all if empty. (default: :obj:`()`)
        seeds (int, optional): Number of seeds; as the claim has it if :obj:`None`. (default: :obj:`None`)
        changes (dict, optional): Other values of settings of sequences, as text. (default: :obj:`None`)
        shown (bool, optional): Whether to show a progress bar. (default: :obj:`False`)

    Raises:
        ValueError: If the claim has no such data set.
    """
    path, count = folder / f"{claim.name}.jsonl", claim.seeds if seeds is None else seeds
    known = (*claim.regression, *claim.datasets)
    for dataset in datasets:
        if dataset not in known:
            unknown("a data set of this claim", dataset, known)
    wanted = [dataset for dataset in known if not datasets or dataset in datasets]
    if claim.name in MEASURED:
        jobs, key_of = MEASURED[claim.name].jobs(count), MEASURED[claim.name].key_of
        with Engine(path, len(jobs), kinds=[claim.name], key_of=key_of, shown=shown) as engine:
            engine.run(jobs)
    points = [dataset for dataset in wanted if dataset in claim.regression]
    if points:
        regression.compare(points, claim.models, count, path, POINTS, shown=shown)
    texts = [dataset for dataset in wanted if dataset in claim.datasets]
    settings = {dataset: claim.setting(dataset).with_changes(changes or {}) for dataset in texts}
    sequences.check(texts, root, settings)
    for dataset in texts:
        sequences.compare(*([dataset], claim.variants, settings, count, path, root), shown=shown, layers=True)


def lines(claim: Claim, folder: Path, changes: Mapping[str, str] | None = None) -> list[Record]:
    r"""Returns the records of a claim that a folder holds, those of the setting that it has here.

    Args:
        claim (Claim): The claim.
        folder (Path): Where its records are.
        changes (dict, optional): As in :func:`train`. (default: :obj:`None`)

    Raises:
        FileNotFoundError: If there are none.
    """
    path = folder / f"{claim.name}.jsonl"
    records = read_results(path, []) if path.exists() else []
    if not records:
        raise FileNotFoundError(
            f"Expected records of the claim '{claim.name}' in '{path}' (got none); run: kgat claims "
            f"{claim.name} --out {folder}"
        )
    changed = {dataset: claim.setting(dataset).with_changes(changes or {}) for dataset in claim.datasets}
    # As records hold them: JSON has no tuples.
    settings = json.loads(json.dumps({name: dataclasses.asdict(one) for name, one in changed.items()}))
    return [
        record
        for record in records
        if record["kind"] != "sequence" or completed(record["setting"]) == settings.get(record["dataset"])
    ]
