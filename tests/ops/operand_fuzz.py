"""Calls with operands of every wrong kind, to be run in a process of its own: a call may kill it.

Says the name of each case before it runs, and afterwards what was wrong about it, if anything. A call
either raises a sentence, the same kind on all backends, or computes the numbers of the reference backend.

    python operand_fuzz.py [first case]
"""

import itertools
import sys

import torch

from kgat import functional
from kgat.kernels import Kernel
from kgat.score import rules
from kgat.score.gram import LazyGram, SumGram, Term
from kgat.score.rules import Link, Pair, ScoreRule

N, M, H, R, C, E = 7, 6, 3, 5, 4, 12
SENTENCE = (ValueError, TypeError, IndexError, NotImplementedError)


def draw(*shape, dtype=torch.float32, seed=0):
    generator = torch.Generator().manual_seed(seed + sum(shape))
    return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)


def edges():
    generator = torch.Generator().manual_seed(5)
    return torch.stack(
        [torch.randint(M, (E,), generator=generator), torch.randint(N - 1, (E,), generator=generator)]
    )


# --- What becomes of one tensor ---------------------------------------------------------------------------


def strided(x):
    return x.unsqueeze(-1).repeat_interleave(2, dim=-1)[..., 0]


# Of the same numbers: any call takes these.
SAME = {
    "strided": strided,
    "transposed in memory": lambda x: x.transpose(0, -1).contiguous().transpose(0, -1),
    "an offset": lambda x: torch.cat([x.flatten()[:1], x.flatten()])[1:].view(x.shape),
    "negated lazily": lambda x: torch._neg_view(-x) if x.is_floating_point() else x,
}
TYPES = {str(t): lambda x, t=t: x.to(t) for t in (torch.float64, torch.float16, torch.bfloat16)}
STRANGE = {
    **{str(t): lambda x, t=t: x.to(t) for t in (torch.int64, torch.bool, torch.complex64)},
    "sparse": lambda x: x.to_sparse(),
    "on another device": lambda x: x.to("meta"),
    "a list": lambda x: x.tolist(),
    "a dimension more": lambda x: x.unsqueeze(0),
    "a dimension more at the end": lambda x: x.unsqueeze(-1),
    "a dimension fewer": lambda x: x[0],
    "flat": lambda x: x.flatten(),
    "a number": lambda x: x.sum(),
    "empty": lambda x: x[:0],
    "turned": lambda x: x.transpose(0, -1) if x.dim() > 1 else x[:1],
}


def resized(x):
    for dim, size in enumerate(x.shape):
        for other in {1, size - 1, size + 1, 40 * size} - {size}:
            index = torch.arange(other) % size
            yield f"{other} instead of {size} in dimension {dim}", x.index_select(dim, index)


def changes(x, *kinds):
    for kind in kinds:
        for name, change in kind.items():
            yield name, change(x)
    yield from resized(x)


# --- Through kgat.functional ------------------------------------------------------------------------------

HINGE = Link("hinge", lambda t, a, b: torch.where(t > a, t, b * t), derivative=lambda t, a, b: 1.0)


def _saw(x, y, a=0.5):
    return a * (x - y) * (x - y)


def _d_saw(x, y, a=0.5):
    return 2.0 * a * (x - y), 2.0 * a * (y - x)


def _three(x, y, a, b, c):
    return a * x * y + b * x + c * y


def _d_three(x, y, a, b, c):
    return a * y + b, a * x + c


def _twice(t):
    return t + t


SAW = Pair("saw", _saw, _d_saw)
THREE = Pair("three", _three, _d_three)
PLAIN = Pair("plain", lambda x, y, a=2.0: (x - a * y).abs())
ARITY = Link("arity", lambda t, a: a * t, derivative=lambda t, a: a, scalar=lambda t: t + t)


