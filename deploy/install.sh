#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Installs Sightline from the bundle this script lies in: no network, nothing but python3.
#
#     sudo sh install.sh
#
# Every digest is checked before anything is changed. A failure takes back what this run has made
# and leaves what was there; run it again at any time. SIGHTLINE_ROOT is put before every path, for
# trials: then no user is made, owners stay, and systemd is not told.
set -eu
umask 022
export PYTHONDONTWRITEBYTECODE=1 # the system's own Python stays as it is

bundle=$(cd "$(dirname "$0")" && pwd)
root=${SIGHTLINE_ROOT:-}
home=$root/opt/sightline
settings=$root/etc/sightline
data=$root/var/lib/sightline
cache=$root/var/cache/sightline
unit=$root/etc/systemd/system/sightline.service
command=$root/usr/local/bin/sightline
user=sightline
made=   # what this run has made, the latest first; taken back when it fails
work=

say() { printf 'sightline: %s\n' "$*"; }

fail() {
    printf 'sightline: %s\n' "$*" >&2
    exit 2
}

main() {
    [ $# = 0 ] || fail "$1: no option; there is none"
    [ -n "$root" ] || [ "$(id -u)" = 0 ] || fail "run as root: sudo sh $0"
    find_python
    trap 'take_back' EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM HUP
    work=$(mktemp -d)
    say "checking the bundle in $bundle"
    check_bundle
    check_installed
    install_version
    make_user
    make_folders
    place_settings
    place_links
    place_unit
    look
    [ ! -f "$work/folders" ] || cat "$work/folders" >>"$home/folders"
    made=
    sync
    say "version $version is installed"
    start_service
}

# Python is all that a bare system needs; its venv module is part of it, pip comes from the bundle.
find_python() {
    [ -f "$bundle/manifest.json" ] || fail "$bundle/manifest.json: missing; copy the bundle again"
    wanted=$(sed -n 's/^ *"python": *"\([0-9.]*\)".*/\1/p' "$bundle/manifest.json")
    found=none
    for python in "python$wanted" python3; do
        found=$("$python" -Ic 'import sys, venv; print("%d.%d" % sys.version_info[:2])' \
            2>/dev/null) || found=none
        [ "$found" != "$wanted" ] || return 0
    done
    [ "$found" != none ] ||
        fail "no python3 here, wanted $wanted; run: apt-get install -y --no-install-recommends python3"
    fail "this bundle is for Python $wanted and here is $found; make one with: sightline bundle --python $found"
}

# Prints what the scripts need to know of the manifest, once every file is what it lists.
check_bundle() {
    "$python" -IB - "$bundle" >"$work/manifest" <<'PYTHON' || exit 2
import hashlib, json, os, re, shlex, sys, zipfile
from pathlib import Path

def fail(text):
    sys.exit(f"sightline: {text}; copy the bundle again")

bundle = Path(sys.argv[1])
try:
    manifest = json.loads((bundle / "manifest.json").read_bytes())
    version, arch, files = manifest["version"], manifest["arch"], manifest["files"]
except (ValueError, KeyError, TypeError):
    fail(f"{bundle}/manifest.json: not a manifest")
if manifest.get("format") != 1:
    fail(f"{bundle}/manifest.json: format {manifest.get('format')}, wanted 1")
if not re.fullmatch("[0-9][A-Za-z0-9.+!_-]{0,63}", version):
    fail(f"{bundle}/manifest.json: version {version!r} cannot name a folder")
found = set()
for folder, _, names in os.walk(bundle):
    found |= {os.path.relpath(os.path.join(folder, name), bundle) for name in names}
for extra in sorted(found - set(files) - {"manifest.json", "manifest.sig"}):
    sys.exit(f"sightline: {bundle / extra}: the manifest does not list it; remove it")
needed = 0
for name, entry in sorted(files.items()):
    path = bundle / name
    if name not in found or path.is_symlink():
        fail(f"{path}: missing from the bundle")
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != entry["sha256"]:
        fail(f"{path}: not what the manifest lists")
    if name.endswith(".whl"):
        needed += sum(item.file_size for item in zipfile.ZipFile(path).infolist())
print(f"version={shlex.quote(version)} arch={shlex.quote(arch)} needed_kib={needed // 900}")
PYTHON
    version='' arch='' needed_kib=0
    # shellcheck source=/dev/null
    . "$work/manifest"
    [ "$(uname -m)" = "$arch" ] ||
        fail "this bundle is for $arch and here is $(uname -m); make one with: sightline bundle --arch $(uname -m)"
    place=$home/$version
}

check_installed() {
    installed=
    [ ! -L "$home/current" ] || installed=$(readlink "$home/current")
    if [ -n "$installed" ] && [ "${installed##*/}" != "$version" ]; then
        fail "version ${installed##*/} is installed; go on with: sightline update $bundle"
    fi
}

check_room() {
    above=$home
    while [ ! -d "$above" ]; do above=$(dirname "$above"); done
    free_kib=$(df -Pk "$above" | awk 'NR == 2 { print $4 }')
    [ "$free_kib" -ge "$needed_kib" ] ||
        fail "$above: $((free_kib / 1024)) MiB free, wanted $((needed_kib / 1024)); make room first"
}

# A version that is there already, from the same bundle, stays as it is.
install_version() {
    if [ -e "$place/manifest.json" ]; then
        cmp -s "$bundle/manifest.json" "$place/manifest.json" ||
            fail "another build of $version is installed; give this one a version of its own and use: sightline update $bundle"
        say "version $version is there"
        return
    fi
    check_room
    make_folder "$home"
    made="$place
$made"
    say "unpacking $((needed_kib / 1024)) MiB into $place"
    TMPDIR=$work PYTHON=$python sh "$bundle/deploy/make_version.sh" "$bundle" ||
        fail "version $version could not be made, see above"
}

make_user() {
    [ -z "$root" ] || return 0
    ! getent passwd "$user" >/dev/null || return 0
    useradd --system --user-group --no-create-home --home-dir "$data" \
        --shell /usr/sbin/nologin "$user"
    made="user
$made"
}

make_folders() {
    for folder in "$settings" "$settings/trusted" "$data" "$cache" "$(dirname "$command")" \
        "$(dirname "$unit")"; do
        make_folder "$folder"
    done
    own "root:$user" 750 "$settings"
    own "$user:$user" 750 "$data"
    own "$user:$user" 750 "$cache"
}

# Settings and secrets that are there stay; keys of bundles are added.
place_settings() {
    for name in serve.yaml environment; do
        [ ! -e "$settings/$name" ] || continue
        place_file "$bundle/config/$name" "$settings/$name"
        own "root:$user" 640 "$settings/$name"
    done
    for key in "$bundle"/config/trusted/*.pub; do
        if [ -f "$key" ] && [ ! -e "$settings/trusted/${key##*/}" ]; then
            place_file "$key" "$settings/trusted/${key##*/}"
        fi
    done
}

