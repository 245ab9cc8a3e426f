"""Spark's variables: a local Spark starts without them; for a cluster the wrong one is named."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from bitstorm.core.errors import EnvironmentProblem
from bitstorm.core.settings import Spark
from bitstorm.spark import environment, session
from landed import drop

FOREIGN = {
    "SPARK_HOME": "/gone",
    "SPARK_CONF_DIR": "/gone",
    "SPARK_LOCAL_IP": "192.0.2.1",
    "SPARK_LOCAL_HOSTNAME": "nowhere",
    "SPARK_PUBLIC_DNS": "nowhere",
    "SPARK_CONNECT_MODE_ENABLED": "1",
    "SPARK_API_MODE": "connect",
    "SPARK_TESTING": "1",
    "SPARK_PREPEND_CLASSES": "1",
    "SPARK_PRINT_LAUNCH_COMMAND": "1",
    "SPARK_ENV_LOADED": "1",
    "SPARK_DIST_CLASSPATH": "/gone/*",
    "SPARK_SUBMIT_OPTS": "-XX:+Nonsense",
    "SPARK_LAUNCHER_OPTS": "-XX:+Nonsense",
    "SPARK_DAEMON_MEMORY": "9z",
    "SPARK_DRIVER_MEMORY": "9z",
    "SPARK_SCALA_VERSION": "2.12",
    "PYSPARK_SUBMIT_ARGS": "--master local[7]",
    "PYSPARK_PYTHON": "/gone/python",
    "PYSPARK_DRIVER_PYTHON": "jupyter",
    "PYSPARK_DRIVER_PYTHON_OPTS": "notebook",
    "PYSPARK_PIN_THREAD": "false",
    "HADOOP_CONF_DIR": "/gone",
    "HADOOP_HOME": "/gone",
    "YARN_CONF_DIR": "/gone",
}


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [*filter(environment._is_sparks, os.environ), "SPARK_LOCAL_DIRS"]:
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("name", FOREIGN)
def test_a_local_spark_sees_no_foreign_variable(name, monkeypatch, tmp_path):
    monkeypatch.setenv(name, FOREIGN[name])
    monkeypatch.setenv("LC_ALL", "C")
    before = dict(os.environ)
    assert environment.ignored(os.environ) == [name]
    with environment.variables("local[2]", cache=tmp_path):
        assert os.environ.get(name) != FOREIGN[name]
        assert os.environ["PYSPARK_PYTHON"] == sys.executable
        assert Path(os.environ["SPARK_HOME"], "bin", "spark-submit").exists()
        assert (os.environ["SPARK_LOCAL_IP"], os.environ["LC_ALL"]) == ("127.0.0.1", "C.UTF-8")
        os.environ["SPARK_BUFFER_SIZE"] = "1"  # pyspark sets it
    assert {**os.environ, "SPARK_BUFFER_SIZE": ""} == {**before, "SPARK_BUFFER_SIZE": ""}


def test_what_changes_nothing_is_not_reported(monkeypatch):
    import pyspark

    monkeypatch.setenv("PYSPARK_PYTHON", sys.executable)
    monkeypatch.setenv("SPARK_HOME", str(Path(pyspark.__file__).parent))
    monkeypatch.setenv("SPARK_LOCAL_DIRS", "/tmp")
    assert environment.ignored(os.environ) == []
    with environment.variables("local", cache=None):
        assert environment.ignored(os.environ) == []  # nor what a session of ours sets


def test_under_a_launcher_nothing_is_touched(monkeypatch):
    monkeypatch.setenv("PYSPARK_GATEWAY_PORT", "1")
    monkeypatch.setenv("SPARK_HOME", "/gone")
    before = dict(os.environ)
    with environment.variables("local[2]", cache=None):
        assert dict(os.environ) == before


@pytest.fixture
def homes(tmp_path: Path) -> Path:
    """Folders as of several versions of Spark."""
    for name, version in {"old": "2.12-3.5.1", "new": "2.13-4.1.0", "own": "2.13-4.0.1"}.items():
        for folder in ("bin", "jars"):
            (tmp_path / name / folder).mkdir(parents=True)
        (tmp_path / name / "jars" / f"spark-core_{version}.jar").touch()
        (tmp_path / name / "bin" / "spark-submit").touch(0o755)
    return tmp_path


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("SPARK_HOME", "/gone", "no bin/spark-submit"),
        ("SPARK_HOME", "BASE/old/jars", "no bin/spark-submit"),
        ("SPARK_HOME", "BASE/old", "is Spark 3.5.1, expected 4.0.x"),
        ("SPARK_HOME", "BASE/new", "is Spark 4.1.0, expected 4.0.x"),
        ("PYSPARK_SUBMIT_ARGS", "--master yarn", "does not end with pyspark-shell"),
        ("PYSPARK_SUBMIT_ARGS", "", "does not end with pyspark-shell"),
        ("SPARK_CONF_DIR", "/gone", "is no folder"),
        ("HADOOP_CONF_DIR", "/dev/null", "is no folder"),
        ("YARN_CONF_DIR", "/gone", "is no folder"),
        ("SPARK_LOCAL_IP", "192.0.2.1", "no address of this machine"),
        ("SPARK_LOCAL_IP", "nowhere.invalid", "no address of this machine"),
        ("SPARK_LOCAL_IP", "300.1.1.1", "no address of this machine"),
    ],
)
def test_a_clusters_wrong_variable_is_named(name, value, said, homes, monkeypatch):
    value = value.replace("BASE", str(homes))
    monkeypatch.setenv(name, value)
    with (
        pytest.raises(EnvironmentProblem, match=said) as raised,
        environment.variables("spark://h:7077", cache=None),
    ):
        pass
    assert name in str(raised.value) and "spark.master is spark://h:7077" in str(raised.value)


def test_a_clusters_good_variables_stay(homes, monkeypatch):
    good = {
        "SPARK_HOME": str(homes / "own"),
        "SPARK_CONF_DIR": str(homes),
        "PYSPARK_SUBMIT_ARGS": "--queue q pyspark-shell ",
        "SPARK_LOCAL_IP": "127.0.0.1",
        "PYSPARK_PYTHON": "/on/the/workers/python",
    }
    for name, value in good.items():
        monkeypatch.setenv(name, value)
    with environment.variables("yarn", cache=None):
        assert good.items() <= os.environ.items()


@pytest.mark.parametrize("value", ["/dev/null", "/dev/null/x/y", "/tmp,/dev/null/x"])
def test_scratch_folders_that_cannot_be_written_are_named(value, monkeypatch):
    monkeypatch.setenv("SPARK_LOCAL_DIRS", value)
    (said,) = environment.local_problems(os.environ)
    assert f"SPARK_LOCAL_DIRS={value}" in said and "/dev/null" in said
    monkeypatch.setenv("SPARK_LOCAL_DIRS", "/tmp,/tmp/not/yet")
    assert environment.local_problems(os.environ) == []


@pytest.mark.parametrize("first", ["bitstorm.utils", "bitstorm.spark", "bitstorm.interface"])
@pytest.mark.parametrize("launched", [False, True])
def test_the_pyspark_of_pythonpath_counts_under_a_launcher(first, launched, tmp_path):
    for name in ("pyspark", "py4j"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("__version__ = '3.5.1'\n")
    ask = "import pyspark, py4j; print(pyspark.__version__, getattr(py4j, '__version__', 'own'))"
    start = "import bitstorm.spark" if launched else f"import {first}"
    environ = {**os.environ, "PYTHONPATH": f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}"}
    if launched:
        environ["PYSPARK_GATEWAY_PORT"] = "1"
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", f"{start}; {ask}"],
        env=environ, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.stdout.startswith("3.5.1 3.5.1" if launched else "4.0."), done.stderr


def test_another_pyspark_is_refused_by_name(monkeypatch):
    import pyspark

    environment.check_pyspark()
    monkeypatch.setattr(pyspark, "__version__", "3.5.1")
    with pytest.raises(EnvironmentProblem, match=r"pyspark 3\.5\.1 in .*SPARK_HOME"):
        environment.check_pyspark()


def test_a_temporary_folder_that_does_not_serve_is_passed_over(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", "/proc")  # full, and often noexec
    assert str(environment.folder_problem(Path("/proc"))).startswith("/proc is")
    assert environment.temporary_folder(tmp_path / "cache") == tmp_path / "cache"
    with pytest.raises(EnvironmentProblem, match=r"/proc is .*TMPDIR"):
        environment.temporary_folder(None)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    assert environment.temporary_folder(tmp_path / "cache") == tmp_path


def test_a_user_without_a_name_is_named(monkeypatch):
    uid = next(uid for uid in range(54_321, 60_000) if not _has_name(uid))
    monkeypatch.setattr(os, "getuid", lambda: uid)
    assert f"user {uid} has no name" in environment.local_problems({})[0]
    assert f"user {uid} has no name" in environment.cluster_problems({})[0]


def _has_name(uid: int) -> bool:
    return any(entry.pw_uid == uid for entry in pwd.getpwall())


def ingested(folder: Path, environ: dict[str, str], *before: str) -> subprocess.CompletedProcess:
    """A whole `ingest` in a process of its own, in a workspace whose name is not ASCII."""
    root = folder / "wörk spåce ビット"
    drop(root / "landing", "a.csv", "timestamp,price\n1704067200000,42000\n1704070800000,42100\n")
    command = [sys.executable, "-m", "bitstorm.cli", "ingest", "--workspace", str(root)]
    return subprocess.run(
        [*before, *command, "--set", "source.mode=csv", "--set", "spark.master=local[2]"],
        env={**os.environ, **environ},
        capture_output=True,
        timeout=300,
    )


# A machine whose name nothing resolves; SMALL is noexec and full.
HOSTILE = """hostname nowhere-at-all; mount -t tmpfs -o noexec,size=64k none "$SMALL"
cat /dev/zero > "$SMALL/fill" 2>/dev/null; exec "$@" """


@pytest.mark.slow
def test_ingest_works_on_a_hostile_machine(tmp_path):
    """Every wrong variable at once and, where a test may make a mount of its own, no host name and
    no temporary folder."""
    alien, small = tmp_path / "alien" / "pyspark", tmp_path / "small"
    alien.mkdir(parents=True)
    small.mkdir()
    (alien / "__init__.py").write_text("__version__ = '3.5.1'\n")
    path = f"{alien.parent}:{os.environ.get('PYTHONPATH', '')}"
    wrong = {
        **FOREIGN,
        "PYTHONPATH": path,
        "LC_ALL": "C",
        "TMPDIR": str(small),
        "SMALL": str(small),
    }
    enter = ["unshare", "--map-root-user", "--mount", "--uts"]
    able = shutil.which("unshare") and subprocess.run([*enter, "true"]).returncode == 0
    done = ingested(tmp_path, wrong, *([*enter, "sh", "-c", HOSTILE, "sh"] if able else []))
    said = done.stderr.decode()
    assert done.returncode == 0, said
    assert said.count("ignored: ") == 1 and "2 rows" in done.stdout.decode()
    assert all(name in said for name in [*FOREIGN, "pyspark in PYTHONPATH"])


@pytest.mark.slow
def test_a_java_option_that_stops_java_is_in_the_sentence(tmp_path):
    done = ingested(tmp_path, {"JAVA_TOOL_OPTIONS": "-XX:+Nonsense"})
    said = done.stderr.decode().splitlines()
    assert done.returncode == 1 and len(said) == 1
    assert "Unrecognized VM option 'Nonsense'" in said[0] and "bitstorm doctor" in said[0]


@pytest.mark.slow
def test_a_java_without_names_for_the_workspace_is_refused(spark_session, tmp_path):
    system = spark_session._jvm.java.lang.System
    encoding = system.setProperty("sun.jnu.encoding", "ANSI_X3.4-1968")
    try:
        with session.spark_session(app_name="x", spark=Spark(), log=tmp_path / "spark.log"):
            pass
        said = r"wörk is not plain ASCII, .* ANSI_X3\.4-1968 .*: start it with LC_ALL=C\.UTF-8$"
        log = tmp_path / "wörk" / "spark.log"
        with (
            pytest.raises(EnvironmentProblem, match=said),
            session.spark_session(app_name="x", spark=Spark(), log=log),
        ):
            pass
    finally:
        system.setProperty("sun.jnu.encoding", encoding)


@pytest.mark.faults
def test_a_java_started_without_names_is_refused(tmp_path):
    """A session that a user, or a launcher, has started under LC_ALL=C."""
    script = """
import sys
from pathlib import Path
from pyspark.sql import SparkSession
from bitstorm.core.settings import Spark
from bitstorm.core.errors import EnvironmentProblem
from bitstorm.spark.session import spark_session

SparkSession.builder.master("local[1]").config("spark.ui.enabled", "false").getOrCreate()
for name in ("plain", "wörk"):
    try:
        with spark_session(app_name="x", spark=Spark(), log=Path(sys.argv[1], name, "spark.log")):
            print("used")
    except EnvironmentProblem as error:
        print(ascii(str(error)))
"""
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)],
        env={**os.environ, "LC_ALL": "C", "JAVA_HOME": str(environment.java.find_java_home({}))},
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    used, refused = done.stdout.splitlines()
    assert used == "used" and "start it with LC_ALL=C.UTF-8" in refused, done.stderr
