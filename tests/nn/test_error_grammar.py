r"""The grammar of errors: "Expected ... (got ...); what to do", wherever a layer or a model raises one."""

import ast
import re
from pathlib import Path

import pytest
import torch

import kgat
from kgat.nn import KernelAttention, PrimalAttention

PACKAGE = Path(kgat.__file__).parent
ROOMS = ("nn", "models", "diagnostics")
FILES = [
    PACKAGE / "functional.py",
    *(path for room in ROOMS for path in sorted((PACKAGE / room).glob("*.py"))),
]
# Whose ends are made elsewhere: of parts that are told, and of a name that is near.
WHOLE_ELSEWHERE = ("Expected {}", "Expected arguments of {} or MessagePassing (got '{}'){}")


def sentences(tree):
    r"""Texts of a module that begin as an error does, with {} for what is filled in."""
    parts = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            text = "".join(part.value if isinstance(part, ast.Constant) else "{}" for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in parts:
            text = node.value
        else:
            continue
        if text.startswith("Expected "):
            yield text


def incomplete(tree):
    for text in sentences(tree):
        if text not in WHOLE_ELSEWHERE and not re.match(r"Expected .*\(got .*; \S", text, re.S):
            yield text


@pytest.mark.quick
@pytest.mark.parametrize("file", FILES, ids=lambda file: f"{file.parent.name}.{file.stem}")
def test_errors_say_what_was_expected_what_came_and_what_to_do(file):
    assert not list(incomplete(ast.parse(file.read_text(encoding="utf8"))))


def test_what_an_error_lacks_is_noticed():
    whole = "raise ValueError(f'Expected a {x} (got {y}); give one')"
    assert not list(incomplete(ast.parse(whole)))
    for cut in ("; give one", " (got {y})"):
        assert len(list(incomplete(ast.parse(whole.replace(cut, ""))))) == 1
    found = sum(len(list(sentences(ast.parse(file.read_text(encoding="utf8"))))) for file in FILES)
    assert found > 80


def raw_types(tree):
    r"""What is filled in as torch spells it, "torch.float32", instead of by its bare name."""
    for node in ast.walk(tree):
        is_raw = isinstance(node, ast.FormattedValue) and isinstance(node.value, ast.Attribute)
        if is_raw and node.value.attr in ("dtype", "layout"):
            yield ast.unparse(node.value)
        if isinstance(node, ast.Call) and "removeprefix" in ast.unparse(node.func):
            yield ast.unparse(node)


@pytest.mark.quick
@pytest.mark.parametrize("file", FILES, ids=lambda file: f"{file.parent.name}.{file.stem}")
def test_types_have_one_spelling(file):
    assert not list(raw_types(ast.parse(file.read_text(encoding="utf8"))))


def test_other_spellings_are_noticed():
    code = "f'got {x.dtype} {bare(x.dtype)}', str(x.dtype).removeprefix('torch.')"
    assert set(raw_types(ast.parse(code))) == {"x.dtype", "str(x.dtype).removeprefix('torch.')"}


@pytest.mark.parametrize("cls", [KernelAttention, PrimalAttention])
def test_attention_modules_refuse_in_the_same_words(cls):
    nested = torch.nested.nested_tensor([torch.ones(3, 8), torch.ones(2, 8)])
    with pytest.raises(
        ValueError, match=r"no 'key_padding_mask' beside nested tensors .got one.; their lengths"
    ):
        cls(8, 2)(nested, key_padding_mask=torch.zeros(2, 3).bool(), need_weights=False)
    with pytest.raises(
        ValueError, match=r"batch_first=True for nested tensors .got False.; build the module"
    ):
        cls(8, 2, batch_first=False)(nested, need_weights=False)
    with pytest.raises(
        ValueError, match=r"'embed_dim' divisible by 'num_heads' .got embed_dim=8, num_heads=3.;"
    ):
        cls(8, 3)


def test_a_mask_of_pairs_beside_nested_tensors_is_named():
    nested = torch.nested.nested_tensor([torch.ones(3, 8)])
    with pytest.raises(ValueError, match="no 'attn_mask' beside nested tensors"):
        KernelAttention(8, 2)(nested, attn_mask=torch.zeros(3, 3).bool())
