"""How a batch is cut into pieces."""

from hypothesis import given
from hypothesis import strategies as st

from embedfleet_server.models.layout import CPU, Limits, beside, pieces, rows

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


@given(lengths=LENGTHS, tokens=st.integers(1, 3000), lanes=st.integers(2, 9))
def test_rows_for_lanes_hold_every_input_and_are_as_many_for_each(lengths: list[int], tokens: int, lanes: int) -> None:
    """The limit holds as for one lane; the number is a multiple of theirs, unless inputs are fewer."""
    cut = rows(lengths, tokens, lanes)
    assert sorted(index for piece in cut for index in piece) == list(range(len(lengths)))
    assert len(cut) % lanes == 0 or all(len(piece) == 1 for piece in cut)
    for piece in cut:
        assert len(piece) == 1 or sum(lengths[index] for index in piece) <= tokens


@given(lengths=LENGTHS, lanes=st.integers(2, 9))
def test_rows_side_by_side_leave_no_lane_idle_for_long(lengths: list[int], lanes: int) -> None:
    """Each turn's longest row has at most a tenth more tokens than its share; few tokens are not parted."""
    cut = beside(lengths, 2048, lanes)
    if cut is None:
        return
    assert sorted(index for piece in cut for index in piece) == list(range(len(lengths)))
    assert sum(lengths) >= 128 * lanes
    longest = max(sum(lengths[index] for index in piece) for piece in cut)
    assert longest * lanes * -(-len(cut) // lanes) <= 1.1 * sum(lengths)


def test_what_cannot_be_parted_evenly_is_not() -> None:
    """Three texts of one length on two lanes, one text, and few tokens."""
    assert beside([256] * 3, 2048, 2) is None
    assert beside([512], 2048, 2) is None
    assert beside([15] * 16, 2048, 2) is None
    assert beside([256] * 4, 2048, 2) == [[0, 2], [1, 3]]
    assert len(beside([16] * 16, 2048, 2) or []) == 2
