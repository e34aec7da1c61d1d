#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Make one installed version from a bundle, without a network: make_version.sh BUNDLE
#
# It lies in $SIGHTLINE_ROOT/opt/sightline/VERSION and is whole once manifest.json is there, which
# is put there last, after everything else has reached the disk. What lies there without one is
# what a broken attempt has left, and is made anew. PYTHON names another interpreter.
set -eu

bundle=$(cd "$1" && pwd)
field() {
    sed -n "s/^ *\"$1\": *\"\([^\"]*\)\".*/\1/p" "$bundle/manifest.json" | head -n 1
}
version=$(field version)
python=${PYTHON:-python$(field python)}
target=${SIGHTLINE_ROOT:-}/opt/sightline/$version

case $version in
'' | *[!A-Za-z0-9.+!_-]* | .*)
    echo "make_version.sh: $bundle/manifest.json: names no version" >&2
    exit 2
    ;;
esac
if ! command -v "$python" >/dev/null; then
    echo "make_version.sh: $python: not found; install it, or set PYTHON to one like it" >&2
    exit 2
fi
if [ -e "$target/manifest.json" ]; then
    cmp -s "$bundle/manifest.json" "$target/manifest.json" && exit 0
    echo "make_version.sh: $target: there is another build of $version; remove it first" >&2
    exit 2
fi

rm -rf "$target"
mkdir -p "$target"
chmod 755 "$target"
"$python" -Im venv --without-pip "$target/venv"
# pip runs from its wheel in the bundle, so that the system needs none.
set -- "$bundle"/wheels/pip-*.whl
if [ ! -e "$1" ]; then
    echo "make_version.sh: $bundle/wheels: has no wheel of pip" >&2
    exit 2
fi
"$target/venv/bin/python" "$1/pip" --isolated --quiet --disable-pip-version-check install \
    --no-index --find-links "$bundle/wheels" --no-cache-dir --no-compile "sightline==$version"
"$target/venv/bin/python" -Im compileall -q "$target/venv/lib" >/dev/null || true
for part in weights deploy; do
    if [ -d "$bundle/$part" ]; then
        cp -R "$bundle/$part" "$target/$part"
    fi
done
chmod -R u=rwX,go=rX "$target"
sync
cp "$bundle/manifest.json" "$target/.manifest.json"
chmod 644 "$target/.manifest.json"
sync
mv "$target/.manifest.json" "$target/manifest.json"
sync
