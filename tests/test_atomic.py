import errno
import os
import stat

import pytest

from kgat.atomic import replacing, write_atomically, writing
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


@pytest.mark.parametrize(
    ("number", "is_said"), [(errno.ENOSPC, True), (errno.EIO, True), (errno.EACCES, False)]
)
def test_failures_of_the_disk_are_one_sentence(tmp_path, number, is_said):
    def fail():
        with writing(tmp_path / "file"):
            raise OSError(number, os.strerror(number))

    with pytest.raises(
        OSError, match="Expected room on the disk" if is_said else os.strerror(number)
    ) as error:
        fail()
    assert error.value.errno == number
