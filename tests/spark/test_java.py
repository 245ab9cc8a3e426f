"""What Java Spark gets: the user's choice where it suits, else the next one that does."""

import stat
import subprocess
import sys
from pathlib import Path

import pytest

from bitstorm.spark import java
from bitstorm.spark.java import candidates, explain, find_java_home


def make_home(home: Path, release: str | None = None, script: str = "exit 1") -> Path:
    """A Java home with a release file, or with a `java` that answers by itself, or both."""
    program = home / "bin" / "java"
    program.parent.mkdir(parents=True)
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    if release is not None:
        (home / "release").write_text(f'IMPLEMENTOR="X"\nJAVA_VERSION="{release}"\nOS_NAME="Y"\n')
    return home


def answers(version: str, home: Path | None = None) -> str:
    """A shell command that answers `java -version` as Java does, on stderr."""
    shown = f"    java.home = {home}\n" if home else ""
    return f"cat >&2 <<'END'\n{shown}openjdk version \"{version}\" 2024-01-16\nEND"


@pytest.mark.parametrize(
    ("version", "suits"),
    [
        ("17", True),
        ("17.0.15", True),
        ("17.0.21.1", True),
        ("21-ea", True),
        ("21.0.2", True),
        ("1.8.0_392", False),
        ("11.0.22", False),
        ("18.0.2", False),
        ("24", False),
        ("25.0.3", False),
    ],
)
def test_only_java_17_and_21_suit_however_the_version_is_told(
    tmp_path: Path, version: str, suits: bool
) -> None:
    told_by_file = make_home(tmp_path / "file", version)
    told_by_java = make_home(tmp_path / "java", None, answers(version))
    for home in (told_by_file, told_by_java):
        found = find_java_home({"JAVA_HOME": str(home)}, places=[])
        assert found == (home if suits else None)


def test_the_order_is_java_home_path_project_places(tmp_path: Path) -> None:
    chosen = make_home(tmp_path / "chosen", "21.0.2")
    on_path = make_home(tmp_path / "path", "17.0.1")
    project = tmp_path / "project"
    private = make_home(project / ".java" / "jdk-17.0.9+9-jre", "17.0.9")
    usual = make_home(tmp_path / "jvm" / "one", "17.0.2")
    places = [str(tmp_path / "jvm" / "*")]
    environ = {"JAVA_HOME": str(chosen), "PATH": str(on_path / "bin")}

    found = list(candidates(environ, places=places, project=project))
    assert [candidate.home for candidate in found] == [chosen, on_path, private, usual]
    assert find_java_home(environ, places=places, project=project) == chosen
    assert find_java_home({"PATH": environ["PATH"]}, places=places, project=project) == on_path
    assert find_java_home({}, places=places, project=project) == private
    assert find_java_home({}, places=places) == usual
    assert find_java_home({}, places=[]) is None


def test_an_unsuitable_java_home_is_passed_over(tmp_path: Path) -> None:
    too_new = make_home(tmp_path / "new", "25")
    good = make_home(tmp_path / "good", "17.0.1")
    environ = {"JAVA_HOME": str(too_new), "PATH": f"/nowhere:{too_new}/bin::{good}/bin"}
    assert find_java_home(environ, places=[]) == good


def test_a_linked_java_leads_to_its_real_home(tmp_path: Path) -> None:
    home = make_home(tmp_path / "jvm" / "java-17", "17.0.1")
    (tmp_path / "alternatives").mkdir()
    (tmp_path / "alternatives" / "java").symlink_to(home / "bin" / "java")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "java").symlink_to(tmp_path / "alternatives" / "java")
    assert find_java_home({"PATH": str(tmp_path / "bin")}, places=[]) == home


def test_a_shim_is_asked_for_the_home_behind_it(tmp_path: Path) -> None:
    home = make_home(tmp_path / "real" / "21", "21.0.2")
    shim = make_home(tmp_path / "manager", None, answers("21.0.2", home))
    assert find_java_home({"PATH": str(shim / "bin")}, places=[]) == home


