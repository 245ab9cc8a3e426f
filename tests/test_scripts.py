"""The scripts of the project, with stand-ins for all that would download."""

import importlib.util
import os
import shlex
import shutil
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parent.parent
SCRIPTS = ("setup", "run", "test", "check", "lock", "package", "submit")

# Notes every call; "installs" a .venv whose programs print what they were called with.
FAKE_UV = """#!/bin/bash
echo "$*" >>"$CALLS"
case "$1 $2" in
    '--version '*) echo 'uv 9.9.9' ;;
    'venv '*)
        mkdir -p "${@: -1}/bin"
        cat >"${@: -1}/bin/python" <<END
#!/bin/bash
if [ "\\$1 \\$2" = '-m pytest' ]; then
    echo "JAVA_HOME=\\$JAVA_HOME in \\$PWD"
    printf '<%s>' "\\$@"
    exit
fi
case "\\$*" in
    '-I -m pip '*) exit 1 ;;
    *class_archive.py) echo 'class archive' >>"\\$CALLS"; exit "\\${ARCHIVE_FAILS:-0}" ;;
    *'requires("torch")'*) exec echo 'sympy>=1' ;;
esac
exec '$PYTHON' "\\$@"
END
        chmod +x "${@: -1}/bin/python"
        ;;
    'pip sync')
        sleep "${SYNC_SECONDS:-0}"
        if [ -n "${SYNC_FAILS:-}" ]; then
            echo 'the wire was cut'
            exit 1
        fi
        ;;
    'pip install')
        for program in bitstorm ruff mypy; do
            cat >".venv/bin/$program" <<'END'
#!/bin/bash
printf '<%s>' "$(basename "$0")" "$@"
echo
cat
exit "${EXIT_STATUS:-0}"
END
            chmod +x ".venv/bin/$program"
        done
        ;;
esac
"""


# A Python that .venv can be made from, whose pip notes what it is to install.
FAKE_BASE = """#!/bin/bash
case "$*" in
    *_base_executable*) exec echo "VERSION venv $0" ;;
    '-I -m pip --python '*' --version') exit ;;
    '-I -m pip --python '*)
        echo "base pip ${*:5}" >>"$CALLS"
        for last; do :; done
        cat "$last" >>"$CALLS"
        [ -z "${TORCH_FAILS:-}" ] || { echo 'the wire was cut'; exit 1; }
        ;;
    *) exec "$PYTHON" "$@" ;;
esac
""".replace(
    # That of the interpreter behind it.
    "VERSION",
    "{0}.{1} {0}.{1}.{2}".format(*sys.version_info),
)


class Tree:
    """A project in a folder of its own: the real scripts, small lock files, stand-ins for tools."""

    def __init__(self, base: Path) -> None:
        self.root = base / "a project"
        self.stubs = base / "stubs"
        self.calls = base / "calls"
        self.calls.touch()
        shutil.copytree(CHECKOUT / "scripts", self.root / "scripts")
        spark = Path("lib", "bitstorm", "spark")
        (self.root / spark).mkdir(parents=True)
        for name in ("__init__.py", "java.py"):
            shutil.copy(CHECKOUT / spark / name, self.root / spark)
        for name in ("pyproject.toml", "setup.py", "requirements.in", "requirements-dev.in"):
            shutil.copy(CHECKOUT / name, self.root)
        (self.root / "requirements.txt").write_text("one==1\n")
        (self.root / "requirements-dev.txt").write_text("two==2\n")
        (self.root / "requirements-torch.txt").write_text("torch==1.2.3\n")
        self.stub("uv", FAKE_UV)
        self.java = base / "jdk"
        (self.java / "bin").mkdir(parents=True)
        (self.java / "bin" / "java").write_text("#!/bin/sh\nexit 1\n")
        (self.java / "bin" / "java").chmod(0o755)
        (self.java / "release").write_text('JAVA_VERSION="17.0.9"\n')
        self.environ = {
            "PATH": f"{self.stubs}:/usr/local/bin:/usr/bin:/bin",
            "HOME": str(base),
            "LC_ALL": "C.UTF-8",
            "JAVA_HOME": str(self.java),
            "BITSTORM_PYTHON": sys.executable,
            "PYTHON": sys.executable,
            "CALLS": str(self.calls),
        }

    def stub(self, name: str, text: str) -> Path:
        self.stubs.mkdir(exist_ok=True)
        path = self.stubs / name
        path.write_text(text)
        path.chmod(0o755)
        return path

    def call(
        self, script: str, *arguments: str, cwd: Path | None = None, stdin: str = "", **environ: str
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(self.root / script), *arguments],
            cwd=cwd or self.root,
            env=self.environ | environ,
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
        )

    def bash(self, text: str, **environ: str) -> subprocess.CompletedProcess[str]:
        """A piece of bash with the scripts' functions at hand, strict as they are."""
        parts = " ".join(f". scripts/lib/{part}.sh;" for part in ("common", "python", "java"))
        return subprocess.run(
            ["bash", "-c", f"set -euo pipefail; {parts} NAME=setup; {text}"],
            cwd=self.root,
            env=self.environ | environ,
            capture_output=True,
            text=True,
            check=False,
        )

    def count(self, call: str) -> int:
        return sum(line.startswith(call) for line in self.calls.read_text().splitlines())

    def last(self, call: str) -> str:
        return [line for line in self.calls.read_text().splitlines() if line.startswith(call)][-1]


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path)


