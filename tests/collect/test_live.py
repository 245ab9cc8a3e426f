"""One look at the market is one batch, keyed by the source's own time."""

import resource
import subprocess
import sys
from pathlib import Path

import pytest

from bitstorm.collect.batches import known_batches
from bitstorm.collect.coingecko.client import CoinGecko
from bitstorm.collect.coingecko.transport import TransportOptions
from bitstorm.collect.live import collect_once, open_source
from bitstorm.core.errors import UsageError
from bitstorm.core.settings import Settings, Source
from bitstorm.core.time import MINUTE_MS
from bitstorm.simulator.market import Market
from collect.faulty_server import NOW_MS, answering, http
from simulator.watched import Simulator

NODE_MS = NOW_MS // MINUTE_MS * MINUTE_MS
LIBRARY = Path(__file__).resolve().parents[2] / "lib"


def test_an_observation_lands_under_its_own_time(
    client: CoinGecko, market: Market, tmp_path: Path
) -> None:
    collected = collect_once(
        client, tmp_path, coin="bitcoin", vs_currency="usd", clock=lambda: NOW_MS
    )
    assert collected.batch is not None
    assert collected.batch.path.name == "bitcoin_prices_20261123_021500.csv"
    _, line, end = collected.batch.path.read_text().split("\n")
    stamp, price, *_ = line.split(",")
    assert (int(stamp), float(price), end) == (NODE_MS, market.price([NODE_MS])[0], "")
    sidecar = collected.batch.sidecar
    assert (sidecar.source, sidecar.rows, sidecar.fetched_at) == ("simulated:7", 1, NOW_MS)
    assert (sidecar.first_ms, sidecar.last_ms) == (NODE_MS, NODE_MS)
    assert collected.age_ms == NOW_MS - NODE_MS


def test_the_same_moment_again_is_stale_and_leaves_no_batch(market: Market, tmp_path: Path) -> None:
    moment = NOW_MS
    with (
        Simulator(market, clock=lambda: moment) as simulator,
        CoinGecko(
            base_url=simulator.base_url, options=TransportOptions(clock=lambda: moment)
        ) as client,
    ):

        def stale() -> bool:
            return collect_once(client, tmp_path, coin="bitcoin", vs_currency="usd").stale

        assert [stale(), stale()] == [False, True]
        moment += MINUTE_MS
        assert [stale(), stale()] == [False, True]
    assert [sidecar.first_ms for _, sidecar in known_batches(tmp_path)] == [
        NODE_MS,
        NODE_MS + MINUTE_MS,
    ]


def test_an_answer_without_the_simulators_header_is_coingeckos(tmp_path: Path) -> None:
    body = b'{"bitcoin":{"usd":5.5,"last_updated_at":1779092258}}'
    with answering([http("200 OK", body)]) as url, CoinGecko(base_url=url) as client:
        collected = collect_once(client, tmp_path, coin="bitcoin", vs_currency="usd")
    assert collected.source == "coingecko"
    assert collected.batch is not None
    assert collected.batch.path.read_text().endswith("\n1779092258000,5.5,,,\n")


def test_the_settings_open_an_own_simulator_with_their_seed(tmp_path: Path) -> None:
    settings = Settings.model_validate({"simulator": {"seed": 11}})
    with open_source(settings, {}, clock=lambda: NOW_MS) as client:
        collected = collect_once(client, tmp_path, coin="bitcoin", vs_currency="usd")
    assert collected.source == "simulated:11"
    assert collected.observation.price == Market(11).price([NODE_MS])[0]


def test_the_settings_may_name_a_simulator_that_runs_already(
    simulator: Simulator, tmp_path: Path
) -> None:
    settings = Settings(source=Source(base_url=simulator.base_url))
    with open_source(settings, {}, clock=lambda: NOW_MS) as client:
        collect_once(client, tmp_path, coin="bitcoin", vs_currency="usd")
    assert len(simulator.requests) == 1


def test_files_are_nobody_to_ask() -> None:
    with (
        pytest.raises(UsageError, match="import FILE"),
        open_source(Settings(source=Source(mode="csv")), {}),
    ):
        pass


def test_a_look_takes_a_second_and_no_heavy_package(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path\n"
        "from bitstorm.collect.live import collect_once\n"
        "from bitstorm.collect.live import open_source\n"
        "from bitstorm.core.config import Settings\n"
        "with open_source(Settings(), {}) as client:\n"
        "    collect_once(client, Path(sys.argv[1]), coin='bitcoin', vs_currency='usd')\n"
        "heavy = {'pandas', 'pyspark', 'tensorflow', 'petastorm'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )

    def used() -> float:
        spent = resource.getrusage(resource.RUSAGE_CHILDREN)
        return spent.ru_utime + spent.ru_stime

    seconds = []
    for attempt in range(3):
        before = used()
        subprocess.run(
            [sys.executable, "-c", program, str(tmp_path / str(attempt))],
            env={"PYTHONPATH": str(LIBRARY), "PYTHONWARNINGS": "error"},
            check=True,
        )
        seconds.append(used() - before)
    # Of the processor's time, since the machine has other work; twice, for a slow one.
    assert min(seconds) < 2