def grams():
    """Kernels by name: functions of the operands, and those operands."""
    q, k = draw(N, H, R), draw(M, H, R, seed=1)
    sides = {"query": q, "key": k}
    biased = {**sides, "key_bias": draw(M, H)}
    both = {"query_bias": draw(N, H), "key_bias": draw(M, H, seed=1)}

    def rule(*args, **kwargs):
        return lambda query, key, **o: LazyGram.of(query, key, ScoreRule(*args, **kwargs), **o)

    yield "dot", rule(), {**biased, "query_bias": draw(N, H)}
    yield (
        "weighted",
        lambda query, key, weight: LazyGram.of(query, key, ScoreRule(weight=weight)),
        {**sides, "weight": draw(H, R)},
    )
    yield (
        "additive",
        rule(rules.ADD, rules.LEAKY_RELU, link_args=(0.2,), edge_bias_inside=True),
        {"query": draw(N, H, 1), "key": draw(M, H, 1)},
    )
    yield (
        "constant of a pair",
        lambda query, key, arg: LazyGram.of(query, key, ScoreRule(rules.LEAKY_RELU_SUM, pair_args=(arg,))),
        {**sides, "arg": draw(H).abs()},
    )
    yield (
        "constant of a link",
        lambda query, key, arg: LazyGram.of(
            query, key, ScoreRule(rules.MUL, rules.LEAKY_RELU, link_args=(arg,))
        ),
        {**sides, "arg": draw(H).abs()},
    )
    yield "biases", lambda query_bias, key_bias: LazyGram((), query_bias, key_bias), both
    yield "a function", lambda query, key: LazyGram.of(query, key, _distance), sides
    other = {"other_query": draw(N, H, 2), "other_key": draw(M, H, 2)}
    yield (
        "product",
        lambda query, key, other_query, other_key: LazyGram(
            (
                Term(query, key, ScoreRule()),
                Term(other_query, other_key, ScoreRule(rules.MUL, rules.LEAKY_RELU, link_args=(0.2,))),
            )
        ),
        {**sides, **other},
    )
    yield (
        "sum",
        lambda query, key, other_query, other_key: SumGram(
            (LazyGram.of(query, key), LazyGram.of(other_query, other_key))
        ),
        {**sides, **other},
    )


def _distance(query, key):
    return -(query - key).abs().sum(dim=-1)


def call_operands(value=None):
    return {
        "value": draw(M, H, C, seed=2),
        "edge_index": edges(),
        "edge_bias": draw(E, H),
        "edge_log_weight": draw(E, H, seed=3),
        "edge_weight": draw(E),
        "base": draw(N, H, C, seed=4),
    }


def attend(build, of_gram, of_call, backend, differentiated=True):
    leaves, built = [], []
    for operands in (of_gram, of_call):
        made = {}
        for name, x in operands.items():
            if (
                isinstance(x, torch.Tensor)
                and x.is_floating_point()
                and differentiated
                and x.device.type == "cpu"
                and x.layout == torch.strided
            ):
                leaf = x.detach().requires_grad_()
                leaves.append(leaf)
                made[name] = leaf
            else:
                made[name] = x
        built.append(made)
    of_call = dict(built[1])
    value, edge_index = of_call.pop("value"), of_call.pop("edge_index")
    out = functional.edge_attention(build(**built[0]), value, edge_index, backend=backend, **of_call)
    if not differentiated:
        return [out]
    slope = torch.linspace(-1, 1, max(1, out.numel()))[: out.numel()].view(out.shape)
    if not out.requires_grad:
        return [out, *(torch.zeros_like(x) for x in leaves)]
    grads = torch.autograd.grad((out * slope).sum(), leaves, allow_unused=True)
    return [out, *(torch.zeros_like(x) if g is None else g for x, g in zip(leaves, grads, strict=True))]


def outcome(function):
    try:
        return function()
    except SENTENCE as error:
        return error


