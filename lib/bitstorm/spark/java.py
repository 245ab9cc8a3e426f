"""Finds a Java that Spark 4.0 runs on.

Standard library only, and cheap: a home with a ``release`` file starts no JVM. The set-up scripts
run this file by its path, before any package is installed, so it imports nothing of bitstorm.
"""

import os
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

SUPPORTED = (17, 21)
"""Spark 4.0 needs at least 17 and fails on 24 and later; these two have long-term support."""

WANTED = "Java " + " or ".join(str(major) for major in SUPPORTED)

PLACES = (
    "/usr/lib/jvm/*",
    "/Library/Java/JavaVirtualMachines/*",
    "~/.sdkman/candidates/java/*",
    "~/.jdks/*",
    "~/.jdk/*",
    "~/.jre/*",
    "/opt/java*",
    "/opt/java/*",
    "/opt/jdk*",
    "/usr/java/*",
    "/opt/homebrew/opt/openjdk*/libexec/openjdk.jdk",
    "/usr/local/opt/openjdk*/libexec/openjdk.jdk",
)
"""The usual places: patterns of homes, or of macOS bundles (their home is Contents/Home)."""

OPTIONS = ("JAVA_TOOL_OPTIONS", "JDK_JAVA_OPTIONS", "_JAVA_OPTIONS")
"""Variables with options that every Java takes."""

_PROBE_SECONDS = 20


class Candidate(NamedTuple):
    """A Java home; ``problem`` says why it does not suit, None if it does."""

    home: Path
    source: str
    major: int | None
    problem: str | None


def candidates(
    environ: Mapping[str, str], *, places: Iterable[str] = PLACES, project: Path | None = None
) -> Iterator[Candidate]:
    """Every Java home in the order of preference, each real folder once.

    JAVA_HOME comes first, then `java` on the PATH, the project's own `.java/`, the usual places.
    """
    seen: set[str] = set()
    for home, source in _homes(environ, places, project):
        real = os.path.realpath(home)
        if real not in seen:
            seen.add(real)
            yield _examine(home, source)


def find_java_home(
    environ: Mapping[str, str], *, places: Iterable[str] = PLACES, project: Path | None = None
) -> Path | None:
    """The first suitable Java home, or None; the search stops there."""
    found = candidates(environ, places=places, project=project)
    return next((candidate.home for candidate in found if candidate.problem is None), None)


def explain(
    environ: Mapping[str, str], *, places: Iterable[str] = PLACES, project: Path | None = None
) -> str:
    """One sentence for a user without a suitable Java: what was found and what to do."""
    found = [
        f"{home} ({source}), which {problem}"
        if major is None
        else f"Java {major} in {home} ({source})"
        for home, source, major, problem in candidates(environ, places=places, project=project)
        if problem is not None
    ]
    what = "only " + ", and ".join(found) if found else "no Java at all"
    advice = f"{_advice(environ)}, or set JAVA_HOME to one"
    return f"Bitstorm needs {WANTED}, but there is {what}: {advice}."


def project_root() -> Path | None:
    """The checkout with this file (its `.java/` can hold a Java), None once installed."""
    root = Path(__file__).resolve().parents[3]
    return root if os.access(root / "scripts" / "setup", os.F_OK) else None


def _homes(
    environ: Mapping[str, str], places: Iterable[str], project: Path | None
) -> Iterator[tuple[Path, str]]:
    if environ.get("JAVA_HOME"):
        yield Path(environ["JAVA_HOME"]), "JAVA_HOME"
    for java in _on_path(environ, "java"):
        yield _home_of(java), "java on the PATH"
    if project is not None:
        yield from ((home, "the project's .java") for home in _matches(project, ".java/*"))
    for place in places:
        base, _, pattern = place.partition("/")
        if base == "~" and not environ.get("HOME"):
            continue
        anchor = Path(environ["HOME"] if base == "~" else "/")
        yield from ((home, "a usual place") for home in _matches(anchor, pattern))


def _on_path(environ: Mapping[str, str], command: str) -> Iterator[Path]:
    for folder in environ.get("PATH", "").split(os.pathsep):
        path = Path(folder, command)
        # Unlike Path.is_file, os.access never raises (a folder of another user).
        if folder and os.access(path, os.X_OK) and not path.is_dir():
            yield path


