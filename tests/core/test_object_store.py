"""Data sets under a URL: against a real S3 server on loopback, moto's."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bitstorm.core.errors import EnvironmentProblem, StoreError, WorkspaceError
from bitstorm.core.object_store import ObjectStore
from bitstorm.core.sidecar import Origin
from bitstorm.core.workspace import Workspace
from s3_server import BUCKET, Server, refusal, running

pytestmark = pytest.mark.slow
NUMBERS = itertools.count()


@pytest.fixture(scope="module")
def served() -> Iterator[Server]:
    with running() as server:
        yield server


@pytest.fixture
def server(served: Server) -> Iterator[Server]:
    yield served
    served.rules.clear()
    served.requests.clear()


@pytest.fixture
def place(server: Server, tmp_path: Path) -> ObjectStore:
    return ObjectStore(tmp_path / "prices", f"s3://{BUCKET}/{next(NUMBERS)}/prices")


def names(place: ObjectStore, prefix: str = "") -> list[str]:
    return sorted(entry.name for entry in place.list(prefix))


def test_the_six_operations(place: ObjectStore) -> None:
    place.create("manifests/1.json", b"first")
    with pytest.raises(FileExistsError):
        place.create("manifests/1.json", b"second")
    assert place.read("manifests/1.json") == b"first"
    place.put("CURRENT", b"1")
    place.put("CURRENT", b"2")
    place.copy("CURRENT", "snapshots/2/month=2021-01/a b+c.parquet")
    path = "snapshots/2/month=2021-01/a b+c.parquet"
    assert names(place) == ["CURRENT", "manifests/1.json", path]
    assert names(place, "snapshots") == names(place, path) == [path]
    assert names(place, "snapshots/20") == []
    assert place.read(path) == b"2"
    assert {entry.size for entry in place.list("")} == {1, 5}
    assert set(place.names("")) == {"CURRENT", "manifests", "snapshots"}
    changed_s = place.changed_s("snapshots")
    assert changed_s is not None and changed_s == place.changed_s(path)
    place.delete([path, "CURRENT"])
    assert names(place) == ["manifests/1.json"]
    with pytest.raises(FileNotFoundError):
        place.read("CURRENT")


def test_an_empty_place_has_nothing(place: ObjectStore) -> None:
    assert names(place) == list(place.names("manifests")) == []


def test_of_two_creators_one_wins(place: ObjectStore) -> None:
    place.create("first", b"")
    for race in range(50):
        won: list[int] = []

        def create(number: int, race: int = race, won: list[int] = won) -> None:
            try:
                place.create(f"races/{race}", str(number).encode())
                won.append(number)
            except FileExistsError:
                pass

        threads = [threading.Thread(target=create, args=(number,)) for number in (1, 2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        (winner,) = won
        assert place.read(f"races/{race}") == str(winner).encode()


def without_condition(environ: dict[str, Any], start: Any) -> None:
    environ.pop("HTTP_IF_NONE_MATCH", None)


def test_a_server_that_ignores_the_condition_is_refused(place: ObjectStore, server: Server) -> None:
    server.rules.append(without_condition)
    for _ in range(2):
        with pytest.raises(StoreError, match=r"replaces an object .*conditional writes"):
            place.create("manifests/1.json", b"first")
    assert names(place) == []


def test_a_server_that_does_not_know_the_condition_is_refused(
    place: ObjectStore, server: Server
) -> None:
    def unknown(environ: dict[str, Any], start: Any) -> list[bytes] | None:
        if "HTTP_IF_NONE_MATCH" in environ:
            return refusal(environ, start, "501 Not Implemented", "NotImplemented")
        return None

    server.rules.append(unknown)
    with pytest.raises(StoreError, match=r"replaces an object .*conditional writes"):
        place.create("manifests/1.json", b"first")


def test_a_conflict_is_asked_again(place: ObjectStore, server: Server) -> None:
    """Amazon answers 409 while another request creates the same name."""
    place.create("manifests/1.json", b"first")
    answers = iter([True, True, False])

    def conflict(environ: dict[str, Any], start: Any) -> list[bytes] | None:
        if "HTTP_IF_NONE_MATCH" in environ and next(answers, False):
            return refusal(environ, start, "409 Conflict", "ConditionalRequestConflict")
        return None

    server.rules.append(conflict)
    place.create("manifests/2.json", b"second")
    assert place.read("manifests/2.json") == b"second"


def test_a_store_that_cannot_be_used_says_why(server: Server, tmp_path: Path) -> None:
    nowhere = ObjectStore(tmp_path / "prices", "s3://no-such-bucket/prices")
    with pytest.raises(StoreError, match=r"s3://no-such-bucket/prices cannot be used .*store\.url"):
        nowhere.put("CURRENT", b"1")

    def forbidden(environ: dict[str, Any], start: Any) -> list[bytes]:
        return refusal(environ, start, "403 Forbidden", "AccessDenied")

    server.rules.append(forbidden)
    place = ObjectStore(tmp_path / "prices", f"s3://{BUCKET}/prices")
    with pytest.raises(StoreError, match=r"cannot be used \(Forbidden\).*credentials"):
        place.read("CURRENT")


def test_two_machines_are_bound_to_one_origin(server: Server, tmp_path: Path) -> None:
    url = f"s3://{BUCKET}/{next(NUMBERS)}"
    here, there = (Workspace(tmp_path / n).with_store(url + "/") for n in ("here", "there"))
    assert here.bound_to() is None
    here.bind(Origin("coingecko", "bitcoin", "usd"))
    assert there.bound_to() == Origin("coingecko", "bitcoin", "usd")
    with pytest.raises(WorkspaceError, match=f"the workspace {url} holds"):
        there.bind(Origin("coingecko", "ethereum", "usd"))


def test_a_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "adlfs", None)
    place = ObjectStore(tmp_path / "prices", "abfs://box@account.dfs.core.windows.net/a/prices")
    with pytest.raises(EnvironmentProblem, match=r"pip install 'bitstorm\[abfs\]'"):
        place.read("CURRENT")
