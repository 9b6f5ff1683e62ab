import pytest

from kgat.experiments import pages


def test_readme_is_regenerated_between_its_markers(tmp_path):
    path = tmp_path / "README.md"
    begin, end = "<!-- results:begin -->", "<!-- results:end -->"
    path.write_text(f"# Title ±\n\n{begin}\n| typed | by hand |\n{end}\n\nThe end.\n")
    assert pages.update_readme(path, "generated")
    expected = f"# Title ±\n\n{begin}\ngenerated\n{end}\n\nThe end.\n"
    assert path.read_text() == expected
    assert not pages.update_readme(path, "generated")
    assert path.read_text() == expected


@pytest.mark.parametrize("text", ["", "{b}", "{e}\n{b}", "{b}\n{e}\n{b}\n{e}"])
def test_readme_without_markers(tmp_path, text):
    path = tmp_path / "README.md"
    begin, end = pages.markers("results")
    path.write_text(text.format(b=begin, e=end))
    with pytest.raises(ValueError, match=r"Expected the lines .*add them where"):
        pages.update_readme(path, "generated")
    assert path.read_text() == text.format(b=begin, e=end)
