"""A proxy before a simulator that tells a test when a request has come and when it is answered."""

import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PASSED_ON = ("User-Agent", "Accept", "x-cg-demo-api-key", "x-cg-pro-api-key")
RETURNED = ("Content-Type", "X-Bitstorm-Simulated")


class Gate:
    """`before(n)` is called when the nth range is asked for, `after(n)` when its answer is out.

    A `before` that returns False leaves the request without an answer.
    """

    def __init__(self) -> None:
        self.before: Callable[[int], bool] = lambda n: True
        self.after: Callable[[int], None] = lambda n: None
        self.ranges = 0
        self.base_url = ""


@contextmanager
def gate_before(simulator_url: str) -> Iterator[Gate]:
    gate = Gate()
    origin = simulator_url.removesuffix("/api/v3")

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            number = 0
            if "/range?" in self.path:
                gate.ranges += 1
                number = gate.ranges
                if not gate.before(number):
                    self.close_connection = True
                    return
            headers = {name: self.headers[name] for name in PASSED_ON if name in self.headers}
            try:
                reply = urllib.request.urlopen(
                    urllib.request.Request(origin + self.path, headers=headers), timeout=10
                )
            except urllib.error.HTTPError as refusal:
                reply = refusal
            with reply:
                body = reply.read()
                self.send_response(reply.status)
                for name in RETURNED:
                    if name in reply.headers:
                        self.send_header(name, reply.headers[name])
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            try:
                self.wfile.write(body)
                self.wfile.flush()
            except OSError:
                return  # the client was killed
            if number:
                gate.after(number)

        def log_message(self, format: str, *args: object) -> None:
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    gate.base_url = f"http://127.0.0.1:{server.server_address[1]}/api/v3"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield gate
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