def set_up(tree: Tree, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    done = tree.call("scripts/setup", *arguments, cwd=None, stdin="", **environ)
    assert done.returncode == 0, done.stderr
    return done


# --- setup ---------------------------------------------------------------------------------------


def test_every_script_is_executable_and_bash_can_read_it() -> None:
    for path in [*(CHECKOUT / "scripts" / name for name in SCRIPTS), CHECKOUT / ".ci" / "run"]:
        assert os.access(path, os.X_OK), path
        subprocess.run(["bash", "-n", str(path)], check=True)


def test_the_first_setup_installs_the_lock_and_then_bitstorm(tree: Tree) -> None:
    done = tree.call("scripts/setup", cwd=tree.stubs)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "", "stdout belongs to the programs"
    assert "--require-hashes requirements.txt" in tree.last("pip sync")
    assert "--no-deps --no-build-isolation -e ." in tree.last("pip install")
    assert str(tree.java) in done.stderr
    assert not list(tree.root.glob(".venv-tools*"))


def test_a_second_setup_does_nothing_in_less_than_a_second(tree: Tree) -> None:
    set_up(tree)
    before = tree.calls.read_text()
    began = time.monotonic()
    done = set_up(tree)
    assert time.monotonic() - began < 1
    assert tree.calls.read_text() == before
    assert "nothing to do" in done.stderr
    assert set_up(tree, "--quiet").stderr == ""


def test_an_installation_makes_the_class_archive_anew(tree: Tree) -> None:
    set_up(tree)
    old = tree.root / ".venv" / "spark-4.0.0-java-17.0.1.jsa"
    old.touch()
    set_up(tree)
    assert tree.count("class archive") == 1 and old.exists()
    (tree.root / "requirements.txt").write_text("one==2\n")
    set_up(tree)
    assert tree.count("class archive") == 2 and not old.exists()


def test_setup_goes_on_without_a_class_archive(tree: Tree) -> None:
    done = set_up(tree, ARCHIVE_FAILS="1")
    assert done.stderr.splitlines()[-2] == "setup: going on without them"
    assert "nothing to do" in set_up(tree).stderr


@pytest.mark.parametrize("name", ["requirements.txt", "requirements.in", "pyproject.toml"])
def test_a_changed_lock_or_project_file_is_installed_in_place(tree: Tree, name: str) -> None:
    set_up(tree)
    with (tree.root / name).open("a") as file:
        file.write("# changed\n")
    set_up(tree)
    assert tree.count("pip sync") == 2 and tree.count("pip install") == 2
    assert tree.count("venv") == 1


def test_dev_is_added_to_what_is_there_and_stays(tree: Tree) -> None:
    set_up(tree)
    set_up(tree, "--dev")
    assert tree.last("pip sync").endswith("requirements.txt requirements-dev.txt")
    set_up(tree)
    assert tree.count("pip sync") == 2
    (tree.root / "requirements.txt").write_text("one==2\n")
    set_up(tree)
    assert tree.last("pip sync").endswith("requirements.txt requirements-dev.txt")
    set_up(tree, "--dev")
    assert tree.count("pip sync") == 3 and tree.count("venv") == 1


@pytest.fixture
def torch_tree(tree: Tree) -> Tree:
    tree.environ["BITSTORM_PYTHON"] = str(tree.stub("base-python", FAKE_BASE))
    return tree


def test_torch_is_installed_after_the_lock_and_held_to_it(torch_tree: Tree) -> None:
    (torch_tree.root / "requirements.txt").write_text("one==1 ; here \\\n    --hash=sha256:1\n")
    set_up(torch_tree, "--torch")
    calls = torch_tree.calls.read_text().splitlines()
    kinds = [line for line in calls if line.startswith(("pip sync", "base pip", "torch", "sympy"))]
    assert kinds[0].endswith("--require-hashes requirements.txt")
    assert "install" in kinds[1] and kinds[1].endswith("--no-deps -r requirements-torch.txt")
    assert kinds[2] == "torch==1.2.3"
    assert "-c " in kinds[3] and kinds[4] == "sympy>=1"
    assert not any("setuptools" in line for line in calls)


def test_what_torch_needs_may_not_move_what_is_locked(torch_tree: Tree) -> None:
    lines = "one==1 ; here \\\n    --hash=sha256:1 \\\n    --hash=sha256:2\nthree==3 \\\n"
    (torch_tree.root / "requirements.txt").write_text(lines)
    kept = torch_tree.stubs.parent / "kept"
    keeping = FAKE_BASE.replace("for last", f'[ "$8" != -c ] || cp "$9" \'{kept}\'; for last')
    torch_tree.stub("base-python", keeping)
    set_up(torch_tree, "--torch", "--dev")
    assert kept.read_text().splitlines() == ["one==1 ; here", "three==3", "two==2"]


def test_torch_stays_when_a_later_setup_brings_the_rest_in_line(torch_tree: Tree) -> None:
    set_up(torch_tree, "--torch")
    installed = torch_tree.count("base pip")
    set_up(torch_tree)
    set_up(torch_tree, "--torch")
    assert torch_tree.count("base pip") == installed and torch_tree.count("pip sync") == 1
    (torch_tree.root / "requirements.txt").write_text("one==2\n")
    set_up(torch_tree)
    # The locked packages come first: in line with them nothing else is left.
    assert torch_tree.count("pip sync") == 2 and torch_tree.count("base pip") == 2 * installed
    set_up(torch_tree, "--torch")
    assert torch_tree.count("pip sync") == 2 and torch_tree.count("venv") == 1


def test_a_torch_that_could_not_be_had_leaves_the_rest_usable(torch_tree: Tree) -> None:
    done = torch_tree.call("scripts/setup", "--torch", TORCH_FAILS="yes")
    assert done.returncode == 1
    assert "the wire was cut" in done.stderr
    assert done.stderr.splitlines()[-1].startswith("setup: error: PyTorch could not be installed")
    assert "nothing to do" in set_up(torch_tree).stderr
    set_up(torch_tree, "--torch")
    assert torch_tree.count("venv") == 1


def test_an_interrupted_installation_is_made_anew(tree: Tree) -> None:
    failed = tree.call("scripts/setup", SYNC_FAILS="yes")
    assert failed.returncode == 1
    assert "the wire was cut" in failed.stderr
    assert failed.stderr.splitlines()[-1].startswith("setup: error: the locked packages could not")
    set_up(tree)
    assert tree.count("venv") == 2 and tree.count("pip install") == 1


def test_an_update_that_failed_is_not_taken_for_done(tree: Tree) -> None:
    set_up(tree)
    original = (tree.root / "requirements.txt").read_text()
    (tree.root / "requirements.txt").write_text("one==2\n")
    assert tree.call("scripts/setup", SYNC_FAILS="yes").returncode == 1
    (tree.root / "requirements.txt").write_text(original)
    set_up(tree)
    assert tree.count("venv") == 2


def test_a_broken_or_moved_venv_is_made_anew(tree: Tree) -> None:
    set_up(tree)
    (tree.root / ".venv" / "bin" / "python").write_text("#!/bin/sh\nexit 127\n")
    set_up(tree)
    assert tree.count("venv") == 2
    tree.root = tree.root.rename(tree.root.with_name("moved"))
    set_up(tree)
    assert tree.count("venv") == 3


@pytest.mark.skipif(shutil.which("flock") is None, reason="this system has no flock")
def test_two_setups_at_once_install_once(tree: Tree) -> None:
    environ = tree.environ | {"SYNC_SECONDS": "0.6"}
    command = [str(tree.root / "scripts" / "setup")]
    with (
        subprocess.Popen(command, env=environ, stderr=subprocess.PIPE) as one,
        subprocess.Popen(command, env=environ, stderr=subprocess.PIPE) as other,
    ):
        one.communicate()
        other.communicate()
    assert (one.returncode, other.returncode) == (0, 0)
    assert tree.count("pip sync") == 1


def test_setup_refuses_what_it_does_not_know(tree: Tree) -> None:
    done = tree.call("scripts/setup", "--fast")
    assert done.returncode == 2
    assert done.stderr == "setup: error: scripts/setup has no option --fast: see " + (
        "scripts/setup --help.\n"
    )
    done = tree.call("scripts/setup", "--bench")
    assert done.returncode == 1
    assert "requirements-bench.txt is not in" in done.stderr and done.stderr.count("\n") == 1


# --- finding a Python ----------------------------------------------------------------------------


def fake_python(tree: Tree, name: str, answer: str) -> str:
    return str(tree.stub(name, f"#!/bin/sh\n{answer}\n"))


def test_a_python_that_is_broken_old_or_too_new_is_passed_over(tree: Tree) -> None:
    fakes = [
        fake_python(tree, "shim", "echo 'pyenv: python3.12: command not found' >&2; exit 127"),
        fake_python(tree, "new", "echo '3.13 3.13.0 venv /new'"),
        fake_python(tree, "old", "echo '3.9 3.9.18 venv /old'"),
        fake_python(tree, "bare", "echo '3.11 3.11.2 bare /bare'"),
        fake_python(tree, "good", "echo '3.12 3.12.1 venv /a good one'"),
        fake_python(tree, "late", "echo '3.11 3.11.9 venv /late'"),
    ]

    def choose(names: list[str], version: str = "") -> str:
        listed = "\n".join(["/does/not/exist", *names])
        done = tree.bash(f'choose_python {version} <<<"$LISTED"', LISTED=listed)
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout.strip()

    assert choose(fakes) == "3.12 3.12.1 venv /a good one"
    assert choose(fakes, "3.11") == "3.11 3.11.9 venv /late"
    assert choose(fakes[:4]) == "3.11 3.11.2 bare /bare"
    assert choose(fakes[:3]) == ""


def test_the_path_is_searched_for_every_python_of_a_name(tree: Tree) -> None:
    fake_python(tree, "python3.11", "exit 127")
    fake_python(tree, "python3.12", "echo '3.12 3.12.1 venv /found'")
    done = tree.bash("unset BITSTORM_PYTHON; PATH=$PATH find_python")
    # /found, unless the system has a Python 3.11 that works: it comes first.
    assert done.stdout.split()[0] in ("3.11", "3.12")
    done = tree.bash("find_python", BITSTORM_PYTHON="3.12")
    assert done.stdout == "3.12 3.12.1 venv /found\n"


def test_a_real_python_describes_what_it_was_made_from(tree: Tree) -> None:
    version, full, able, base = (
        tree.bash('describe_python "$PYTHON"').stdout.strip().split(" ", maxsplit=3)
    )
    assert full == ".".join(map(str, sys.version_info[:3])) and full.startswith(version)
    assert able == "venv" or "ensurepip" not in sys.stdlib_module_names
    assert not Path(base).is_relative_to(CHECKOUT / ".venv")


def test_a_requested_python_that_does_not_suit_is_an_error(tree: Tree) -> None:
    fake_python(tree, "mine", "echo '3.13 3.13.0 venv /new'")
    done = tree.call("scripts/setup", BITSTORM_PYTHON="mine")
    assert done.returncode == 1
    assert done.stderr.startswith("setup: error: BITSTORM_PYTHON=mine is no Python 3.11 or 3.12")
    assert done.stderr.count("\n") == 1
    assert not (tree.root / ".venv").exists()


def test_without_a_python_one_sentence_says_what_to_install(tree: Tree) -> None:
    with (tree.root / "scripts" / "lib" / "python.sh").open("a") as file:
        file.write("python_candidates() { :; }\nfetch_python() { echo a traceback; return 1; }\n")
    done = tree.call("scripts/setup", BITSTORM_PYTHON="")
    assert done.returncode == 1
    first, last = done.stderr.splitlines()
    assert first.endswith("failed")
    assert last.startswith("setup: error: Bitstorm needs Python 3.11 or 3.12, but none was found")
    assert "run scripts/setup again" in last


# --- Java ----------------------------------------------------------------------------------------

# The project's .java folder is all that these see of the machine's Javas.
JAVA_STAGE = """
java_home() { ls -d "$ROOT"/.java/* 2>/dev/null | head -n 1 || true; }
export TOOLS=$ROOT/.venv-tools.0; mkdir -p "$TOOLS"
"""
FAKE_APT = """#!/bin/bash
echo "apt-get $*" >>"$CALLS"
[ "$1" != update ] || { touch "$CALLS.updated"; exit 0; }
[ "${@: -1}" = "$APT_HAS" ] && [ -z "${APT_OLD:-}" -o -e "$CALLS.updated" ] || exit 100
mkdir -p .java/installed
"""


def test_as_root_a_missing_java_is_installed_with_apt(tree: Tree) -> None:
    tree.stub("apt-get", FAKE_APT)
    stage = JAVA_STAGE + 'is_root() { true; }; need_java "$PYTHON"'
    done = tree.bash(stage, APT_HAS="openjdk-17-jre-headless")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(tree.root / ".java" / "installed")
    assert "installing openjdk-17-jre-headless with apt-get" in done.stderr
    (call,) = tree.calls.read_text().splitlines()
    assert call.startswith("apt-get install") and "--no-upgrade" in call


def test_package_lists_are_updated_only_when_needed(tree: Tree) -> None:
    tree.stub("apt-get", FAKE_APT)
    stage = JAVA_STAGE + 'is_root() { true; }; need_java "$PYTHON"'
    done = tree.bash(stage, APT_HAS="openjdk-21-jre-headless", APT_OLD="yes")
    assert done.returncode == 0, done.stderr
    calls = [line.split()[1] for line in tree.calls.read_text().splitlines()]
    assert calls == ["install", "install", "update", "install", "install"]


def test_without_root_a_private_java_is_fetched(tree: Tree) -> None:
    tree.stub("apt-get", FAKE_APT)
    (tree.stubs / "jdk.py").write_text(
        "import os\n"
        "def install(version, jre, path):\n"
        "    assert (version, jre) == ('17', True)\n"
        "    os.mkdir(os.path.join(path, 'jdk-17-jre'))\n"
    )
    fetch = 'fetch_tool() { mkdir -p "$3"; cp "${CALLS%/*}/stubs/jdk.py" "$3"; }'
    done = tree.bash(JAVA_STAGE + f'is_root() {{ false; }}; {fetch}; need_java "$PYTHON"')
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(tree.root / ".java" / "jdk-17-jre")
    assert tree.count("apt-get") == 0


def test_where_no_java_can_be_had_one_sentence_says_what_to_type(tree: Tree) -> None:
    (tree.root / "lib" / "bitstorm" / "spark" / "java.py").write_text(
        "import sys\nsys.exit('Bitstorm needs Java')\n"
    )
    done = tree.bash(
        JAVA_STAGE
        + """
is_root() { false; }
fetch_tool() { mkdir -p "$3"; echo 'raise OSError("no host")' >"$3/jdk.py"; }
need_java "$PYTHON"; echo not reached"""
    )
    assert (done.returncode, done.stdout) == (1, "")
    first, last = done.stderr.splitlines()
    assert first.endswith("failed")
    assert last == "setup: error: Bitstorm needs Java"
    assert not (tree.root / ".java").exists()


# --- run -----------------------------------------------------------------------------------------


def run_arguments(tree: Tree, *arguments: str, cwd: Path | None = None) -> list[str]:
    done = tree.call("scripts/run", *arguments, cwd=cwd)
    assert done.returncode == 0, done.stderr
    program, command, *rest = done.stdout.strip().strip("<>").split("><")
    assert (program, command) == ("bitstorm", "run")
    return rest


def test_run_chooses_workspace_and_source_by_mode(tree: Tree) -> None:
    assert run_arguments(tree) == ["--workspace", "workspace/simulated"]
    live = ["--workspace", "workspace/live", "--set", "source.mode=coingecko"]
    assert run_arguments(tree, "--live") == live


def test_what_the_user_gives_comes_last_so_that_it_wins(tree: Tree) -> None:
    mine = ["--json", "--workspace", "else where", "--set", "training.epochs=1"]
    assert run_arguments(tree, *mine) == ["--workspace", "workspace/simulated", *mine]
    assert run_arguments(tree, "--json", "--live", "--debug")[-2:] == ["--json", "--debug"]


@pytest.mark.parametrize(
    ("name", "workspace"),
    [
        ("prices.csv", "csv-prices"),
        ("prices.csv.gz", "csv-prices"),
        ("BTCUSDT-1h.csv.zip", "csv-BTCUSDT-1h"),
        ("hours.parquet", "csv-hours"),
        ("BTC_2020-24.v2.csv", "csv-BTC_2020-24.v2"),
        ("my prices (1).csv", "csv-my-prices--1-"),
        ("ä.csv", "csv---"),
        ("plain", "csv-plain"),
        (".csv", "csv-unnamed"),
    ],
)
def test_a_csv_file_gives_its_workspace_the_name(tree: Tree, name: str, workspace: str) -> None:
    caller = tree.root.parent / "caller"
    caller.mkdir()
    (caller / name).touch()
    expected = ["--set", "source.mode=csv", "--csv", str(caller / name), "--unit", "s"]
    # The file is the caller's, relative to where the caller stands; the workspace is the project's.
    got = run_arguments(tree, "--csv", name, "--unit", "s", cwd=caller)
    assert got == ["--workspace", str(tree.root / "workspace" / workspace), *expected]
    got = run_arguments(tree, f"--csv=../caller/{name}", "--unit", "s")
    assert got[:2] == ["--workspace", f"workspace/{workspace}"]
    assert Path(got[5]).resolve() == caller / name


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--csv"], "--csv wants a file"),
        (["--csv", "gone.csv"], "there is no file 'gone.csv'"),
        (["--csv", "scripts"], "'scripts' is not a file that can be read"),
        (["--csv", "setup.py", "--live"], "--live or --csv FILE once"),
    ],
)
def test_run_refuses_bad_usage_before_it_sets_anything_up(
    tree: Tree, arguments: list[str], words: str
) -> None:
    done = tree.call("scripts/run", *arguments)
    assert done.returncode == 2
    assert words in done.stderr and done.stderr.count("\n") == 1
    assert not (tree.root / ".venv").exists()