def judge(results):
    """Says what is wrong about the outcomes of backends, the last of which is the reference's."""
    *found, expected = results
    for x in results:
        if isinstance(x, Exception) and not any(w in str(x) for w in ("Expected", "cannot run")):
            return f"no sentence: {type(x).__name__}: {x}"
    for x in found:
        if isinstance(x, Exception) or isinstance(expected, Exception):
            if type(x) is not type(expected):
                return f"got {describe(x)} where the reference has {describe(expected)}"
            continue
        for i, (f, e) in enumerate(zip(x, expected, strict=True)):
            half = any(y.dtype in (torch.float16, torch.bfloat16) for y in expected)
            if f.shape != e.shape or f.dtype != e.dtype:
                return (
                    f"result {i}: {list(f.shape)} {f.dtype} where the reference has {list(e.shape)} {e.dtype}"
                )
            if f.device.type == "meta":
                continue
            if not torch.allclose(
                f.double(), e.double(), *((0.05, 0.05) if half else (1e-3, 1e-4)), equal_nan=True
            ):
                return f"result {i} is {(f.double() - e.double()).abs().max():.2g} off the reference"
    return None


def describe(x):
    return f"{type(x).__name__}: {x}" if isinstance(x, Exception) else "numbers"


def compared(build, of_gram, of_call):
    def run():
        return judge(
            [outcome(lambda b=b: attend(build, of_gram, of_call, b)) for b in (None, "eager", "reference")]
        )

    return run


def functional_cases():
    for name, build, of_gram in grams():
        yield f"{name}: as it should be", compared(build, of_gram, call_operands())
        for operand, x in of_gram.items():
            for change, y in changes(x, SAME, TYPES, STRANGE):
                if name == "a function" and change.endswith("in dimension 2"):
                    continue  # whether it takes those is the function's own business
                yield (
                    f"{name}: {operand}: {change}",
                    compared(build, {**of_gram, operand: y}, call_operands()),
                )
    for name, build, of_gram in itertools.islice(grams(), 3):
        for operand, x in call_operands().items():
            kinds = (SAME, STRANGE) if operand == "edge_index" else (SAME, TYPES, STRANGE)
            for change, y in changes(x, *kinds):
                yield (
                    f"{name}: {operand}: {change}",
                    compared(build, of_gram, {**call_operands(), operand: y}),
                )
        for dropout in (-0.1, 1.5, float("nan")):
            yield (
                f"{name}: dropout {dropout}",
                compared(build, of_gram, {**call_operands(), "dropout": dropout}),
            )
        for change, e in {"too large": edges() + 4, "negative": edges() - 3}.items():
            yield f"{name}: indices: {change}", compared(build, of_gram, {**call_operands(), "edge_index": e})


# --- Own rules and own kernels ----------------------------------------------------------------------------


class Lifted(Kernel):
    """A kernel whose lift is a function that is given."""

    def __init__(self, lifted):
        super().__init__(R, H)
        self.lifted = lifted

    def lift(self, query, key):
        return self.lifted(query, key)


