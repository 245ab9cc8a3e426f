"""The folders of a workspace, and its one (source, coin, currency)."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from bitstorm.core import durable_io
from bitstorm.core.errors import WorkspaceBound, WorkspaceError
from bitstorm.core.sidecar import Origin

DEFAULT_WORKSPACE = "workspace"
# petastorm and Spark do not unquote URLs, and Spark reads every path as a glob.
_UNUSABLE = "#?%*[]{}\\"


def file_url(path: Path) -> str:
    """The `file://` URL of a path, unquoted, for petastorm and Spark."""
    return f"file://{path.absolute()}"


def local_path(location: str | Path) -> Path | None:
    """The absolute path of a plain path or a local `file:` URL; None for any other URL."""
    text = str(location)
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+:", text):
        url = urlsplit(text)
        if url.scheme != "file" or url.netloc not in ("", "localhost"):
            return None
        text = unquote(url.path)
    return Path(text).expanduser().absolute()


@dataclass(frozen=True)
class Workspace:
    """The folders under `root` (absolute)."""

    root: Path

    @property
    def landing(self) -> Path:
        return self.root / "landing"

    @property
    def rejects(self) -> Path:
        return self.root / "rejects"

    @property
    def prices(self) -> Path:
        return self.root / "prices"

    @property
    def indicators(self) -> Path:
        return self.root / "indicators"

    @property
    def checkpoints(self) -> Path:
        return self.root / "checkpoints"

    @property
    def reports(self) -> Path:
        return self.root / "reports"

    @property
    def cache(self) -> Path:
        """Private: the converter's files and the JVM's log. Safe to delete at any time."""
        return self.root / ".cache"

    @property
    def calls(self) -> Path:
        """The count of calls to the source; the file is missing without limits."""
        return self.root / "calls.json"

    @property
    def binding(self) -> Path:
        return self.root / "workspace.json"

    def bound_to(self) -> Origin | None:
        """The workspace's origin, None before the first ingest."""
        try:
            return Origin(**json.loads(self.binding.read_text(encoding="utf-8")))
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
                f"the workspace {self.root} holds ({bound}); prices of ({origin}) do not "
                "belong there: choose another --workspace"
            )

    def bind(self, origin: Origin) -> None:
        """Bind to the origin for good; does nothing when bound to it already."""
        self.root.mkdir(parents=True, exist_ok=True)
        content = json.dumps(asdict(origin), indent=2) + "\n"
        try:
            # Fails where the name exists: one of two first ingests binds.
            durable_io.create(self.binding, content.encode())
        except FileExistsError:
            self.check(origin)


def open_workspace(location: str) -> Workspace:
    """A workspace at a local path or a `file:` URL. Raises WorkspaceError for other schemes."""
    root = local_path(location)
    if root is None:
        raise WorkspaceError(
            f"the workspace {location} is not on a local path; expected a folder or a file: "
            "URL (a mounted network folder is fine)"
        )
    if root.exists() and not root.is_dir():
        raise WorkspaceError(f"the workspace {root} is a file; expected a folder")
    unusable = sorted({character for character in str(root) if character in _UNUSABLE})
    if unusable:
        raise WorkspaceError(
            f"the workspace {root} has {' '.join(unusable)} in its path, which Spark "
            "or petastorm would misread: choose a path without it"
        )
    return Workspace(root)
