import ast
import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch

from kgat.datasets import load_sequences, sequence_names, sequences
from kgat.datasets.files import checksums
from kgat.datasets.sequence_task import Labelled, Padded, SequenceTask, Stream
from kgat.datasets.sequences import listops
from kgat.datasets.series import read_ts
from kgat.datasets.vocabulary import BytePairs, Words

needs_tokenizers = pytest.mark.skipif(find_spec("tokenizers") is None, reason="tokenizers is not installed")

# Official training and test series, channels, longest training series, classes.
SERIES = {
    "JapaneseVowels": (270, 370, 12, 26, 9),
    "BasicMotions": (40, 40, 6, 100, 4),
    "UWaveGestureLibrary": (120, 320, 3, 315, 8),
    "Handwriting": (150, 850, 3, 152, 26),
    "ERing": (30, 270, 4, 65, 6),
    "Epilepsy": (137, 138, 3, 206, 4),
    "RacketSports": (151, 152, 6, 30, 4),
    "Libras": (180, 180, 2, 45, 15),
    "PenDigits": (7494, 3498, 2, 8, 10),
    "ArrowHead": (36, 175, 1, 251, 3),
    "GunPoint": (50, 150, 1, 150, 2),
    "ItalyPowerDemand": (67, 1029, 1, 24, 2),
    "OSULeaf": (200, 242, 1, 427, 6),
    "ACSF1": (100, 100, 1, 1460, 10),
}
ABSENT = {
    "EthanolConcentration", "FaceDetection", "Heartbeat", "PEMS-SF", "SelfRegulationSCP1",
    "SelfRegulationSCP2", "SpokenArabicDigits",
}  # fmt: skip
OTHERS = {"SST2", "SST2_glue", "PTB", "Multi30k", "ListOps", "digits"}

HEADER = """#a comment – with a dash
@problemName Tiny
@timeStamps false
@missing false
@univariate false
@dimensions 2
@equalLength false
@classLabel true left right
@data
"""


def case(length, offset, label):
    r"""Two channels: a ramp from the offset, and ten times it."""
    ramp = [offset + step for step in range(length)]
    channels = (",".join(str(scale * value) for value in ramp) for scale in (1.0, 10.0))
    return ":".join((*channels, label)) + "\n"


def write_series(root, train, test, header=HEADER, name="BasicMotions"):
    folder = root / "seq" / "uea" / name
    folder.mkdir(parents=True, exist_ok=True)
    for part, cases in (("TRAIN", train), ("TEST", test)):
        (folder / f"{name}_{part}.ts").write_text(header + "".join(cases), encoding="utf8")
    return folder


def tiny(root, monkeypatch, **kwargs):
    r"""Ten training series of lengths 2 to 6 in two classes, and two test series, one of them longer."""
    monkeypatch.setattr("kgat.datasets.files.checksums", dict)
    train = [case(2 + i % 5, i, ("left", "right")[i % 2]) for i in range(10)]
    test = [case(8, 100.0, "left"), case(3, -7.0, "right")]
    return write_series(
        root, kwargs.get("train", train), kwargs.get("test", test), kwargs.get("header", HEADER)
    )


def present(name, root):
    source = sequences.resolve_source(name)
    return any(
        files and all((root / file.path).is_file() for file in files)
        for files in (source.files, source.instead)
    )


def load_real(name, root, **options):
    if not present(name, root):
        pytest.skip(f"needs the raw files of {name}")
    return load_sequences(name, root, **options)


# --- Names and files --------------------------------------------------------------------------------------


def test_names():
    assert len(sequence_names()) == len(set(sequence_names()))
    assert set(sequence_names()) == {*SERIES, *ABSENT, *OTHERS}


def test_names_and_options_are_checked(tmp_path):
    assert load_sequences("list-OPS", lengths=(3, 9), sizes=(3, 1, 1)).name == "ListOps"
    with pytest.raises(ValueError, match=r"\(got 'lisp'\); choose from: JapaneseVowels, "):
        load_sequences("lisp")
    with pytest.raises(
        ValueError, match=r"an option of 'ListOps' \(got 'vocab_size'\); choose from: seed, lengths"
    ):
        load_sequences("ListOps", vocab_size=3)
    with pytest.raises(ValueError, match=r"\(got 'seed'\); choose from: none"):
        load_sequences("PTB", tmp_path, seed=1)


def test_every_address_is_encrypted_and_every_checksum_used():
    files = [file for source in sequences.SEQUENCES for file in (*source.files, *source.instead)]
    assert all(file.url is None or file.url.startswith("https://") for file in files)
    paths = {file.path for file in files}
    assert {path for path in checksums() if path.startswith("seq/")} <= paths
    assert all(path in checksums() for path in paths if not any(name in path for name in ABSENT)
               and "uea/" not in path)  # fmt: skip


