from kgat.ops import notice
from kgat.ops.notice import warn_once
from kgat.ops.passes import fall_back


def test_a_line_is_said_once_and_few_are_kept(caplog):
    warn_once.cache_clear()
    with caplog.at_level("WARNING", logger="kgat"):
        for _ in range(2):
            fall_back("a pass", ValueError("why"))
        assert caplog.messages == ["a pass runs on the eager backend: why"]
        for number in range(2 * notice.LINES):
            warn_once(f"line {number}")
    assert len(caplog.messages) == 1 + 2 * notice.LINES
    assert warn_once.cache_info().currsize == notice.LINES
