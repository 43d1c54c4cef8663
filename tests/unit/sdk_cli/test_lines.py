"""Which texts the lines of standard input are."""

import io

import pytest

from embedfleet.cli.embedding import lines
from embedfleet.errors import BadInput


def test_a_text_is_a_line_without_its_end() -> None:
    """LF and CR LF end a line and are no part of it; other white space is the text's own, and the last end may lack."""
    assert list(lines(io.BytesIO("one \r\n\ttwo\u2028b\rc\näöü".encode()))) == ["one ", "\ttwo\u2028b\rc", "äöü"]


def test_no_lines_are_no_texts() -> None:
    """Empty input gives nothing."""
    assert list(lines(io.BytesIO(b""))) == []


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (b"a\n\nb\n", "line 2 is empty"),
        (b"a\r\n\r\n", "line 2 is empty"),
        (b"a\nb\xff\n", "line 2 is not UTF-8: byte 1 of it is 0xff"),
        (b"a" * 4_000_003, "line 1 has more than 1,000,000 characters"),
    ],
)
def test_a_line_that_is_no_text_is_told_by_its_number(given: bytes, told: str) -> None:
    """A row belongs to each line, so that none is skipped: the first that cannot be embedded is named."""
    with pytest.raises(BadInput, match=told):
        list(lines(io.BytesIO(given)))


def test_the_longest_text_a_server_takes_is_a_line() -> None:
    """A million characters of four bytes each are read whole, end and all."""
    text = "😀" * 1_000_000
    assert list(lines(io.BytesIO(f"{text}\r\nb".encode()))) == [text, "b"]
