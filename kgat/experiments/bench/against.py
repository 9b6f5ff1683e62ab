r"""Another copy of the package as a rival, such as that of the commit before: ``kgat bench ops --against``.

Both copies are measured by the code of this folder, each in a process of its own that holds its package under
its own name; they take turns, and what they compute is compared first.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from kgat.experiments.bench import contest, measure, worker
from kgat.experiments.bench.contest import MEMORY, Answers
from kgat.experiments.bench.rivals import OURS
from kgat.experiments.circumstances import commit_of

# How often both are started anew. Which blocks malloc, as it comes, gives back to the system depends on where
# they happen to lie in a process: one start says little of the next.
STARTS = {"R1": 3}


def name_of(folder: str) -> str:
    r"""Returns what records call a copy: by its commit, or by its folder where that is none of git.

    Raises:
        ValueError: If there is no package.
    """
    root = Path(folder).resolve()
    if not (root / "kgat" / "__init__.py").is_file():
        raise ValueError(
            f"Expected a folder with another copy of the package (got '{folder}'); e.g. that of: "
            "git worktree add ../before COMMIT"
        )
    return f"kgat {commit_of(root) or root.name}"


def answers(question: contest.Question, environment: Mapping[str, str]) -> Answers:
    r"""Answers a question of which the second candidate is another copy.

    Args:
        question (contest.Question): The job, with the folder of the other copy.
        environment (dict): More variables; of folders for compiled code each copy has its own.

    Raises:
        ChildProcessError: If a process ends before its work does.
    """
    alone = replace(question, candidates=[OURS], other=None)

    def process(name: str, asked: contest.Question) -> worker.Process:
        other = None if name == OURS else question.other
        places = {key: path if other is None else f"{path}-other" for key, path in environment.items()}
        return worker.Process(contest.__name__, asked, question.regime, places, other)

    with tempfile.TemporaryDirectory() as folder:
        if MEMORY in question.whats:
            for name in question.candidates:
                for answer in _all_of(process(name, alone)):
                    record = answer.get("record")
                    yield answer if record is None else {"record": {**record, "candidate": name}}
            return
        paths = {name: f"{folder}/{number}.pt" for number, name in enumerate(question.candidates)}
        starts = STARTS.get(question.regime, 1)
        about: dict[str, Any] = {}
        seconds: dict[str, dict[str, list[float]]] = {
            what: {name: [] for name in paths} for what in question.whats
        }
        for start in range(starts):
            yield {"say": f"start {start + 1} of {starts}"}
            with ExitStack() as both:
                sides: dict[str, Callable[..., dict[str, Any]]] = {}
                about = {}
                for name, path in paths.items():
                    weights = None if name == OURS else paths[OURS]
                    asked = replace(alone, told=path, weights=weights)
                    sides[name] = partial(_talk, both.enter_context(process(name, asked)))
                    about[name] = sides[name]()
                ours, other = (torch.load(path)["values"] for path in paths.values())
                if unequal := measure.check_equal(other, ours, partial(contest.exact, alone)):
                    yield from _refused(question, unequal)
                    return
                for what in question.whats:
                    yield {"say": what}
                    for name, some in _turns(question, what, sides, starts).items():
                        seconds[what][name] += some
        for what, of_names in seconds.items():
            for name, some in of_names.items():
                record = {
                    **{**question.key(name, what), **about[name], "starts": starts},
                    **{"seconds": measure.spread(some), "rounds": len(some)},
                }
                if name != OURS:
                    record |= measure.verdict(measure.ratios(some, of_names[OURS]))
                yield {"record": record}


def _all_of(process: worker.Process) -> Answers:
    with process:
        yield from process.answers()


def _talk(process: worker.Process, *words: Any) -> dict[str, Any]:
    if words:
        process.tell(list(words))
    return next(answer for answer in process.answers() if "say" not in answer)


def _refused(question: contest.Question, unequal: str) -> Answers:
    for what in question.whats:
        yield {"record": {**question.key(question.candidates[1], what), "skipped": unequal, "unequal": True}}


def _turns(
    question: contest.Question, what: str, sides: Mapping[str, Callable[..., Any]], starts: int
) -> dict[str, list[float]]:
    def turn(name: str, repeats: int) -> float:
        return float(sides[name](what, repeats)["seconds"])

    budget = question.seconds / len(question.whats) / starts
    once = [min(turn(name, 1) for _ in range(2)) for name in sides]
    repeats = measure.repeats_of(once, budget)
    return measure.in_rounds({name: partial(turn, name, repeats) for name in sides}, budget)
