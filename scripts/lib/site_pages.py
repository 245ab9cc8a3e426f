"""MkDocs hook: brings the root's pages into the site, with links that fit there."""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[2]
# Their place in docs/ by their place in the repository.
PAGES = {
    "README.md": "index.md",
    "ARCHITECTURE.md": "architecture.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
}
SOURCES = {site: source for source, site in PAGES.items()}
LINK = re.compile(r"(!?)\[([^\]]*)\]\((?!https?:)([^)#]*)(#[^)]*)?\)")


def on_files(files: Files, *, config: Any, **_: Any) -> Files:
    for source, site in PAGES.items():
        files.append(File.generated(config, site, abs_src_path=str(ROOT / source)))
    return files


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    site = page.file.src_uri
    source = SOURCES.get(site, f"docs/{site}")

    def linked(match: re.Match[str]) -> str:
        picture, text, path, anchor = match.groups(default="")
        if not path:
            return match.group()
        target = posixpath.normpath(posixpath.join(posixpath.dirname(source), path))
        if target in PAGES:
            place = PAGES[target]
        elif target.startswith("docs/"):
            place = target.removeprefix("docs/")
        else:
            # Not on the site: a file of the repository, by its name.
            return text if "`" in text else f"`{target}`"
        return f"{picture}[{text}]({posixpath.relpath(place, posixpath.dirname(site))}{anchor})"

    def fitted(part: str) -> str:
        if part.startswith("```"):
            return part
        # GitHub wants a bar in a table's code escaped, MkDocs shows the escape.
        part = re.sub(r"`[^`\n]*`", lambda code: code.group().replace(r"\|", "|"), part)
        return LINK.sub(linked, part)

    parts = re.split(r"(^```.*?^```$)", markdown, flags=re.MULTILINE | re.DOTALL)
    return "".join(map(fitted, parts))
