#!/bin/sh
# Makes .venv as constraints.txt and the pyproject files say, and nothing when it is so already.
#   EMBEDFLEET_VENV  where to make it (default: .venv beside the Makefile)
#   PYTHON           the interpreter to make it with (default: the first python3 >= 3.11 found)
set -eu
cd "$(dirname "$0")/.."
venv=${EMBEDFLEET_VENV:-.venv}
stamp=$venv/.embedfleet-installed
begun=$venv/.embedfleet-begun
distributions="sdk images/server operator"

say() { printf '%s\n' "$*" >&2; }

usable() { "$1" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; }

find_python() {
    for candidate in ${PYTHON:-python3 python3.11 python3.12 python3.13 python3.14}; do
        if usable "$candidate"; then
            # In an activated environment python3 may be the very one that is to be made afresh: take what it stands on.
            "$candidate" -c 'import sys; print(sys._base_executable)'
            return
        fi
    done
    return 1
}

install_python_by_apt() {
    [ -z "${PYTHON:-}" ] && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null || return 1
    say "no usable Python 3.11 or later: installing Debian's python3 and python3-venv"
    DEBIAN_FRONTEND=noninteractive apt-get update -qq >&2
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends python3 python3-venv >&2
}

explain_missing_python() {
    say "embedfleet needs Python 3.11 or later with its venv and ensurepip modules; none was found as:"
    say "    ${PYTHON:-python3 python3.11 python3.12 python3.13 python3.14}"
    say "Install it (Debian, Ubuntu: apt-get install python3 python3-venv) or name one: make PYTHON=/path/to/python3 $*"
    exit 1
}

digest() {
    cat constraints.txt tools/setup.sh $(for d in $distributions; do echo "$d/pyproject.toml"; done) | "$1" -c '
import hashlib, os, sys
print(hashlib.sha256(sys.stdin.buffer.read() + os.getcwd().encode()).hexdigest())'
}

if [ -f "$stamp" ] && "$venv/bin/python" -c '' 2>/dev/null && [ "$(cat "$stamp")" = "$(digest "$venv/bin/python")" ]; then
    exit 0
fi

# pip counts a package whose files it was still copying as installed, so what was interrupted is made afresh.
if [ -e "$begun" ] || ! "$venv/bin/python" -m pip --version >/dev/null 2>&1; then
    python=$(find_python) || { install_python_by_apt && python=$(find_python); } || explain_missing_python
    say "making $venv with $("$python" --version) ($python)"
    "$python" -m venv --clear "$venv"
fi

if "$venv/bin/python" -c "import importlib.util, sys; sys.exit(importlib.util.find_spec(\"torch\") is None)"; then
    say "bringing $venv up to date"
    quiet=--quiet
else
    say "installing the pinned dependencies into $venv: about 3 GB to fetch, most of it PyTorch"
    quiet=
fi
rm -f "$stamp"
: >"$begun"
# Without dependencies: the lock names them all, and was resolved on one Python (a tool asks for one more on 3.13).
"$venv/bin/python" -m pip install $quiet --no-deps --require-hashes -r constraints.txt
# shellcheck disable=SC2046 # one word per distribution is meant
"$venv/bin/python" -m pip install --quiet --no-deps --no-build-isolation $(for d in $distributions; do echo "-e $d"; done)
digest "$venv/bin/python" >"$stamp.new"
mv "$stamp.new" "$stamp"
rm -f "$begun"
