"""Spark's variables: a local Spark starts without them, for a cluster they are checked.

With them a local Spark fails in ways that name none of them: another Spark's programs, an address
of another network, a locale that has no name for a file.
"""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import sys
import sysconfig
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path

from bitstorm.core.errors import EnvironmentProblem
from bitstorm.spark import java

PYSPARK = "4.0."
"""The beginning of the versions that Bitstorm runs with."""

_OTHERS = ("HADOOP_CONF_DIR", "HADOOP_HOME", "YARN_CONF_DIR")
# Scratch folders are the user's to choose, and a session on another server is; the others pyspark
# sets itself at each start.
_KEPT = ("SPARK_LOCAL_DIRS", "SPARK_REMOTE", "SPARK_AUTH_SOCKET_TIMEOUT", "SPARK_BUFFER_SIZE")
_FOLDERS = ("SPARK_CONF_DIR", "HADOOP_CONF_DIR", "YARN_CONF_DIR")
# Bytes: Java's own libraries need the first, a longer series the second.
_LEAST, _ROOM = 16 << 20, 512 << 20


class _InstalledFirst:
    """Finds pyspark and py4j where Bitstorm's packages are installed, before PYTHONPATH does."""

    @staticmethod
    def find_spec(name: str, path: Sequence[str] | None = None, target: object = None) -> object:
        return _installed(name) if name in ("pyspark", "py4j") else None


def prefer_installed_pyspark() -> None:
    """Make `import pyspark` ignore PYTHONPATH; under a launcher its own pyspark stays."""
    if "PYTHONPATH" in os.environ and not under_spark_submit():
        sys.meta_path.insert(0, _InstalledFirst)  # type: ignore[arg-type]


def under_spark_submit() -> bool:
    """Whether a launcher has already started the JVM for this process."""
    return "PYSPARK_GATEWAY_PORT" in os.environ


def _installed(name: str) -> ModuleSpec | None:
    return PathFinder.find_spec(name, [sysconfig.get_path("purelib")])


def shadowed_packages() -> list[str]:
    """`pyspark` and `py4j` where PYTHONPATH has others than the installed ones."""
    return [
        name
        for name in ("pyspark", "py4j")
        if (own := _installed(name)) and (first := PathFinder.find_spec(name)) and own != first
    ]


def is_local(master: str) -> bool:
    return master.startswith("local")


def ignored(environ: Mapping[str, str]) -> list[str]:
    """What a local Spark starts without: names of variables, and of packages in PYTHONPATH."""
    installed = _installed("pyspark")
    # With these values they change nothing; a session of ours sets them for its time.
    own = {**_LOCAL, "PYSPARK_PYTHON": sys.executable}
    if installed and "SPARK_HOME" in environ:
        home, theirs = Path(installed.origin or "").parent, Path(environ["SPARK_HOME"])
        own["SPARK_HOME"] = str(theirs) if home.resolve() == theirs.resolve() else ""
    names = [
        name
        for name, value in sorted(environ.items())
        if _is_sparks(name) and value.rstrip("/") != own.get(name)
    ]
    return [*names, *(f"{name} in PYTHONPATH" for name in shadowed_packages())]


def _is_sparks(name: str) -> bool:
    return (name.startswith(("SPARK_", "PYSPARK_")) and name not in _KEPT) or name in _OTHERS


@contextmanager
def variables(master: str, *, cache: Path | None) -> Iterator[None]:
    """The environment of a JVM that Bitstorm starts, for the block: a Java, a temporary folder, and
    for a local Spark none of the user's variables. Under a launcher nothing changes.

    Raises EnvironmentProblem without a Java for Spark, without a temporary folder (see
    `temporary_folder`), and where a cluster's variables cannot work.
    """
    if under_spark_submit():
        yield
        return
    home = java.find_java_home(os.environ, project=java.project_root())
    if home is None:
        raise EnvironmentProblem(java.explain(os.environ, project=java.project_root()))
    changes = {"JAVA_HOME": str(home), "TMPDIR": str(temporary_folder(cache))}
    if problems := (local_problems if is_local(master) else cluster_problems)(os.environ):
        raise EnvironmentProblem(
            f"spark.master is {master}, and {'; '.join(problems)} (`bitstorm doctor`)"
        )
    before = dict(os.environ)
    try:
        if is_local(master):
            for name in filter(_is_sparks, before):
                del os.environ[name]
            # Workers take the system's python3 otherwise, which lacks the packages.
            changes |= {**_LOCAL, "SPARK_HOME": str(_own_home()), "PYSPARK_PYTHON": sys.executable}
        os.environ.update(changes)
        yield
    finally:
        for name in [*_LOCAL, *changes, *filter(_is_sparks, [*before, *os.environ])]:
            os.environ.pop(name, None)
            if name in before:
                os.environ[name] = before[name]


# No name of this machine is looked up, and Java's file names are UTF-8 in every locale.
_LOCAL = {"SPARK_LOCAL_IP": "127.0.0.1", "SPARK_LOCAL_HOSTNAME": "localhost", "LC_ALL": "C.UTF-8"}