@pytest.mark.parametrize("name", ["Heartbeat", "ERing"])
def test_a_missing_file_is_named(name, tmp_path):
    path = tmp_path / "seq" / "uea" / name / f"{name}_TRAIN.ts"
    with pytest.raises(
        FileNotFoundError, match=f"raw file of '{name}' at '{re.escape(str(path))}'.* put it there"
    ) as e:
        load_sequences(name, tmp_path)
    assert "\n" not in str(e.value)


def test_a_file_of_other_content_is_refused(tmp_path):
    write_series(tmp_path, [case(2, 0.0, "left")], [case(2, 0.0, "left")])
    with pytest.raises(ValueError, match=r"Expected [\d,]+ bytes in '.*BasicMotions_TRAIN.ts'"):
        load_sequences("BasicMotions", tmp_path)


def test_packed_arrays_serve_where_there_is_no_text(tmp_path, monkeypatch):
    monkeypatch.setattr("kgat.datasets.files.checksums", dict)
    folder = tmp_path / "seq" / "uea_npz"
    folder.mkdir(parents=True)
    x, y = np.arange(60, dtype=np.float32).reshape(10, 3, 2), np.array([0, 1] * 5)
    np.savez(folder / "ERing.npz", X=x, y=y, n_train=6)
    task = load_sequences("ERing", tmp_path)
    assert (len(task.train), len(task.val), len(task.test)) == (4, 2, 4)
    assert task.test.y.tolist() == [0, 1, 0, 1]
    np.savez(folder / "ERing.npz", X=x, y=y, n_train=11)
    with pytest.raises(ValueError, match=r"readable file '.*ERing.npz' .*do not fit together"):
        load_sequences("ERing", tmp_path)
    (folder / "ERing.npz").write_bytes((folder / "ERing.npz").read_bytes()[:100])
    with pytest.raises(ValueError, match=r"readable file '.*ERing.npz'"):
        load_sequences("ERing", tmp_path)
    write_series(tmp_path, [case(2, i, "left") for i in range(4)], [case(2, 0.0, "right")], name="ERing")
    assert load_sequences("ERing", tmp_path).max_len == 2  # the archive's own format comes first


# --- The format of series ---------------------------------------------------------------------------------


def ts(tmp_path, text):
    path = tmp_path / "a.ts"
    path.write_text(text, encoding="utf8")
    return path


def test_series_of_several_lengths(tmp_path):
    found = read_ts(ts(tmp_path, HEADER + "1,2.5,-3e2:4,?,6:left\n\n# more\n 7 : 8 : right \r\n"))
    np.testing.assert_array_equal(found.x[0], [[1, 4], [2.5, np.nan], [-300, 6]])
    np.testing.assert_array_equal(found.x[1], [[7, 8]])
    assert found.labels == ["left", "right"]
    assert found.classes == ("left", "right")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (HEADER, "Expected series after '@data' in '.*a.ts'"),
        ("", "Expected series after '@data'"),
        (HEADER + "1,2:3,4:5,6:left\n", r"Expected 2 channels and a label in line 10 of '.*a.ts' \(got 3\)"),
        (HEADER + "1,2:3,4:left\n1,2:3,", "Expected 2 channels and a label in line 11"),
        (HEADER + "1,2:3,4:lef", r"a class of \('left', 'right'\) at the end of line 10 .*got 'lef'"),
        (HEADER + "1,2:3:left\n", r"channels of one length in line 10 .*got \[1, 2\]"),
        (HEADER + "1,x:3,4:left\n", "numbers or '\\?' in line 10 .*'x'"),
        (HEADER + "1,:3,4:left\n", "numbers or '\\?' in line 10"),
        (HEADER + "left\n", r"Expected 2 channels and a label in line 10 .*\(got 0\)"),
        (HEADER.replace("@dimensions 2\n", "") + "1:2:left\n1:right\n", "2 channels and .* line 10"),
        (HEADER.replace("@timeStamps false", "@timeStamps true"), "without time stamps in line 3"),
        (HEADER.replace("@classLabel true left right", "@classLabel false"), "class labels in line 8"),
        (HEADER.replace("@classLabel true left right", "@targetLabel true"), "labels in line 8 .*regression"),
        (HEADER.replace("@classLabel true left right", "@classLabel maybe"), "'true' or 'false' in line 8"),
        (HEADER.replace("@dimensions 2", "@dimensions two"), "a whole number in line 6"),
        (HEADER.replace("@data", "1,2:3,4:left"), "Expected a header or '@data' in line 9"),
    ],
)  # fmt: skip
def test_malformed_series(tmp_path, text, message):
    with pytest.raises(ValueError, match=message) as error:
        read_ts(ts(tmp_path, text))
    assert "\n" not in str(error.value)


