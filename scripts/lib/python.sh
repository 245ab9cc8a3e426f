# shellcheck shell=bash disable=SC2034
# Sourced: finds a Python for the project, and the uv that installs quickly.

WANTED_PYTHON='Python 3.11 or 3.12'

# Every place where a Python may be, best first, one a line. With an argument (11 or 12) only that minor version.
python_candidates() {
    local minor name path
    for minor in ${1:-11 12}; do
        type -aP "python3.$minor" || true
    done
    for name in python3 python; do
        type -aP "$name" || true
    done
    for minor in ${1:-11 12}; do
        for path in "${PYENV_ROOT:-${HOME:-}/.pyenv}/versions/3.$minor".*/bin/python \
            "${HOME:-}/.local/share/uv/python/cpython-3.$minor".*/bin/python3 \
            "/usr/bin/python3.$minor" "/usr/local/bin/python3.$minor" "/opt/homebrew/bin/python3.$minor" \
            "/opt/local/bin/python3.$minor" "/opt/python/3.$minor".*/bin/python3 \
            "/Library/Frameworks/Python.framework/Versions/3.$minor/bin/python3" \
            "${HOME:-}/.local/bin/python3.$minor"; do
            [ -x "$path" ] && printf '%s\n' "$path"
        done
    done
    return 0
}

# describe_python COMMAND → "3.11 3.11.7 venv /the/real/python", or nothing when it does not run: a shim of pyenv may
# exist for a version that is not chosen. The third word is "bare" where it cannot make virtual environments (Debian
# without python3-venv). A virtual environment answers with the Python that it was made from.
describe_python() {
    "$1" -I -c '
import importlib.util as i, sys
able = i.find_spec("venv") and i.find_spec("ensurepip")
print("%d.%d" % sys.version_info[:2], "%d.%d.%d" % sys.version_info[:3], "venv" if able else "bare",
      getattr(sys, "_base_executable", "") or sys.executable)' 2>/dev/null </dev/null || true
}

# choose_python [VERSION]: reads candidates from stdin and prints the description of the first that suits (of VERSION,
# if given); one that can make virtual environments by itself is preferred to one that needs uv for it.
# Callers feed it with <<<, not a pipe: it stops early, and a writer's broken pipe would count as a failure.
choose_python() {
    local candidate about bare=''
    while IFS= read -r candidate; do
        [ -n "$candidate" ] || continue
        about=$(describe_python "$candidate")
        case $about in
            "${1:-3.11} "* | "${1:-3.12} "*) ;;
            *) continue ;;
        esac
        case $about in
            *' venv '*)
                printf '%s\n' "$about"
                return 0
                ;;
        esac
        bare=${bare:-$about}
    done
    printf '%s' "$bare"
}

# find_python: the description of the Python to use, or nothing. BITSTORM_PYTHON may be a version ("3.12",
# "python3.12") or a command; a command that does not suit is an error, because it was asked for by name.
find_python() {
    local asked=${BITSTORM_PYTHON:-} about
    case $asked in
        '') choose_python <<<"$(python_candidates)" ;;
        3.11 | 3.12 | python3.11 | python3.12)
            about=$(choose_python "3.${asked#*3.}" <<<"$(python_candidates "${asked#*3.}")")
            [ -n "$about" ] || fail "BITSTORM_PYTHON=$asked was asked for, but no such Python was found that runs: \
install it, or unset BITSTORM_PYTHON to take any $WANTED_PYTHON."
            printf '%s\n' "$about"
            ;;
        *)
            about=$(choose_python <<<"$asked")
            [ -n "$about" ] || fail "BITSTORM_PYTHON=$asked is no $WANTED_PYTHON that runs: \
set it to one, or unset it to let this script look for one."
            printf '%s\n' "$about"
            ;;
    esac
}

# Any Python at all that can fetch tools: it need not be one that Bitstorm runs on.
find_any_python() {
    local name path
    for name in python3 python python3.13 python3.14 python3.12 python3.11 python3.10 python3.9 python3.8; do
        while IFS= read -r path; do
            if [ -n "$path" ] && "$path" -I -c 'import sys; sys.exit(sys.version_info < (3, 8))' >/dev/null 2>&1 </dev/null
            then
                printf '%s\n' "$path"
                return 0
            fi
        done <<<"$(type -aP "$name" || true)"
    done
}

# fetch_tool PYTHON PACKAGE FOLDER: a package from the index into a folder of its own, which is thrown away afterwards.
# By this Python's own pip, or by that of a throwaway virtual environment (Debian has Pythons without pip).
fetch_tool() {
    local options=(install --quiet --disable-pip-version-check --no-input --target "$3" "$2")
    {
        "$1" -I -m pip "${options[@]}" ||
            { "$1" -I -m venv "$3-env" && "$3-env/bin/python" -I -m pip "${options[@]}"; }
    } >>"$LOG" 2>&1 </dev/null 9<&-
}

# need_uv: sets UV to a uv that runs (the user's own, or one for this call only in $TOOLS), or to nothing.
UV=''
need_uv() {
    local python store
    [ -z "$UV" ] || return 0
    # Behind a proxy of a company only the system's store knows the certificate; a bare container has no store. The
    # second name is for older versions.
    for store in /etc/ssl/certs/ca-certificates.crt /etc/pki/tls/certs/ca-bundle.crt /etc/ssl/cert.pem; do
        [ ! -s "$store" ] || export UV_SYSTEM_CERTS=${UV_SYSTEM_CERTS:-true} UV_NATIVE_TLS=${UV_NATIVE_TLS:-true}
    done
    if uv --version >/dev/null 2>&1; then
        UV=uv
        return 0
    fi
    if [ ! -x "$TOOLS/uv/bin/uv" ]; then
        python=$(find_any_python)
        [ -n "$python" ] && fetch_tool "$python" uv "$TOOLS/uv" || return 0
    fi
    if "$TOOLS/uv/bin/uv" --version >>"$LOG" 2>&1; then
        UV=$TOOLS/uv/bin/uv
    fi
}

# fetch_python: the last resort. uv puts a Python of its own into the user's home.
fetch_python() {
    need_uv
    [ -n "$UV" ] || return 1
    # Without a network this should end soon, and nothing should be linked into the user's PATH.
    UV_HTTP_RETRIES=1 UV_HTTP_TIMEOUT=30 UV_PYTHON_INSTALL_BIN=0 "$UV" python install 3.12 || return 1
    UV_PYTHON_PREFERENCE=only-managed "$UV" python find 3.12 >"$TOOLS/python"
}

python_advice() {
    if type -P apt-get >/dev/null; then
        printf 'install one with `sudo apt-get install python3.11 python3.11-venv` (or 3.12, as your release has it)'
    elif type -P brew >/dev/null; then
        printf 'install one with `brew install python@3.12`'
    elif type -P dnf >/dev/null; then
        printf 'install one with `sudo dnf install python3.12`'
    else
        printf 'install one, for instance with `uv python install 3.12`'
    fi
}
