# shellcheck shell=sh
# SPDX-License-Identifier: Apache-2.0
# What the trials under systemd share; sourced inside of apart.sh.

# holds TEXT COMMAND...: says the text once the command ends well; else ends with 1 after two minutes.
holds() {
    text=$1 tries=0
    shift
    until "$@" >/dev/null 2>&1; do
        tries=$((tries + 1))
        [ "$tries" -lt 120 ] || { echo "NOT: $text"; journalctl -u sightline --no-pager | tail -n 20; exit 1; }
        sleep 1
    done
    echo "$text"
}

# shows PROPERTY VALUE: of the unit, as systemd has it.
shows() { [ "$(systemctl show sightline -p "$1" --value)" = "$2" ]; }

# looks: frames of the camera `yard` are looked at.
looks() { python3 -c "import json, urllib.request as u
known = json.load(u.urlopen('http://127.0.0.1:8710/api/status'))
assert known['cameras']['yard']['tracked_fps'] > 0"; }