LIFTS = {
    "fewer features of queries": lambda q, k: LazyGram.of(q[..., :3], k),
    "fewer features of keys": lambda q, k: LazyGram.of(q, k[..., :3], ScoreRule(rules.ABS_DIFFERENCE)),
    "one feature of queries": lambda q, k: LazyGram.of(q[..., :1], k, ScoreRule(rules.ABS_DIFFERENCE)),
    "a weight per channel": lambda q, k: LazyGram.of(q, k, ScoreRule(weight=draw(R))),
    "a weight per channel of a pair": lambda q, k: LazyGram.of(
        q, k, ScoreRule(rules.ABS_DIFFERENCE, weight=draw(R))
    ),
    "a weight per head": lambda q, k: LazyGram.of(q, k, ScoreRule(rules.ABS_DIFFERENCE, weight=draw(H, 1))),
    "a weight per head, flat": lambda q, k: LazyGram.of(q, k, ScoreRule(weight=draw(H))),
    "a weight per node": lambda q, k: LazyGram.of(q, k, ScoreRule(weight=draw(N, H, R))),
    "a weight that is one number": lambda q, k: LazyGram.of(q, k, ScoreRule(weight=torch.tensor(2.0))),
    "the mean of the heads": lambda q, k: LazyGram.of(q.mean(1, keepdim=True), k.mean(1, keepdim=True)),
    "one head of keys": lambda q, k: LazyGram.of(q, k[:, :1]),
    "queries for keys": lambda q, k: LazyGram.of(k, q),
    "a bias per head": lambda q, k: LazyGram.of(q, k, key_bias=draw(1, H).expand(1, H)),
    "a bias per node": lambda q, k: LazyGram.of(q, k, key_bias=draw(M, 1)),
    "a bias of queries per head": lambda q, k: LazyGram.of(q, k, query_bias=draw(H)),
    "one bias alone": lambda q, k: LazyGram((), None, draw(M, H)),
    "nothing": lambda q, k: LazyGram(),
    "an empty sum": lambda q, k: SumGram(()),
    "no tensor": lambda q, k: LazyGram.of(None, k),
    "no heads": lambda q, k: LazyGram.of(q[:, 0], k[:, 0]),
    "a pair for a link": lambda q, k: LazyGram.of(q, k, ScoreRule(rules.MUL, rules.ADD)),
    "a link for a pair": lambda q, k: LazyGram.of(q, k, ScoreRule(rules.RELU)),
    "no rule": lambda q, k: LazyGram.of(q, k, 3.0),
    "a constant too few": lambda q, k: LazyGram.of(q, k, ScoreRule(rules.MUL, rules.LEAKY_RELU)),
    "a constant too many": lambda q, k: LazyGram.of(
        q, k, ScoreRule(rules.MUL, rules.IDENTITY, link_args=(1.0,))
    ),
    "constants per channel": lambda q, k: LazyGram.of(
        q, k, ScoreRule(rules.LEAKY_RELU_SUM, pair_args=(draw(R),))
    ),
    "constants of text": lambda q, k: LazyGram.of(q, k, ScoreRule(rules.LEAKY_RELU_SUM, pair_args=("0.2",))),
    "a weight of text": lambda q, k: LazyGram.of(q, k, ScoreRule(weight="2")),
    "a default constant": lambda q, k: LazyGram.of(q, k, ScoreRule(SAW, weight=-1.0)),
    "a default constant that is given": lambda q, k: LazyGram.of(
        q, k, ScoreRule(SAW, weight=-1.0, pair_args=(draw(H),))
    ),
    "three constants": lambda q, k: LazyGram.of(q, k, ScoreRule(THREE, pair_args=(0.5, draw(H), 0.1))),
    "three constants in a product": lambda q, k: LazyGram(
        (Term(q, k, ScoreRule(THREE, pair_args=(0.5, draw(H), 0.1))), Term(q, k, ScoreRule(rules.MINIMUM)))
    ),
    "a pair without scalars": lambda q, k: LazyGram.of(
        q, k, ScoreRule(PLAIN, weight=draw(H, R), pair_args=(draw(H),))
    ),
    "scalars of fewer constants": lambda q, k: LazyGram.of(
        q, k, ScoreRule(rules.MUL, ARITY, link_args=(draw(H),))
    ),
    "a function that keeps features": lambda q, k: LazyGram.of(q, k, lambda x, y: x * y),
    "a function that keeps one": lambda q, k: LazyGram.of(q, k, lambda x, y: (x * y).sum(-1, keepdim=True)),
    "a function that mixes heads": lambda q, k: LazyGram.of(q, k, lambda x, y: (x * y).sum((-1, -2))),
    "a function that mixes pairs": lambda q, k: LazyGram.of(q, k, lambda x, y: (x * y).sum((0, -1))),
    "a function of one head for all": lambda q, k: LazyGram.of(
        q, k, lambda x, y: (x * y).sum((-1, -2)).unsqueeze(-1), key_bias=draw(M, H)
    ),
    "a function of other features": lambda q, k: LazyGram.of(
        q[..., :2], k, lambda x, y: x.sum(-1) * y.sum(-1)
    ),
    "a sum of other nodes": lambda q, k: SumGram((LazyGram.of(q, k), LazyGram.of(q[:4], k[:4]))),
    "a sum of other heads": lambda q, k: SumGram((LazyGram.of(q, k), LazyGram.of(q[:, :1], k[:, :1]))),
    "a product of other nodes": lambda q, k: (
        LazyGram.of(q, k) * LazyGram.of(q[:4], k[:4], ScoreRule(rules.MINIMUM))
    ),
    "a product with other biases": lambda q, k: (
        LazyGram.of(q, k, key_bias=draw(M, H)) * LazyGram((), draw(1, H), draw(M, H))
    ),
    "a batch": lambda q, k: LazyGram.of(q.unsqueeze(0), k.unsqueeze(0)),
}


