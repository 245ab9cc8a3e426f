"""Data sets in a store of objects (`s3://`, `abfs://`), through fsspec.

Such a store shows an object whole, shows it at once, and can be asked to create it only where its
name is free (`If-None-Match: *`). The last is the commit, so it is tried before the first use.
Credentials, regions and endpoints are those of the vendor's own variables and files.
"""

from __future__ import annotations

import errno
import secrets
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

from bitstorm.core.durable_io import TEMPORARY
from bitstorm.core.errors import EnvironmentProblem, StoreError, first_line
from bitstorm.core.file_system import Entry, FileSystem

# The schemes, and the extra that reads them; s3a is Hadoop's name of s3.
EXTRAS = {"s3": "s3", "s3a": "s3", "abfs": "abfs", "abfss": "abfs"}
_CONFLICT = 409
_TRIES = 6


@dataclass(frozen=True)
class ObjectStore(FileSystem):
    """The data set under a URL, such as `s3://bucket/bitstorm/prices`."""

    url: str

    def __str__(self) -> str:
        return self.url

    def list(self, prefix: str) -> Iterator[Entry]:
        with self._client() as (client, root):
            top = f"{root}/{prefix}".rstrip("/")
            found = client.find(top, detail=True)
        for path, facts in found.items():
            if path == top or path.startswith(f"{top}/"):
                changed = facts.get("LastModified") or facts["last_modified"]
                name = path.removeprefix(f"{root}/")
                yield Entry(name, facts["size"], changed.timestamp())

    def read(self, name: str) -> bytes:
        with self._client(FileNotFoundError) as (client, root):
            content: bytes = client.cat_file(f"{root}/{name}")
        return content

    def create(self, name: str, content: bytes) -> None:
        _require_exclusive(self)
        self._create(name, content)

    def _create(self, name: str, content: bytes) -> None:
        for left in reversed(range(_TRIES)):
            try:
                with self._client(FileExistsError) as (client, root):
                    client.pipe_file(f"{root}/{name}", content, mode="create")
                return
            except StoreError as error:
                # Another writer is at the same name just now: ask again who was first.
                if not left or _http_status(error) != _CONFLICT:
                    raise
                time.sleep(0.1)

    def put(self, name: str, content: bytes) -> None:
        with self._client() as (client, root):
            client.pipe_file(f"{root}/{name}", content)

    def copy(self, source: str, target: str) -> None:
        with self._client() as (client, root):
            if self.url.startswith("s3"):
                client.cp_file(f"{root}/{source}", f"{root}/{target}")
            else:
                # Azure answers before it has copied.
                client.pipe_file(f"{root}/{target}", client.cat_file(f"{root}/{source}"))

    def delete(self, names: Collection[str]) -> None:
        from concurrent.futures import ThreadPoolExecutor

        with self._client() as (client, root), ThreadPoolExecutor() as pool:
            list(pool.map(client.rm_file, [f"{root}/{name}" for name in names]))

    @contextmanager
    def _client(self, *passing: type[OSError]) -> Iterator[tuple[Any, str]]:
        """fsspec's file system and the path of the root. Raises StoreError for the many errors of
        the vendors' libraries, except `passing`."""
        try:
            from fsspec.core import url_to_fs

            client, root = url_to_fs(self.url, use_listings_cache=False)
        except ImportError as error:
            scheme = self.url.partition(":")[0]
            raise EnvironmentProblem(
                f"{self.url} needs another package ({first_line(error)}): "
                f"pip install 'bitstorm[{EXTRAS[scheme]}]'"
            ) from None
        try:
            yield client, root
        except passing:
            raise
        except Exception as error:
            raise StoreError(
                f"{self.url} cannot be used ({first_line(error)}): check store.url, the network "
                "and the credentials, and run the command again"
            ) from error


@cache
def _require_exclusive(place: ObjectStore) -> None:
    """Raise StoreError unless the store refuses to create an object whose name is taken."""
    probe = f"manifests/{TEMPORARY}{secrets.token_hex(8)}"
    try:
        place._create(probe, b"")
        exclusive = False
        try:
            place._create(probe, b"")
        except FileExistsError:
            exclusive = True
        place.delete([probe])
    except StoreError as error:
        # Some servers say that they do not know the header.
        if getattr(error.__cause__, "errno", None) != errno.ENOSYS:
            raise
        exclusive = False
    if exclusive:
        return
    raise StoreError(
        f"{place} replaces an object that it was asked to create only where its name is free, so "
        "two runs could overwrite each other: use a store with conditional writes "
        "(If-None-Match), or a workspace on a local disk"
    )


def _http_status(error: BaseException | None) -> int | None:
    """The status of the answer behind an error of botocore or Azure."""
    while error is not None:
        response = getattr(error, "response", None)
        if isinstance(response, dict):
            return int(response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
        if (status := getattr(error, "status_code", None)) is not None:
            return int(status)
        error = error.__cause__
    return None
