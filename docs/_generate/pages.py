r"""Pages of the repository that are part of the site: results, benchmarks, changelog, how to contribute."""

import os
import re
from pathlib import Path

from _generate import save

ROOT = Path(__file__).parents[2]

# Page of the repository -> page of the site.
PAGES = {
    "evidence/README.md": "results/where.md",
    "evidence/settings.md": "results/settings.md",
    "evidence/mixtures/README.md": "results/mixtures.md",
    "results/README.md": "results/graphs.md",
    "ablation/README.md": "results/ablation.md",
    "ablation/start/README.md": "results/start.md",
    "benchmarks/README.md": "results/benchmarks.md",
    "benchmarks/sequences/README.md": "results/sequences.md",
    "benchmarks/regression/README.md": "results/regression.md",
    "benchmarks/claims/README.md": "results/claims.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "DESIGN.md": "inside/design.md",
    "README.md": "index.md",
}
LINK = re.compile(r"(!?)\[([^\]]*)\]\((?!https?://|#)([^)\s#]*)(#[^)\s]*)?\)")


def write(folder: Path) -> None:
    for source, target in PAGES.items():
        if source != "README.md":
            text = (ROOT / source).read_text(encoding="utf8")
            copy = f"<!-- copied: {source} -->\n\n{translated(text, source, folder / target, folder)}"
            save(folder / target, copy)


def translated(text: str, source: str, target: Path, folder: Path) -> str:
    r"""Links lead to the page of the site where there is one, and pictures are copied beside the page."""

    def link(match: re.Match[str]) -> str:
        sign, label, path, _ = match.groups()
        found = os.path.normpath(os.path.join(os.path.dirname(source), path))
        if os.path.isdir(ROOT / found):
            found = os.path.join(found, "README.md")
        if sign:
            picture = target.parent / "pictures" / found.replace("/", "-")
            save(picture, (ROOT / found).read_bytes())
            return f"![{label}]({os.path.relpath(picture, target.parent)})"
        if found in PAGES:
            return f"[{label}]({os.path.relpath(folder / PAGES[found], target.parent)})"
        return f"{label} (`{found}`)"  # a file of the repository that has no page here

    return LINK.sub(link, text)
