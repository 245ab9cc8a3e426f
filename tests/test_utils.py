import ast
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from bitstorm import utils
from bitstorm.collect.live import fetch_current_price
from bitstorm.core.errors import SourceError, UsageError

NAMES = [
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


def test_the_public_names_are_these() -> None:
    assert utils.__all__ == NAMES
    assert all(hasattr(utils, name) for name in NAMES)


def test_the_facade_defines_nothing_itself() -> None:
    assert utils.__file__ is not None
    tree = ast.parse(Path(utils.__file__).read_text(encoding="utf-8"))
    assert not [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Lambda)
    ]


@pytest.mark.slow
def test_importing_it_is_silent_and_light() -> None:
    heavy = ("tensorflow", "keras", "matplotlib", "plotly", "torch")
    code = (
        "import sys, bitstorm.utils, bitstorm.report.dashboard, bitstorm.report.summary; "
        f"print([name for name in {heavy} if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-W", "default", "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(utils.__file__).parents[1],
    )
    assert (done.stdout, done.stderr) == ("[]\n", "")


def test_the_schema_is_a_unischema_of_the_contracts_fields() -> None:
    from petastorm.unischema import Unischema

    assert isinstance(utils.BitcoinSchema, Unischema)
    assert set(utils.BitcoinSchema.fields) == {
        "timestamp",
        "price",
        "market_cap",
        "volume_24h",
        "price_change_24h",
        "month",
    }


ANSWER = {
    "bitcoin": {
        "usd": 67_123.456789,
        "usd_market_cap": 1_320_000_000_000.5,
        "usd_24h_vol": 30_000_000_000.0,
        "usd_24h_change": -1.25,
        "last_updated_at": 1_709_294_400,
    }
}


class Answers(BaseHTTPRequestHandler):
    """CoinGecko's /simple/price, byte for byte what `body` says."""

    body = json.dumps(ANSWER).encode()
    asked: list[tuple[str, str | None]] = []  # noqa: RUF012 - shared on purpose

    def do_GET(self) -> None:
        self.asked.append((self.path, self.headers.get("x-cg-demo-api-key")))
        found = self.path.startswith("/api/v3/simple/price?")
        self.send_response(200 if found else 404)
        self.send_header("Content-Type", "application/json; charset=utf-8")
        self.end_headers()
        self.wfile.write(self.body if found else b'{"error":"coin not found"}')

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[str]:
    Answers.asked.clear()
    found = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    thread = threading.Thread(target=found.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"127.0.0.1:{found.server_port}"
    finally:
        found.shutdown()
        found.server_close()
        thread.join()


@pytest.mark.parametrize(
    "written",
    [
        "http://{}/api/v3",
        "http://{}/api/v3/",
        "http://{}",
        "http://{}/",
        "{}",
        " http://{}/api/v3/simple/price?ids=bitcoin ",
    ],
)
def test_the_current_price_comes_from_any_spelling_of_the_root(
    server: str, written: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COINGECKO_API_KEY", "CG-secret-of-a-user-0000000")
    assert fetch_current_price(written.format(server)) == {
        "timestamp": 1_709_294_400_000,
        "price_usd": 67_123.456789,
        "market_cap": 1_320_000_000_000.5,
        "price_change_24h": -1.25,
    }
    # The key is for CoinGecko's own hosts.
    assert {key for _, key in Answers.asked} == {None}


def test_cap_and_change_may_be_unknown(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    coin = {**ANSWER["bitcoin"], "usd_market_cap": None, "usd_24h_change": None}
    monkeypatch.setattr(Answers, "body", json.dumps({"bitcoin": coin}).encode())
    found = fetch_current_price(f"http://{server}")
    assert found["market_cap"] is None
    assert found["price_change_24h"] is None
    assert found["price_usd"] == 67_123.456789


def test_an_answer_without_the_coin_is_an_error_in_words(
    server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Answers, "body", b"{}")
    with pytest.raises(SourceError, match="bitcoin"):
        fetch_current_price(f"http://{server}")


@pytest.mark.parametrize("wrong", ["", "ftp://example.org", "https://", "file:///prices"])
def test_an_address_that_is_none_is_refused_in_words(wrong: str) -> None:
    with pytest.raises(UsageError, match="is not the address of a price source"):
        fetch_current_price(wrong)


EVERY_HELPER = """
import sys
from pathlib import Path
import pandas as pd
from bitstorm.utils import *

server, folder = sys.argv[1], Path(sys.argv[2])
fetch_current_price(f"http://{server}")
times = pd.date_range("2024-01-01", periods=60, freq="h")
raw = pd.DataFrame({"timestamp": times.strftime("%b %d, %Y %H:%M"), "price": "$40,000.50"})
frame = calculate_volatility(calculate_moving_average(prepare_bitcoin_df(raw)))
plot_price_trend(frame), plot_volatility(frame), generate_report(frame)
save_to_csv(frame, folder / "csv", "a.csv")
(folder / "csv" / "b.csv").write_text("timestamp,price_usd,note\\n")
assert len(load_all_csvs_from_folder(folder / "csv")) == 60
save_to_parquet_arrow(frame.assign(note=None, kind=pd.Categorical(["x"] * 60)), folder / "parquet")
raw.assign(**{"Adj Close": 1.0, "note": None}).to_parquet(folder / "parquet" / "foreign.parquet")
assert len(load_petastorm_batches_to_df(folder / "parquet")) == 120
assert len(list(load_from_parquet(folder / "parquet"))) == 2
get_parquet_columns(folder / "parquet")
with make_batch_writer(folder / "prices", BitcoinSchema) as writer:
    stamps = times.as_unit("ms").astype("int64")
    writer.write(pd.DataFrame({"timestamp": stamps, "price": 40_000.5}))
assert len(load_petastorm_batches_to_df(folder / "prices")) == 60
"""


@pytest.mark.slow
@pytest.mark.parametrize("action", ["default", "error"])
def test_no_helper_lets_a_third_partys_warning_out(
    action: str, server: str, tmp_path: Path
) -> None:
    done = subprocess.run(
        [sys.executable, "-W", action, "-c", EVERY_HELPER, server, str(tmp_path)],
        capture_output=True,
        text=True,
        cwd=Path(utils.__file__).parents[1],
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("wrong", [None, 5, b"http://x"])
def test_an_address_of_another_type_is_refused_in_words(wrong: object) -> None:
    with pytest.raises(UsageError, match="is not the address of a price source"):
        fetch_current_price(wrong)  # type: ignore[arg-type]