# --- Series as a task -------------------------------------------------------------------------------------


def test_training_series_alone_decide_scale_and_length(tmp_path, monkeypatch):
    tiny(tmp_path, monkeypatch)
    task = load_sequences("BasicMotions", tmp_path)
    assert (task.kind, task.metric, task.num_classes, task.in_channels) == (
        "classification",
        "accuracy",
        2,
        2,
    )
    assert (len(task.train), len(task.val), len(task.test)) == (8, 2, 2)
    rows = torch.cat([x[:n] for x, n in zip(task.train.inputs.x, task.train.inputs.lengths, strict=True)])
    torch.testing.assert_close(rows.mean(0), torch.zeros(2), atol=1e-5, rtol=0)
    torch.testing.assert_close(rows.std(0, correction=0), torch.ones(2))
    # Both channels are the same ramp, so they are equal once scaled; the test is far away from training.
    test = task.test.inputs
    assert test.lengths.tolist() == [6, 3]  # clipped to the longest training series
    torch.testing.assert_close(test.x[..., 0], test.x[..., 1])
    assert float(test.x[0].min()) > 20
    assert float(test.x[1, 3:].abs().max()) == 0
    assert torch.equal(test.padding, torch.tensor([[False] * 6, [False] * 3 + [True] * 3]))


def test_the_test_does_not_change_what_is_trained_on(tmp_path, monkeypatch):
    tiny(tmp_path / "a", monkeypatch)
    tiny(tmp_path / "b", monkeypatch, test=[case(3, 1e6, "left")])
    one, other = (load_sequences("BasicMotions", tmp_path / folder) for folder in "ab")
    for part in ("train", "val"):
        assert torch.equal(getattr(one, part).inputs.x, getattr(other, part).inputs.x)
        assert torch.equal(getattr(one, part).y, getattr(other, part).y)


def test_validation_series_do_not_decide_the_scale(tmp_path, monkeypatch):
    r"""Whatever series is drawn for validation: moving it moves nothing else."""
    cases = [case(4, i, ("left", "right")[i % 2]) for i in range(10)]
    tiny(tmp_path / "a", monkeypatch, train=cases)
    before = load_sequences("BasicMotions", tmp_path / "a")
    moved = 0
    for i in range(10):
        changed = [*cases[:i], case(4, 1000.0, ("left", "right")[i % 2]), *cases[i + 1 :]]
        tiny(tmp_path / "b", monkeypatch, train=changed)
        after = load_sequences("BasicMotions", tmp_path / "b")
        if not torch.equal(after.val.inputs.x, before.val.inputs.x) and torch.equal(
            after.train.inputs.x, before.train.inputs.x
        ):
            moved += 1
    assert moved == 2


def test_validation_is_stratified_disjoint_and_drawn_from_the_seed(tmp_path, monkeypatch):
    labels = ["left"] * 30 + ["right"] * 10 + ["left"]
    cases = [case(1, 3.0 * i, label) for i, label in enumerate(labels)]
    tiny(tmp_path, monkeypatch, train=cases)
    drawn = {}
    for seed in (0, 1):
        task = load_sequences("BasicMotions", tmp_path, seed=seed)
        assert torch.bincount(task.val.y).tolist() == [6, 2]
        assert torch.bincount(task.train.y).tolist() == [25, 8]
        again = load_sequences("BasicMotions", tmp_path, seed=seed)
        assert torch.equal(task.val.inputs.x, again.val.inputs.x)
        # Series are 3 apart before scaling, so that each is known by its place in the order of all.
        values = torch.cat([task.train.inputs.x, task.val.inputs.x])[:, 0, 0]
        assert len(values.unique()) == len(labels)
        order = values.argsort().argsort()
        drawn[seed] = set(order[len(task.train) :].tolist())
    assert drawn[0] != drawn[1]


def test_a_class_of_one_stays_in_training(tmp_path, monkeypatch):
    tiny(tmp_path, monkeypatch, train=[case(2, i, "left") for i in range(3)] + [case(2, 9.0, "right")])
    task = load_sequences("BasicMotions", tmp_path)
    assert sorted(task.train.y.tolist()) == [0, 0, 1]
    assert task.val.y.tolist() == [0]


