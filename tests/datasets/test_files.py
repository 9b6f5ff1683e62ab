import errno
import functools
import hashlib
import io
import os
import pickle
import ssl
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, HTTPServer, SimpleHTTPRequestHandler
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse

from kgat.datasets import files
from kgat.datasets.files import RawFile, download, fetch, naming, resolve_root, unpickle, verify

CONTENT = b"some raw data"
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def origin(tmp_path):
    path = tmp_path / "origin" / "raw.bin"
    path.parent.mkdir()
    path.write_bytes(CONTENT)
    return path


@pytest.fixture
def serve():
    servers = []

    def start(handler):
        server = HTTPServer(("127.0.0.1", 0), handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def test_root_is_argument_then_variable_then_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("KGAT_DATA", str(tmp_path / "variable"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert resolve_root(tmp_path / "argument") == tmp_path / "argument"
    assert resolve_root(None) == tmp_path / "variable"
    monkeypatch.delenv("KGAT_DATA")
    assert resolve_root(None) == tmp_path / "cache" / "kgat"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert resolve_root(None) == Path.home() / ".cache" / "kgat"


def test_download_arrives_whole(origin, tmp_path):
    target = tmp_path / "new" / "folder" / "raw.bin"
    download(origin.as_uri(), target, sha256=SHA256, size=len(CONTENT))
    assert target.read_bytes() == CONTENT
    assert [path.name for path in target.parent.iterdir()] == ["raw.bin"]


def test_download_over_http(origin, tmp_path, serve):
    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    url = serve(functools.partial(Handler, directory=str(origin.parent)))
    download(f"{url}/raw.bin", tmp_path / "raw.bin")
    assert (tmp_path / "raw.bin").read_bytes() == CONTENT
    with pytest.raises(FileNotFoundError, match=r"no download from .*other.bin: .*not found"):
        download(f"{url}/other.bin", tmp_path / "new" / "folder" / "other.bin")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("promise", "message"),
    [
        ({"size": 99}, r"Expected 99 bytes from .* \(got 13\)"),
        ({"sha256": "0" * 64}, rf"Expected SHA-256 {'0' * 64} of .* \(got {SHA256}\)"),
    ],
)
def test_download_of_something_else_leaves_nothing(origin, tmp_path, promise, message):
    target = tmp_path / "new" / "raw.bin"
    with pytest.raises(ValueError, match=message):
        download(origin.as_uri(), target, **promise)
    assert list(target.parent.iterdir()) == []


def test_transfer_that_breaks_off_is_refused(tmp_path, serve):
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            self.end_headers()
            self.wfile.write(CONTENT)

        def log_message(self, *args):
            pass

    target = tmp_path / "new" / "raw.bin"
    with pytest.raises(ValueError, match=r"Expected 1,000 bytes from .* \(got 13\)"):
        download(f"{serve(Handler)}/raw.bin", target)
    assert list(target.parent.iterdir()) == []


def test_download_checks_certificates(monkeypatch, tmp_path):
    contexts = []

    def urlopen(request, *, timeout, context):
        contexts.append(context)
        raise ConnectionError("refused")

    # What PyG's downloader does to a process.
    monkeypatch.setattr(ssl, "_create_default_https_context", ssl._create_unverified_context)
    monkeypatch.setattr(files.urllib.request, "urlopen", urlopen)
    with pytest.raises(FileNotFoundError, match="refused"):
        download("https://example.org/raw.bin", tmp_path / "raw.bin")
    assert contexts[0].verify_mode == ssl.CERT_REQUIRED
    assert contexts[0].check_hostname


def test_disk_without_room(origin, tmp_path, monkeypatch):
    usage = files.shutil.disk_usage(tmp_path)._replace(free=5)
    monkeypatch.setattr(files.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(OSError, match=r"13 bytes of free disk for .*raw.bin' \(got 5\)"):
        download(origin.as_uri(), tmp_path / "raw.bin")


def test_missing_file_without_network_says_where_and_how(tmp_path):
    url = (tmp_path / "nowhere.npz").as_uri()
    with pytest.raises(FileNotFoundError) as error:
        fetch(tmp_path / "root", [RawFile("A/raw/a.npz", url)], "A")
    message = str(error.value)
    for part in ("'A'", str(tmp_path / "root" / "A" / "raw" / "a.npz"), url, "KGAT_DATA"):
        assert part in message
    assert "\n" not in message


def test_unwritable_folder(origin, tmp_path):
    # A file where a folder should be: unwritable for everyone, the superuser included.
    root = tmp_path / "root"
    root.write_bytes(b"")
    with pytest.raises(PermissionError, match=r"folder that can be written \(got '.*root/A': .*KGAT_DATA"):
        fetch(root, [RawFile("A/raw.bin", origin.as_uri())], "A")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS])
@pytest.mark.parametrize("name", ["open", "mkdir"])
def test_a_full_disk_is_no_refusal(origin, tmp_path, monkeypatch, name, number):
    call, root = getattr(os, name), tmp_path / "root"

    def refuse(path, *args, **kwargs):
        if root in Path(path).parents:
            raise OSError(number, os.strerror(number), str(path))
        return call(path, *args, **kwargs)

    root.mkdir()
    monkeypatch.setattr(os, name, refuse)
    with pytest.raises(OSError, match=os.strerror(number)) as error:
        fetch(root, [RawFile("A/raw.bin", origin.as_uri())], "A")
    is_full = number == errno.ENOSPC
    assert str(error.value).startswith("Expected room on the disk") is is_full
    assert ("KGAT_DATA" in str(error.value)) is not is_full
    assert isinstance(error.value, PermissionError) is (name == "mkdir" and not is_full)


def test_what_is_said_of_content_names_the_files(tmp_path):
    paths = [tmp_path / "a", tmp_path / "b"]
    for error, kind in ((KeyError("rows"), ValueError), (IndexError("7 of 5"), IndexError)):
        with pytest.raises(kind, match=f"; read from '{paths[0]}', '{paths[1]}'$") as raised, naming(*paths):
            raise error
        assert type(raised.value) is kind
    with pytest.raises(ValueError, match=r"^EOFError; read from"), naming(paths[0]):
        raise EOFError
    with pytest.raises(PermissionError, match=r"^of the system$"), naming(paths[0]):
        raise PermissionError("of the system")


def test_fetch_takes_what_is_there_wherever_it_may_lie(origin, tmp_path):
    other = tmp_path / "B" / "raw.bin"
    other.parent.mkdir()
    other.write_bytes(CONTENT)
    nowhere = (tmp_path / "nowhere").as_uri()
    assert fetch(tmp_path, [RawFile("A/raw.bin", nowhere, also=("B/raw.bin",))], "A") == [other]
    assert not (tmp_path / "A").exists()


def test_fetch_unpacks_named_members_only(tmp_path):
    archive = tmp_path / "all.zip"
    with zipfile.ZipFile(archive, "w") as content:
        content.writestr("set/raw/a.txt", "a")
        content.writestr("../../evil.txt", "evil")
    root = tmp_path / "deep" / "root"
    url = archive.as_uri()
    (path,) = fetch(root, [RawFile("A/a.txt", url, "set/raw/a.txt")], "A")
    assert path.read_text() == "a"
    found = {str(p.relative_to(root)) for p in root.rglob("*") if p.is_file()}
    assert found == {"A/a.txt"}
    assert not list(tmp_path.rglob("evil.txt"))
    with pytest.raises(ValueError, match="KeyError"):
        fetch(root, [RawFile("A/b.txt", url, "set/raw/b.txt")], "A")


def test_verify_names_file_expected_and_got(origin):
    verify(origin, SHA256, len(CONTENT))
    with pytest.raises(ValueError, match=r"Expected 14 bytes in '.*raw.bin' \(got 13\).*delete"):
        verify(origin, SHA256, 14)
    with pytest.raises(ValueError, match=rf"SHA-256 {'1' * 64} of '.*raw.bin' \(got {SHA256}\)"):
        verify(origin, "1" * 64, 13)


def test_files_that_serve_instead_are_taken_where_they_alone_are_all_there(tmp_path):
    files, instead = [RawFile("A/a.ts", None), RawFile("A/b.ts", None)], [RawFile("A.npz", None)]
    with pytest.raises(
        FileNotFoundError, match=r"a.ts' \(got no file.*there, or '.*A.npz' instead, or point"
    ):
        fetch(tmp_path, files, "A", instead)
    (tmp_path / "A").mkdir()
    for name in ("A/a.ts", "A.npz", "A/b.ts"):
        (tmp_path / name).write_bytes(b"x")
        found = [path.name for path in fetch(tmp_path, files, "A", instead)] if name != "A/a.ts" else []
        assert found == {"A/a.ts": [], "A.npz": ["A.npz"], "A/b.ts": ["a.ts", "b.ts"]}[name]


def test_known_content_is_verified_before_use(tmp_path):
    path = tmp_path / "Cora" / "raw" / "ind.cora.x"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"x" * files.checksums()["Cora/raw/ind.cora.x"][1])
    with pytest.raises(ValueError, match="SHA-256"):
        fetch(tmp_path, [RawFile("Cora/raw/ind.cora.x", "file:///nowhere")], "Cora")