def _matches(anchor: Path, pattern: str) -> Iterator[Path]:
    for home in sorted(anchor.glob(pattern)):
        bundle = home / "Contents" / "Home"
        if os.access(bundle, os.F_OK):
            yield bundle
        # A broken link or another folder is ignored.
        elif os.path.lexists(home / "bin" / "java"):
            yield home


def _home_of(java: Path) -> Path:
    """The home of a `java` command: behind its links or, for a shim, from Java itself."""
    home = Path(os.path.realpath(java)).parent.parent
    if not os.access(home / "release", os.F_OK):
        stated = re.search(r"^\s*java\.home = (.+?)\s*$", _properties(java), re.MULTILINE)
        if stated and os.access(Path(stated[1], "bin", "java"), os.X_OK):
            return Path(stated[1])
    return home


def _examine(home: Path, source: str) -> Candidate:
    java = home / "bin" / "java"
    if not os.access(java, os.F_OK):
        return Candidate(home, source, None, "has no bin/java")
    if not os.access(java, os.X_OK):
        return Candidate(home, source, None, "has a bin/java that is not executable")
    major = _major(version(home))
    if major is None:
        # -version prints `openjdk version "17.0.9" 2023-10-17`.
        stated = re.search(r'\bversion "([^"]+)"', _properties(java))
        major = _major(stated[1] if stated else None)
    if major is None:
        return Candidate(home, source, None, "has a bin/java that does not work")
    return Candidate(home, source, major, None if major in SUPPORTED else f"is Java {major}")


def version(home: Path) -> str | None:
    """The version in a home's `release` file (`17.0.9`), None without one."""
    try:
        text = (home / "release").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    found = re.search(r'^JAVA_VERSION="?([^"\n]+)', text, re.MULTILINE)
    return found[1] if found else None


def _major(version: str | None) -> int | None:
    """17 of `17.0.9`, 21 of `21-ea`, 8 of `1.8.0_392`."""
    number = re.match(r"(?:1\.(?=\d))?(\d+)", version or "")
    return int(number[1]) if number else None


def complaint(home: Path) -> str | None:
    """The first line of a Java that does not start, None for one that does."""
    started, text = _run(home / "bin" / "java", "-version")
    lines = (line for line in text.splitlines() if line and not line.startswith(NOTES))
    return None if started else next(lines, "it does not start")


NOTES = ("Picked up", "NOTE:", "OpenJDK 64-Bit Server VM warning")
"""How lines begin that Java prints of itself when nothing is wrong."""


def _properties(java: Path) -> str:
    started, text = _run(java, "-XshowSettings:properties", "-version")
    return text if started else ""


def _run(java: Path, *arguments: str) -> tuple[bool, str]:
    """Whether a `java` ends well, and what it prints."""
    try:
        answer = subprocess.run(
            [str(java), *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=_PROBE_SECONDS,
            check=False,
        )
    except (OSError, subprocess.SubprocessError) as error:
        return False, str(error)
    return answer.returncode == 0, answer.stdout.decode("utf-8", "replace")


def _advice(environ: Mapping[str, str]) -> str:
    commands = {
        "apt-get": "sudo apt-get install openjdk-17-jre-headless",
        "dnf": "sudo dnf install java-17-openjdk-headless",
        "zypper": "sudo zypper install java-17-openjdk-headless",
        "pacman": "sudo pacman -S jre17-openjdk-headless",
        "apk": "sudo apk add openjdk17-jre-headless",
        "brew": "brew install openjdk@17",
    }
    installed = (command for tool, command in commands.items() if any(_on_path(environ, tool)))
    command = next(installed, None)
    other = "install a JRE 17 (Eclipse Temurin has one for every system)"
    return f"install it with `{command}`" if command else other


def main() -> int:
    """Print the project's Java home, or the reason on stderr why there is none."""
    project = project_root()
    home = find_java_home(os.environ, project=project)
    if home is None:
        sys.stderr.write(explain(os.environ, project=project) + "\n")
        return 1
    sys.stdout.write(f"{home}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
