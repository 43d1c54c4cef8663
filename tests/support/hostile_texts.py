"""Texts that are meant to hold a tokenizer up, each of a million characters unless told otherwise."""

from collections.abc import Mapping

LONGEST = 1_000_000
"""Characters that a server takes of one text."""


def hostile_texts(characters: int = LONGEST) -> Mapping[str, str]:
    """By what is odd about them."""
    seeds = {
        "no space": "a",
        "one character, then combining marks": "\u0301\u0316\u20dd",
        "syllables that decompose": "각힣",
        "a ligature of eighteen letters": "\ufdfa",
        "right to left, with overrides": "\u202eשלום\u202cمرحبا",  # noqa: RUF001  # Hebrew and Arabic are meant
        "zero width": "\u200b\u200d\u2060\ufeff",
        "NUL": "\x00",
        "joined emoji": "👩\u200d👩\u200d👧\u200d👦",
        "outside the basic plane": "𝔘𠀀",
        "ideographs, a token each": "語",
        "punctuation, a token each": "!?",
        "digits": "1234567890",
        "one space to a character": "a ",
        "line ends": "\r\n\x85\u2028",
        "not assigned": "\u0378\U000e0080",
        "special tokens": "[SEP][CLS][MASK]",
    }
    return {name: _filled(seed, characters) for name, seed in seeds.items()}


def _filled(seed: str, characters: int) -> str:
    return ("x" + seed * (characters // len(seed) + 1))[:characters]
