"""The variables of proxies and certificates: the one at fault is named, and costs no call."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bitstorm.collect.coingecko.client import CoinGecko
from bitstorm.collect.coingecko.rate_limit import Limits, RateLimit
from bitstorm.collect.coingecko.route import Variable, check_route, proxy_of, reach, trust
from bitstorm.collect.coingecko.transport import TransportOptions
from bitstorm.core.errors import EnvironmentProblem, Unreachable, UsageError
from collect.faulty_server import NOW_MS, Waits, answering, http

HTTPS, HTTP = "https://prices.invalid/api/v3", "http://prices.invalid/api/v3"
GOOD = http("200 OK", b'{"gecko_says":"hi"}', "Content-Type: application/json")
NAMES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")
OTHERS = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE", "SSL_CERT_DIR")


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*NAMES, *map(str.upper, NAMES), *OTHERS):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "calls.json"


def client(url: str, file: Path, waits: Waits | None = None) -> CoinGecko:
    """A client with limits, whose clock stands still."""
    waits = waits or Waits()
    limits = Limits(3, 100)
    limit = RateLimit(file, limits, warn=lambda text: None, clock=lambda: NOW_MS)
    options = TransportOptions(
        rate_limit=limit,
        retries=1,
        clock=lambda: NOW_MS,
        sleep=waits.sleep,
        monotonic=waits.monotonic,
    )
    return CoinGecko(base_url=url, options=options)


def failure(url: str, file: Path) -> Exception:
    with client(url, file) as source, pytest.raises(Exception) as raised:
        source.ping()
    return raised.value


def counted(file: Path) -> tuple[int, int]:
    """Tokens and credits taken."""
    if not file.exists():
        return 0, 0
    content = json.loads(file.read_bytes())
    return len(content["calls"]), sum(content["credits"].values())


# A dead address of this machine: nothing listens on port 9 (discard).
DEAD = "127.0.0.1:9"
WRONG_PROXIES = (
    ("HTTPS_PROXY", f"socks5://{DEAD}", "PySocks"),
    ("https_proxy", f"socks5h://me:secret@{DEAD}", "PySocks"),
    ("ALL_PROXY", f"socks4://{DEAD}", "PySocks"),
    ("all_proxy", f"SOCKS4A://{DEAD}", "PySocks"),
    ("HTTPS_PROXY", f"socks://{DEAD}", "the scheme socks"),
    ("HTTPS_PROXY", f"ftp://me:secret@{DEAD}", "the scheme ftp"),
    ("HTTPS_PROXY", "http://", "no address of a proxy"),
    ("HTTPS_PROXY", ":::", "no address of a proxy"),
    ("HTTPS_PROXY", "http://proxy:port", "no address of a proxy"),
    ("HTTPS_PROXY", "http://proxy:99999", "no address of a proxy"),
    ("HTTPS_PROXY", "http://[::1", "no address of a proxy"),
    ("HTTPS_PROXY", f" http://{DEAD}", "no address of a proxy"),
    ("HTTPS_PROXY", f"me:secret@{DEAD}", "no address of a proxy"),
    ("ALL_PROXY", "http://me:se/cret@proxy:1", "no address of a proxy"),
)


@pytest.mark.parametrize(("name", "value", "said"), WRONG_PROXIES)
def test_a_proxy_that_cannot_serve_is_named(name, value, said, file, monkeypatch):
    monkeypatch.setenv(name, value)
    error = failure(HTTPS, file)
    assert isinstance(error, EnvironmentProblem)
    assert f"{name}={value[:2]}" in str(error) and said in str(error) and "unset" in str(error)
    assert "secret" not in str(error) and "cret@" not in str(error)
    assert "base_url" not in str(error) and "disk" not in str(error)
    assert counted(file) == (0, 0)


@pytest.mark.parametrize("url", [HTTPS, HTTP])
@pytest.mark.parametrize(
    ("value", "said"),
    [
        (f"http://{DEAD}", "connection refused"),
        (f"http://me:se:c@ret@{DEAD}", "connection refused"),
        (DEAD, "connection refused"),
        (f"https://{DEAD}", "connection refused"),
        ("http://proxy.invalid:3128", "its name is not known"),
    ],
)
@pytest.mark.parametrize("kind", ["own", "ALL_PROXY", "all_proxy"])
def test_a_dead_proxy_is_named_and_costs_nothing(url, value, said, kind, file, monkeypatch):
    name = f"{url.partition(':')[0].upper()}_PROXY" if kind == "own" else kind
    monkeypatch.setenv(name, value)
    error = failure(url, file)
    assert isinstance(error, Unreachable)
    assert f"through the proxy {name}={value[:2]}" in str(error)
    assert f"after 2 tries: the proxy: {said}" in str(error) and "ret" not in str(error).split()
    assert "c@ret" not in str(error)
    assert counted(file) == (0, 0)


def test_a_host_that_is_not_there_costs_neither_credit_nor_token(file):
    assert "its name is not known" in str(failure(HTTPS, file))
    assert "connection refused" in str(failure(f"http://{DEAD}", file))
    assert counted(file) == (0, 0)


def test_an_address_that_is_none_costs_nothing(file):
    for url in ("ftp://h/x", "http:///x", "http://h:port/x"):
        assert isinstance(failure(url, file), UsageError | ValueError)
    assert counted(file) == (0, 0)


@pytest.mark.parametrize("url", [HTTPS, HTTP])
def test_a_proxy_that_wants_a_login_is_named(url, file, monkeypatch):
    answers = [http("407 Proxy Authentication Required")] * 2
    with answering(answers) as proxy:
        monkeypatch.setenv("ALL_PROXY", proxy.removesuffix("/api/v3"))
        error = failure(url, file)
    assert "the proxy" in str(error) and f"ALL_PROXY={proxy[:-7]}" in str(error)
    assert ("login" if url == HTTP else "407 Proxy Authentication Required") in str(error)
    assert counted(file)[1] == 0


def test_a_good_proxy_serves_and_a_wrong_answer_of_its_names_it(file, monkeypatch):
    with answering([GOOD, *[http("502 Bad Gateway")] * 2]) as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy)
        with client(HTTP, file) as source:
            source.ping()
        assert f"through the proxy HTTP_PROXY={proxy}" in str(failure(HTTP, file))
    assert counted(file) == (3, 1)


@pytest.mark.parametrize("hosts", ["*", "prices.invalid", ".invalid", "other, prices.invalid"])
def test_no_proxy_sets_a_proxy_aside(hosts, monkeypatch):
    monkeypatch.setenv("HTTPS_PROXY", f"http://{DEAD}")
    assert proxy_of(HTTPS) == Variable("HTTPS_PROXY", f"http://{DEAD}")
    monkeypatch.setenv("NO_PROXY", hosts)
    assert proxy_of(HTTPS) is None


def test_a_local_source_needs_no_proxy(file, monkeypatch):
    monkeypatch.setenv("ALL_PROXY", f"socks5://{DEAD}")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/gone.pem")
    with answering([GOOD]) as url, client(url, file) as source:
        source.ping()
    assert reach(url, needed=False, seconds=1).state == "ok"


@pytest.mark.parametrize("name", ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"])
@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "No such file"),
        (b"", "no certificate in the PEM format"),
        (b"nonsense", "no certificate in the PEM format"),
        (b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "no certificate"),
        (bytes(range(256)), "no certificate in the PEM format"),
    ],
)
def test_certificates_that_cannot_be_read_are_named(
    name, content, said, file, tmp_path, monkeypatch
):
    bundle = tmp_path / "ca.pem"
    if content is not None:
        bundle.write_bytes(content)
    monkeypatch.setenv(name, str(bundle))
    error = failure(HTTPS, file)
    assert isinstance(error, EnvironmentProblem)
    assert f"{name}={bundle}" in str(error) and said in str(error)
    assert "make room" not in str(error) and counted(file) == (0, 0)
    check_route(HTTP)  # without TLS no certificate counts


def test_a_variable_that_is_not_read_is_said(monkeypatch):
    assert "certifi" in trust() and "REQUESTS_CA_BUNDLE" in trust()
    monkeypatch.setenv("SSL_CERT_FILE", "/gone.pem")
    assert "SSL_CERT_FILE is not read" in trust()
    check_route(HTTPS)
    monkeypatch.setenv("CURL_CA_BUNDLE", "/etc")
    assert trust() == "by CURL_CA_BUNDLE=/etc"


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("http://h:1", "http://h:1"),
        ("h:1", "h:1"),
        ("http://me:secret@h:1", "http://me:***@h:1"),
        ("http://me:a@b/c@h:1", "http://me:***@h:1"),
        ("me:secret@h", "me:***@h"),
        ("http://me:a//b@h:1", "http://me:***@h:1"),
        ("me:a//b@h", "me:***@h"),
        ("//me:secret@h", "//me:***@h"),
        ("http://token@h", "http://***@h"),
        ("socks5h://:secret@h", "socks5h://:***@h"),
    ],
)
def test_a_password_is_never_shown(value, shown):
    assert str(Variable("X", value)) == f"X={shown}"


@pytest.mark.parametrize("command", [["collect"], ["backfill", "--days", "1"]])
@pytest.mark.parametrize(
    "variables",
    [
        {"REQUESTS_CA_BUNDLE": "/gone.pem"},
        {"CURL_CA_BUNDLE": "/gone.pem"},
        {"HTTPS_PROXY": f"socks5://me:secret@{DEAD}"},
        {"ALL_PROXY": f"http://me:secret@{DEAD}"},
    ],
)
def test_a_command_says_it_in_one_sentence(command, variables, tmp_path):
    words = ["--set", "source.mode=coingecko", "--set", "source.retries=0", "--quiet"]
    done = subprocess.run(
        [sys.executable, "-m", "bitstorm.cli", *command, *words, "--set", "backfill.days=20"],
        cwd=tmp_path,
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert next(iter(variables)) in done.stderr and "secret" not in done.stderr
    assert len(done.stderr.splitlines()) == 1 and "unexpected" not in done.stderr
    assert counted(tmp_path / "workspace" / "calls.json") == (0, 0)
