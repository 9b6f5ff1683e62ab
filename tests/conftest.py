import os
from pathlib import Path

import pytest

# Inductor would start compilers of its own beside the test processes, each of which imports torch.
os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")


@pytest.fixture(scope="session", autouse=True)
def own_root(tmp_path_factory):
    r"""Keeps what tests write by default out of the user's own data folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KGAT_DATA", str(tmp_path_factory.mktemp("kgat_data")))
        yield


@pytest.fixture(scope="session")
def data_root(tmp_path_factory):
    r"""A folder like that of the real raw data, with a link to each of its files.

    Links, because loading may write splits and downloads, and must not do so among the originals.
    """
    default = Path(__file__).resolve().parents[2] / "shared" / "data"
    origin = Path(os.environ.get("KGAT_TEST_DATA", default))
    if not origin.is_dir():
        pytest.skip(f"needs the raw data sets: no folder {origin}; set KGAT_TEST_DATA")
    root = tmp_path_factory.mktemp("data")
    for folder, _, files in os.walk(origin):
        target = root / Path(folder).relative_to(origin)
        target.mkdir(exist_ok=True)
        for file in files:
            (target / file).symlink_to(Path(folder) / file)
    return root
