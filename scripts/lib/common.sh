# shellcheck shell=bash disable=SC2034
# Sourced by every script: where the project lies, and how to talk to the user.
# Everything here works with bash 3.2 (macOS); what is meant for the user goes to stderr, so that stdout stays a
# program's own.
ROOT=$(CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")/../.." && pwd -P)
VENV=$ROOT/.venv
NAME=$(basename -- "$0")
LOG=/dev/null

say() { printf '%s: %s\n' "$NAME" "$*" >&2; }

# fail SENTENCE [STATUS]: the status is 1, or 2 for bad usage, as everywhere in Bitstorm.
fail() {
    say "error: $1"
    exit "${2:-1}"
}

# step TEXT COMMAND…: one line for the user, the command's own output into the log.
step() {
    local text=$1 began=$SECONDS status=0
    shift
    printf '%s: %s ... ' "$NAME" "$text" >&2
    # 9 is the set-up's lock: nothing that a command leaves running may hold it.
    "$@" >>"$LOG" 2>&1 </dev/null 9<&- || status=$?
    if [ "$status" -eq 0 ]; then
        printf '%d s\n' $((SECONDS - began)) >&2
    else
        printf 'failed\n' >&2
    fi
    return "$status"
}

show_log() {
    [ -f "$LOG" ] && tail -n 20 "$LOG" | sed 's/^/    /' >&2 || true
}