def test_run_passes_stdin_and_the_exit_status_through(tree: Tree) -> None:
    done = tree.call("scripts/run", "--help")
    assert done.returncode == 0 and "--csv FILE" in done.stdout
    assert not (tree.root / ".venv").exists()
    done = tree.call("scripts/run", stdin="from outside", EXIT_STATUS="3")
    assert done.returncode == 3
    assert done.stdout.endswith("from outside")


# --- test, check, ci -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "marks", "rest"),
    [
        ([], "not faults", ""),
        (["--fast", "-x"], "not slow and not faults", "<-x>"),
        (["tests/a b.py", "--faults"], "faults", "<tests/a b.py>"),
    ],
)
def test_test_chooses_the_marks_and_passes_the_rest_to_pytest(
    tree: Tree, arguments: list[str], marks: str, rest: str
) -> None:
    done = tree.call("scripts/test", *arguments, cwd=tree.stubs)
    first, second = done.stdout.splitlines()
    assert first == f"JAVA_HOME={tree.java} in {tree.root}"
    parallel = "<-n><4><--max-worker-restart><0><--dist><loadfile><--no-loadscope-reorder>"
    assert second == f"<-m><pytest>{parallel}<-m><{marks}>{rest}"
    assert "requirements-dev.txt" in tree.last("pip sync")


