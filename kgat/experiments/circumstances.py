r"""What every record says of the machine and the versions that made it."""

import functools
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

import kgat

__all__ = ["circumstances"]


def circumstances(device: str) -> dict[str, Any]:
    r"""Returns versions, commit, device, number of threads and date, as records hold them."""
    return {
        "versions": {
            "kgat": kgat.__version__,
            "torch": torch.__version__,
            "torch_geometric": version("torch_geometric"),
            "python": ".".join(map(str, sys.version_info[:3])),
            "numpy": version("numpy"),
        },
        "commit": commit_of(Path(kgat.__file__).resolve().parents[1]),
        "device": torch.cuda.get_device_name(device) if device.startswith("cuda") else device,
        "threads": torch.get_num_threads(),
        "date": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
    }


@functools.cache
def commit_of(root: Path) -> str | None:
    r"""Returns the commit of a clone of the sources, marked where the package differs from it: what is
    computed does not depend on the rest, records among it."""
    if not (root / ".git").exists():  # installed: a repository further up is another project's
        return None
    commit = _git(root, "rev-parse", "--short", "HEAD")
    changes = _git(root, "status", "--porcelain", "--", PACKAGE)
    if not commit or changes is None:
        return None
    return f"{commit}-dirty" if changes else commit


PACKAGE = "kgat"  # below the root


def _git(root: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(root), *arguments], capture_output=True, text=True, timeout=10, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
