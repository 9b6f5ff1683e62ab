import errno
import hashlib
import os
import tempfile

import numpy as np
import pytest
import torch

from kgat.datasets import load, splits

pytestmark = pytest.mark.quick

Y = np.array([0] * 50 + [1] * 50 + [-1] * 20)


def digest(name, root, number):
    masks = [torch.stack([s.train, s.val, s.test]) for s in load(name, root).splits[:number]]
    return hashlib.sha256(torch.stack(masks).numpy().tobytes()).hexdigest()


def test_rules_give_the_sizes_they_promise():
    order = np.random.default_rng(0).permutation(100)
    part = splits.per_class(order, Y, train=5, val=8)
    for label in (0, 1):
        assert np.bincount(part[label == Y], minlength=4).tolist() == [0, 5, 8, 37]
    part = splits.per_class_train(order, Y, train=5, val=30)
    assert np.bincount(part).tolist() == [20, 10, 30, 60]
    assert np.bincount(Y[part == 1]).tolist() == [5, 5]
    part = splits.shares(order, Y, train=0.5, val=0.25)
    assert np.bincount(part).tolist() == [20, 50, 25, 25]
    assert not np.array_equal(part, splits.shares(order[::-1], Y, train=0.5, val=0.25))


def test_small_classes_leave_nodes_to_test():
    y = np.array([0] * 9 + [1] * 100)
    part = splits.per_class(np.arange(109), y, train=20, val=30)
    assert [int((part[:9] == p).sum()) for p in (1, 2, 3)] == [3, 3, 3]


def test_draw_depends_on_name_and_index_only():
    def draw(name, index):
        return splits.draw(name, index, Y, lambda order, y: order).tolist()

    assert draw("a", 0) == draw("a", 0)
    assert sorted(draw("a", 0)) == list(range(100))
    assert len({tuple(draw(name, index)) for name in "ab" for index in range(3)}) == 6
    # Written down here: a change would silently change every published number.
    assert draw("a", 0)[:6] == [75, 68, 25, 49, 48, 66]


def test_splits_of_digits_are_these(tmp_path):
    ten, twenty = (digest("digits", tmp_path, number) for number in (10, 20))
    assert ten == "36fe4a1e52a2e57d059485bf2b13334ded350b436290b926815a6baf459b4474"
    assert twenty == "83abf72334f0952529d57541b633c74cc1509572dd0efacb99351dedd5674ade"


def test_splits_are_written_and_read_back(tmp_path):
    first = load("karate", tmp_path)
    place = tmp_path / "splits" / "karate.npz"
    (parts,) = splits.read_npz(place, "parts")
    assert parts.shape == (20, 34)
    # What is written down counts: exchange two splits in the file.
    np.savez_compressed(place, parts=parts[[1, 0, *range(2, 20)]])
    second = load("karate", tmp_path)
    assert torch.equal(second.splits[0].train, first.splits[1].train)
    assert torch.equal(second.splits[1].test, first.splits[0].test)


def test_files_with_the_first_ten_are_drawn_on(tmp_path):
    twenty = load("karate", tmp_path).splits
    place = tmp_path / "splits" / "karate.npz"
    (parts,) = splits.read_npz(place, "parts")
    np.savez_compressed(place, parts=parts[:10])
    again = load("karate", tmp_path).splits
    assert [split.name for split in again] == [f"random-{index}" for index in range(20)]
    assert all(torch.equal(a.test, b.test) for a, b in zip(again, twenty, strict=True))
    # Ten that are not these are somebody's own.
    np.savez_compressed(place, parts=parts[10:])
    own = load("karate", tmp_path).splits
    assert len(own) == 10
    assert torch.equal(own[0].test, twenty[10].test)


def test_written_splits_that_do_not_fit(tmp_path):
    load("karate", tmp_path)
    place = tmp_path / "splits" / "karate.npz"
    np.savez_compressed(place, parts=np.ones((10, 33), dtype=np.uint8))
    with pytest.raises(ValueError, match=r"splits of 34 nodes in .*\(got uint8 \[10, 33\]\)"):
        load("karate", tmp_path)
    place.write_bytes(place.read_bytes()[:100])
    with pytest.raises(ValueError, match=r"readable file .*karate.npz.*delete it"):
        load("karate", tmp_path)


def test_read_only_root_writes_to_the_cache(tmp_path, monkeypatch):
    root = tmp_path / "root"
    root.write_bytes(b"")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    first = load("karate", root)
    assert (tmp_path / "cache" / "kgat" / "splits" / "karate.npz").is_file()
    assert torch.equal(load("karate", root).splits[3].test, first.splits[3].test)
    # A root that can be written to keeps its own.
    load("karate", tmp_path / "other")
    assert (tmp_path / "other" / "splits" / "karate.npz").is_file()


def test_ten_that_cannot_be_rewritten_are_drawn_on(tmp_path, monkeypatch):
    twenty = load("karate", tmp_path / "root").splits
    place = tmp_path / "root" / "splits" / "karate.npz"
    (parts,) = splits.read_npz(place, "parts")
    np.savez_compressed(place, parts=parts[:10])
    monkeypatch.setenv("XDG_CACHE_HOME", str(place))
    monkeypatch.setattr(splits, "atomic", refuse)
    again = load("karate", tmp_path / "root").splits
    assert all(torch.equal(a.test, b.test) for a, b in zip(again, twenty, strict=True))


def refuse(path):
    raise PermissionError(path)


def test_nowhere_to_write(tmp_path, monkeypatch):
    root = tmp_path / "root"
    root.write_bytes(b"")
    monkeypatch.setenv("XDG_CACHE_HOME", str(root))
    with pytest.raises(PermissionError, match=r"folder that can be written \(got '.*root/splits'.*KGAT_DATA"):
        load("karate", root)


def test_a_full_disk(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    make, full = tempfile.mkstemp, [tmp_path / "root"]

    def mkstemp(**where):
        if any(folder in where["dir"].parents for folder in full):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(where["dir"]))
        return make(**where)

    monkeypatch.setattr(tempfile, "mkstemp", mkstemp)
    load("karate", tmp_path / "root")
    place = tmp_path / "cache" / "kgat" / "splits" / "karate.npz"
    assert place.is_file()
    place.unlink()
    full.append(tmp_path / "cache")
    with pytest.raises(OSError, match=r"Expected room on the disk to write '.*root/splits/karate.npz'"):
        load("karate", tmp_path / "root")
