#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Tries deploy/sightline.service under systemd itself:
#
#     sudo sh tests/benchmarks/apart.sh tests/benchmarks/try_unit.sh VENV CLIP
#
# VENV has Sightline installed and is for the system's own Python; CLIP is what a camera plays. Where
# a sentence is not true, it ends with 1 and says so.
set -eu
checkout=$(cd "$(dirname "$0")/../.." && pwd) venv=$1 clip=$2
# shellcheck source=tests/benchmarks/holds.sh
. "$checkout/tests/benchmarks/holds.sh"
useradd --system --user-group --no-create-home --home-dir /var/lib/sightline sightline
mkdir -p /opt/sightline/current /etc/sightline
cp "$clip" /opt/sightline/clip.mp4
ln -s "$venv" /opt/sightline/current/venv
ln -s "$checkout/deploy" /opt/sightline/current/deploy
ln -sfn /usr/bin/python3 "$venv/bin/python3" # of this view alone; what is below /root is hidden
cat >/etc/sightline/serve.yaml <<YAML
model: {image_size: 320}
cameras:
  yard: {source: /opt/sightline/clip.mp4, max_fps: 2}
  door: {source: "rtsp://127.0.0.1:9/none"}
YAML
chown -R root:sightline /etc/sightline && chmod 750 /etc/sightline
cp "$checkout/deploy/sightline.service" /etc/systemd/system/
systemctl daemon-reload
systemctl start sightline
holds "it is ready though a camera is down" shows ActiveState active
holds "frames are looked at" looks
holds "an entry of the journal names its camera" sh -c \
    'journalctl -u sightline CAMERA=door PRIORITY=4 -o cat | grep -q "trying again"'
systemctl reload sightline
holds "it reloads" sh -c 'journalctl -u sightline -o cat | grep -q "^reloaded"'
main=$(systemctl show sightline -p MainPID --value)
kill -9 "$(pgrep -P "$main" | head -n 1)"
holds "a process that is killed is replaced" sh -c 'journalctl -u sightline -o cat | grep -q replaced'
holds "and the service is the same" shows MainPID "$main"
kill -STOP "$main"
holds "one that hangs is begun anew" shows NRestarts 1
holds "and is ready again" shows ActiveState active
systemctl stop sightline
holds "it ends with 0" shows ExecMainStatus 0
holds "and leaves no process" sh -c '! pgrep -u sightline'