def test_missing_values_are_an_error_or_the_mean(tmp_path, monkeypatch):
    cases = [case(3, i, ("left", "right")[i % 2]) for i in range(10)]
    tiny(tmp_path, monkeypatch, train=cases, test=["1,?,2:10,?,20:left\n"])
    with pytest.raises(ValueError, match=r"no missing values in '.*BasicMotions_TEST.ts' .*missing='mean'"):
        load_sequences("BasicMotions", tmp_path)
    assert load_sequences("BasicMotions", tmp_path, missing="mean").test.inputs.x[0, 1].tolist() == [0.0, 0.0]
    with pytest.raises(ValueError, match="got 'zero'"):
        load_sequences("BasicMotions", tmp_path, missing="zero")


def test_a_constant_channel_is_zero(tmp_path, monkeypatch):
    tiny(tmp_path, monkeypatch, train=["1,2:5,5:left\n", "3,4:5,5:right\n"] * 3, test=["1,2:6,5:left\n"])
    task = load_sequences("BasicMotions", tmp_path)
    assert float(task.train.inputs.x[..., 1].abs().max()) == 0
    assert task.test.inputs.x[0, :, 1].tolist() == [1.0, 0.0]


def test_a_constant_that_no_float_holds_is_zero_too(tmp_path, monkeypatch):
    train = ["1,2,3:0.1,0.1,0.1:left\n", "3,4,3:0.1,0.1,0.1:right\n"] * 3
    tiny(tmp_path, monkeypatch, train=train, test=["1,2:0.2,0.1:left\n"])
    task = load_sequences("BasicMotions", tmp_path)
    assert float(task.train.inputs.x[..., 1].abs().max()) < 1e-12
    assert task.test.inputs.x[0, :, 1].tolist() == pytest.approx([0.1, 0.0])


@pytest.mark.parametrize("missing", ["error", "mean"])
@pytest.mark.parametrize("part", ["train", "test"])
def test_infinite_values_are_refused(tmp_path, monkeypatch, part, missing):
    cases = {"train": [case(3, i, ("left", "right")[i % 2]) for i in range(10)], "test": [case(3, 0, "left")]}
    cases[part].append("1,inf,2:10,20,30:left\n")
    tiny(tmp_path, monkeypatch, **cases)
    with pytest.raises(ValueError, match=r"finite values in '.*BasicMotions_TEST.ts' \(got inf"):
        load_sequences("BasicMotions", tmp_path, missing=missing)


def test_files_that_do_not_belong_together(tmp_path, monkeypatch):
    header = HEADER.replace("@classLabel true left right", "@classLabel true")
    train = [case(2, i, ("left", "right")[i % 2]) for i in range(4)]
    tiny(tmp_path, monkeypatch, header=header, train=train, test=[case(2, 0.0, "up")])
    with pytest.raises(
        ValueError, match=r"classes in '.*BasicMotions_TEST.ts' that the training part has .*'up'"
    ):
        load_sequences("BasicMotions", tmp_path)
    tiny(tmp_path, monkeypatch, header=header.replace("@dimensions 2\n", ""), test=["1,2:left\n"])
    with pytest.raises(ValueError, match=r"Expected 2 channels in the test series .*\(got 1\)"):
        load_sequences("BasicMotions", tmp_path)


@pytest.mark.parametrize("name", SERIES)
def test_real_series(name, data_root):
    task = load_real(name, data_root)
    train, test, channels, longest, classes = SERIES[name]
    assert len(task.train) + len(task.val) == train
    assert (len(task.test), task.in_channels, task.max_len, task.num_classes) == (
        test,
        channels,
        longest,
        classes,
    )
    assert 0.1 < len(task.val) / train < 0.3
    for part in task.parts.values():
        assert torch.bincount(part.y, minlength=classes).min() > 0
        assert part.inputs.x.dtype == torch.float32


# --- Digits -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("patch", [2, 4])
def test_patches_are_those_of_the_images(patch):
    sklearn = pytest.importorskip("sklearn.datasets")
    task = load_sequences("digits", patch=patch)
    side = 8 // patch
    wanted = {}
    for image, label in zip(
        *(getattr(sklearn.load_digits(), name) for name in ("images", "target")), strict=True
    ):
        wanted[image.tobytes()] = label
    seen = set()
    for part in task.parts.values():
        assert part.inputs.x.shape[1:] == (side**2, patch**2)
        for x, label in zip(part.inputs.x, part.y.tolist(), strict=True):
            rows = [
                torch.cat([x[side * i + j].view(patch, patch) for j in range(side)], 1) for i in range(side)
            ]
            image = (16 * torch.cat(rows)).double().numpy().tobytes()
            assert wanted[image] == label
            seen.add(image)
    assert seen == set(wanted)
    assert [len(part) for part in task.parts.values()] == [1078, 359, 360]


