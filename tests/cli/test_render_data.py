"""The lines of data commands."""

from __future__ import annotations

from pathlib import Path

import pytest

from bitstorm.cli.render_data import ingested_lines
from bitstorm.ingest.publish_prices import Ingested


@pytest.mark.parametrize(
    ("superseded", "said"),
    [
        (0, "1 batches: 1,234 rows read = 1,200 accepted + 30 duplicate + 4 refused"),
        (
            7,
            "1 batches: 1,241 rows read = 1,200 accepted + 30 duplicate + 7 superseded + 4 refused",
        ),
    ],
)
def test_the_counts_of_an_ingest_add_up(superseded, said):
    result = Ingested(
        batches=1,
        read=1234 + superseded,
        accepted=1200,
        duplicate=30,
        superseded=superseded,
        refused=4,
    )
    assert ingested_lines(result, rejects=Path("rejects"))[0] == said
