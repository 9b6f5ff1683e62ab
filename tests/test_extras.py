import tomllib
from pathlib import Path

import pytest

from kgat import extras
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


def test_extras_are_those_of_the_installation():
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf8"))[
        "project"
    ]
    for package, extra in extras._PACKAGES.values():
        assert any(line.startswith(package) for line in project["optional-dependencies"][extra])
    hard = " ".join(project["dependencies"])
    assert not [package for package, _ in extras._PACKAGES.values() if package in hard]
