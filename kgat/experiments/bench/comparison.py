r"""A whole ``kgat compare`` beside that of another copy of the package: ``kgat bench comparison``."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import kgat
from kgat.experiments.bench import against, measure
from kgat.experiments.bench.rivals import OURS
from kgat.experiments.circumstances import circumstances
from kgat.experiments.ledger import append, read
from kgat.experiments.progress import progress

CLOCKS = ("wall", "cpu")
# Waits for all that a command leaves behind, servers of processes too, whose time would not be counted.
WATCHER = """
import ctypes, json, os, resource, subprocess, sys, time
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER
start = time.perf_counter()
code = subprocess.call(sys.argv[1:], stdout=subprocess.DEVNULL)
wall = time.perf_counter() - start
while True:
    try:
        os.wait()
    except ChildProcessError:
        break
used = resource.getrusage(resource.RUSAGE_CHILDREN)
print(json.dumps({"wall": wall, "cpu": used.ru_utime + used.ru_stime}))
sys.exit(code)
"""

Record = dict[str, Any]


def bench_comparison(
    arguments: Sequence[str],
    other: Path,
    rounds: int = 3,
    path: Path | None = None,
    shown: bool = False,
) -> Record:
    r"""Times a comparison of this package and of another copy, in turns, from its start to its end.

    Before the rounds each copy runs the comparison with one seed, so that what is compiled once is there.

    Args:
        arguments (list of str): What follows ``kgat compare``; ``--out`` is a folder that is removed.
        other (Path): The folder of the other copy.
        rounds (int, optional): Number of rounds. (default: :obj:`3`)
        path (Path, optional): The file of records; none is written if :obj:`None`. (default: :obj:`None`)
        shown (bool, optional): Whether to show a progress bar. (default: :obj:`False`)

    Returns:
        dict: A record of kind :obj:`"comparison"`: runs and epochs of both, and, by the clock and in CPU
        time of all processes together, the seconds of ours and how many times longer the other takes.

    Raises:
        ValueError: If the folder has no package.
        ChildProcessError: If a comparison fails.
    """
    candidate = against.name_of(str(other))
    folders = {OURS: Path(kgat.__file__).resolve().parents[1], candidate: other.resolve()}
    spent: dict[str, list[dict[str, float]]] = {name: [] for name in folders}
    work: dict[str, Any] = {}
    with progress("bench comparison", rounds * len(folders), shown=shown) as bar:
        for name, folder in folders.items():
            bar.note(f"{name} compiles")
            _run(folder, [*arguments, "--seeds", "1"])

        for number in range(rounds):
            for name in list(folders)[:: 1 if number % 2 == 0 else -1]:
                bar.note(name)
                seconds, work[name] = _run(folders[name], arguments)
                spent[name].append(seconds)
                said = f"  {seconds['wall']:.1f} s, {seconds['cpu']:.1f} s of CPU time"
                bar.done(name, [said], everywhere=True)
    record: Record = {"kind": "comparison", "arguments": _told(arguments), "candidate": candidate}
    record |= {
        "rounds": rounds,
        "work": work[OURS],
        "candidate_work": work[candidate],
        "cores": os.cpu_count(),
    }
    for clock in CLOCKS:
        ours, peer = ([seconds[clock] for seconds in spent[name]] for name in folders)
        record[clock] = {"seconds": measure.spread(ours), **measure.verdict(measure.ratios(peer, ours))}
    record |= {name: value for name, value in circumstances("cpu").items() if name != "threads"}
    if path is not None:
        append(path, record)
    return record


def _told(arguments: Sequence[str]) -> list[str]:
    # Where the data lie is nobody else's.
    told = list(arguments)
    while "--root" in told:
        at = told.index("--root")
        del told[at : at + 2]
    return [argument for argument in told if not argument.startswith("--root=")]


def _run(folder: Path, arguments: Sequence[str]) -> tuple[dict[str, float], dict[str, int]]:
    r"""Runs a comparison; returns its seconds by each clock, and how much it trained."""
    with tempfile.TemporaryDirectory() as place:
        command = [sys.executable, "-m", "kgat", "compare", *arguments, "--out", place]
        environment = {**os.environ, "PYTHONPATH": str(folder)}
        watched = [sys.executable, "-c", WATCHER, *command]
        done = subprocess.run(
            watched, cwd=place, env=environment, capture_output=True, text=True, check=False
        )
        if done.returncode:
            last = "".join(done.stderr.strip().splitlines()[-1:])
            raise ChildProcessError(
                f"Expected that 'kgat compare' of '{folder}' ends well (got {last}); correct what "
                "follows '--', or name another folder with --against"
            )
        results = [record for file in Path(place).rglob("*.jsonl") for record in read(file)]
        runs = [record for record in results if record["kind"] == "run"]
    return json.loads(done.stdout), {"runs": len(runs), "epochs": sum(record["epochs"] for record in runs)}
