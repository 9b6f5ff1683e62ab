r"""What records are judged by beyond the tables of data sets: the blocks of a page, each by its name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kgat.experiments import chosen, controls, properties, questions, sweep, verdict
from kgat.experiments.published import agreement
from kgat.experiments.table import Table, render
from kgat.names import one_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["JUDGEMENTS", "expect_drawn", "figure_of", "judgement"]

Record = Mapping[str, Any]

JUDGEMENTS = ("published", "verdict", "sweep", "questions", "settings")
DRAWN = ("verdict", "sweep")  # those with a figure


def judgement(
    name: str,
    records: Sequence[Record],
    families: Sequence[str] = (verdict.FAMILY,),
    against: Sequence[str] = verdict.STOCK,
) -> str:
    r"""Returns what records say, as Markdown.

    Args:
        name (str): One of :data:`JUDGEMENTS`.
        records (list of dict): Records of comparisons.
        families (list of str, optional): The models or families that a verdict judges, each alone.
            (default: :obj:`("kernel",)`)
        against (list of str, optional): Against which, the one of them that validation prefers.
            (default: :obj:`("gat", "gatv2")`)

    Raises:
        ValueError: If there is no such judgement, if no records are of what is judged, or if they are not of
            one kind.
    """
    for what, listed in (("models or families", families), ("models to judge them against", against)):
        if not listed:
            raise ValueError(f"Expected {what} (got none); name some, or leave the option out")
    if one_of("judgement", name, JUDGEMENTS) == "published":
        return agreement(records)
    if name == "questions":
        return render(_questions(records))
    if name == "settings":
        return render(_settings(records))
    if name == "sweep":
        return render(_sweep(records))
    return render(block for family in families for block in _verdict(records, family, against))


def _questions(records: Sequence[Record]) -> list[str | Table]:
    answered = questions.answers(records)
    if not answered:
        raise ValueError(
            "Expected runs of models with a setting in their name, and without (got "
            f"{_named(records, 'model')}); run: kgat compare --models rbf,rbf@start=median"
        )
    return questions.blocks(answered)


def _sweep(records: Sequence[Record]) -> list[str | Table]:
    found = sweep.sweeps(records)
    if not any(len(of_models) > 1 for _, amounts in found.values() for of_models in amounts.values()):
        raise ValueError(
            "Expected runs of gat and others on data sets such as Cora-5-labels (got "
            f"{_named(records, 'dataset')}); run: kgat compare --dataset Cora-5-labels --models gat,rbf"
        )
    return sweep.blocks(found)


def _settings(records: Sequence[Record]) -> list[str | Table]:
    laid_out = chosen.blocks(records)
    if not laid_out:
        raise ValueError(
            f"Expected runs whose settings trials chose (got {_named(records, 'model')} without); run: kgat "
            "compare --trials 12"
        )
    return laid_out


def _verdict(records: Sequence[Record], family: str, against: Sequence[str]) -> list[str | Table]:
    judged = verdict.verdicts(records, family, against)
    if not judged:
        usual = family == verdict.FAMILY
        raise ValueError(
            f"Expected runs of '{family}' and of {' or '.join(against)} (got {_named(records, 'model')}); "
            f"run: kgat compare --models {','.join([*against, family])}{' --trials 12' * usual}"
        )
    return [
        *verdict.blocks(judged),
        *properties.blocks(records, judged),
        *controls.blocks(records, judged),
    ]


def _named(records: Iterable[Record], entry: str) -> str:
    return ", ".join(dict.fromkeys(r[entry] for r in records if r.get("kind") == "run"))


def expect_drawn(
    names: Sequence[str],
    path: Path,
    families: Sequence[str] = (verdict.FAMILY,),
    against: Sequence[str] = verdict.STOCK,
) -> None:
    r"""Checks, before anything is judged, that there is one figure to draw.

    Args:
        names (list of str): Of :data:`JUDGEMENTS`.
        path (Path): The file of the figure.
        families (list of str, optional): As :func:`judgement` takes them. (default: :obj:`("kernel",)`)
        against (list of str, optional): As :func:`judgement` takes them. (default: :obj:`("gat", "gatv2")`)

    Raises:
        ValueError: If none or several of them have one, if it is drawn of another family or of other stock
            layers, or if there is no such format.
    """
    from kgat.experiments.plots import expect_formats  # as in figure_of

    chosen = [name for name in names if name in DRAWN]
    if len(chosen) != 1:
        raise ValueError(
            f"Expected one of --verdict and --sweep with --figure (got {len(chosen)}); choose one"
        )
    expect_formats([path.suffix.removeprefix(".").lower() or "png"])
    if "verdict" in chosen and ([*families], [*against]) != ([verdict.FAMILY], [*verdict.STOCK]):
        raise ValueError(
            f"Expected the usual --family and --against with --figure (got {','.join(families)} against "
            f"{','.join(against)}); it is drawn of {verdict.FAMILY} against {' and '.join(verdict.STOCK)} "
            "alone: leave one out"
        )


def figure_of(names: Sequence[str], records: Sequence[Record]) -> Figure | None:
    r"""Returns the figure of the one of several judgements that has one; nothing without runs for it.

    Args:
        names (list of str): Of :data:`JUDGEMENTS`, as :func:`expect_drawn` takes them.
        records (list of dict): Records of comparisons.
    """
    # A page without figures does without matplotlib.
    from kgat.experiments.plots.sweep import sweep as of_sweep
    from kgat.experiments.plots.verdict import verdict as of_verdict

    (name,) = (name for name in names if name in DRAWN)
    return {"verdict": of_verdict, "sweep": of_sweep}[name](records)
