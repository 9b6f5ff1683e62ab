r"""What records say of the sources they were made with."""

import subprocess

import pytest

from kgat.experiments.circumstances import PACKAGE, commit_of


def git(root, *arguments):
    identity = ("-c", "user.name=a", "-c", "user.email=a@b")
    done = subprocess.run(
        ["git", *identity, *arguments], cwd=root, check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


@pytest.fixture
def clone(tmp_path):
    for folder, text in ((PACKAGE, "code"), ("evidence", "records")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "file").write_text(text)
    git(tmp_path, "init")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-m", "first")
    commit_of.cache_clear()
    return tmp_path


def test_records_that_grow_do_not_mark_a_commit(clone):
    (clone / "evidence" / "file").write_text("more records")
    (clone / "evidence" / "new").write_text("and more")
    assert commit_of(clone) == git(clone, "rev-parse", "--short", "HEAD")


@pytest.mark.parametrize("name", ["file", "new"])
def test_changes_of_the_package_do(clone, name):
    (clone / PACKAGE / name).write_text("other code")
    assert commit_of(clone) == git(clone, "rev-parse", "--short", "HEAD") + "-dirty"


def test_what_is_no_clone_has_no_commit(clone):
    assert commit_of(clone / PACKAGE) is None