def own_cases():
    for name, lifted in LIFTS.items():
        kernel = Lifted(lifted)

        def build(query, key, kernel=kernel):
            return kernel(query, key)

        operands = call_operands()
        yield (
            f"own kernel: {name}",
            compared(build, {"query": draw(N, H, R), "key": draw(M, H, R, seed=1)}, operands),
        )
        plain = {name: operands[name] for name in ("value", "edge_index")}
        yield (
            f"own kernel: {name}, no extras",
            compared(build, {"query": draw(N, H, R), "key": draw(M, H, R, seed=1)}, plain),
        )


# --- Through torch.ops ------------------------------------------------------------------------------------


def attention_arguments(paired):
    inside = "mul|identity|0|0" if paired else "|leaky_relu|0|0"
    return {
        "value": draw(M, H, C),
        "query": draw(N, H, R) if paired else None,
        "key": draw(M, H, R) if paired else None,
        "weight": None,
        "query_bias": None if paired else draw(N, H),
        "key_bias": draw(M, H),
        "edge_bias": draw(E, H),
        "edge_weight": draw(E, H, seed=1),
        "pair_args": torch.full((2, H), 0.2),
        "link_args": torch.full((2, H), 0.2),
        "edge_index": edges(),
        "seed": torch.tensor([3]),
        "recipe": inside,
        "scale": 0.7 if paired else 1.0,
        "dropout": 0.3,
        "target": 1,
        "num_targets": N,
    }


def score_arguments():
    keep = ("query", "key", "weight", "pair_args", "edge_index", "recipe", "target")
    given = {**attention_arguments(True), "recipe": "abs_difference|identity|1|0", "weight": draw(H, R)}
    return {name: given[name] for name in keep}


NUMBERS = {
    "recipe": [
        "",
        "mul",
        "mul|identity",
        "mul|identity|0",
        "mul|identity|2|0",
        "nothing|identity|0|0",
        "mul|nothing|0|0",
        "identity|mul|0|0",
        "mul|dropout|0|0",
        "mul|identity|1|0",
        "|identity|1|0",
        "|identity|0|1",
        "mul|identity|0|0|0",
        "||0|0",
        "|identity|0|0x",
    ],
    "dropout": [-0.5, 1.5, float("nan"), float("inf")],
    "target": [-1, 2, 7],
    "num_targets": [-1, N - 1, N + 1, 40 * N, 0],
}


