import tomllib
from pathlib import Path

import pytest

from kgat import extras
from kgat.experiments.compare import compare
from kgat.extras import require

pytestmark = pytest.mark.quick


def test_what_is_there_is_not_refused():
    require("to read", "numpy", "json")
    require("to read")


@pytest.mark.parametrize(
    ("name", "package", "install"),
    [
        ("sklearn", "scikit-learn", "'kgat[experiments]'"),
        ("tokenizers", "tokenizers", "'kgat[sequences]'"),
        ("other", "other", "other"),
    ],
)
def test_the_first_that_is_missing_is_named(monkeypatch, name, package, install):
    monkeypatch.setattr(extras, "find_spec", lambda asked: None if asked == name else asked)
    with pytest.raises(ImportError) as error:
        require("to read 'digits'", "numpy", name)
    assert str(error.value) == (
        f"Expected the package '{package}' to read 'digits' (got none); run: pip install {install}"
    )


def test_a_comparison_asks_for_its_packages_before_it_trains(monkeypatch, tmp_path):
    monkeypatch.setattr(extras, "find_spec", lambda asked: None if asked in ("matplotlib", "rich") else asked)
    with pytest.raises(ImportError, match=r"'matplotlib' for figures and report, which figures=False leaves"):
        compare("karate", "gat", out=tmp_path / "out")
    with pytest.raises(ImportError, match=r"'rich' for a progress bar"):
        compare("karate", "gat", out=tmp_path / "out", figures=False, progress=True)
    assert not (tmp_path / "out").exists() or (tmp_path / "out/results.jsonl").read_text() == ""


def test_extras_are_those_of_the_installation():
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf8"))[
        "project"
    ]
    for package, extra in extras._PACKAGES.values():
        assert any(line.startswith(package) for line in project["optional-dependencies"][extra])
    hard = " ".join(project["dependencies"])
    assert not [package for package, _ in extras._PACKAGES.values() if package in hard]
