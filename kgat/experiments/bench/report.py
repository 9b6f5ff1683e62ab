r"""Tables of ``kgat bench``, from its records alone."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import kgat
from kgat.experiments.table import Table, render

OURS = "ours"
WHATS = ("forward", "forward+backward")
PEAKS = ("forward_bytes", "both_bytes")
# Regimes of time and of memory on each kind of device, in the order of columns.
TIMES = {"cpu": ("R1", "R2"), "cuda": ("cuda",)}
MEMORY = {"cpu": "memory", "cuda": "cuda memory"}

Record = Mapping[str, Any]


@cache
def bars() -> list[dict[str, Any]]:
    r"""Returns what ours is to reach, one bar per scenario, subject and rival. These targets are
    where the sources of the project are.

    Example:
        >>> bars()[0]["subject"]
        'gat layer'
    """
    path = Path(kgat.__file__).parents[1] / "benchmarks" / "bars.toml"
    table = tomllib.loads(path.read_text(encoding="utf8")) if path.is_file() else {"bar": []}
    return [
        {**bar, "subject": subject}
        for bar in table["bar"]
        for subject in ([bar["subject"]] if isinstance(bar["subject"], str) else bar["subject"])
    ]


def bar_of(
    scenario: str, subject: str, rival: str, regime: str, backward: bool, part: str | None = None
) -> float | None:
    r"""Returns the ratio that ours is to reach, if there is a bar: of all of it, or of the attention alone.

    Example:
        >>> bar_of("arxiv/10", "gat layer", "PyG", "R2", backward=True)
        4.2
    """
    for bar in bars():
        of = (bar["scenario"], bar["subject"], bar["rival"], bar.get("part"))
        if of == (scenario, subject, rival, part) and regime in bar:
            return float(bar[regime][backward])
    return None


def tables(records: Sequence[Record], form: str = "markdown") -> str:
    r"""Returns the results: per scenario the rivals' ratios with the bars, then our own figures.

    Args:
        records (list of dict): What :func:`kgat.experiments.bench.ops.run` wrote. Of repeated ones the
            last counts.
        form (str, optional): As of :func:`kgat.experiments.table.render`. (default: :obj:`"markdown"`)

    Raises:
        ValueError: If there are no such records.
    """
    of_ops = [record for record in records if record.get("kind") == "ops"]
    if not any("skipped" not in record for record in of_ops):
        raise ValueError("Expected records of 'kgat bench ops' (got none); run it first")
    # Another copy of the package has a process of its own.
    paired = "paired in one process"
    if starts := max((record.get("starts", 0) for record in of_ops), default=0):
        paired = f"of two processes that take turns, in R1 of {starts} starts of both"
    blocks: list[str | Table] = [
        "How many times longer, or how much more memory, a rival takes than ours: median of per-round ratios "
        f"with [smallest, largest], {paired}. R1: malloc as it comes; R2: memory is recycled. "
        "† contended: rounds vary by more than 1.6×, do not trust it."
    ]
    if any("own_part" in record for record in of_ops):
        blocks.append(
            "Of a layer also its *ceiling*, the ratio if ours were its projections and nothing else, and "
            "*attention*, the ratio of what both take beyond those projections."
        )
    sections: dict[tuple[str, int, str], _Section] = {}
    for record in of_ops:
        key = (record["on"], record["cpu_threads"], record["scenario"])
        section = sections.setdefault(key, _Section(record["on"], record["scenario"]))
        place = (record["subject"], record["candidate"], record["what"], record["regime"])
        section.records[place] = record
    for section in sections.values():
        blocks += section.blocks()
    return render(blocks, form)


def epochs(records: Sequence[Record], form: str = "markdown") -> str:
    r"""Returns how many times longer stock GAT takes for a training step, a validation and the sum of both
    medians.

    Args:
        records (list of dict): What :func:`kgat.experiments.bench.epoch.bench_epoch` wrote. Of repeated ones
            the last counts.
        form (str, optional): As of :func:`kgat.experiments.table.render`. (default: :obj:`"markdown"`)
    """
    cases: dict[tuple[Any, ...], dict[str, Record]] = {}
    for record in records:
        if record.get("kind") == "epoch":
            case = (record["dataset"], record["model"], record["features"], record["threads"])
            cases.setdefault(case, {})[record["what"]] = record
    head = ["KernelGAT", "features", "step", "validation", "both"]
    head += ["ours, ms of step + validation", "stock GAT, ms"]
    lines = []
    for (dataset, model, features, threads), of_case in cases.items():
        both = [of_case.get(what, {}) for what in ("step", "validation")]
        ours, peer = ([_middle(one, name) for one in both] for name in ("seconds", "peer_seconds"))
        whole = "–" if None in (*ours, *peer) else f"{sum(peer) / sum(ours):.2f}"  # type: ignore[arg-type]
        name = f"{dataset}, {model}" + f", {threads} threads" * (threads != 1)
        cells = [_ratio(one) if one else "–" for one in both]
        lines.append([name, features, *cells, whole, *(_pair(one, 1e3, " + ") for one in (ours, peer))])
    commits = ", ".join(dict.fromkeys(str(one["commit"]) for case in cases.values() for one in case.values()))
    clocks = " and ".join(dict.fromkeys(one["clock"] for case in cases.values() for one in case.values()))
    said = (
        "How many times longer stock GAT on dense features takes: median of per-round ratios with [smallest, "
        f"largest], {clocks} time. † contended: rounds vary by more than 1.6×. Commit {commits}."
    )
    return render([said, Table(head, lines, names=2)], form)


def threads(records: Sequence[Record], form: str = "markdown") -> str:
    r"""Returns how many times longer one thread takes than several. Of repeated records the last counts.

    Args:
        records (list of dict): What :func:`kgat.experiments.bench.threads.bench_threads` returned.
        form (str, optional): As of :func:`kgat.experiments.table.render`. (default: :obj:`"markdown"`)
    """
    cells: dict[tuple[str, ...], dict[tuple[str, str], str]] = {}
    for record in records:
        if record.get("kind") == "threads":
            line = (record["scenario"], record["subject"], str(record["threads"]))
            cells.setdefault(line, {})[record["what"], record["regime"]] = _ratio(record)
    columns = [(what, regime) for what in WHATS for regime in TIMES["cpu"]]
    head = ["graph", "ours", "threads", *(", ".join(column) for column in columns)]
    rows = [[*line, *(found.get(column, "–") for column in columns)] for line, found in cells.items()]
    return render([Table(head, rows, names=3)], form)


def memory(records: Sequence[Record], form: str = "markdown") -> str:
    r"""Returns what layers need on graphs of some sizes. Of repeated records the last counts.

    Args:
        records (list of dict): What :func:`kgat.experiments.bench.memory.bench_memory` returned.
        form (str, optional): As of :func:`kgat.experiments.table.render`. (default: :obj:`"markdown"`)
    """
    rows: dict[tuple[str, ...], list[str]] = {}
    for record in records:
        if record.get("kind") == "memory":
            size = f"{record['heads']} × {record['channels']}"
            key = (record["kernel"], size, f"{record['nodes']:,}", f"{record['edges']:,}")
            peaks = (
                record["node_bytes"],
                *(record[f"{what}_bytes"] for what in ("sorting", "forward", "both")),
            )
            rows[key] = [_number(record["sorting_seconds_per_edge"], 1e9)]
            rows[key] += ["–" if peak is None else f"{peak / 2**30:.2f}" for peak in peaks]
    head = ["layer", "heads × channels", "nodes", "edges", "sorting, ns per edge", "a value per node, GiB"]
    head += [f"peak of {what}, GiB" for what in ("sorting", *WHATS)]
    return render([Table(head, [[*key, *row] for key, row in rows.items()], names=2)], form)


def comparisons(records: Sequence[Record], form: str = "markdown") -> str:
    r"""Returns how many times longer comparisons take with another copy. Of repeated records the last counts.

    Args:
        records (list of dict): What :func:`kgat.experiments.bench.comparison.bench_comparison` returned.
        form (str, optional): As of :func:`kgat.experiments.table.render`. (default: :obj:`"markdown"`)
    """
    rows: dict[tuple[str, ...], list[str]] = {}
    for record in records:
        if record.get("kind") == "comparison":
            both = (record["work"], record["candidate_work"])
            key = (f"`{' '.join(['kgat compare', *record['arguments']])}`", record["candidate"])
            rows[key] = [
                *(" / ".join(f"{work[what]:,}" for work in both) for what in ("runs", "epochs")),
                *(_ratio(record[clock]) for clock in ("wall", "cpu")),
                _number(_middle(record["wall"], "seconds"), 1),
            ]
    head = ["command", "against", "runs, ours / theirs", "epochs, ours / theirs"]
    head += ["by the clock", "CPU time", "ours, s by the clock"]
    return render([Table(head, [[*key, *row] for key, row in rows.items()], names=2)], form)


class _Section:
    r"""One scenario on one device.

    Args:
        on (str): ``"cpu"`` or ``"cuda"``.
        scenario (str): Its name.
    """

    def __init__(self, on: str, scenario: str) -> None:
        self.on, self.scenario = on, scenario
        self.records: dict[tuple[str, str, str, str], Record] = {}  # by subject, candidate, what, regime
        self.columns = [(what, regime) for what in WHATS for regime in TIMES[on]]

    def blocks(self) -> Iterator[str | Table]:
        measured = [record for record in self.records.values() if "skipped" not in record]
        if measured:
            yield self._heading(measured)
            for table in (self._rivals(), self._ours()):
                if table.rows:
                    yield table
        reasons: dict[str, dict[str, None]] = {}
        for (subject, candidate, _, _), record in self.records.items():
            if "skipped" in record:
                reasons.setdefault(record["skipped"], {})[f"{candidate} ({subject})"] = None
        for reason, names in reasons.items():
            who = ", ".join(names) if measured else f"**{self.scenario}**"
            yield f"Not measured, {who}: {reason.rstrip('.')}."

    def _heading(self, measured: Sequence[Record]) -> str:
        one = measured[-1]
        cpu = self.on == "cpu"
        threads = f", {one['cpu_threads']} thread{'s' * (one['cpu_threads'] != 1)}" if cpu else ""
        versions = one["versions"]
        names = ("torch", "torch_geometric", "numba", "triton", "dgl")
        commits = ", ".join(dict.fromkeys(str(record["commit"]) for record in measured))
        timed = (record.get("clock", "wall") for record in measured if "seconds" in record)
        clocks = f"; {' and '.join(dict.fromkeys(timed))} time" if cpu else ""
        return (
            f"**{self.scenario}.** {one['graph']} graph, {one['nodes']:,} nodes, {one['edges']:,} edges with "
            f"loops, {one['in_channels']} → {one['heads']} × {one['out_channels']}. "
            f"{one['processor'] if cpu else one['device']}{threads}{clocks}; "
            f"{', '.join(f'{name} {versions[name]}' for name in names if name in versions)}; "
            f"commit {commits}."
        )

    def _head(self, unit: str) -> list[str]:
        several = len(TIMES[self.on]) > 1
        return [f"{what}{unit}{f', {regime}' if several else ''}" for what, regime in self.columns]

    def _rivals(self) -> Table:
        head = ["ours", "against", *self._head(""), *(f"memory, {what}" for what in WHATS)]
        lines = []
        for subject, rival in dict.fromkeys((s, c) for s, c, _, _ in self.records if c != OURS):
            cells = [self._time(subject, rival, what, regime) for what, regime in self.columns]
            cells += [self._memory(subject, rival, backward) for backward in (False, True)]
            if any(cell != "–" for cell in cells):
                of_both = (record for key, record in self.records.items() if key[:2] == (subject, rival))
                notes = dict.fromkeys(record["note"] for record in of_both if "note" in record)
                lines.append([subject, rival + (f" ({', '.join(notes)})" if notes else ""), *cells])
        return Table(head, lines, names=2)

    def _time(self, subject: str, rival: str, what: str, regime: str) -> str:
        record = self.records.get((subject, rival, what, regime), {})
        if "ratio" not in record:
            return "–"
        cell = _ratio(record) + self._judged(record["ratio"][0], subject, rival, regime, what == WHATS[1])
        if "own_part" in record:
            attention = record["own_part"][0]
            cell += f"<br>ceiling {record['ceiling'][0]:.2f}, attention {attention:.2f}"
            cell += self._judged(attention, subject, rival, regime, what == WHATS[1], "attention")
        return cell

    def _memory(self, subject: str, rival: str, backward: bool) -> str:
        regime = MEMORY[self.on]
        both = (self.records.get((subject, name, "memory", regime), {}) for name in (OURS, rival))
        ours, peer = (record.get(PEAKS[backward]) for record in both)
        if not ours or peer is None:
            return "–"
        return f"{peer / ours:.1f}{self._judged(peer / ours, subject, rival, regime, backward)}"

    def _judged(
        self, value: float, subject: str, rival: str, regime: str, backward: bool, part: str | None = None
    ) -> str:
        bar = bar_of(self.scenario, subject, rival, regime, backward, part)
        if bar is None:
            return ""
        return f"<br>bar {bar:g}: {'met' if value >= bar else '**not met**'}"

    def _ours(self) -> Table:
        head = ["ours", *self._head(", ms"), "linear alone, ms", "of copy speed", "peak, MB"]
        head += ["first call, s", "sorting edges, s"]
        lines = []
        for subject in dict.fromkeys(s for s, _, _, _ in self.records):
            times = [self.records.get((subject, OURS, *column), {}) for column in self.columns]
            last = [self.records.get((subject, OURS, what, TIMES[self.on][-1]), {}) for what in WHATS]
            peak = self.records.get((subject, OURS, "memory", MEMORY[self.on]), {})
            cells = [
                *(_number(_middle(record, "seconds"), 1e3) for record in times),
                _pair([_middle(record, "linear_seconds") for record in last], 1e3),
                _pair([record.get("copy_fraction") for record in last], 1.0),
                _pair([peak.get(name) for name in PEAKS], 1e-6),
                _number(peak.get("first_seconds"), 1.0),
                _number(peak.get("structure_seconds"), 1.0),
            ]
            if any(cell != "–" for cell in cells):
                lines.append([subject, *cells])
        return Table(head, lines, names=2)


def _ratio(record: Record) -> str:
    middle, low, high = record["ratio"]
    return f"{middle:.2f}{'†' if record['contended'] else ''} [{low:.2f}, {high:.2f}]"


def _middle(record: Record, name: str) -> float | None:
    return record[name][0] if name in record else None


def _number(value: float | None, scale: float) -> str:
    if value is None:
        return "–"
    scaled = value * scale
    return f"{scaled:,.0f}" if scaled >= 100 else f"{scaled:.3g}"


def _pair(values: Sequence[float | None], scale: float, between: str = " / ") -> str:
    return "–" if all(v is None for v in values) else between.join(_number(v, scale) for v in values)


def costs(records: Sequence[Record], form: str = "markdown") -> str:
    r"""Returns medians of time, of speed as a multiple of torch's softmax attention, and peaks of memory, of
    attention on sequences.

    Args:
        records (list of dict): What :func:`kgat.experiments.bench.sequences.run` wrote.
        form (str, optional): As of :func:`kgat.experiments.table.render`. (default: :obj:`"markdown"`)
    """
    lengths = sorted({record["length"] for record in records})
    subjects = dict.fromkeys(record["subject"] for record in records)
    cells = {(record["subject"], record["length"]): _cost(record) for record in records}
    rows = [[name, *(cells.get((name, length), "–") for length in lengths)] for name in subjects]
    return render([Table(["ms, speed, MB", *(f"{length:,}" for length in lengths)], rows)], form)


def _cost(record: Record) -> str:
    if "failed" in record:
        return "failed"
    speed = f"{record['speed'][0]:.2g}×" if "speed" in record else "–"
    peak = "–" if record["bytes"] is None else f"{record['bytes'] / 1e6:,.0f}"
    return f"{_number(record['seconds'][0], 1e3)}, {speed}, {peak}"


# By the kind of records.
TABLES = {"ops": tables, "threads": threads, "memory": memory, "comparison": comparisons}
