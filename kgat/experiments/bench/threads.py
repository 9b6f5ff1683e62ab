r"""How much faster several threads are than one: ``kgat bench threads``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from kgat.experiments.bench import measure, rivals, worker
from kgat.experiments.bench.contest import BOTH, FORWARD
from kgat.experiments.bench.rivals import OURS, SUBJECTS
from kgat.experiments.bench.scenarios import SCENARIOS, named
from kgat.experiments.circumstances import circumstances
from kgat.experiments.ledger import append
from kgat.experiments.progress import progress

DEFAULT = ("gat layer", "dot layer", "gat core", "dot core")
REGIMES = ("R1", "R2")

Record = dict[str, Any]


@dataclass(frozen=True)
class Question:
    r"""What a process is asked.

    Args:
        scenario (str): Name of the graph.
        subject (str): Name of a layer, or of the core that is attention's own part of it.
        regime (str): How memory is allocated, one of :data:`REGIMES`.
        threads (int): Number of threads that are timed against one.
        rounds (int): Number of rounds.
        root (str, optional): Folder of the data sets.
    """

    scenario: str
    subject: str
    regime: str
    threads: int
    rounds: int
    root: str | None
    device = "cpu"


def bench_threads(
    scenarios: Sequence[str],
    subjects: Sequence[str] = DEFAULT,
    threads: int = 2,
    rounds: int = 11,
    root: str | None = None,
    path: Path | None = None,
    shown: bool = False,
    fresh: bool = False,
) -> list[Record]:
    r"""Times our layers and attention cores on one thread and on several, in turns in one process.

    Args:
        scenarios (list of str): Names of graphs.
        subjects (list of str, optional): Names of layers and cores. (default: :data:`DEFAULT`)
        threads (int, optional): Number of threads. (default: :obj:`2`)
        rounds (int, optional): Number of rounds. (default: :obj:`11`)
        root (str, optional): Folder of the data sets. (default: :obj:`None`)
        path (Path, optional): The file of records; none is written if :obj:`None`. (default: :obj:`None`)
        shown (bool, optional): Whether to show a progress bar. (default: :obj:`False`)
        fresh (bool, optional): Whether to measure also what the file holds. (default: :obj:`False`)

    Returns:
        list of dict: Records of kind :obj:`"threads"`: how many times longer one thread takes.

    Raises:
        ValueError: If a name is unknown, or there are fewer than two threads.
    """
    if threads < 2:
        raise ValueError(f"Expected at least 2 threads to time against one (got {threads}); pass --threads 2")
    records: list[Record] = []
    graphs, parts = named(scenarios, SCENARIOS, "scenarios", some=True), named(subjects, SUBJECTS, "subjects")
    jobs = [(graph.name, part.name, regime) for graph in graphs for part in parts for regime in REGIMES]
    with progress("bench threads", len(jobs), shown=shown) as bar:
        for job in jobs:
            bar.note(", ".join(job))
            question = Question(*job, threads, rounds, root)
            known = [] if fresh else worker.there(path, "threads", _asked(question))
            # Both of its passes, or it was cut short between them.
            if {record["what"] for record in known} == {FORWARD, BOTH}:
                records += known[-2:]
            else:
                for record in worker.ask(__name__, question, job[-1]):
                    records.append(record)
                    if path is not None:
                        append(path, record)
            lines = (
                f"  {record['what']}: {record['ratio'][0]:.2f}x [{record['ratio'][1]:.2f}, "
                f"{record['ratio'][2]:.2f}]{' contended: do not trust it' * record['contended']}"
                for record in records[-2:]
            )
            bar.done(", ".join(job), lines, everywhere=True)
    return records


def _asked(question: Question) -> Record:
    return {name: value for name, value in asdict(question).items() if name != "root"}


def answers(question: Question) -> Iterator[Record]:
    r"""Answers in a fresh process."""
    scenario = SCENARIOS[question.scenario]
    graph = scenario.load(question.root, "cpu")
    ours = rivals.build(SUBJECTS[question.subject], scenario, graph, [OURS])[OURS]
    grad = torch.randn_like(ours.forward())

    def run(threads: int, step: measure.Step) -> None:
        torch.set_num_threads(threads)
        step()

    steps: dict[str, measure.Step] = {FORWARD: ours.forward, BOTH: partial(ours.forward_and_backward, grad)}
    for what, step in steps.items():
        turns = {number: partial(run, number, step) for number in (1, question.threads)}
        seconds = measure.take_turns(
            {str(number): turn for number, turn in turns.items()},
            *(ours.clear, float("inf"), "cpu", question.rounds + 2),
        )
        one, several = (values[2:] for values in seconds.values())
        yield {
            **{"kind": "threads", **_asked(question), "what": what, "nodes": graph.x.size(0)},
            **{"edges": graph.edge_index.size(1), "graph": graph.source},
            **measure.verdict(measure.ratios(one, several)),
            "seconds": measure.spread(several),
            "cores": torch.multiprocessing.cpu_count(),
            **{name: value for name, value in circumstances("cpu").items() if name != "threads"},
        }
