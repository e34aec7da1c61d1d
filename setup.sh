#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Sets Sightline up in .venv, from nothing but Python 3.11 or later and the package registries.
# Run it again at any time; what is there already costs seconds.
#
#     sh setup.sh          what a run needs
#     sh setup.sh dev      and what the tests need
set -eu
cd "$(dirname "$0")"

fail() {
    printf 'setup: %s\n' "$*" >&2
    exit 1
}

# Installs Debian or Ubuntu packages where we may, else prints the line that does.
need_packages() {
    line="apt-get update && apt-get install -y --no-install-recommends $*"
    if ! command -v apt-get >/dev/null; then
        fail "missing system packages; on Debian or Ubuntu: $line"
    elif [ "$(id -u)" = 0 ]; then
        apt-get update -q && DEBIAN_FRONTEND=noninteractive \
            apt-get install -y -q --no-install-recommends "$@" || fail "could not run: $line"
    elif sudo -n true 2>/dev/null; then
        sudo sh -c "$line" || fail "could not run: sudo sh -c '$line'"
    else
        fail "missing system packages; run: sudo sh -c '$line'"
    fi
}

python=${PYTHON:-}
for candidate in $python python3 python3.13 python3.12 python3.11; do
    if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
        python=$candidate
        break
    fi
    python=
done
[ -n "$python" ] || fail "needs Python 3.11 or later; found $(python3 --version 2>&1 || echo none)"

if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
    need_packages python3-venv
fi
[ -x .venv/bin/python ] || "$python" -m venv .venv
extra=${1:+"[$1]"}
.venv/bin/python -m pip install --quiet --disable-pip-version-check -e ".${extra}"

# opencv-python needs libGL and glib, which a bare server lacks
if ! .venv/bin/python -c 'import cv2' 2>/dev/null; then
    need_packages libgl1 libglib2.0-0
    .venv/bin/python -c 'import cv2' || fail "opencv still does not load, see above"
fi