def test_digits_have_parts_of_their_seed_and_whole_patches():
    pytest.importorskip("sklearn")
    first, again, other = (load_sequences("digits", seed=seed).test.y for seed in (0, 0, 1))
    assert first.equal(again)
    assert not first.equal(other)
    with pytest.raises(ValueError, match=r"'patch' to divide 8 pixels \(got 3\)"):
        load_sequences("digits", patch=3)


# --- ListOps ----------------------------------------------------------------------------------------------


def value_of(text):
    r"""The value of an expression by Python's own parser."""
    calls = {"[MIN": "min(", "[MAX": "max(", "[MED": "med(", "[SM": "sm(", "]": ")"}
    code = " ".join(
        calls.get(token, token) + ("" if token in calls and token != "]" else ",") for token in text.split()
    )
    names = {
        "med": lambda *values: int(np.median(values)),
        "sm": lambda *values: sum(values) % 10,
    }
    return eval(code.rstrip(","), names)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("7", 7),
        ("[MIN 3 5 ]", 3),
        ("[SM 9 8 7 ]", 4),
        ("[MED 1 9 ]", 5),
        ("[MED 1 2 ]", 1),
        ("[MED 8 1 5 ]", 5),
        ("[MED 0 9 2 7 ]", 4),
        ("[MAX 2 9 [MIN 4 7 ] 0 ]", 9),
        ("[MAX 2 [SM 9 9 ] [MED 1 2 3 ] ]", 8),
    ],
)
def test_values_of_expressions(text, value):
    assert listops.evaluate(text.split()) == value == value_of(text)


@pytest.mark.parametrize(
    "text", ["", "]", "[MIN ]", "[MIN 3", "3 4", "3 [MIN 4", "[MIN 3 ] ]", "[MAX 3 x ]", "[FIRST 3 4 ]"]
)
def test_what_is_no_expression(text):
    with pytest.raises(ValueError, match="expression of ListOps"):
        listops.evaluate(text.split())


def test_generated_expressions_keep_the_rule():
    found = listops.generate(300, (20, 200), seed=3)
    assert len(set(found)) == 300
    depths, arguments = set(), set()
    for tokens in found:
        assert 20 <= len(tokens) <= 200
        assert listops.evaluate(tokens) == value_of(" ".join(tokens))
        counts = [0]
        depth = [1]
        for token in tokens:
            if token == "]":
                arguments.add(counts.pop())
            else:
                counts[-1] += 1
                depth.append(len(counts))
                if token.startswith("["):
                    counts.append(0)
        depths.add(max(depth))
    assert arguments == set(range(2, 11))
    assert max(depths) == 10
    operators = [token for tokens in found for token in tokens if token.startswith("[")]
    share = [operators.count(name) / len(operators) for name in listops.OPERATORS]
    np.testing.assert_allclose(share, 0.25, atol=0.03)
    digits = [token for tokens in found for token in tokens if token.isdigit()]
    np.testing.assert_allclose([digits.count(str(i)) / len(digits) for i in range(10)], 0.1, atol=0.02)


def test_the_share_of_operators():
    # Short ones, so that lengths hardly select: a root is an operator once in four draws.
    draws = iter([0.25, 0.0, 0.0, 0.26, 0.5, 0.9, 0.95])
    tokens = []
    listops._extend(tokens, 1, 100, lambda: next(draws))
    assert tokens == ["[MIN", "5", "9", "]"]
    deep = []
    listops._extend(deep, 10, 100, iter([0.0]).__next__)
    assert deep == ["0"]  # no operator that deep, and nothing is drawn to decide it


def drawn():
    r"""What must not depend on how a process orders what is hashed: an expression, and merges of
    letters where they can be made."""
    texts = [f"{chr(97 + i % 7)}{chr(97 + i % 5)} {i}" for i in range(500)]
    merges = BytePairs(texts, 80).tokenizer.get_vocab() if find_spec("tokenizers") else {}
    return listops.generate(1, (5, 12), seed=0)[0], sorted(merges.items())