class Evil:
    def __reduce__(self):
        return (print, ("executed",))


def test_unpickle_gives_arrays_and_runs_nothing(tmp_path, capsys):
    path = tmp_path / "file"
    matrix = scipy.sparse.csr_matrix(np.eye(3, dtype=np.float32))
    path.write_bytes(pickle.dumps({"list": [1, 2], "array": np.arange(3), "matrix": matrix}))
    content = unpickle(path)
    assert content["list"] == [1, 2]
    assert content["array"].tolist() == [0, 1, 2]
    assert (content["matrix"].toarray() == np.eye(3)).all()
    path.write_bytes(pickle.dumps(Evil()))
    with pytest.raises(ValueError, match=r"builtins.print, which is not allowed"):
        unpickle(path)
    assert capsys.readouterr().out == ""


def test_object_npy_gives_arrays_and_runs_nothing(tmp_path, capsys):
    path = tmp_path / "splits.npy"
    np.save(path, np.array([{"train": np.arange(2)}, {"train": np.arange(3)}]))
    content = files.read_object_npy(path)
    assert [split["train"].tolist() for split in content] == [[0, 1], [0, 1, 2]]
    np.save(path, np.array([Evil()]))
    with pytest.raises(ValueError, match=r"builtins.print, which is not allowed"):
        files.read_object_npy(path)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("content", [b"", b"not a zip", "truncated"])
