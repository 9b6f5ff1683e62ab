import re
from pathlib import Path

import pytest

from kgat import kernels

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf8")
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.S)


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.split("\n")[0])
def test_code_runs(block):
    exec(compile(block, "README.md", "exec"), {})


def test_every_kernel_is_named():
    missing = [name for name in kernels.names() if f"`{name}`" not in README]
    assert not missing


def test_tables_are_generated():
    assert README.count("<!-- results:begin -->") == README.count("<!-- results:end -->") == 1