@pytest.fixture(scope="module")
def drawn_elsewhere():
    r"""The same in a process with another order."""
    paths = [str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH"), os.getcwd()])]
    done = subprocess.run(
        [sys.executable, "-c", "import test_sequences; print(test_sequences.drawn())"],
        env={**os.environ, "PYTHONHASHSEED": "17", "PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True,
        text=True,
        check=True,
    )
    return ast.literal_eval(done.stdout)


def test_expressions_are_those_of_the_seed(drawn_elsewhere):
    assert drawn_elsewhere[0] == drawn()[0]
    assert listops.generate(3, (5, 30), seed=0) != listops.generate(3, (5, 30), seed=1)


def test_impossible_expressions_are_refused():
    with pytest.raises(ValueError, match=r"Expected 11 different expressions of 1 to 1 tokens \(found 10 in"):
        listops.generate(11, (1, 1))
    with pytest.raises(ValueError, match=r"got \(9, 3\)"):
        listops.generate(1, (9, 3))


@pytest.mark.parametrize(
    "options",
    [
        {"sizes": (9, 9)},
        {"sizes": (9, 9, 9, 9)},
        {"sizes": (9, 0, 9)},
        {"lengths": (3,)},
        {"lengths": (3, 9, 9)},
    ],
)
def test_sizes_and_lengths_of_listops_are_checked(options):
    (name,) = options
    with pytest.raises(ValueError, match=rf"Expected '{name}' as "):
        load_sequences("ListOps", **{"lengths": (3, 9), "sizes": (9, 9, 9), **options})


def test_parts_of_listops_are_disjoint():
    task, other = (load_sequences("ListOps", seed=i, lengths=(3, 9), sizes=(200, 50, 60)) for i in (2, 3))
    assert not torch.equal(task.test.inputs.lengths, other.test.inputs.lengths)
    seen = [
        [tuple(x[:n].tolist()) for x, n in zip(part.inputs.x, part.inputs.lengths, strict=True)]
        for part in task.parts.values()
    ]
    assert [len(part) for part in seen] == [200, 50, 60]
    assert len(set().union(*seen)) == 310
    for part in task.parts.values():
        for x, n, y in zip(part.inputs.x, part.inputs.lengths, part.y, strict=True):
            assert listops.evaluate(task.vocabulary.decode(x[:n].tolist()).split()) == y


# --- Text -------------------------------------------------------------------------------------------------


def write_text(root, folder, monkeypatch, **files):
    monkeypatch.setattr("kgat.datasets.files.checksums", dict)
    (root / "seq" / folder).mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (root / "seq" / folder / name).write_bytes(text.encode())


SENTENCES = {
    "train.tsv": "good good film\t1\nbad film\t0\n",
    "dev.tsv": "new film\t1\n",
    "test.tsv": "film\t0\n",
}


def test_words_of_the_training_part_alone(tmp_path, monkeypatch):
    write_text(tmp_path, "SST2", monkeypatch, **SENTENCES)
    task = load_sequences("SST2", tmp_path)
    assert task.vocabulary.words == ("<pad>", "<unk>", "film", "good")
    assert task.train.inputs.x.tolist() == [[3, 3, 2], [1, 2, 0]]
    assert task.train.inputs.lengths.tolist() == [3, 2]
    assert task.train.y.tolist() == [1, 0]
    assert task.val.inputs.x.tolist() == [[1, 2]]
    assert load_sequences("SST2", tmp_path, min_count=1).vocabulary.words[2:] == ("film", "good", "bad")


def test_a_carriage_return_ends_no_line(tmp_path, monkeypatch):
    files = {**SENTENCES, "train.tsv": "good\rgood film\t1\r\nbad film\t0\r\n"}
    write_text(tmp_path, "SST2", monkeypatch, **files)
    assert load_sequences("SST2", tmp_path).train.inputs.x.tolist() == [[3, 3, 2], [1, 2, 0]]


def test_a_header_is_no_sentence(tmp_path, monkeypatch):
    files = {name: "sentence\tlabel\n" + text for name, text in SENTENCES.items()}
    write_text(tmp_path, "SST2_glue", monkeypatch, **files)
    assert len(load_sequences("SST2_glue", tmp_path).train) == 2


@pytest.mark.parametrize("line", ["no label", "a film\t2", "\t1", ""])
def test_malformed_sentences(tmp_path, monkeypatch, line):
    write_text(tmp_path, "SST2", monkeypatch, **{**SENTENCES, "dev.tsv": f"a film\t1\n{line}\na film\t0\n"})
    with pytest.raises(ValueError, match=r"0 or 1 in line 2 of '.*dev.tsv'"):
        load_sequences("SST2", tmp_path)


def test_a_text_is_one_stream(tmp_path, monkeypatch):
    files = {"ptb.train.txt": " a b <unk>\n a c \n", "ptb.valid.txt": " a d \n", "ptb.test.txt": " b \n"}
    write_text(tmp_path, "ptb", monkeypatch, **files)
    task = load_sequences("PTB", tmp_path)
    assert task.vocabulary.words == ("<eos>", "a", "<unk>", "b", "c")
    assert task.train.tokens.tolist() == [1, 3, 2, 0, 1, 4, 0]
    assert task.val.tokens.tolist() == [1, 2, 0]
    assert (task.metric, task.max_len) == ("perplexity", None)


def sentences(language, count):
    return "".join(f"{language}{i % 7} {language}{i % 5} .\n" for i in range(count))


@needs_tokenizers
@pytest.mark.parametrize("shared", [True, False])
def test_pairs_of_sentences(tmp_path, monkeypatch, shared):
    counts = {"train": 40, "val": 6, "test_2016_flickr": 5}
    files = {f"{part}.lc.norm.tok.{language}": sentences(language, count)
             for part, count in counts.items() for language in ("de", "en")}  # fmt: skip
    files["test_2016_flickr.lc.norm.tok.en"] = "unseen <unk> en1\n" + sentences("en", 4)
    write_text(tmp_path, "multi30k/tok", monkeypatch, **files)
    task = load_sequences("Multi30k", tmp_path, vocab_size=40, shared=shared)
    assert (task.vocabulary is task.target_vocabulary) == shared
    assert len(task.vocabulary) <= 40
    assert (len(task.train), len(task.val), len(task.test)) == (40, 6, 5)
    assert task.test.references[1] == "en0 en0 ."
    bos, eos = (task.target_vocabulary.id(token) for token in ("<bos>", "<eos>"))
    for part in task.parts.values():
        for x, n in zip(part.target.x, part.target.lengths, strict=True):
            assert (x[0], x[n - 1]) == (bos, eos)
            assert int((x == eos).sum()) == 1
        for x, n in zip(part.source.x, part.source.lengths, strict=True):
            assert x[n - 1] == eos
    for x, text in zip(task.train.target.x, task.train.references, strict=True):
        assert task.target_vocabulary.decode(x.tolist()) == text
    other = load_sequences("Multi30k", tmp_path, vocab_size=40, shared=shared)
    assert torch.equal(other.train.target.x, task.train.target.x)


@needs_tokenizers
def test_translations_of_other_length_are_refused(tmp_path, monkeypatch):
    files = {f"{part}.lc.norm.tok.{language}": sentences(language, 9 + (part == "val" and language == "en"))
             for part in ("train", "val", "test_2016_flickr") for language in ("de", "en")}  # fmt: skip
    write_text(tmp_path, "multi30k/tok", monkeypatch, **files)
    with pytest.raises(ValueError, match=r"as many lines in '.*val.lc.norm.tok.de' .*got 9 and 10"):
        load_sequences("Multi30k", tmp_path)


def test_a_missing_package_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr("kgat.extras.find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"package 'tokenizers' to read 'Multi30k' .*kgat\[sequences\]"):
        load_sequences("Multi30k", tmp_path)


@needs_tokenizers
def test_merges_are_the_same_in_each_process(drawn_elsewhere):
    assert drawn_elsewhere[1] == drawn()[1]
    assert len(drawn_elsewhere[1]) == 80


def test_words():
    words = Words.of(["b a", "a c"], specials=())
    assert words.words == ("a", "b", "c")
    with pytest.raises(ValueError, match="got 'd'"):
        words.encode("d")
    with pytest.raises(ValueError, match="got 'a' twice"):
        Words(["a", "b", "a"])
    with_end = Words.of(["b a"])
    assert with_end.decode([2, 4, 3, 5, 0]) == "a"


@pytest.mark.parametrize(
    ("name", "sizes", "words"),
    [
        ("SST2", (6920, 872, 1821), 7206),
        ("SST2_glue", (60614, 6735, 872), 14126),
        ("PTB", (929589, 73760, 82430), 10000),
    ],
)
def test_real_texts(name, sizes, words, data_root):
    task = load_real(name, data_root)
    assert tuple(map(len, task.parts.values())) == sizes
    assert len(task.vocabulary) == words


@needs_tokenizers
def test_real_translations(data_root):
    task = load_real("Multi30k", data_root, vocab_size=2000)
    assert (len(task.train), len(task.val), len(task.test)) == (29000, 1014, 1000)
    assert len(task.vocabulary) == 2000
    for x, text in zip(task.val.target.x[:50], task.val.references, strict=False):
        assert task.vocabulary.decode(x.tolist()) == text


# --- Tasks ------------------------------------------------------------------------------------------------


def labelled(x, y, lengths=None):
    return Labelled(
        Padded(x, torch.tensor([x.size(1)] * len(x) if lengths is None else lengths)), torch.tensor(y)
    )


def test_padded_sequences_lose_what_padding_they_can():
    padded = Padded.of([torch.tensor([1, 2, 3]), torch.tensor([4]), torch.tensor([5, 6])])
    some = padded.take(torch.tensor([2, 1]))
    assert some.x.tolist() == [[5, 6], [4, 0]]
    assert some.lengths.tolist() == [2, 1]
    assert some.padding.tolist() == [[False, False], [False, True]]
    assert padded.to("cpu").x.equal(padded.x)
    assert padded.take(torch.tensor([], dtype=torch.int64)).x.shape == (0, 0)


good = labelled(torch.zeros(2, 3, 1), [0, 1])


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"kind": "regression"}, ValueError, "Expected 'kind' of 'a'"),
        ({"val": Stream(torch.tensor([1]))}, ValueError, "part 'val' of 'a' to be of Labelled .*got Stream"),
        ({"test": labelled(torch.zeros(0, 3, 1), [])}, ValueError, "sequences in part 'test' of 'a'"),
        ({"test": labelled(torch.zeros(2, 3, 1), [0, 2])}, IndexError, r"classes from 0 to 1 .*got 2"),
        ({"train": labelled(torch.zeros(2, 3, 1), [0])}, ValueError, "1 sequences and lengths"),
        ({"train": labelled(torch.zeros(2, 3, 1), [0, 1], [3, 0])}, ValueError, r"lengths .*got 0"),
        ({"train": labelled(torch.zeros(2, 3, 1), [0, 1], [4, 1])}, ValueError, r"between 1 and 3 .*got 4"),
        ({"train": labelled(torch.full((2, 3, 1), torch.nan), [0, 1])}, ValueError, "series 0, step 0"),
        ({"train": labelled(torch.zeros(2, 3), [0, 1])}, ValueError, r"shape \[B, N, F\]"),
        ({"val": labelled(torch.zeros(2, 3, 2), [0, 1])}, ValueError, r"same channels .*\[\[1\], \[2\]\]"),
        ({"vocabulary": Words(["a"])}, ValueError, "int64 token ids .*float32"),
    ],
)  # fmt: skip
def test_broken_tasks_are_refused(change, error, message):
    given = {"name": "a", "kind": "classification", "train": good, "val": good, "test": good,
             "source": "", "preprocessing": "", "num_classes": 2}  # fmt: skip
    SequenceTask(**given)
    with pytest.raises(error, match=message):
        SequenceTask(**{**given, **change})