place_links() {
    if [ ! -L "$home/current" ]; then
        ln -s "$version" "$home/current"
        made="$home/current
$made"
    fi
    if [ ! -e "$command" ] && [ ! -L "$command" ]; then
        ln -s "${home#"$root"}/current/venv/bin/sightline" "$command"
        made="$command
$made"
    fi
    cp "$bundle/uninstall.sh" "$home/uninstall.sh.new"
    mv "$home/uninstall.sh.new" "$home/uninstall.sh"
}

place_unit() {
    cmp -s "$bundle/deploy/sightline.service" "$unit" && return
    [ -e "$unit" ] && cp -p "$unit" "$work/unit"
    place_file "$bundle/deploy/sightline.service" "$unit"
}

# The first look, as the user and with the folders that the service has.
look() {
    say "what this machine can do:"
    if [ -n "$root" ]; then
        set -- env XDG_CACHE_HOME="$work" MPLCONFIGDIR="$work/matplotlib" TMPDIR="$work"
    else
        set -- setpriv --reuid "$user" --regid "$user" --init-groups --reset-env \
            env XDG_CACHE_HOME=/var/cache MPLCONFIGDIR=/var/cache/sightline/matplotlib \
            TORCHINDUCTOR_CACHE_DIR=/var/cache/sightline/inductor
    fi
    (cd / && exec "$@" PYTHONDONTWRITEBYTECODE=1 "$place/venv/bin/sightline" doctor) ||
        fail "doctor found something missing, see above"
}

start_service() {
    if [ -n "$root" ] || [ ! -d /run/systemd/system ]; then
        say "systemd does not run here; later: systemctl enable --now sightline"
        return
    fi
    systemctl daemon-reload
    systemctl enable --quiet sightline
    systemctl restart sightline || {
        say "the service did not start; see: journalctl -u sightline, then run this again" >&2
        exit 1
    }
}

# A folder with those above it that are missing; what is made is written down for uninstall.sh.
make_folder() {
    [ ! -d "$1" ] || return 0
    make_folder "$(dirname "$1")"
    mkdir "$1"
    made="$1
$made"
    printf '%s\n' "${1#"$root"}" >>"$work/folders"
}

place_file() {
    cp "$1" "$2.new"
    sync "$2.new"
    mv "$2.new" "$2"
    made="$2
$made"
}

own() {
    [ -n "$root" ] || chown "$1" "$3"
    chmod "$2" "$3"
}

take_back() {
    code=$?
    trap - EXIT INT TERM HUP
    if [ -n "$made" ] && [ "$code" != 0 ]; then
        say "failed; taking back what was made" >&2
        printf '%s' "$made" | while IFS= read -r thing; do take_back_one "$thing"; done
        [ ! -f "$work/unit" ] || cp -p "$work/unit" "$unit"
        say "all is as it was; run this again when the cause is gone" >&2
    fi
    [ -z "$work" ] || rm -rf "$work"
    exit "$code"
}

take_back_one() {
    case $1 in
    '') ;;
    user) userdel "$user" ;;
    "$home") rm -rf "$1" ;;
    "$place") rm -rf "$1" ;;
    "$data" | "$cache") rm -rf "$1" ;;
    *) if [ -d "$1" ] && [ ! -L "$1" ]; then rmdir "$1" 2>/dev/null || :; else rm -f "$1"; fi ;;
    esac
}

main "$@"
