r"""Tables of ``kgat bench ops``, ``epoch``, ``threads`` and ``sequences``, from their records alone."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import kgat
from kgat.experiments.table import Table, render

BEGIN, END = "<!-- ops:begin -->", "<!-- ops:end -->"  # of other kinds, theirs in place of ops

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


def bar_of(scenario: str, subject: str, rival: str, regime: str, backward: bool) -> float | None:
    r"""Returns the ratio that ours is to reach, if there is a bar.

    Example:
        >>> bar_of("arxiv/10", "gat layer", "PyG", "R2", backward=True)
        4.2
    """
    for bar in bars():
        if (bar["scenario"], bar["subject"], bar["rival"]) == (scenario, subject, rival) and regime in bar:
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
    blocks: list[str | Table] = [
        "How many times longer, or how much more memory, a rival takes than ours: median of per-round ratios "
        "with [smallest, largest], paired in one process. R1: malloc as it comes; R2: memory is recycled. "
        "† contended: rounds vary by more than 1.6×, do not trust it."
    ]
    sections: dict[tuple[str, int, str], _Section] = {}
    for record in of_ops:
        key = (record["on"], record["cpu_threads"], record["scenario"])
        section = sections.setdefault(key, _Section(record["on"], record["scenario"]))
        place = (record["subject"], record["candidate"], record["what"], record["regime"])
        section.records[place] = record
    for section in sections.values():
        blocks += section.blocks()
    return render([*blocks, *_epochs(records)], form)


def _epochs(records: Sequence[Record]) -> Iterator[str | Table]:
    # Of repeated ones the last counts.
    last = {(r["dataset"], r["features"], r["threads"]): r for r in records if r.get("kind") == "epoch"}
    if last:
        yield "**Epochs.** How many times longer stock GAT takes."
        ours = "a training epoch of KernelGAT, kernel additive"
        head = [ours, "CPU threads", "stock GAT on dense features"]
        lines = [
            [f"{dataset}, {features} features", str(threads), _ratio(record)]
            for (dataset, features, threads), record in last.items()
        ]
        yield Table(head, lines, names=2)


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
            yield f"Not measured, {', '.join(names) if measured else f'**{self.scenario}**'}: {reason}."

    def _heading(self, measured: Sequence[Record]) -> str:
        one = measured[-1]
        cpu = self.on == "cpu"
        threads = f", {one['cpu_threads']} thread{'s' * (one['cpu_threads'] != 1)}" if cpu else ""
        versions = one["versions"]
        names = ("torch", "torch_geometric", "numba", "triton", "dgl")
        commits = ", ".join(dict.fromkeys(str(record["commit"]) for record in measured))
        return (
            f"**{self.scenario}.** {one['graph']} graph, {one['nodes']:,} nodes, {one['edges']:,} edges with "
            f"loops, {one['in_channels']} → {one['heads']} × {one['out_channels']}. "
            f"{one['processor'] if cpu else one['device']}{threads}; "
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
        return _ratio(record) + self._judged(record["ratio"][0], subject, rival, regime, what == WHATS[1])

    def _memory(self, subject: str, rival: str, backward: bool) -> str:
        regime = MEMORY[self.on]
        both = (self.records.get((subject, name, "memory", regime), {}) for name in (OURS, rival))
        ours, peer = (record.get(PEAKS[backward]) for record in both)
        if not ours or peer is None:
            return "–"
        return f"{peer / ours:.1f}{self._judged(peer / ours, subject, rival, regime, backward)}"

    def _judged(self, value: float, subject: str, rival: str, regime: str, backward: bool) -> str:
        bar = bar_of(self.scenario, subject, rival, regime, backward)
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


def _pair(values: Sequence[float | None], scale: float) -> str:
    return "–" if all(v is None for v in values) else " / ".join(_number(v, scale) for v in values)


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
TABLES = {"ops": tables, "threads": threads}