def test_check_runs_every_check_and_fails_with_any(tree: Tree) -> None:
    done = tree.call("scripts/check")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["<ruff><format><--check><.>", "<ruff><check><.>", "<mypy>"]
    done = tree.call("scripts/check", "--fix", EXIT_STATUS="1")
    assert done.returncode == 1
    assert done.stdout.splitlines() == ["<ruff><format><.>", "<ruff><check><--fix><.>", "<mypy>"]
    assert "ruff format, ruff check, mypy found something" in done.stderr


def test_ci_sets_up_checks_and_tests_and_fails_when_any_fails(tree: Tree) -> None:
    (tree.root / ".ci").mkdir()
    shutil.copy(CHECKOUT / ".ci" / "run", tree.root / ".ci")
    tree.stub("chromium", "#!/bin/sh\n")
    for failing in ("", "setup", "check", "test"):
        for name in ("setup", "check", "test"):
            path = tree.root / "scripts" / name
            path.write_text(f'#!/bin/sh\necho ran {name} "$@"\nexit {int(name == failing)}\n')
        done = tree.call(".ci/run", cwd=tree.stubs)
        assert done.returncode == int(bool(failing))
        ran = [line for line in done.stdout.splitlines() if line.startswith("ran")]
        assert ran == ["ran setup --dev --torch", "ran check", "ran test"]
        assert done.stderr == (f"== failed: scripts/{failing}\n" if failing else "")


