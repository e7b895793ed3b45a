# Sourced by the other scripts: `setup EXTRAS` makes .venv and installs thinktalk[EXTRAS] into it, once.
#
# A stamp (.venv/.installed-EXTRAS) holds a hash of what the installation depends on; while it matches, nothing is done.
# A .venv that you made yourself, with the torch build of your choice, is kept and used.

set -eu
cd "$(dirname "$0")/.."
python=.venv/bin/python

say() { printf '%s\n' "$*" >&2; }

find_python() {
    for name in ${PYTHON:-} python3 python3.11 python3.12 python3.13 python; do
        if "$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            printf '%s' "$name"
            return
        fi
    done
    say "thinktalk needs Python 3.11 or newer; none was found. Install it, or set PYTHON=/path/to/python3."
    exit 1
}

fingerprint() { # the folder counts: a virtual environment does not survive a move
    { pwd; "$python" --version; cat pyproject.toml constraints.txt; } | "$python" -c \
        'import hashlib, sys; print(hashlib.sha256(sys.stdin.buffer.read()).hexdigest())'
}

setup() {
    if ! "$python" -c '' 2>/dev/null; then
        base=$(find_python)
        say "Making .venv with $("$base" --version)."
        "$base" -m venv --clear .venv || {
            say "Could not make .venv. On Debian and Ubuntu: apt-get install python3-venv"
            exit 1
        }
    fi
    stamp=.venv/.installed-$1
    now=$(fingerprint)
    installed=$stamp
    if [ -z "$1" ]; then installed=".venv/.installed-*"; fi # the bare package is there whatever extras came with it
    # shellcheck disable=SC2086  # the pattern is meant to expand
    if grep -qsx "$now" $installed; then return; fi
    say "Installing thinktalk${1:+[$1]} into .venv (a minute or two the first time)."
    "$python" -m pip install --quiet --disable-pip-version-check -e ".${1:+[$1]}" -c constraints.txt
    printf '%s\n' "$now" >"$stamp"
}

# The web page's tests drive a real browser, those of flite its library. Where CI is set nothing may be skipped: both are installed.
debian_packages() {
    missing=libflite1
    if "$python" -c 'import ctypes.util, sys; sys.exit(not ctypes.util.find_library("flite"))'; then missing=""; fi
    browser || missing="$missing chromium"
    if [ -z "$missing" ]; then return; fi
    say "Installing for the tests:" $missing
    as_root=""
    if [ "$(id -u)" != 0 ]; then as_root="sudo -n"; fi
    # shellcheck disable=SC2086  # one word a package
    $as_root apt-get -o DPkg::Lock::Timeout=300 -qq update >&2 &&
        DEBIAN_FRONTEND=noninteractive $as_root apt-get -o DPkg::Lock::Timeout=300 -qq -y install $missing >&2 ||
        say "They could not be installed: apt-get install $missing (or set CHROMIUM=/path/to/a/browser)"
}

browser() {
    for name in "${CHROMIUM:-}" chromium chromium-browser google-chrome; do
        if command -v "$name" >/dev/null 2>&1; then return; fi
    done
    return 1
}

# Idle OpenMP threads that spin slow a busy machine down 10 to 28 times (docs/performance.md).
export OMP_WAIT_POLICY="${OMP_WAIT_POLICY:-PASSIVE}" TOKENIZERS_PARALLELISM=false
