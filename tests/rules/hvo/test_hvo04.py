"""HVO-04: Optimised struct pages do not have the shape of a huge page."""

from parsers.arm64 import PTE
from tests.rules.dumps import HEAD, TAILS


def test_tails_that_are_not_alike(hvo):
    words = {hvo.entry(TAILS + 4096 * index, PTE): hvo.word(hvo.entry(TAILS, PTE)) + 4096 * index for index in range(7)}
    codes, _ = hvo.caused(words)
    assert codes == {"HVO-04"}


def test_a_writable_tail(hvo):
    entry = hvo.entry(TAILS + 4096 * 6, PTE)
    codes, _ = hvo.caused({entry: hvo.word(hvo.entry(HEAD, PTE))})
    assert codes == {"HVO-04", "VMM-11"}
