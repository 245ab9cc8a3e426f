"""Spans drawn by hypothesis, and the moments that they hold."""

from hypothesis import strategies as st

from bitstorm.core.time import Span

moments = st.integers(0, 200)
spans = st.tuples(moments, moments).map(lambda pair: Span(min(pair), max(pair)))
many = st.lists(spans, max_size=8)


def held(found: list[Span]) -> set[int]:
    return {moment for span in found for moment in range(*span)}
