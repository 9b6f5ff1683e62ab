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
    r"""Returns the commit of a clone of the sources, marked where files differ from it."""
    if not (root / ".git").exists():  # installed: a repository further up is another project's
        return None
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--exclude=*"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None if done.returncode == 0 else None