@pytest.mark.parametrize(
    ("user", "fails", "calls", "words"),
    [
        (0, 0, ["update", "install -y --no-install-recommends chromium"], False),
        (0, 1, ["update"], True),
        (1000, 0, [], True),
    ],
)
def test_ci_installs_the_browser_where_it_can(
    tree: Tree, user: int, fails: int, calls: list[str], words: bool
) -> None:
    (tree.root / ".ci").mkdir()
    shutil.copy(CHECKOUT / ".ci" / "run", tree.root / ".ci")
    for name in ("setup", "check", "test"):
        (tree.root / "scripts" / name).write_text("#!/bin/sh\n")
    for name in ("bash", "dirname"):
        (tree.stubs / name).symlink_to(str(shutil.which(name)))
    tree.stub("id", f"#!/bin/sh\necho {user}\n")
    tree.stub("apt-get", f'#!/bin/sh\necho noise\necho "$*" >>"$CALLS"\nexit {fails}\n')
    done = tree.call(".ci/run", PATH=str(tree.stubs))
    assert done.returncode == 0, done.stderr
    assert tree.calls.read_text().splitlines() == [f"-qq {call}" for call in calls]
    assert ("the tests in a browser will skip" in done.stdout) == words
    assert "noise" not in done.stdout


# --- lock, package -------------------------------------------------------------------------------