def op_cases():
    ops = torch.ops.kgat
    for title, given in (("paired", attention_arguments(True)), ("biases", attention_arguments(False))):
        out, lse, _ = ops.edge_attention_2(**given)
        backward = {"grad": draw(N, H, C, seed=9), "out": out, "lse": lse, "graph": None, **given}
        yield from _op_cases(f"edge_attention {title}", ops.edge_attention_2, given)
        yield from _op_cases(f"edge_attention_backward {title}", ops.edge_attention_2_backward, backward)
    given = score_arguments()
    yield from _op_cases("edge_score", ops.edge_score, given)
    backward = {"grad": draw(E, H), "graph": None, **given}
    yield from _op_cases("edge_score_backward", ops.edge_score_backward, backward)


def _op_cases(title, op, given):
    def run(changed):
        result = op(**changed)
        return list(result) if isinstance(result, (tuple, list)) else [result]

    expected = run(given)

    def same(changed):
        return lambda: judge([outcome(lambda: run(changed)), expected])

    def refused(changed):
        def check():
            result = outcome(lambda: run(changed))
            return judge([result, result]) if isinstance(result, Exception) else "it was not refused"

        return check

    strange = {
        name: change for name, change in STRANGE.items() if name not in ("a list", "on another device")
    }
    for name, x in given.items():
        if isinstance(x, torch.Tensor):
            for change, make in SAME.items():
                yield f"{title}: {name}: {change}", same({**given, name: make(x)})
            if title.startswith("edge_attention ") and name in ("query_bias", "key_bias"):
                yield f"{title}: {name}: a column", same({**given, name: x.unsqueeze(-1)})
            kinds = [strange] if name in ("edge_index", "seed", "grad") else [TYPES, strange]
            for change, y in changes(x, *kinds):
                if y.shape == x.shape and y.dtype == x.dtype and y.layout == x.layout:
                    continue
                if not _is_another_call(title, name, x, y):
                    yield f"{title}: {name}: {change}", refused({**given, name: y})
            if name not in ("key_bias", "edge_bias", "edge_weight"):
                yield f"{title}: {name}: None", refused({**given, name: None})
        elif x is None:
            yield f"{title}: {name}: too many", refused({**given, name: draw(N, H, R)})
        for y in NUMBERS.get(name, []):
            if title.startswith("edge_score") and y == "mul|identity|1|0":
                continue
            yield f"{title}: {name}: {y!r}", refused({**given, name: y})
    if "num_targets" in given:
        yield f"{title}: indices too large", refused({**given, "edge_index": given["edge_index"] + 4})
        yield (
            f"{title}: learned constants",
            refused({**given, "link_args": given["link_args"].clone().requires_grad_()}),
        )


def _is_another_call(title, name, x, y):
    # Of other nodes or edges, and as right as the first.
    if name in ("query_bias", "key_bias") and y.shape == (*x.shape, 1):
        return y.dtype == x.dtype and y.layout == x.layout
    if title.startswith("edge_score") and x.dtype == y.dtype and x.layout == y.layout and x.dim() == y.dim():
        if name == "edge_index":
            return title == "edge_score" and y.size(0) == 2
        if name in ("query", "key"):
            return y.size(0) >= x.size(0) - 1 and y.shape[1:] == x.shape[1:]
    alike = y.dim() == 3 and y.shape[:2] == x.shape[:2] and y.dtype == x.dtype and y.layout == x.layout
    if name == "value" and title.startswith("edge_attention ") and alike:
        return True  # of as many channels as it likes
    return name == "value" and y.dtype in (torch.float16, torch.bfloat16)


def cases():
    return itertools.chain(functional_cases(), own_cases(), op_cases())


def say(line):
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main(first):
    count = 0
    for i, (name, run) in enumerate(cases()):
        count += 1
        if i < first:
            continue
        say(f"case {i} {name}")
        try:
            wrong = run()
        except Exception as error:  # noqa: BLE001 (whatever it is, it is no sentence)
            wrong = f"{type(error).__name__}: {error}"
        if wrong:
            say(f"wrong {i} {name}: {wrong}")
    say(f"done {count}")


if __name__ == "__main__":
    torch.manual_seed(0)
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 0)