def _own_home() -> Path:
    """The folder of the Spark that belongs to pyspark; SPARK_HOME is not set."""
    from pyspark.find_spark_home import _find_spark_home

    try:
        return Path(_find_spark_home())
    except SystemExit:
        raise EnvironmentProblem(
            "the package pyspark comes without Spark; expected the one that scripts/setup "
            "installs: install pyspark with pip into Bitstorm's environment"
        ) from None


def check_pyspark() -> None:
    """Raise EnvironmentProblem for a pyspark of another version."""
    import pyspark

    found = getattr(pyspark, "__version__", "of no version")
    if not found.startswith(PYSPARK):
        where = Path(pyspark.__file__ or "").parent
        raise EnvironmentProblem(
            f"found pyspark {found} in {where}, expected {PYSPARK}x: take it out of PYTHONPATH, "
            "and set SPARK_HOME and the launcher to a Spark of that version (`bitstorm doctor`)"
        )


def local_problems(environ: Mapping[str, str]) -> list[str]:
    """Why a local Spark cannot start: its user, or the one variable that it keeps."""
    folders = [Path(folder) for folder in environ.get("SPARK_LOCAL_DIRS", "").split(",") if folder]
    wrong = (
        f"SPARK_LOCAL_DIRS={environ['SPARK_LOCAL_DIRS']} has {folder}, where nothing can be "
        "written: correct or unset it"
        for folder in folders
        for parent in [next(path for path in (folder, *folder.parents) if path.exists())]
        if not (parent.is_dir() and os.access(parent, os.W_OK | os.X_OK))
    )
    return [*_problems_of_user(), *wrong]


def _problems_of_user() -> Iterator[str]:
    try:
        pwd.getpwuid(os.getuid())
    except KeyError:
        yield f"user {os.getuid()} has no name, which Java needs: add a line to /etc/passwd"


def cluster_problems(environ: Mapping[str, str]) -> list[str]:
    """Why Spark cannot start for a cluster with these variables, each in a clause."""
    found = [*_problems_of_user(), *_problems_of_home(environ.get("SPARK_HOME"))]
    arguments = environ.get("PYSPARK_SUBMIT_ARGS")
    if arguments is not None and not arguments.rstrip().endswith("pyspark-shell"):
        found.append(f"PYSPARK_SUBMIT_ARGS={arguments!r} does not end with pyspark-shell: add it")
    for name in _FOLDERS:
        if environ.get(name) and not Path(environ[name]).is_dir():
            found.append(f"{name}={environ[name]} is no folder: correct or unset it")
    address = environ.get("SPARK_LOCAL_IP")
    if address and not _can_bind(address):
        found.append(f"SPARK_LOCAL_IP={address} is no address of this machine: correct or unset it")
    if not (address or environ.get("SPARK_LOCAL_HOSTNAME") or host_resolves()):
        found.append(
            f"the host name {socket.gethostname()} does not resolve: set SPARK_LOCAL_IP to an "
            "address of this machine that the cluster reaches"
        )
    return found


def _problems_of_home(home: str | None) -> Iterator[str]:
    if not home:
        return
    if not os.access(Path(home, "bin", "spark-submit"), os.X_OK):
        yield f"SPARK_HOME={home} has no bin/spark-submit: correct or unset it"
        return
    versions = [jar.stem.split("-", 2)[2] for jar in Path(home, "jars").glob("spark-core_*.jar")]
    if versions and not any(version.startswith(PYSPARK) for version in versions):
        yield f"SPARK_HOME={home} is Spark {versions[0]}, expected {PYSPARK}x: correct or unset it"


def _can_bind(address: str) -> bool:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with suppress(OSError, UnicodeError), socket.create_server((address, 0), family=family):
        return True
    return False


def host_resolves() -> bool:
    """Whether this machine's own name has an address."""
    with suppress(OSError, UnicodeError):
        return bool(socket.gethostbyname(socket.gethostname()))
    return False


def temporary_folder(cache: Path | None) -> Path:
    """Java's folder for its libraries and Spark's scratch files: the system's (TMPDIR), or `cache`
    where that one is full or may hold no programs.

    Raises EnvironmentProblem where neither can be used.
    """
    found = []
    with suppress(FileNotFoundError):
        found.append(Path(tempfile.gettempdir()))
    if cache is not None:
        cache.mkdir(parents=True, exist_ok=True)
        found.append(cache)
    problems = {folder: folder_problem(folder) for folder in found}
    usable = [folder for folder in found if problems[folder] is None]
    if not usable:
        why = "; ".join(filter(None, problems.values())) or "no temporary folder is writable"
        raise EnvironmentProblem(f"{why}: free some space, or set TMPDIR to another folder")
    roomy = [folder for folder in usable if _free(folder) >= _ROOM]
    return roomy[0] if roomy else max(usable, key=_free)


def folder_problem(folder: Path) -> str | None:
    """Why Java cannot use a folder for temporary files, None if it can."""
    if os.statvfs(folder).f_flag & os.ST_NOEXEC:
        return f"{folder} is mounted noexec, so Java cannot load its libraries from there"
    return f"{folder} is full" if _free(folder) < _LEAST else None


def _free(folder: Path) -> int:
    return shutil.disk_usage(folder).free