def test_lock_compiles_every_input_in_order_and_names_no_index(tree: Tree) -> None:
    done = tree.call("scripts/lock", "--upgrade", cwd=tree.stubs)
    assert done.returncode == 0, done.stderr
    compiled = [line for line in tree.calls.read_text().splitlines() if "pip compile" in line]
    options = (
        "--universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header "
        "--no-annotate -q -o"
    )
    assert compiled == [
        f"pip compile {name}.in {options} {name}.txt --upgrade"
        for name in ("requirements", "requirements-dev")
    ]


def test_package_builds_a_wheel_and_a_zip_that_import(tree: Tree) -> None:
    (tree.root / "lib" / "bitstorm" / "__init__.py").write_text("")
    (tree.root / "README.md").write_text("# Bitstorm\n")
    stale = tree.root / "lib" / "bitstorm" / "__pycache__"
    stale.mkdir()
    (stale / "gone.cpython-311.pyc").touch()
    done = tree.call("scripts/package")
    assert done.returncode == 0, done.stderr
    wheel, archive = map(Path, done.stdout.splitlines())
    assert wheel.suffix == ".whl" and wheel.parent == archive.parent == tree.root / "dist"
    with zipfile.ZipFile(archive) as file:
        names = ("__init__.py", "spark/__init__.py", "spark/java.py")
        assert file.namelist() == [f"bitstorm/{name}" for name in names]
    assert not (tree.root / "build").exists() and not list(tree.root.glob("lib/*.egg-info"))
    first = wheel.read_bytes(), archive.read_bytes()
    tree.call("scripts/package")
    assert (wheel.read_bytes(), archive.read_bytes()) == first, "the same files, the same bytes"


