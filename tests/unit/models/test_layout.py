"""How a batch is cut into pieces."""

from hypothesis import given
from hypothesis import strategies as st

from embedfleet_server.models.layout import CPU, Limits, pieces, rows

LENGTHS = st.lists(st.integers(1, 600), max_size=80)


@given(lengths=LENGTHS, tokens=st.integers(1, 3000), waste=st.integers(0, 300))
def test_every_input_is_in_one_piece(lengths: list[int], tokens: int, waste: int) -> None:
    """Cutting loses nothing and repeats nothing."""
    cut = pieces(lengths, Limits(tokens, waste))
    assert sorted(index for piece in cut for index in piece) == list(range(len(lengths)))


@given(lengths=LENGTHS, tokens=st.integers(1, 3000), waste=st.integers(0, 300))
def test_pieces_keep_both_limits(lengths: list[int], tokens: int, waste: int) -> None:
    """A piece has at most `tokens` padded tokens and `waste` padding; only a lone input may be larger."""
    for piece in pieces(lengths, Limits(tokens, waste)):
        longest = max(lengths[index] for index in piece)
        assert len(piece) == 1 or longest * len(piece) <= tokens
        assert sum(longest - lengths[index] for index in piece) <= waste


def test_inputs_of_one_length_stay_together() -> None:
    """Where nothing is padded, nothing is cut off."""
    assert pieces([20] * 64, CPU) == [list(range(64))]


def test_a_long_input_does_not_pad_short_ones() -> None:
    """One long text among short ones is computed alone."""
    assert sorted(pieces([8, 256, 8, 8], CPU)) == [[0, 2, 3], [1]]


@given(lengths=LENGTHS, tokens=st.integers(1, 3000))
def test_packed_pieces_hold_every_input_within_the_limit(lengths: list[int], tokens: int) -> None:
    """Nothing is lost or repeated; a piece has at most `tokens`, but for a lone input."""
    cut = rows(lengths, tokens)
    assert sorted(index for piece in cut for index in piece) == list(range(len(lengths)))
    for piece in cut:
        held = [lengths[index] for index in piece]
        assert len(piece) == 1 or sum(held) <= tokens


def test_packed_pieces_are_of_like_size() -> None:
    """2100 tokens with a limit of 2048 are two halves, not a whole and a rest."""
    assert [len(piece) for piece in rows([21] * 100, 2048)] == [50, 50]


def test_each_packed_piece_has_long_and_short_inputs() -> None:
    """Short texts fill what long ones leave of a block."""
    lengths = [40] * 40 + [8] * 40
    assert [sorted({lengths[index] for index in piece}) for piece in rows(lengths, 1024)] == [[8, 40], [8, 40]]
