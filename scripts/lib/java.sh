# shellcheck shell=bash disable=SC2034
# Sourced: makes sure that there is a Java for Spark.

# java_home PYTHON: the home that lib/bitstorm/spark/java.py chooses, or nothing.
java_home() {
    "$1" -I -S "$ROOT/lib/bitstorm/spark/java.py" 2>/dev/null || true
}

is_root() { [ "$(id -u)" -eq 0 ]; }

# Debian and Ubuntu have 17, 21 or both, as the release goes; the package lists may be missing or old. What is installed
# already is never upgraded: somebody's programs may be running on it.
apt_install_java() {
    local again package
    # dpkg insists on these folders, which a short PATH may lack.
    export DEBIAN_FRONTEND=noninteractive PATH="$PATH:/usr/sbin:/sbin"
    for again in no yes; do
        [ "$again" = no ] || apt-get update -q
        for package in openjdk-17-jre-headless openjdk-21-jre-headless; do
            if apt-get install -q -y --no-upgrade --no-install-recommends "$package"; then
                return 0
            fi
        done
    done
    return 1
}

# fetch_private_java PYTHON: a JRE for this project alone, in .java; made beside it first, so that a cut download
# leaves nothing that looks like a Java.
fetch_private_java() {
    mkdir -p "$TOOLS/jre"
    fetch_tool "$1" 'install-jdk~=1.1' "$TOOLS/jdk" || return 1
    PYTHONPATH=$TOOLS/jdk "$1" -c '
import socket, sys
import jdk
socket.setdefaulttimeout(30)
try:
    jdk.install("17", jre=True, path=sys.argv[1])
except Exception as error:
    sys.exit("the download of a Java failed: %s" % error)' "$TOOLS/jre" || return 1
    mkdir -p "$ROOT/.java"
    mv "$TOOLS/jre"/* "$ROOT/.java/"
}

# need_java PYTHON: finds or installs a Java; prints its home.
need_java() {
    local home
    home=$(java_home "$1")
    if [ -z "$home" ] && is_root && type -P apt-get >/dev/null; then
        step 'found no Java 17 or 21; installing openjdk-17-jre-headless with apt-get' apt_install_java || true
        home=$(java_home "$1")
    fi
    if [ -z "$home" ]; then
        step "found no Java 17 or 21; fetching a private one into .java" fetch_private_java "$1" || true
        home=$(java_home "$1")
    fi
    if [ -z "$home" ]; then
        "$1" -I -S "$ROOT/lib/bitstorm/spark/java.py" 2>&1 >/dev/null | sed "s/^/$NAME: error: /" >&2
        exit 1
    fi
    printf '%s\n' "$home"
}
