r"""What papers report of stock GAT, and the settings that shall give it on the same splits."""

from __future__ import annotations

import functools
import statistics
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kgat.measures import measure_of
from kgat.names import normalized, unknown

__all__ = ["Published", "agreement", "published"]

NONE = "none"


@dataclass(frozen=True)
class Published:
    r"""A result of stock GAT.

    Args:
        dataset (str): The data set.
        source (str): The paper.
        same (bool): Whether its splits are ours; they are drawn by the same rule, if not.
        mean (float): Mean over its runs, in %.
        std (float): Standard deviation over its runs, in %.
        settings (dict): What shall give it: settings that differ from the protocol of the data set.
        whose (str): Whose settings these are: ``"theirs"``, ``"smaller"`` ones, which two cores can train, or
            ``"ours"``, where the paper gives none or others did better on validation nodes.
    """

    dataset: str
    source: str
    same: bool
    mean: float
    std: float
    settings: Mapping[str, Any]
    whose: str


@functools.cache
def _tables() -> dict[str, Published]:
    tables = tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf8"))
    papers = tables.pop("papers")
    results = {}
    for name, table in tables.items():
        if "mean" not in table:  # settings that several share
            continue
        about = {key: table.pop(key) for key in ("same", "mean", "std")}
        paper, whose = table.pop("paper"), table.pop("settings")
        stack = table.pop("stack", paper)
        settings = {**({} if stack == NONE else tables.get(stack, {})), **table}
        results[normalized(name)] = Published(name, papers[paper], **about, settings=settings, whose=whose)
    return results


def published(dataset: str) -> Published:
    r"""Returns what is published of stock GAT on a data set.

    Args:
        dataset (str): The data set.

    Raises:
        ValueError: If nothing is, with the data sets of which there is something.

    Example:
        >>> result = published("chameleon-filtered")
        >>> result.mean, result.std, result.settings["num_layers"]
        (44.13, 4.17, 2)
    """
    tables = _tables()
    if normalized(dataset) not in tables:
        unknown("a data set with a published protocol", dataset, [t.dataset for t in tables.values()])
    return tables[normalized(dataset)]


def agreement(records: Iterable[Mapping[str, Any]]) -> str:
    r"""Returns a Markdown table of runs of stock GAT beside what papers report, and the papers.

    Args:
        records (list of dict): Records of comparisons with these settings.

    Example:
        >>> run = {"kind": "run", "model": "gat", "dataset": "Texas", "metric": "accuracy"}
        >>> runs = [{**run, "test": 0.55, "best_epoch": 9}, {**run, "test": 0.57, "best_epoch": 30}]
        >>> print(agreement(runs))
        | data set | splits | settings | published | ours | runs | kept epoch | within one std |
        | --- | --- | --- | ---: | ---: | ---: | ---: | --- |
        | Texas | same | ours | 52.16 ± 6.63 | 56.00 ± 1.41 | 2 | 19.5 | yes |
        <BLANKLINE>
        - Texas: Yan et al., Two Sides of the Same Coin (ICDM 2022), ...
    """
    rows = ["| data set | splits | settings | published | ours | runs | kept epoch | within one std |"]
    rows.append("| --- | --- | --- | ---: | ---: | ---: | ---: | --- |")
    of_sets: dict[str, list[Mapping[str, Any]]] = {}
    for record in records:
        if record.get("kind") == "run" and record["model"] == "gat":
            of_sets.setdefault(record["dataset"], []).append(record)
    for name, runs in of_sets.items():
        result, scale = published(name), measure_of(runs[0]["metric"]).scale
        scores = [scale * run["test"] for run in runs]
        mean, spread = statistics.mean(scores), statistics.stdev(scores) if len(scores) > 1 else float("nan")
        gap = (mean - result.mean) / result.std
        said = "yes" if abs(gap) <= 1 else f"{abs(gap):.1f} std {'above' if gap > 0 else 'below'}"
        kept = statistics.median(run["best_epoch"] for run in runs)
        splits = "same" if result.same else "same rule"
        rows.append(
            f"| {name} | {splits} | {result.whose} | {result.mean:.2f} ± {result.std:.2f} | "
            f"{mean:.2f} ± {spread:.2f} | "
            f"{len(runs)} | {kept:g} | {said} |"
        )
    sources: dict[str, list[str]] = {}
    for name in of_sets:
        sources.setdefault(published(name).source, []).append(name)
    return "\n".join([*rows, "", *(f"- {', '.join(names)}: {source}" for source, names in sources.items())])