def test_broken_npz_names_the_file(tmp_path, content):
    path = tmp_path / "a.npz"
    buffer = io.BytesIO()
    np.savez(buffer, key=np.arange(1000))
    path.write_bytes(buffer.getvalue()[:-200] if content == "truncated" else content)
    with pytest.raises(ValueError, match=r"readable file '.*a.npz' \(got .*delete it and load"):
        files.read_npz(path, "key")


def lying_npy(shape, dtype="<f8", content=b"\0" * 16):
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": dtype, "fortran_order": False, "shape": shape})
    return file.getvalue() + content


@pytest.mark.parametrize("shape", [(10**12,), (3,), (1,), (-2,), (10**6, 10**12), (2, 0)])
def test_a_header_that_lies_about_its_size(tmp_path, shape):
    path = tmp_path / "a.npy"
    path.write_bytes(lying_npy(shape))
    with pytest.raises(ValueError, match=r"readable file '.*a.npy' \(got ValueError: an array"):
        files.read_npy(path)
    with zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("key.npy", lying_npy(shape))
    with pytest.raises(ValueError, match=r"readable file '.*a.npz' \(got ValueError: an array"):
        files.read_npz(tmp_path / "a.npz", "key")


def test_an_archive_that_lies_about_its_size(tmp_path):
    path = tmp_path / "a.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("key.npy", lying_npy((2**31,), "|u1", b""))
        archive.getinfo("key.npy").file_size = 2**31 + len(lying_npy((2**31,), "|u1", b""))
    with pytest.raises(ValueError, match=r"'.*a.npz' .*claim to unpack to 2,147,483,7"):
        files.read_npz(path, "key")


def test_arrays_come_back_as_they_were(tmp_path):
    arrays = {
        "plain": np.arange(6.0).reshape(2, 3),
        "fortran": np.asfortranarray(np.arange(6, dtype=np.int16).reshape(2, 3)),
        "empty": np.empty((0, 3)),
        "scalar": np.array(7),
        "text": np.array(["a", "bc"]),
    }
    np.savez_compressed(tmp_path / "a.npz", **arrays)
    for expected, found in zip(arrays.values(), files.read_npz(tmp_path / "a.npz", *arrays), strict=True):
        assert found.dtype == expected.dtype
        assert np.array_equal(found, expected)
        assert found.flags.writeable
    np.save(tmp_path / "a.npy", arrays["fortran"])
    assert np.array_equal(files.read_npy(tmp_path / "a.npy"), arrays["fortran"])


@pytest.mark.parametrize("number", [2**62, -1])
def test_matrices_of_pickles_are_checked(tmp_path, number):
    matrix = scipy.sparse.csr_matrix(np.eye(3))
    matrix.indices = matrix.indices.astype(np.int64)
    matrix.indices[1] = number
    path = tmp_path / "file"
    for content in (matrix, [{"deep": (1, matrix)}]):
        path.write_bytes(pickle.dumps(content))
        with pytest.raises(ValueError, match=rf"file '.*file' \(got ValueError: index {number} where"):
            unpickle(path)


def test_pickles_that_claim_too_much(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(pickle.dumps(np.arange(3)).replace(b"K\x03\x85", b"\x8a\x06\0\0\0\0\0\x10\x85"))
    with pytest.raises(ValueError, match="readable file"):
        unpickle(path)
