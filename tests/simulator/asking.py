"""Requests to a simulator without our client, and the bare answers."""

import json
import urllib.error
import urllib.request
from typing import Any

from simulator.watched import Simulator

FULL = "ids=bitcoin&vs_currencies=usd&include_market_cap=true&include_24hr_vol=true"


class Answer:
    def __init__(self, status: int, headers: Any, body: bytes) -> None:
        self.status, self.headers, self.body = status, headers, body

    def json(self) -> Any:
        return json.loads(self.body)


def get(simulator: Simulator, path: str, **headers: str) -> Answer:
    request = urllib.request.Request(simulator.base_url + path, headers=headers)
    try:
        with urllib.request.urlopen(request) as answer:
            return Answer(answer.status, answer.headers, answer.read())
    except urllib.error.HTTPError as error:
        with error:
            return Answer(error.code, error.headers, error.read())


def chart(simulator: Simulator, days: int | str, more: str = "") -> dict[str, list[list[Any]]]:
    path = f"/coins/bitcoin/market_chart?vs_currency=usd&days={days}{more}"
    content: dict[str, list[list[Any]]] = get(simulator, path).json()
    return content


def between(simulator: Simulator, start_ms: int, end_ms: int) -> dict[str, list[list[Any]]]:
    path = "/coins/bitcoin/market_chart/range?vs_currency=usd"
    bounds = f"&from={start_ms // 1000}&to={end_ms // 1000}"
    content: dict[str, list[list[Any]]] = get(simulator, path + bounds).json()
    return content
