# Sourced by the scripts: a Python, a virtual environment, what is missing. POSIX sh.
# The environment is .venv, or what BROKER_VENV names; PYTHON names the interpreter that makes it.
# shellcheck shell=sh

set -eu
ROOT=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
cd "$ROOT"
VENV=${BROKER_VENV:-$ROOT/.venv}

say() { printf '%s\n' "$*" >&2; }

die() {
    say "$@"
    exit 1
}

is_new_enough() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }

find_python() {
    for candidate in "${PYTHON:-}" python3 python3.14 python3.13 python3.12 python3.11 python; do
        if [ -n "$candidate" ] && is_new_enough "$candidate"; then
            command -v "$candidate"
            return
        fi
    done
    die "Python 3.11 or newer is missing; found: $(python3 --version 2>&1 || true)." \
        "Install it (Debian, Ubuntu: apt-get install python3 python3-venv python3-dev gcc;" \
        "Fedora: dnf install python3 python3-devel gcc), or name one: PYTHON=/path/to/python3.12 $0"
}

# What a build needs beside Python itself; says everything that is missing at once.
need_compiler() {
    missing=
    "$1" -c 'import venv, ensurepip' 2>/dev/null ||
        missing="$missing
  the venv module of $1 (Debian, Ubuntu: apt-get install python3-venv)"
    headers=$("$1" -c 'import sysconfig; print(sysconfig.get_path("include"))')
    [ -f "$headers/Python.h" ] ||
        missing="$missing
  Python.h, expected in $headers (Debian, Ubuntu: apt-get install python3-dev; Fedora: dnf install python3-devel)"
    command -v "${CC:-cc}" >/dev/null || command -v gcc >/dev/null || command -v clang >/dev/null ||
        missing="$missing
  a C compiler (Debian, Ubuntu: apt-get install gcc libc6-dev; Fedora: dnf install gcc)"
    [ -z "$missing" ] || die "To build this, install:$missing"
}

# Makes the virtual environment unless it is there.
need_venv() {
    python=$(find_python)
    need_compiler "$python"
    if [ ! -x "$VENV/bin/python" ]; then
        say "Making a virtual environment in $VENV"
        "$python" -m venv "$VENV"
    fi
    is_new_enough "$VENV/bin/python" || die "$VENV has a Python older than 3.11 or a broken one: remove it."
    PATH=$VENV/bin:$PATH
    export PATH
}

pip_install() {
    python -m pip --disable-pip-version-check install --quiet "$@" ||
        die "pip could not install: $*" "It needs the network or a package index; see the message above."
}

# Installs what the program and its tests depend on, not the program; again when pyproject.toml changes.
need_dev() {
    need_venv
    stamp=$VENV/.dev-$(cksum <pyproject.toml | tr -d ' ')
    [ -f "$stamp" ] && return
    say "Installing what the tests and checks need"
    python - >"$VENV/dev-requirements.txt" <<'END'
import tomllib
project = tomllib.load(open("pyproject.toml", "rb"))["project"]
print(*project["dependencies"], *project["optional-dependencies"]["dev"], sep="\n")
END
    pip_install --upgrade -r "$VENV/dev-requirements.txt"
    rm -f "$VENV"/.dev-*
    : >"$stamp"
}

# Compiles the extension modules of the tree: build_tree release|debug|sanitize|fuzz
build_tree() {
    log=build/$1.log
    mkdir -p build
    case $1 in
        release) set -- BROKER_DEBUG=0 ;;
        debug) set -- BROKER_DEBUG=1 BROKER_WERROR=1 ;;
        sanitize) set -- BROKER_SANITIZE=1 BROKER_WERROR=1 ;;
        fuzz) set -- BROKER_FUZZ=1 ;;
    esac
    if ! env "$@" python setup.py -q build_ext --inplace >"$log" 2>&1; then
        cat "$log" >&2
        die "The build failed; its output is above and in $log"
    fi
}

# Runs a command on one build of the tree and nothing that is installed: on_tree debug pytest …
on_tree() {
    case $1 in
        release) path=$ROOT ;;
        *) path=$ROOT/build/$1:$ROOT ;;
    esac
    BROKER_BUILD=$1
    shift
    PYTHONSAFEPATH=1 PYTHONPATH=$path BROKER_BUILD=$BROKER_BUILD "$@"
}

# Debian packages whose commands the tests run: installed where we may, else named.
need_commands() {
    packages=
    for pair in "$@"; do
        command -v "${pair%%:*}" >/dev/null || [ -x "/usr/sbin/${pair%%:*}" ] || packages="$packages ${pair#*:}"
    done
    [ -z "$packages" ] && return
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        say "Installing$packages"
        # shellcheck disable=SC2086
        { apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq install --no-install-recommends -y $packages; } \
            >/dev/null && return
    fi
    die "The tests run programs that are missing. Install them: apt-get install$packages"
}