def test_no_java_is_started_beside_a_release_file(tmp_path: Path) -> None:
    home = make_home(tmp_path / "home", "17.0.1", f"touch '{tmp_path}/started'")
    assert find_java_home({"JAVA_HOME": str(home)}, places=[]) == home
    assert not (tmp_path / "started").exists()


def test_a_release_file_without_a_version_is_no_answer(tmp_path: Path) -> None:
    home = make_home(tmp_path / "home", None, answers("17.0.4"))
    (home / "release").write_bytes(b'MODULES="\xff"\n')
    assert find_java_home({"JAVA_HOME": str(home)}, places=[]) == home


def test_a_macos_bundle_has_its_home_inside(tmp_path: Path) -> None:
    home = make_home(tmp_path / "temurin-17.jdk" / "Contents" / "Home", "17.0.1")
    assert find_java_home({}, places=[str(tmp_path / "*")]) == home


def test_a_place_in_the_home_folder_needs_a_home_folder(tmp_path: Path) -> None:
    home = make_home(tmp_path / ".jdks" / "temurin-21", "21.0.1")
    assert find_java_home({"HOME": str(tmp_path)}, places=["~/.jdks/*"]) == home
    assert find_java_home({}, places=["~/.jdks/*"]) is None


def test_broken_homes_are_passed_over_and_explained(tmp_path: Path) -> None:
    (tmp_path / "jvm").mkdir()
    (tmp_path / "jvm" / "dangling").symlink_to(tmp_path / "gone")
    (tmp_path / "jvm" / "empty").mkdir()
    old = make_home(tmp_path / "jvm" / "old", "1.8.0_392")
    same = tmp_path / "jvm" / "same"
    same.symlink_to(old)
    dead = make_home(tmp_path / "jvm" / "dead")
    unrunnable = make_home(tmp_path / "jvm" / "unrunnable", "17")
    (unrunnable / "bin" / "java").unlink()
    (unrunnable / "bin" / "java").symlink_to(tmp_path / "gone")
    environ = {"JAVA_HOME": str(tmp_path / "nothing"), "PATH": ""}
    places = [str(tmp_path / "jvm" / "*")]

    assert find_java_home(environ, places=places) is None
    sentence = explain(environ, places=places)
    assert "\n" not in sentence
    assert f"{tmp_path / 'nothing'} (JAVA_HOME), which has no bin/java" in sentence
    assert sentence.count("Java 8 in") == 1
    assert f"{dead} (a usual place), which has a bin/java that does not work" in sentence
    assert f"{unrunnable} (a usual place), which has no bin/java" in sentence
    assert "dangling" not in sentence and "empty" not in sentence
    assert "needs Java 17 or 21" in sentence and "set JAVA_HOME" in sentence


def test_the_advice_is_a_command_of_the_users_own_system(tmp_path: Path) -> None:
    assert "no Java at all: install a JRE 17" in explain({}, places=[])
    brew = tmp_path / "brew"
    brew.write_text("#!/bin/sh\n")
    brew.chmod(0o755)
    assert "`brew install openjdk@17`" in explain({"PATH": str(tmp_path)}, places=[])


def test_the_script_prints_a_home_or_one_sentence(tmp_path: Path) -> None:
    home = make_home(tmp_path / "home", "17.0.1")

    def call(home: Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-I", "-S", java.__file__],
            env={"JAVA_HOME": str(home)},
            capture_output=True,
            text=True,
            check=False,
        )

    found = call(home)
    assert (found.returncode, found.stdout, found.stderr) == (0, f"{home}\n", "")
    # The machine's own Java, if it has one in a usual place, is as good an answer as none.
    other = call(tmp_path / "nothing")
    assert other.returncode == (0 if other.stdout else 1)
    assert bool(other.stdout) != bool(other.stderr) and str(tmp_path) not in other.stdout
