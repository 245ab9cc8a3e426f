"""What notebooks and small programs need, by one import: re-exports, nothing of its own."""

from bitstorm.collect.live import fetch_current_price
from bitstorm.indicators.frame import (
    calculate_moving_average,
    calculate_volatility,
    prepare_bitcoin_df,
)
from bitstorm.report.frame import generate_report, plot_price_trend, plot_volatility
from bitstorm.store.batch_writer import make_batch_writer
from bitstorm.store.files import (
    get_parquet_columns,
    load_all_csvs_from_folder,
    load_from_parquet,
    load_petastorm_batches_to_df,
    save_to_csv,
    save_to_parquet_arrow,
)
from bitstorm.store.petastorm_io import BitcoinSchema

__all__ = [
    "BitcoinSchema",
    "calculate_moving_average",
    "calculate_volatility",
    "fetch_current_price",
    "generate_report",
    "get_parquet_columns",
    "load_all_csvs_from_folder",
    "load_from_parquet",
    "load_petastorm_batches_to_df",
    "make_batch_writer",
    "plot_price_trend",
    "plot_volatility",
    "prepare_bitcoin_df",
    "save_to_csv",
    "save_to_parquet_arrow",
]
