import json
import os
import re
import struct
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import gpu_resources
import pytest
import torch
from gpu_checks import FLOOR, FLOORED

from kgat.ops.gpu import GPU
from kgat.ops.gpu import launch as gpu
from kgat.ops.operands import Operands
from kgat.ops.recipe import Recipe
from kgat.score import rules

CHECKS = Path(__file__).with_name("gpu_checks.py")


def check(interpreted, *options):
    # Not in this process: the interpreter must be on before the first import of triton, and stays on.
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PYTEST_", "TRITON_INTERPRET"))}
    if interpreted:
        environment["TRITON_INTERPRET"] = "1"
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", str(CHECKS), *options]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-10000:] + done.stderr[-2000:]


@pytest.mark.parametrize("part", ["test_every_rule", "not test_every_rule"])
def test_in_the_interpreter(part):
    pytest.importorskip("triton", reason="needs triton")
    check(True, "-k", part)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_device():
    pytest.importorskip("triton", reason="needs triton")
    check(False)


def test_module_needs_no_triton():
    script = (
        "import sys; sys.modules['triton'] = None\n"
        "from kgat.ops.gpu import GPU, launch\n"
        "assert 'kgat.ops.gpu.loops' not in sys.modules\n"
        "assert GPU().available() == 'needs triton'"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


def test_says_what_is_missing(monkeypatch):
    pytest.importorskip("triton", reason="needs triton")
    monkeypatch.setenv("TRITON_INTERPRET", "0")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert GPU().available() == "needs a CUDA device"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert GPU().available() is None
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    assert GPU().available() is None


def test_partition_covers_every_edge_once(monkeypatch):
    monkeypatch.setattr(gpu, "HEAVY", 5)
    monkeypatch.setattr(gpu, "MERGED", 2)
    row = torch.tensor([0] * 3 + [1] * 11 + [3] * 2 + [4] * 5 + [5] * 10)
    adjacency = gpu.Adjacency.of(torch.stack([torch.zeros_like(row), row]), 1, 6, 1)
    partition = gpu._partition(adjacency, adjacency.rowptr)
    segments = [segment for segment in partition.table.tolist() if segment[0] >= 0]
    assert segments == [
        [1, 3, 8, 0],
        [1, 8, 13, 1],
        [1, 13, 14, 2],
        [5, 21, 26, 3],
        [5, 26, 31, 4],
        [4, 16, 21, -1],
        [0, 0, 3, -1],
        [3, 14, 16, -1],
        [2, 14, 14, -1],
    ]
    # In 31 edges there is room for 11 parts (5 heavy nodes and 6 parts more), which are joined to 8 at most.
    levels = [[row for row in level.tolist() if row[0] >= 0] for level in partition.levels]
    assert levels == [[[1, 0, 2, 11], [1, 2, 3, 12], [5, 3, 5, -1]], [[1, 11, 13, -1]], [], [], [], []]
    assert partition.num_parts == 11 + 8 + 6 + 5 + 3 + 2
    assert gpu._partition(adjacency, adjacency.rowptr) is partition
    assert gpu._partition(adjacency, adjacency.colptr) is not partition


@pytest.mark.parametrize(("edges", "levels"), [(512, 0), (513, 1), (60_000, 1), (2_500_000, 2), (10**8, 3)])
def test_parts_of_a_hub_are_joined_as_a_tree(edges, levels):
    partition = gpu._Partition.of(torch.tensor([0, edges]), edges)
    tables = [table[table[:, 0] >= 0].tolist() for table in (partition.table, *partition.levels)]
    assert len(tables) == 1 + levels  # as many as the edges allow, whatever they are
    summed = range(edges)
    for table, size in zip(tables, (gpu.HEAVY, *[gpu.MERGED] * levels), strict=True):
        for (_, _, end, _), (_, begin, _, _) in pairwise(table):
            assert end == begin  # in order, each once
        if table:
            assert (table[0][1], table[-1][2]) == (summed[0], summed[-1] + 1)
            assert max(end - begin for _, begin, end, _ in table) <= size
            summed = [part for *_, part in table]
    assert summed == [-1]


def compile_for(capability, dtype, value_dtype, recipe, names, heads, dropout, features=8, channels=16):
    """Compiles what a forward and a backward pass would launch; returns the machine code by kernel."""
    triton = pytest.importorskip("triton", reason="needs triton")
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource
    from triton.runtime.jit import mangle_type

    targets, sources = 4, 5
    edge_index = torch.tensor([[0, 1, 2, 3, 4, 0, 1, 2, 3, 0], [0, 0, 0, 0, 0, 0, 1, 1, 2, 3]])
    made = {}

    def compile_instead(kernel, programs, *, warps, **arguments):
        assert programs > 0
        signature, constants, attributes = {}, {}, {}
        for place, parameter in enumerate(kernel.params):
            name, value = parameter.name, arguments.get(parameter.name)
            one = isinstance(value, int) and value == 1 and not parameter.do_not_specialize
            if parameter.is_constexpr or value is None or one:
                signature[name], constants[name] = "constexpr", value
            else:
                signature[name] = parameter.annotation_type or mangle_type(value)
                if isinstance(value, torch.Tensor):
                    attributes[(place,)] = [["tt.divisibility", 16]]
        source = ASTSource(kernel, signature, constants, attributes)
        options = {"num_warps": warps}
        binary = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)
        made.setdefault(kernel.__name__, []).append({**binary.asm, "warps": warps})

    def draw(*shape):
        return torch.randn(*shape, dtype=dtype)

    shapes = {
        "query": (targets, heads, features),
        "key": (sources, heads, features),
        "weight": (heads, features),
        "query_bias": (targets, heads),
        "key_bias": (sources, heads),
        "edge_bias": (10, heads),
        "edge_weight": (10, heads),
    }
    pair_args = 1 if recipe.pair is rules.LEAKY_RELU_SUM else 0
    link_args = recipe.link.in_scalars.__code__.co_argcount - 1
    x = Operands(
        value=draw(sources, heads, channels).to(value_dtype),
        pair_args=draw(pair_args, heads),
        link_args=draw(link_args, heads),
        scale=0.3,
        dropout=dropout,
        seed=torch.tensor([1]),
        **{name: draw(*shapes[name]) for name in names},
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gpu, "_launch", compile_instead)
        patch.setattr(gpu, "HEAVY", 4)
        adjacency = gpu.Adjacency.of(edge_index, 1, targets, sources)
        gpu.scan(edge_index)
        out, lse = gpu.attention(recipe, adjacency, x)
        gpu.attention_backward(recipe, adjacency, x, out, lse, out)
        if dropout > 0.0:
            gpu.dropout_mask(10, heads, dropout, x.seed)
        if recipe.pair is not None:
            gpu.score(recipe, adjacency, x)
            gpu.score_backward(recipe, adjacency, x, draw(10, heads))
    return made


