r"""Splits of a graph of one's own: given ones, checked for leaks, and seeded ones."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch

from kgat.datasets import splits as rules
from kgat.datasets.own.labels import Target
from kgat.datasets.own.numpy_files import read_array
from kgat.datasets.own.parts import SPELLINGS
from kgat.datasets.own.raw import MISSING, Array, RawGraph, absent, none_of
from kgat.datasets.task import PARTS, Split

__all__ = ["SHARES", "splits_of"]

SHARES = (0.6, 0.2)
Parts = tuple[str, Array]  # a name, and of each node 1, 2, 3 (train, val, test) or 0


def splits_of(
    raw: RawGraph,
    target: Target,
    *,
    split: str | None = None,
    time: str | None = None,
    group: str | None = None,
    shares: str | Sequence[float] = SHARES,
) -> tuple[tuple[Split, ...], str]:
    r"""Returns the splits of a graph, and what they are in words.

    Args:
        raw (RawGraph): The graph.
        target (Target): What is to be predicted.
        split (str, optional): :obj:`"stratified"` or :obj:`"random"` draws, ``column:NAME`` reads a column
            that says train, val or test, ``files:FOLDER`` lists of ids there. If :obj:`None`, what the
            graph brings (masks, or a column ``split``), else by :obj:`time` or :obj:`group`, else drawn,
            stratified by class where there are classes. (default: :obj:`None`)
        time (str, optional): A column: training nodes come before validation nodes, those before test
            nodes. (default: :obj:`None`)
        group (str, optional): A column: nodes of one group stay in one part. (default: :obj:`None`)
        shares (tuple of float, optional): The shares of training and validation nodes.
            (default: :obj:`(0.6, 0.2)`)

    Raises:
        ValueError: If a given split overlaps, or leaks by :obj:`time` or :obj:`group`.
    """
    train, val = _checked(shares)
    kind, _, name = (split or "").partition(":")
    if kind not in ("", "stratified", "random", "column", "files") or (kind in ("column", "files")) != bool(
        name
    ):
        raise ValueError(
            "Expected 'split' as stratified, random, column:NAME or files:FOLDER "
            f"(got '{split}'); choose one of them"
        )
    moments = None if time is None else _moments(raw, time, target.labelled)
    groups = None if group is None else _groups(raw, group, target.labelled)
    if kind in ("column", "files") or (kind == "" and raw.masks):
        if kind == "column":
            parts, said = [(name, _of_column(raw, name))], f"split by column '{name}'"
        elif kind == "files":
            parts, said = [(Path(name).name, _of_files(raw, Path(name)))], f"split by files in '{name}'"
        else:
            parts, said = [_of_masks(raw, *masks) for masks in raw.masks], "the split that came with it"
        for title, part in parts:
            part[~target.labelled] = 0
            _expect_no_leak(raw, title, part, moments, groups, time, group)
        return _split(parts), said
    if moments is not None and groups is not None:
        raise ValueError(
            f"Expected a split by time or by group (got time='{time}' and group='{group}'); name one, or "
            "both beside a given split (--split column:NAME), which is then checked"
        )
    if kind and (moments is not None or groups is not None):
        raise ValueError(
            f"Expected either split='{kind}' or a column of times or groups (got both); leave one out"
        )
    if moments is not None:
        part = _by_time(moments, target.labelled, train, val, str(time))
        return _split([("time", part)]), f"split by time '{time}'"
    return _seeded(raw, target, groups, kind, train, val, str(group))


def _checked(shares: str | Sequence[float]) -> tuple[float, float]:
    try:
        train, val = (float(share) for share in (shares.split(",") if isinstance(shares, str) else shares))
    except (TypeError, ValueError):
        train = val = 0.0
    if not (train > 0 and val > 0 and train + val < 1):
        raise ValueError(
            f"Expected 'shares' as two numbers above 0 of a sum below 1, for training and validation (got "
            f"{shares if isinstance(shares, str) else tuple(shares)}); the rest is for testing, e.g. 0.6,0.2"
        )
    return train, val


def _split(parts: Sequence[Parts]) -> tuple[Split, ...]:
    tensors = [(name, torch.from_numpy(part)) for name, part in parts]
    return tuple(Split(name, train=of == 1, val=of == 2, test=of == 3) for name, of in tensors)


# --- Given splits -----------------------------------------------------------------------------------------


def _of_column(raw: RawGraph, name: str) -> Array:
    values = raw.column(name)
    none = absent(values)
    part = np.zeros(raw.num_nodes, dtype=np.uint8)
    for node in np.flatnonzero(~none).tolist():
        text = str(values[node]).strip()
        if text in MISSING:  # no part is called so
            continue
        text = text.lower()
        if text not in SPELLINGS:
            raise ValueError(
                f"Expected train, val, test or nothing in column '{name}' (got '{values[node]}' in "
                f"{raw.row(node)}); correct it"
            )
        part[node] = SPELLINGS[text]
    return part


def _of_files(raw: RawGraph, folder: Path) -> Array:
    ids = map(_as_text, raw.extra.get("node_id") or range(raw.num_nodes))
    place: dict[str, int] = {}
    twice: set[str] = set()  # ids of tensors need not be unlike
    for node, node_id in enumerate(ids):
        if place.setdefault(node_id, node) != node:
            twice.add(node_id)
    part = np.zeros(raw.num_nodes, dtype=np.uint8)
    for number, title in enumerate(PARTS, start=1):
        path = _file_of(folder, title)
        for line, node_id in _ids_in(path):
            if node_id not in place:
                raise ValueError(
                    f"Expected ids of nodes in '{path}' (got '{node_id}' in line {line}, which is none); "
                    "correct it"
                )
            if node_id in twice:
                raise ValueError(
                    f"Expected ids of one node each in '{path}' (got '{node_id}' in line {line}, which "
                    f"several nodes of {raw.source} are called); give them different names in 'node_id'"
                )
            node = place[node_id]
            if part[node] not in (0, number):
                raise ValueError(
                    f"Expected each node in one part of the split in '{folder}' (got '{node_id}' in "
                    f"'{PARTS[part[node] - 1]}' and '{title}'); keep it in one of them"
                )
            part[node] = number
    return part


def _file_of(folder: Path, part: str) -> Path:
    choices = [folder / f"{part}{suffix}" for suffix in (".txt", ".csv", ".npy")]
    present = [path for path in choices if path.is_file()]
    if not present:
        raise FileNotFoundError(
            f"Expected a list of ids in one of {', '.join(f'{path}' for path in choices)} (got none); put it "
            "there, one id a line"
        )
    return present[0]


def _ids_in(path: Path) -> list[tuple[int, str]]:
    if path.suffix == ".npy":
        return [(line, _as_text(i)) for line, i in enumerate(read_array(path).ravel().tolist(), start=1)]
    lines = path.read_text(encoding="utf8").splitlines()
    ids = [(number, line.strip().strip('"')) for number, line in enumerate(lines, start=1) if line.strip()]
    return ids[1:] if path.suffix == ".csv" and ids and ids[0][1] == "id" else ids


def _as_text(node_id: object) -> str:
    # As a file of texts has it: a whole number without digits behind the point.
    whole = isinstance(node_id, float) and node_id.is_integer()
    return str(int(node_id) if whole else node_id).strip()  # type: ignore[call-overload]


def _of_masks(raw: RawGraph, title: str, *masks: Array) -> Parts:
    part = np.zeros(raw.num_nodes, dtype=np.uint8)
    for number, mask in enumerate(masks, start=1):
        twice = np.flatnonzero((part > 0) & mask)
        if len(twice):
            raise ValueError(
                f"Expected disjoint masks in split '{title}' of {raw.source} (got node {twice[0]} in "
                f"'{PARTS[part[twice[0]] - 1]}' and '{PARTS[number - 1]}'); keep it in one of them"
            )
        part[mask] = number
    return title, part


def _expect_no_leak(
    raw: RawGraph,
    title: str,
    part: Array,
    moments: Array | None,
    groups: Array | None,
    time: str | None,
    group: str | None,
) -> None:
    if moments is not None:
        for earlier, later in ((1, 2), (2, 3), (1, 3)):
            before, after = np.flatnonzero(part == earlier), np.flatnonzero(part == later)
            if len(before) and len(after) and moments[before].max() > moments[after].min():
                last, start = before[moments[before].argmax()], after[moments[after].argmin()]
                raise ValueError(
                    f"Expected '{PARTS[earlier - 1]}' before '{PARTS[later - 1]}' in split '{title}' by "
                    f"'{time}' (got {raw.row(int(last))} after {raw.row(int(start))}): the "
                    "future would leak; correct the split"
                )
    if groups is not None:
        used = np.flatnonzero(part > 0).tolist()
        first_of: dict[int, int] = {}
        for node in used:
            first = first_of.setdefault(int(groups[node]), node)
            if part[first] != part[node]:
                raise ValueError(
                    f"Expected each '{group}' in one part of split '{title}' (got {raw.row(first)} in "
                    f"'{PARTS[part[first] - 1]}' and {raw.row(node)} of the same in "
                    f"'{PARTS[part[node] - 1]}'): it would leak; correct the split"
                )


# --- Seeded splits ----------------------------------------------------------------------------------------


def _seeded(
    raw: RawGraph, target: Target, groups: Array | None, kind: str, train: float, val: float, group: str
) -> tuple[tuple[Split, ...], str]:
    labelled = target.labelled
    has_classes = target.y.dim() == 1 and not target.y.is_floating_point()
    y = target.y.numpy() if has_classes else np.where(labelled, 0, -1)
    if kind == "stratified" and not has_classes:
        raise ValueError(
            f"Expected classes for split='stratified' (got {target.kind}); use split='random' "
            "(--split random)"
        )
    if groups is not None:
        if len(np.unique(groups[labelled])) < 3:
            raise ValueError(
                f"Expected at least three groups in '{group}', one for each part (got "
                f"{len(np.unique(groups[labelled]))}); choose another column"
            )
        rule: rules.Rule = partial(rules.whole_groups, groups=groups, train=train, val=val)
        said = f"seeded splits by group '{group}'"
    elif has_classes and kind != "random":
        if np.bincount(y[labelled]).max() < 3:
            raise ValueError(
                f"Expected a class of at least three nodes in '{raw.label}', one for each part (got "
                f"{len(target.classes)} classes of at most {np.bincount(y[labelled]).max()}); choose another "
                "label, or pass kind='regression' (--kind regression) if it is a number"
            )
        rule, said = partial(rules.class_shares, train=train, val=val), "seeded splits, stratified by class"
    else:
        if labelled.sum() < 3:
            raise ValueError(
                f"Expected at least three labelled nodes, one for each part (got {labelled.sum()}); "
                "label more"
            )
        rule, said = partial(rules.shares, train=train, val=val), "seeded splits"
    # One name for all graphs: a graph that moves, or gets a feature more, keeps its splits.
    drawn = [rules.draw("own", i, y, rule) for i in range(rules.NUM_SPLITS)]
    # Few groups or nodes have few splits: twice the same would count as two.
    distinct = {part.tobytes(): part for part in drawn}.values()
    return _split([(f"random-{i}", part) for i, part in enumerate(distinct)]), said


def _by_time(moments: Array, labelled: Array, train: float, val: float, time: str) -> Array:
    known = moments[labelled]
    distinct, counts = np.unique(known, return_counts=True)
    if len(distinct) < 3:
        raise ValueError(
            f"Expected at least three different times in '{time}', one for each part (got {len(distinct)}); "
            "choose another column"
        )
    # Nodes of one time stay together: the cut is at the time that comes nearest to the share.
    ends = counts.cumsum() / counts.sum()
    first = min(int(np.abs(ends - train).argmin()), len(distinct) - 3)
    second = min(max(int(np.abs(ends - train - val).argmin()), first + 1), len(distinct) - 2)
    part = np.zeros(len(moments), dtype=np.uint8)
    part[labelled] = 1 + (known > distinct[first]) + (known > distinct[second])
    return part


def _moments(raw: RawGraph, name: str, labelled: Array) -> Array:
    values = np.asarray(raw.column(name))
    _expect_all(raw, name, values, labelled)
    if values.dtype.kind in "mM":
        return values.astype("datetime64[ns]").astype(np.int64)
    if values.dtype.kind in "biuf":
        _expect_finite(raw, name, values, labelled)
        return values
    out = np.zeros(len(values))
    stamps = [str(value) for value in values.tolist()]
    for cast in (float, lambda text: np.datetime64(text.rstrip("Z"), "ns").astype(np.int64)):
        try:
            for node in np.flatnonzero(labelled):
                out[node] = cast(stamps[node])
        except ValueError:
            failed = int(node)
        else:
            _expect_finite(raw, name, out, labelled)
            return out
    raise ValueError(
        f"Expected times in '{name}': numbers, or dates as 2026-11-29 (got '{stamps[failed]}' in "
        f"{raw.row(failed)}); correct it"
    )


def _expect_finite(raw: RawGraph, name: str, moments: Array, labelled: Array) -> None:
    # One that is not a number is neither before nor after another.
    wrong = np.flatnonzero(~np.isfinite(moments) & labelled)
    if len(wrong):
        raise ValueError(
            f"Expected finite times in '{name}' (got {moments[wrong[0]]} in {raw.row(int(wrong[0]))}); "
            "correct it"
        )


def _groups(raw: RawGraph, name: str, labelled: Array) -> Array:
    values = np.asarray(raw.column(name))
    _expect_all(raw, name, values, labelled)
    return np.unique(values.astype(str), return_inverse=True)[1]


def _expect_all(raw: RawGraph, name: str, values: Array, labelled: Array) -> None:
    if len(values) != raw.num_nodes or values.ndim != 1:
        raise ValueError(
            f"Expected one value per node in '{name}', {raw.num_nodes} (got {list(values.shape)}); correct it"
        )
    lacking = np.flatnonzero(absent(values) & labelled)
    if len(lacking):
        raise ValueError(
            f"Expected a value of '{name}' for every labelled node (got {none_of(raw.taken, name)} in "
            f"{raw.row(int(lacking[0]))}; {len(lacking)} in all); fill it in"
        )
