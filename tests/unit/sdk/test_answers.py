"""What the headers of an answer say."""

from embedfleet.answers import Answered, read
from embedfleet.errors import InputError


def test_everything_the_server_says_is_read() -> None:
    """Times in seconds, counts, names, the inputs set aside and those that lost their end."""
    headers = {
        "X-Embedfleet-Queue-Milliseconds": "1.5", "X-Embedfleet-Compute-Milliseconds": "20",
        "X-Embedfleet-Tokens": "7", "X-Embedfleet-Model": "m", "X-Embedfleet-Fingerprint": "f",
        "X-Embedfleet-Precision": "bfloat16", "X-Embedfleet-Truncated": "0,12", "X-Embedfleet-Errors-Omitted": "3",
        "X-Embedfleet-Errors": '[{"index": 4, "code": "c", "message": "m"}]', "X-Embedfleet-Pod": "p",
    }  # fmt: skip
    assert read(headers) == Answered(0.0015, "f", 0.02, 7, "m", "bfloat16", (InputError(4, "c", "m"),), 3, (0, 12), "p")


def test_what_a_proxy_dropped_or_mangled_is_passed_over() -> None:
    """The rows are what counts: no header that is missing or senseless costs them."""
    assert read({}) == Answered()
    senseless = {
        "X-Embedfleet-Queue-Milliseconds": "soon", "X-Embedfleet-Tokens": "nan", "X-Embedfleet-Errors": "{",
        "X-Embedfleet-Truncated": "a,-1,²,", "X-Embedfleet-Compute-Milliseconds": "-4",
    }  # fmt: skip
    assert read(senseless) == Answered()