LIFTS = ("query", "key")
REST = ("key_bias", "edge_bias", "edge_weight")
PROGRAMS = {
    "dot": (80, torch.float32, torch.float32, Recipe(rules.MUL, rules.IDENTITY), LIFTS, 4, 0.0),
    "dot-half": (90, torch.float32, torch.bfloat16, Recipe(rules.MUL, rules.LOG_SQUARE), LIFTS, 1, 0.1),
    "additive": (
        90,
        torch.float32,
        torch.float32,
        Recipe(rules.LEAKY_RELU_SUM, rules.IDENTITY, weighted=True),
        (*LIFTS, "weight", *REST),
        3,
        0.1,
    ),
    "gat": (
        80,
        torch.float32,
        torch.bfloat16,
        Recipe(None, rules.LEAKY_RELU),
        ("query_bias", "key_bias"),
        8,
        0.5,
    ),
    "sinc": (90, torch.float32, torch.float32, Recipe(rules.LOG_ABS_SINC, rules.IDENTITY), LIFTS, 2, 0.0),
    "sinc-half": (
        80,
        torch.float32,
        torch.bfloat16,
        Recipe(rules.LOG_ABS_SINC, rules.LEAKY_RELU, weighted=True, bias_inside=True),
        (*LIFTS, "weight", *REST),
        2,
        0.0,
    ),
    "truncated": (80, torch.float32, torch.float32, Recipe(rules.MUL, rules.TRUNCATED_EXP), LIFTS, 2, 0.0),
    "minimum-double": (
        90,
        torch.float64,
        torch.float64,
        Recipe(rules.MINIMUM, rules.RATIONAL_QUADRATIC),
        LIFTS,
        2,
        0.5,
    ),
    # As wide as most layers are.
    "dot-wide": (80, torch.float32, torch.float32, Recipe(rules.MUL, rules.IDENTITY), LIFTS, 4, 0.0, 64, 64),
    "gat-wide": (
        90,
        torch.float32,
        torch.float32,
        Recipe(None, rules.LEAKY_RELU),
        ("query_bias", "key_bias"),
        4,
        0.0,
        1,
        64,
    ),
}


@pytest.mark.parametrize("program", PROGRAMS)
def test_compiles_to_machine_code(program):
    _, _, _, recipe, _, _, dropout, *_ = PROGRAMS[program]
    made = compile_for(*PROGRAMS[program])
    kernels = {"attend", "merge", "merge_sums", "dot_rows", "by_source", "by_target", "scan"}
    if recipe.pair is not None:
        kernels.add("sum_pairs")
    if dropout > 0.0:
        kernels.add("write_mask")
    assert set(made) == kernels
    for name, assemblies in made.items():
        for asm in assemblies:
            assert asm["cubin"], name
            assert "atom" not in asm["ptx"], name  # sums of no fixed order
            assert ".red." not in asm["ptx"].replace("redux", ""), name
            # Of lanes by heads, a number that the compiler knows.
            assert not re.search(r"(div|rem)\.[us]64", asm["ptx"]), name
    _expect_no_more(program, made)


def _expect_no_more(program, made):
    triton = pytest.importorskip("triton", reason="needs triton")
    table = json.loads(gpu_resources.TABLE.read_text())
    if gpu_resources.tool() is None or triton.__version__ != table["triton"]:
        return  # another compiler allots registers in another way
    for name, each in gpu_resources.of_programs(made).items():
        for now, then in zip(each, table["programs"][program][name], strict=True):
            assert now["registers"] <= then["registers"], (name, now, then)
            assert now["spilled"] <= then["spilled"], (name, now, then)
            assert now["occupancy"] >= then["occupancy"], (name, now, then)


def test_compiled_constants_keep_their_digits():
    recipe = Recipe(rules.LOG_ABS_SINC, FLOORED)
    made = compile_for(80, torch.float64, torch.float64, recipe, LIFTS, 2, 0.0)
    for name, number in (("attend", 1 / 180), ("attend", FLOOR), ("by_source", 2 / 945), ("by_source", 0.7)):
        digits = "0d" + struct.pack(">d", number).hex().upper()
        assert any(digits in asm["ptx"] for asm in made[name]), (name, number)
    assert all(".param .f64" in asm["ptx"] for asm in made["attend"])  # the scale
