import errno
import os
import stat

import pytest

from kgat.atomic import make_folder, replacing, write_atomically, writing
from kgat.datasets.files import atomic

pytestmark = pytest.mark.quick


def test_a_file_appears_whole_and_readable(tmp_path):
    path = tmp_path / "file.txt"
    write_atomically(path, b"first")
    assert path.read_bytes() == b"first"
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    path.chmod(0o600)
    with replacing(path) as file:
        file.write(b"sec")
        assert path.read_bytes() == b"first"
        file.write(b"ond")
    assert path.read_bytes() == b"second"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("open_beside", [replacing, atomic])  # that of data sets makes folders, too
def test_what_was_there_stays_when_writing_ends_early(tmp_path, open_beside):
    path = tmp_path / "file.txt"
    path.write_bytes(b"old")

    def interrupted():
        with open_beside(path) as file:
            file.write(b"half of the n")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


FAILURES = {
    errno.ENOSPC: "Expected room on the disk",
    errno.EIO: "Expected room on the disk",
    **dict.fromkeys((errno.EACCES, errno.EROFS, errno.ENOENT, errno.EISDIR), "Expected a file that can be"),
}


@pytest.mark.parametrize("number", FAILURES)
def test_failures_of_the_disk_are_one_sentence(tmp_path, number):
    path = tmp_path / "file"

    def fail(*about):
        with writing(path):
            raise OSError(number, os.strerror(number), *about)

    with pytest.raises(OSError, match=f"^{FAILURES[number]} .*{os.strerror(number)}") as error:
        fail(str(path))
    assert (error.value.errno, str(path) in str(error.value)) == (number, True)
    assert type(error.value) is type(OSError(number, ""))
    # A server, or another file that is read meanwhile, fails in its own words; a disk need not name a file.
    with pytest.raises(OSError, match=FAILURES[number] if "room" in FAILURES[number] else r"^\[Errno"):
        fail()


def test_a_folder_that_cannot_be_made(tmp_path):
    make_folder(tmp_path / "one" / "other")
    make_folder(tmp_path / "one" / "other")
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(PermissionError, match=r"Expected a folder that can be written .*file.*--out"):
            make_folder(folder)
