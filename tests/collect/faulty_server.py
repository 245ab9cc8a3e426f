"""A server of raw bytes, to answer as no well-behaved one would, and a clock for the waits."""

import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

NOW_MS = 1_795_400_123_456  # 2026-11-23T02:15:23.456Z


class Waits:
    """A clock that stands still but for the sleeps that are asked of it, which it keeps."""

    def __init__(self) -> None:
        self.slept: list[float] = []

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)

    def monotonic(self) -> float:
        return sum(self.slept)


def http(status: str, body: bytes = b"", *headers: str, length: int | None = None) -> bytes:
    """A raw answer; `length` announces another length than the body has."""
    announced = len(body) if length is None else length
    lines = [f"HTTP/1.1 {status}", *headers, f"Content-Length: {announced}", "Connection: close"]
    return "\r\n".join([*lines, "", ""]).encode() + body


@contextmanager
def answering(answers: Sequence[bytes | Callable[[socket.socket], None]]) -> Iterator[str]:
    """A raw server: one connection for each of the answers, in turn. Yields its base URL."""
    listener = socket.create_server(("127.0.0.1", 0))
    listener.settimeout(10)

    def serve() -> None:
        for answer in answers:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                received = b""
                while b"\r\n\r\n" not in received:
                    piece = connection.recv(65536)
                    if not piece:
                        break
                    received += piece
                try:
                    if callable(answer):
                        answer(connection)
                    else:
                        connection.sendall(answer)
                except OSError:
                    continue

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/api/v3"
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()
