#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Tries install.sh, `sightline update` and uninstall.sh under systemd itself:
#
#     sudo sh tests/benchmarks/apart.sh tests/benchmarks/try_update.sh VENV CLIP
#
# VENV has Sightline installed and is for the system's own Python; CLIP is what a camera plays. Where
# a sentence is not true, it ends with 1 and says so.
set -eu
checkout=$(cd "$(dirname "$0")/../.." && pwd) venv=$1 clip=$2
# shellcheck source=tests/benchmarks/holds.sh
. "$checkout/tests/benchmarks/holds.sh"
update() { sightline update "$1" --unsigned --watch-s "${2:-5}" --ready-s 60; }
leads_to() { [ "$(readlink /opt/sightline/current)" = "$1" ]; }
runs() { leads_to "$1" && shows ActiveState active && looks; }
refuses() {
    if update "$1" >/run/said 2>&1; then return 1; fi
    tail -n 1 /run/said
}
ln -sfn /usr/bin/python3 "$venv/bin/python3" # of this view alone; what is below /root is hidden
"$venv/bin/python3" "$checkout/tests/benchmarks/versions.py" /opt/bundles >/dev/null
before=$(find /etc /usr/local /var/lib /var/cache /opt | sort)

sh /opt/bundles/bundle-0/install.sh >/run/said 2>&1 || { tail /run/said; journalctl -u sightline --no-pager | tail; exit 1; }
holds "install.sh leaves a service that runs" shows ActiveState active
holds "and begins at every start" systemctl is-enabled sightline
cp "$clip" /opt/sightline/clip.mp4
cat >/etc/sightline/serve.yaml <<YAML
model: {image_size: 320, weights: /opt/sightline/current/weights/model.safetensors}
cameras:
  yard: {source: /opt/sightline/clip.mp4, max_fps: 5}
YAML
systemctl restart sightline
holds "a camera is watched" looks
began=$(date +%s%N)
update /opt/bundles/bundle-1 >/run/said 2>&1 || { cat /run/said; exit 1; }
echo "an update took $((($(date +%s%N) - began) / 1000000)) ms"
holds "and the new version runs" runs 1.1
for number in 2 3 4 5; do
    refuses "/opt/bundles/bundle-$number" || { echo "NOT: bundle-$number was refused"; exit 1; }
    holds "bundle-$number is undone" runs 1.1
done
update /opt/bundles/bundle-0 600 >/run/said 2>&1 &
updater=$!
holds "another update has come to watching" grep -q watching /opt/sightline/update.json
pkill -9 -f 'sightline update'
wait "$updater" || true
systemctl restart sightline
holds "one that was killed is undone when the service starts" runs 1.1
holds "with nothing left to undo" test ! -e /opt/sightline/update.json
sh /opt/sightline/uninstall.sh --yes >/dev/null
holds "uninstall.sh leaves no process" sh -c '! pgrep -u sightline'
after=$(find /etc /usr/local /var/lib /var/cache /opt | sort)
[ "$before" = "$after" ] || { echo "NOT: nothing is left"; printf '%s\n%s\n' "$before" "$after" | sort | uniq -u; exit 1; }
echo "and nothing else"
