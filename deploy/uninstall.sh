#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Removes Sightline from a box, all of it: versions, service, settings, events, caches, user.
#
#     sudo sh /opt/sightline/uninstall.sh [--keep-data] [--keep-config] [--yes]
#
# --keep-data leaves /var/lib/sightline, --keep-config leaves /etc/sightline; their user stays with
# them, since files without an owner would fall to the next one made. Someone at a terminal is
# asked first, unless --yes is given.
set -eu

root=${SIGHTLINE_ROOT:-}
home=$root/opt/sightline
settings=$root/etc/sightline
data=$root/var/lib/sightline
cache=$root/var/cache/sightline
unit=$root/etc/systemd/system/sightline.service
command=$root/usr/local/bin/sightline
user=sightline

fail() {
    printf 'sightline: %s\n' "$*" >&2
    exit 2
}

main() {
    keep_data='' keep_config='' yes=''
    for option; do
        case $option in
        --keep-data) keep_data=yes ;;
        --keep-config) keep_config=yes ;;
        --yes) yes=yes ;;
        *) fail "$option: no option; there are --keep-data, --keep-config and --yes" ;;
        esac
    done
    [ -n "$root" ] || [ "$(id -u)" = 0 ] || fail "run as root: sudo sh $0 $*"
    ask
    stop_service
    folders=$(cat "$home/folders" 2>/dev/null || :)
    rm -f "$unit" "$command"
    rm -rf "$unit.d" "$home" "$cache"
    [ -n "$keep_data" ] || rm -rf "$data"
    [ -n "$keep_config" ] || rm -rf "$settings"
    remove_folders
    [ -n "$keep_data$keep_config" ] || remove_user
    printf 'sightline: removed\n'
}

ask() {
    if [ -n "$yes" ] || [ ! -t 0 ]; then
        return 0
    fi
    what=Sightline
    [ -n "$keep_data" ] || what="$what, its events and pictures"
    [ -n "$keep_config" ] || what="$what, its settings"
    printf 'Remove %s? [y/N] ' "$what"
    read -r answer
    [ "$answer" = y ] || fail "nothing was removed"
}

stop_service() {
    if [ -n "$root" ] || [ ! -d /run/systemd/system ]; then
        return 0
    fi
    [ ! -e "$unit" ] || systemctl disable --quiet --now sightline
    rm -f "$unit"
    systemctl daemon-reload
    systemctl reset-failed sightline 2>/dev/null || :
}

# Folders that were made for us, the latest first, unless others use them now.
remove_folders() {
    printf '%s\n' "$folders" | tac | while IFS= read -r folder; do
        [ -z "$folder" ] || rmdir "$root$folder" 2>/dev/null || :
    done
}

remove_user() {
    if [ -z "$root" ] && getent passwd "$user" >/dev/null; then
        userdel "$user"
    fi
}

main "$@"
exit 0
