r"""Pages that are written from the code and from the results, so that nothing on them is typed twice."""

from pathlib import Path


def save(path: Path, content: str | bytes) -> Path:
    r"""Writes a page if it changed: Sphinx reads again what is newer than its last build."""
    data = content.encode() if isinstance(content, str) else content
    if not path.exists() or path.read_bytes() != data:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return path


def drop_others(folder: Path, kept: list[Path]) -> None:
    r"""Deletes pages of an earlier build whose object is gone."""
    for path in set(folder.iterdir()) - set(kept):
        path.unlink()