# --- submit --------------------------------------------------------------------------------------


@pytest.fixture
def jobs(tree: Tree) -> Tree:
    """With jobs, an environment that has pyspark, and a Spark that prints how it is called."""
    tree.call("scripts/setup")
    shutil.copytree(CHECKOUT / "jobs", tree.root / "jobs")
    (tree.root / "dist").mkdir()
    (tree.root / "dist" / "bitstorm.zip").touch()
    home = tree.root.parent / "spark"
    (home / "bin").mkdir(parents=True)
    submit = home / "bin" / "spark-submit"
    submit.write_text('#!/bin/bash\nenv >"$CALLS"\nprintf \'<%s>\' "$@"\nexit 7\n')
    submit.chmod(0o755)
    tree.environ["SPARK_HOME"] = str(home)
    return tree


def submitted(tree: Tree, *arguments: str, **environ: str) -> list[str]:
    """The words of the line that --dry-run prints, as the shell reads them."""
    done = tree.call("scripts/submit", "--dry-run", *arguments, cwd=tree.stubs, **environ)
    assert (done.returncode, done.stderr) == (0, "")
    return shlex.split(done.stdout)


def test_submit_assembles_the_line_for_a_standalone_cluster(jobs: Tree) -> None:
    words = submitted(jobs, "--master", "spark://h:7077", "ingest", "--workspace", "/a b/ö")
    python, home = jobs.root / ".venv" / "bin" / "python", jobs.environ["SPARK_HOME"]
    assert words == [
        f"JAVA_HOME={jobs.java}", "LC_ALL=C.UTF-8", f"SPARK_HOME={home}",
        f"{home}/bin/spark-submit", "--master", "spark://h:7077", "--deploy-mode", "client",
        "--py-files", f"{jobs.root}/dist/bitstorm.zip",
        "--conf", "spark.executorEnv.LC_ALL=C.UTF-8", "--conf", f"spark.pyspark.python={python}",
        "--conf", f"spark.pyspark.driver.python={python}",
        f"{jobs.root}/jobs/ingest.py", "--workspace", "/a b/ö",
    ]  # fmt: skip


