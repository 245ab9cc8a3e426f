"""The folders of a workspace, and its one (source, coin, currency)."""

from __future__ import annotations

import json
import re
import sys
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from urllib.parse import unquote, urlsplit

from bitstorm.core.errors import BitstormError, WorkspaceBound, WorkspaceError
from bitstorm.core.file_system import Root, files_of
from bitstorm.core.object_store import EXTRAS, ObjectStore
from bitstorm.core.sidecar import Origin

DEFAULT_WORKSPACE = "workspace"
# petastorm and Spark do not unquote URLs, and Spark reads every path as a glob.
_UNUSABLE = "#?%*[]{}\\"
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
DATA_SETS = ("prices", "indicators", "forecasts")
BINDING = "workspace.json"
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):")


def file_url(path: Path) -> str:
    """The `file://` URL of a path, unquoted, for petastorm and Spark."""
    return f"file://{path.absolute()}"


def local_path(
    location: str | Path, *, error: type[BitstormError], what: str = "the location"
) -> Path:
    """The absolute path of a plain path or a local `file:` URL.

    Raises `error` for any other URL, for a part of a URL that a file does not have, and for a name
    that no file can have.
    """
    text = str(location)
    problem = _misfit(text)
    if problem:
        raise error(
            f"{what} {_shown(text)} {problem}; expected a local path: a folder, or a URL such as "
            "file:///folder (a mounted network folder is fine)"
        )
    try:
        plain = unquote(urlsplit(text).path) if _SCHEME.match(text) else text
        path = Path(plain).expanduser().absolute()
    except RuntimeError:
        raise error(f"{what} {text} begins with a user without a home; write it out") from None
    problem = _unreadable(str(path))
    if problem:
        raise error(f"{what} {str(path)!a} {problem}")
    return path


def check_petastorm_reads(path: Path, *, error: type[BitstormError]) -> None:
    """Raise `error` where petastorm, which cuts paths at `#` and `?`, would read another one."""
    if {"#", "?"} & set(str(path)):
        raise error(f"petastorm cannot read {path}: its name has # or ?; choose another name")


def _unreadable(path: str) -> str | None:
    """Why Java and Arrow, whose file names are UTF-8, would see another name than Python."""
    encoding = sys.getfilesystemencoding()
    if not path.isascii() and encoding != "utf-8":
        return f"is not plain ASCII, and file names are {encoding} here: set LC_ALL=C.UTF-8"
    try:
        path.encode()
    except UnicodeEncodeError:
        return "has bytes that are not UTF-8: choose or make another name"
    return None


def _misfit(text: str) -> str | None:
    """Why a text is no local path, None if it is one."""
    if "\0" in text:
        return "has a control character"
    if text.lstrip().lower().startswith("file:") and text[0].isspace():
        return "begins with a space"
    scheme = _SCHEME.match(text)
    if not scheme:
        return None
    if scheme[1].lower() != "file":
        return "is not a local file"
    # `urlsplit` would drop some of them.
    if _CONTROL.search(text):
        return "has a control character"
    try:
        url = urlsplit(text)
        path = unquote(url.path, errors="strict")
    except ValueError as error:
        return f"is not a URL ({error})"
    if url.netloc.lower() not in ("", "localhost"):
        return f"is on the host {url.netloc.rpartition('@')[2]}, not on this one"
    if not path:
        return "has no path"
    unused = [mark for mark in "?#;" if mark in text]
    if unused:
        codes = ", ".join(f"{mark} as %{ord(mark):X}" for mark in unused)
        return f"has a part after {unused[0]}, which a file does not have (in a name write {codes})"
    if _CONTROL.search(path) or "%2f" in url.path.lower():
        return "has an encoded character that no name has"
    return None


def _shown(text: str) -> str:
    """The text in one line, without a password before a host."""
    return _CONTROL.sub(
        "\N{REPLACEMENT CHARACTER}", re.sub(r"(//[^/@]*):[^/@]*@", r"\1:***@", text)
    )


