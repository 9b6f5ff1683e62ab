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

    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        if MEMORY in question.whats:
            for name in question.candidates:
                for answer in stack.enter_context(process(name, alone)).answers():
                    record = answer.get("record")
                    yield answer if record is None else {"record": {**record, "candidate": name}}
            return
        paths = {name: f"{folder}/{number}.pt" for number, name in enumerate(question.candidates)}
        sides: dict[str, Callable[..., dict[str, Any]]] = {}
        for name, path in paths.items():
            yield {"say": f"{name} builds"}
            sides[name] = partial(_talk, stack.enter_context(process(name, replace(alone, told=path))))
        about = {name: side() for name, side in sides.items()}
        ours, other = (torch.load(path) for path in paths.values())
        if unequal := measure.check_equal(other, ours, partial(contest.exact, alone)):
            yield from _refused(question, unequal)
            return
        for what in question.whats:
            yield {"say": what}
            yield from _turns(question, what, sides, about)


def _talk(process: worker.Process, *words: Any) -> dict[str, Any]:
    if words:
        process.tell(list(words))
    return next(answer for answer in process.answers() if "say" not in answer)


def _refused(question: contest.Question, unequal: str) -> Answers:
    for what in question.whats:
        yield {"record": {**question.key(question.candidates[1], what), "skipped": unequal, "unequal": True}}


def _turns(
    question: contest.Question, what: str, sides: Mapping[str, Callable[..., Any]], about: Mapping[str, Any]
) -> Answers:
    def turn(name: str, repeats: int) -> float:
        return float(sides[name](what, repeats)["seconds"])

    budget = question.seconds / len(question.whats)
    once = [min(turn(name, 1) for _ in range(2)) for name in sides]
    repeats = measure.repeats_of(once, budget)
    seconds = measure.in_rounds({name: partial(turn, name, repeats) for name in sides}, budget)
    for name in sides:
        record = {
            **{**question.key(name, what), **about[name], "repeats": repeats},
            **{"seconds": measure.spread(seconds[name]), "rounds": len(seconds[name])},
        }
        if name != OURS:
            record |= measure.verdict(measure.ratios(seconds[name], seconds[OURS]))
        yield {"record": record}
