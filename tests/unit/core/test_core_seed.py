"""Seeds: stable across processes, different by name."""

from hypothesis import given
from hypothesis import strategies as st

from eexit_cli.core.seed import derive_seed, stream


def test_a_seed_is_the_same_on_every_machine():
    # BLAKE2b of "42\x1fsample\x1f7", first eight bytes, big-endian, halved.
    assert derive_seed(42, "sample", "7") == 7951133499740287540


@given(st.integers(0, 2**31), st.text(max_size=8), st.text(max_size=8))
def test_names_are_kept_apart(seed, first, second):
    assert 0 <= derive_seed(seed, first, second) < 2**63
    if first + second:
        assert derive_seed(seed, first + "x", second) != derive_seed(seed, first, second)


def test_streams_do_not_share_state():
    one = stream(1, "a")
    one.random()
    assert stream(1, "a").random() != one.random()