@dataclass(frozen=True)
class Workspace:
    """The folders under `root` (absolute). The data sets may lie elsewhere, under the URL `store`,
    except those whose names are in `own`."""

    root: Path
    store: str | None = None
    own: frozenset[str] = frozenset()

    def with_store(self, url: str | None) -> Workspace:
        """The workspace with its data sets in a store of objects; None leaves them under `root`.
        Raises WorkspaceError for another URL."""
        if url is None:
            return self
        scheme, _, rest = url.partition("://")
        if scheme not in EXTRAS or not rest.strip("/"):
            raise WorkspaceError(
                f"store.url is {_shown(url)}; expected s3://BUCKET/FOLDER or "
                "abfs://CONTAINER@ACCOUNT.dfs.core.windows.net/FOLDER: data sets in another kind "
                "of store have no commit that only one of two writers can make"
            )
        return replace(self, store=url.rstrip("/"))

    def data_set(self, name: str) -> Root:
        """The root of a data set: a folder, or its place in the store."""
        if self.store is None or name in self.own:
            return self.root / name
        return ObjectStore(self.cache / "store" / name, f"{self.store}/{name}")

    @property
    def _base(self) -> Root:
        """Where the data sets and the binding lie."""
        if self.store is None:
            return self.root
        return ObjectStore(self.cache / "store", self.store)

    @property
    def landing(self) -> Path:
        return self.root / "landing"

    @property
    def rejects(self) -> Path:
        return self.root / "rejects"

    @property
    def prices(self) -> Root:
        return self.data_set("prices")

    @property
    def indicators(self) -> Root:
        return self.data_set("indicators")

    @property
    def forecasts(self) -> Root:
        return self.data_set("forecasts")

    @property
    def checkpoints(self) -> Path:
        return self.root / "checkpoints"

    @property
    def backtests(self) -> Path:
        return self.root / "backtests"

    @property
    def tuning(self) -> Path:
        return self.root / "tuning"

    @property
    def reports(self) -> Path:
        return self.root / "reports"

    @property
    def cache(self) -> Path:
        """Private: the converter's files, a store's files, and the JVM's log. Safe to delete while
        no command runs."""
        return self.root / ".cache"

    @property
    def calls(self) -> Path:
        """The count of calls to the source; the file is missing without limits."""
        return self.root / "calls.json"

    @property
    def binding(self) -> str:
        """Path or URL of the file that names the origin."""
        return f"{self._base}/{BINDING}"

    def bound_to(self) -> Origin | None:
        """The workspace's origin, None before the first ingest."""
        try:
            return Origin(**json.loads(files_of(self._base).read(BINDING)))
        except FileNotFoundError:
            return None
        except (TypeError, ValueError) as error:
            raise WorkspaceError(
                f"{self.binding} is not a binding ({error}); expected source, coin and "
                "vs_currency: restore it, or start with another --workspace"
            ) from None

    def check(self, origin: Origin) -> None:
        """Raise WorkspaceBound when the workspace belongs to another origin."""
        bound = self.bound_to()
        if bound is not None and bound != origin:
            raise WorkspaceBound(
                f"the workspace {self._base} holds ({bound}); prices of ({origin}) do not "
                "belong there: choose another --workspace"
            )

    def bind(self, origin: Origin) -> None:
        """Bind to the origin for good; does nothing when bound to it already."""
        self.root.mkdir(parents=True, exist_ok=True)
        content = json.dumps(asdict(origin), indent=2) + "\n"
        try:
            # Fails where the name exists: one of two first ingests binds.
            files_of(self._base).create(BINDING, content.encode())
        except FileExistsError:
            self.check(origin)


def open_workspace(location: str) -> Workspace:
    """A workspace at a local path or a `file:` URL. Raises WorkspaceError for other schemes."""
    root = local_path(location, error=WorkspaceError, what="the workspace")
    if root.exists() and not root.is_dir():
        raise WorkspaceError(f"the workspace {root} is a file; expected a folder")
    unusable = sorted({character for character in str(root) if character in _UNUSABLE})
    if unusable:
        raise WorkspaceError(
            f"the workspace {root} has {' '.join(unusable)} in its path, which Spark "
            "or petastorm would misread: choose a path without it (spark-submit writes ? for a "
            "letter beyond ASCII: start it with LC_ALL=C.UTF-8)"
        )
    return Workspace(root)