def test_token_ids_are_checked():
    stream, words = Stream(torch.tensor([0, 1])), Words(["a", "b"])
    SequenceTask("a", "language_model", stream, stream, stream, "", "", vocabulary=words)
    with pytest.raises(IndexError, match=r"token ids from 0 to 0 .*got 1"):
        SequenceTask("a", "language_model", stream, stream, stream, "", "", vocabulary=Words(["a"]))
    with pytest.raises(ValueError, match="got no vocabulary"):
        SequenceTask("a", "language_model", stream, stream, stream, "", "")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("y", [0, 1, 0, 10**12]),
        ("y", [0, 1, 0, -1]),
        ("y", ["a", "b", "a", "b"]),
        ("y", [0.0, 1.0, np.nan, 1.0]),
        ("X", np.ones((4, 0, 2))),
        ("X", np.ones((4, 3, 0))),
        ("X", np.full((4, 3, 2), "a")),
        ("X", np.full((4, 3, 2), np.inf)),
        ("n_train", [2, 2]),
        ("n_train", 1),
    ],
)
def test_damaged_arrays_of_series_name_their_file(tmp_path, monkeypatch, field, value):
    monkeypatch.setattr("kgat.datasets.files.checksums", dict)
    (tmp_path / "seq/uea_npz").mkdir(parents=True)
    content = {"X": np.ones((4, 3, 2)), "y": [0, 1, 0, 1], "n_train": 2, field: value}
    np.savez(tmp_path / "seq/uea_npz/ERing.npz", **content)
    with pytest.raises(ValueError, match=r"Expected .*ERing.npz'"):
        load_sequences("ERing", tmp_path)


@pytest.mark.parametrize("name", ["SST2", "PTB", "Multi30k"])
def test_files_without_text_name_their_file(tmp_path, monkeypatch, name):
    monkeypatch.setattr("kgat.datasets.files.checksums", dict)
    for content in (b"", b"\n", b"\xff\n", b"sentence\tlabel\n"):
        for file in sequences.resolve_source(name).files:
            path = tmp_path / file.path
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        if content.startswith(b"s") and name != "SST2":
            continue
        with pytest.raises(ValueError, match=rf"Expected .*'{re.escape(str(tmp_path))}/seq/.*'"):
            load_sequences(name, tmp_path)
