r"""What records hold: the names that tables and figures read, by the kind of record."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from kgat.measures import MEASURES

__all__ = ["BASELINE", "COMPARISON", "CONTENDED", "METRICS", "RESULTS", "SEQUENCE_BASELINE", "fault"]

RESULTS = "results.jsonl"
METRICS = {name: measure.label for name, measure in MEASURES.items()}  # as tables and figures call them
BASELINE = "gat"  # the model that others are compared with
SEQUENCE_BASELINE = "torch softmax"  # the attention whose time others take turns with
ROUNDING = 1e-6  # of a score, beyond its bounds
CONTENDED = 1.6  # largest over smallest ratio of a round above which a timing is not to be trusted
COMPARISON = ("run", "tune", "cost", "attention")  # kinds of records of a comparison

# By name; one that ends with "?" may be missing or null, and "*" stands for all names.
Form = Mapping[str, Any]


class Check(NamedTuple):
    r"""What a value is, in words, and whether one is."""

    what: str
    holds: Callable[[Any], bool]

    @property
    def or_null(self) -> "Check":
        return Check(f"{self.what} or null", lambda value: value is None or self.holds(value))

    @property
    def listed(self) -> "Check":
        return Check(
            f"a list, each {self.what}", lambda value: isinstance(value, list) and all(map(self.holds, value))
        )


def _is_number(value: Any) -> bool:
    # As bounds: a whole number of JSON may be larger than any float.
    return isinstance(value, int | float) and not isinstance(value, bool) and -1e300 < value < 1e300


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63


TEXT = Check("a text", lambda value: isinstance(value, str))
NUMBER = Check("a finite number", _is_number)
WHOLE = Check("a whole number", _is_whole)
TRUTH = Check("true or false", lambda value: isinstance(value, bool))
OBJECT = Check("an object", lambda value: isinstance(value, dict))
METRIC = Check(f"one of {', '.join(METRICS)}", lambda value: isinstance(value, str) and value in METRICS)


def fault(record: Mapping[str, Any]) -> tuple[str, str, Any] | None:
    r"""Returns the first name of a record that has not the form of its kind, what was expected there and
    what it is; nothing if there is none.

    Example:
        >>> fault({"kind": "attention", "dataset": "Cora", "model": 3})
        ('model', 'a text', 3)
    """
    return _fault(record, FORMS.get(record.get("kind", ""), {})) or _score_fault(record)


def _score_fault(record: Mapping[str, Any]) -> tuple[str, str, Any] | None:
    measure = MEASURES.get(record.get("metric", ""))
    if measure is None or record.get("kind") not in ("run", "tune"):
        return None
    low, high = measure.bounds
    for name in ("train", "val", "test"):
        score = record.get(name)
        if score is not None and not low - ROUNDING <= score <= high + ROUNDING:
            return name, f"{measure.label} from {low:g} to {high:g}", score
    return None


def _fault(value: Any, form: Form, within: str = "") -> tuple[str, str, Any] | None:
    if not isinstance(value, dict):
        return within.removesuffix("."), OBJECT.what, value
    for entry in value if "*" in form else form:
        check, name = form["*" if "*" in form else entry], entry.removesuffix("?")
        part = value.get(name)
        if name != entry and part is None:
            continue
        if isinstance(check, Mapping):
            if (wrong := _fault(part, check, f"{within}{name}.")) is not None:
                return wrong
        elif name not in value or not check.holds(part):
            return f"{within}{name}", check.what, part
    return None


SETTINGS = (
    *("num_layers", "heads", "hidden_channels", "out_heads", "act", "norm", "residual", "projections"),
    *("dropout", "input_dropout", "value_dropout", "lr", "weight_decay", "max_epochs", "patience"),
)
SETTING = Check(
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
        "train?": NUMBER,
        "parameters": WHOLE,
        "best_epoch?": WHOLE,
        "epochs?": WHOLE,
        "seconds?": NUMBER,
        "versions": {"torch": TEXT, "torch_geometric": TEXT},
        "level?": TEXT,
        "curve?": OBJECT,
        "tuned?": {"settings": WHOLE, "seeds": WHOLE, "space": OBJECT, "sampler?": TEXT, "prune?": TRUTH},
        "family?": TEXT.listed,
    },
    "tune": {
        **OF_RUNS,
        "key": TEXT,
        "val": NUMBER.or_null,
        "family?": TEXT.listed,
        "study?": TEXT,
        "trial?": WHOLE,
        "setting?": OBJECT,
        "pruned?": WHOLE,
        "by_epoch?": NUMBER.listed,
    },
    "cost": {
        "dataset": TEXT,
        "baseline": TEXT,
        "models": {"*": {"seconds_ratio": NUMBER.listed, "memory_ratio": NUMBER.or_null, "contended": TRUTH}},
    },
    "attention": {"dataset": TEXT, "model": TEXT, "key?": TEXT},
    "sequence": {
        "dataset": TEXT,
        "variant": TEXT,
        "seed": WHOLE,
        "metric": TEXT,
        "setting": OBJECT,
        "attention": OBJECT,
        "val": NUMBER.or_null,
        "test": NUMBER.or_null,
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
