"""Checks of the machine, without Spark: Python, file names, host, disk, ports."""

from __future__ import annotations

import os
import platform
import re
import shutil
import socket
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Literal

from bitstorm.core.durable_io import file_lock
from bitstorm.core.errors import BitstormError, first_line

PYTHONS = ((3, 11), (3, 12))
_LITTLE = 1 << 30


@dataclass(frozen=True)
class Check:
    """`state`: ok, note (a command may behave otherwise than expected), or stop (one would fail).
    `advice` says what to do, empty if nothing."""

    name: str
    state: Literal["ok", "note", "stop"]
    found: str
    advice: str = ""

    def __str__(self) -> str:
        return f"{self.found}: {self.advice}" if self.advice else self.found


def examine(name: str, look: Callable[[], Check]) -> Check:
    """The result of `look`; an error that it raises stops a command too."""
    try:
        return look()
    except (BitstormError, OSError) as error:
        return Check(name, "stop", first_line(error))


def python() -> Check:
    """The version, and whether each package that Bitstorm requires is there."""
    found = f"{platform.python_version()} in {sys.prefix}"
    if sys.version_info[:2] not in PYTHONS:
        return Check("python", "stop", found, "use Python 3.11 or 3.12: run scripts/setup")
    missing = list(filter(_is_missing, _required()))
    if missing:
        found = f"{found} lacks {', '.join(missing)}"
        return Check("python", "stop", found, "run scripts/setup, or install bitstorm with pip")
    return Check("python", "ok", found)


def _required() -> list[str]:
    try:
        lines = [line for line in requires("bitstorm") or [] if ";" not in line]
    except PackageNotFoundError:
        return []  # Bitstorm's own files were sent to a cluster
    return [re.split(r"[^A-Za-z0-9._-]", line)[0] for line in lines]


def _is_missing(package: str) -> bool:
    try:
        return not version(package)
    except PackageNotFoundError:
        return True


def file_names() -> Check:
    """The encoding of file names, and the variable of the locale that decides it."""
    encoding = sys.getfilesystemencoding()
    names = [name for name in ("LC_ALL", "LC_CTYPE", "LANG") if os.environ.get(name)]
    by = f"{names[0]}={os.environ[names[0]]}" if names else "no locale is set"
    found = f"file names are {encoding} ({by})"
    if encoding == "utf-8":
        return Check("locale", "ok", found)
    return Check("locale", "note", found, "for names beyond ASCII set LC_ALL=C.UTF-8")


def disk(root: Path) -> Check:
    """Whether the folder, or the nearest one above it that exists, takes what a data set needs."""
    folder = next(path for path in (root, *root.parents) if path.exists())
    with tempfile.TemporaryDirectory(prefix=".bitstorm-doctor-", dir=folder) as name:
        file = Path(name, "file")
        with file_lock(Path(name, "lock")):
            file.write_bytes(bytes(4096))
        file.with_name("link").hardlink_to(file)
    free = shutil.disk_usage(folder).free
    found = f"{folder} is writable, {free / 2**30:.1f} GiB free"
    if free < _LITTLE:
        return Check("disk", "note", found, "free some space: a year of minutes takes about 1 GiB")
    return Check("disk", "ok", found)


def ports(port: int) -> Check:
    """Whether this machine can be reached on loopback, on the port of `simulate` too (0: any)."""
    try:
        with socket.create_server(("127.0.0.1", port)) as server:
            socket.create_connection(server.getsockname(), timeout=5).close()
    except OSError as error:
        found = f"127.0.0.1:{port or 'any'} cannot be opened ({error.strerror})"
        change = "choose another simulator.port" if port else "allow connections on loopback"
        return Check("ports", "note" if port else "stop", found, change)
    try:
        addresses = {info[4][0] for info in socket.getaddrinfo("localhost", None)}
    except OSError:
        addresses = set()
    if not addresses & {"127.0.0.1", "::1"}:
        found = f"localhost is {', '.join(map(str, addresses)) or 'unknown'}"
        return Check("ports", "stop", found, "add the line `127.0.0.1 localhost` to /etc/hosts")
    return Check("ports", "ok", "loopback can be reached")