def test_submit_runs_the_line_that_it_prints(jobs: Tree) -> None:
    arguments = (
        "--master=spark://h:1",
        "--conf",
        "a=b c",
        "-v",
        "--name=x",
        "stats",
        "--bars",
        "3",
    )
    words = submitted(jobs, *arguments)
    done = jobs.call("scripts/submit", *arguments, cwd=jobs.stubs)
    at = words.index(f"{jobs.environ['SPARK_HOME']}/bin/spark-submit")
    assert (done.returncode, done.stdout) == (7, "".join(f"<{word}>" for word in words[at + 1 :]))
    assert set(words[:at]) <= set(jobs.calls.read_text().splitlines())


def test_submit_takes_the_users_python_and_files(jobs: Tree) -> None:
    words = submitted(
        jobs, "--py-files", "a.zip,b.py", "--master", "local[2]", "train",
        PYSPARK_PYTHON="python3", PYSPARK_DRIVER_PYTHON="/my/python", SPARK_CONF_DIR="/my/conf",
    )  # fmt: skip
    assert f"{jobs.root}/dist/bitstorm.zip,a.zip,b.py" in words
    assert {"spark.pyspark.python=python3", "spark.pyspark.driver.python=/my/python"} <= set(words)
    assert "SPARK_CONF_DIR=/my/conf" in words


def test_submit_finds_the_packages_spark_without_spark_home(jobs: Tree) -> None:
    words = submitted(jobs, "--master", "local", "ingest", SPARK_HOME="")
    spec = importlib.util.find_spec("pyspark")
    assert spec is not None and spec.origin is not None
    home = Path(spec.origin).parent
    assert {f"SPARK_HOME={home}", f"SPARK_CONF_DIR={jobs.root}/conf"} < set(words)
    assert f"{home}/bin/spark-submit" in words


@pytest.mark.parametrize("master", ["yarn", "k8s://https://h:6443"])
def test_submit_leaves_the_python_of_a_far_driver_to_the_user(jobs: Tree, master: str) -> None:
    words = submitted(jobs, "--master", master, "--deploy-mode", "cluster", "ingest")
    assert words[words.index("--deploy-mode") + 1] == "cluster"
    assert not [word for word in words if "python=" in word]


def test_submit_packs_again_what_has_changed(jobs: Tree) -> None:
    (jobs.root / "scripts" / "package").write_text('#!/bin/sh\necho packed >>"$PACKED"\n')
    packed = jobs.stubs / "packed"
    packed.touch()

    def count() -> int:
        jobs.call("scripts/submit", "--master", "local", "ingest", PACKED=str(packed))
        return len(packed.read_text().splitlines())

    assert count() == 0
    later = time.time() + 10
    os.utime(jobs.root / "lib" / "bitstorm" / "spark" / "java.py", (later, later))
    assert count() == 1
    (jobs.root / "dist" / "bitstorm.zip").unlink()
    assert count() == 2


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--master", "x"), "there is no JOB; expected one of backtest,"),
        (("--master", "x", "inges"), "there is no job inges; expected one of backtest,"),
        (("ingest",), "there is no --master; expected the cluster, such as"),
        (("--master",), "--master wants a value"),
        (
            ("--master", "spark://h:1", "--deploy-mode", "cluster", "ingest"),
            '"Cluster deploy mode is currently not supported for python applications on standalone '
            'clusters"',
        ),
        (("--master", "local", "--deploy-mode", "cluster", "ingest"), "needs a cluster; found"),
        (("--master", "yarn", "--deploy-mode", "custer", "ingest"), "expected client or cluster"),
    ],
)
def test_submit_refuses_what_cannot_run(
    jobs: Tree, arguments: tuple[str, ...], sentence: str
) -> None:
    done = jobs.call("scripts/submit", *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert sentence in done.stderr and len(done.stderr.splitlines()) == 1
