r"""What records hold: the names that tables and figures read, by the kind of record."""

import math
from collections.abc import Callable, Mapping
from typing import Any

__all__ = ["BASELINE", "COMPARISON", "METRICS", "RESULTS", "fault"]

RESULTS = "results.jsonl"
METRICS = {"accuracy": "accuracy", "roc_auc": "ROC AUC"}  # as tables and figures call them
BASELINE = "gat"  # the model that others are compared with
COMPARISON = ("run", "tune", "cost", "attention")  # kinds of records of a comparison

Form = Mapping[str, Any]
Check = tuple[str, Callable[[Any], bool]]


def _is_number(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    # As bounds: a whole number of JSON may be larger than any float.
    return -1e300 < value < 1e300 and math.isfinite(value)


TEXT: Check = ("a text", lambda value: isinstance(value, str))
NUMBER: Check = ("a finite number", _is_number)
WHOLE: Check = (
    "a whole number",
    lambda value: isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63,
)
TRUTH: Check = ("true or false", lambda value: isinstance(value, bool))
OBJECT: Check = ("an object", lambda value: isinstance(value, dict))
METRIC: Check = (f"one of {', '.join(METRICS)}", lambda value: isinstance(value, str) and value in METRICS)
ANY: Check = ("anything", lambda value: True)


def _list_of(check: Check) -> Check:
    def holds(value: Any) -> bool:
        return isinstance(value, list) and all(map(check[1], value))

    return f"a list, each {check[0]}", holds


def _or_null(check: Check) -> Check:
    return f"{check[0]} or null", lambda value: value is None or check[1](value)


class Optional:
    r"""What a record may lack, or have as null."""

    def __init__(self, form: "Check | Form") -> None:
        self.form = form


def fault(record: Mapping[str, Any]) -> tuple[str, str, Any] | None:
    r"""Returns the first name of a record that has not the form of its kind, what was expected there and
    what it is; nothing if there is none.

    Example:
        >>> fault({"kind": "attention", "dataset": "Cora", "model": 3})
        ('model', 'a text', 3)
    """
    return _fault(record, FORMS.get(record.get("kind", ""), {}))


def _fault(value: Any, form: Form, within: str = "") -> tuple[str, str, Any] | None:
    for name, check in form.items():
        full = f"{within}{name}"
        if isinstance(check, Optional):
            if value.get(name) is None:
                continue
            check = check.form
        if isinstance(check, Mapping):
            inner = value.get(name)
            if not isinstance(inner, dict):
                return full, OBJECT[0], inner
            parts = dict.fromkeys(inner, check["*"]) if "*" in check else check
            for key in parts if "*" in check else ():
                if not isinstance(inner[key], dict):
                    return f"{full}.{key}", OBJECT[0], inner[key]
            wrong = _fault(inner, parts, f"{full}.")
            if wrong is not None:
                return wrong
        elif name not in value or not check[1](value[name]):
            return full, check[0], value.get(name)
    return None


SETTINGS = (
    *("num_layers", "heads", "hidden_channels", "out_heads", "act", "norm", "residual", "projections"),
    *("dropout", "input_dropout", "value_dropout", "lr", "weight_decay", "max_epochs", "patience"),
)
SETTING: Check = (
    "a number, a text, true, false or null",
    lambda value: value is None or isinstance(value, str | bool) or _is_number(value),
)
CONFIG = dict.fromkeys(SETTINGS, SETTING)
OF_RUNS: Form = {"dataset": TEXT, "model": TEXT, "seed": WHOLE, "config": CONFIG, "metric": METRIC}
FORMS: Mapping[str, Form] = {
    "run": {
        **OF_RUNS,
        "split": TEXT,
        "test": NUMBER,
        "val": NUMBER,
        "train": Optional(NUMBER),
        "parameters": WHOLE,
        "best_epoch": Optional(WHOLE),
        "epochs": Optional(WHOLE),
        "seconds": Optional(NUMBER),
        "versions": {"torch": TEXT, "torch_geometric": TEXT},
        "curve": Optional(OBJECT),
        "tuned": Optional({"settings": WHOLE, "seeds": WHOLE, "space": OBJECT}),
    },
    "tune": {**OF_RUNS, "key": TEXT, "val": _or_null(NUMBER)},
    "cost": {
        "dataset": TEXT,
        "baseline": TEXT,
        "models": {
            "*": {"seconds_ratio": _list_of(NUMBER), "memory_ratio": _or_null(NUMBER), "contended": TRUTH}
        },
    },
    "attention": {"dataset": TEXT, "model": TEXT, "key": Optional(TEXT)},
    "sequence": {
        "dataset": TEXT,
        "variant": TEXT,
        "seed": WHOLE,
        "metric": TEXT,
        "setting": OBJECT,
        "attention": OBJECT,
        "val": _or_null(NUMBER),
        "test": _or_null(NUMBER),
    },
    "regression": {
        "dataset": TEXT,
        "model": TEXT,
        "seed": WHOLE,
        "unit": TEXT,
        "setting": OBJECT,
        "test": NUMBER,
    },
    "ops": dict.fromkeys(("scenario", "subject", "candidate", "what", "regime"), TEXT),
    "sequence cost": {"subject": TEXT, "length": WHOLE, "sizes": OBJECT},
}
