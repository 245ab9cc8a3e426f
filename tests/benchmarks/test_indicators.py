"""The ways that the benchmark of indicators compares compute the same."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from benchmarks.landing import MINUTE_MS
from benchmarks.windows import write_walk

from benchmarks import indicator_peers, our_indicators, peers
from bitstorm.core.schema import indicator_table


@pytest.mark.slow
def test_pandas_and_polars_compute_the_same_columns(spark_session, tmp_path):
    files = write_walk(tmp_path / "walk", 3_000)
    ours = our_indicators.table(spark_session, files, MINUTE_MS).orderBy("timestamp").toPandas()
    assert list(ours.columns) == indicator_table(our_indicators.WIDTHS).names
    for name, way in indicator_peers.WAYS.items():
        if peers.missing(name):
            continue
        found = way(files, our_indicators.WIDTHS)
        theirs = found if isinstance(found, pd.DataFrame) else found.to_pandas()
        # A new indicator need not be in the peers.
        assert set(theirs.columns) <= set(ours.columns)
        assert theirs["month"].astype(str).tolist() == ours["month"].tolist()
        for column in theirs.columns.drop("month"):
            expected = ours[column].to_numpy(np.float64, na_value=np.nan)
            seen = theirs[column].to_numpy(np.float64, na_value=np.nan)
            # Volatility of pandas and Polars loses digits; the price's own steps are 1e-3.
            np.testing.assert_allclose(seen, expected, rtol=1e-7, atol=1e-9, err_msg=column)
