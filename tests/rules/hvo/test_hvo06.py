"""HVO-06 and HVO-07: the calls in a trace that they quote."""

import pytest


@pytest.mark.parametrize(
    ("code", "what"),
    [
        ("HVO-06", ["1.886803: hvo_optimize: ", "1.889511: vmemmap_remap_range: "]),
        ("HVO-07", ["1.886803: hvo_optimize: "]),
    ],
)
def test_the_calls_that_are_quoted(case_verdict, code, what):
    """The first and the last; of a race the first, and the release."""
    (finding,) = case_verdict(code, "fires").findings
    quoted = [one.text for one in finding.hit.evidence if one.source.endswith("trace")]
    assert len(quoted) == len(what)
    assert all(words in text for words, text in zip(what, quoted, strict=True)), quoted
