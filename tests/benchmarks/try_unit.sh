#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Tries deploy/sightline.service under systemd itself, which here is the first process of namespaces
# of its own: over a copy-on-write view of this system, without a network, gone when this ends.
#
#     sudo sh tests/benchmarks/try_unit.sh VENV CLIP
#
# VENV has Sightline installed and is for the system's own Python; CLIP is what a camera plays. Where
# a sentence is not true, it ends with 1 and says so.
set -eu

if [ "${1:-}" != inside ]; then
    venv=$(readlink -f "$1") clip=$(readlink -f "$2") checkout=$(cd "$(dirname "$0")/../.." && pwd)
    base=$(mktemp -d)
    trap 'kill -9 "$(pgrep -P "$apart")" 2>/dev/null || true; wait 2>/dev/null || true; rmdir "$base"' EXIT
    unshare -m -p -f -C -u -i -n --kill-child=KILL sh "$0" inside "$base" &
    apart=$!
    try() { nsenter -t "$(pgrep -P "$apart")" -a -- "$@"; }
    until try systemctl is-active --quiet systemd-journald 2>/dev/null; do sleep 0.5; done
    try sh -s "$checkout" "$venv" "$clip" <<'TRY'
set -eu
checkout=$1 venv=$2 clip=$3
holds() {
    text=$1 tries=0
    shift
    until "$@" >/dev/null 2>&1; do
        tries=$((tries + 1))
        [ "$tries" -lt 120 ] || { echo "NOT: $text"; journalctl -u sightline --no-pager | tail; exit 1; }
        sleep 1
    done
    echo "$text"
}
shows() { [ "$(systemctl show sightline -p "$1" --value)" = "$2" ]; }
looks() { python3 -c "import json, urllib.request as u
known = json.load(u.urlopen('http://127.0.0.1:8710/api/status'))
assert known['cameras']['yard']['tracked_fps'] > 0"; }
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
TRY
    exit
fi

base=$2
mount --make-rprivate /
mount -t tmpfs tmpfs "$base"
mkdir "$base/above" "$base/work" "$base/root"
mount -t overlay overlay -o "lowerdir=/,upperdir=$base/above,workdir=$base/work" "$base/root"
cd "$base/root"
mount -t proc proc proc
mount --bind proc/sys proc/sys
mount -o remount,ro,bind proc/sys
mount -t sysfs -o ro sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
mount -t tmpfs tmpfs run
mount -t tmpfs tmpfs tmp
mount -t tmpfs -o mode=755 dev dev
for name in null zero full random urandom tty; do
    touch "dev/$name"
    mount --bind "/dev/$name" "dev/$name"
done
mkdir dev/pts dev/shm
mount -t devpts devpts dev/pts -o newinstance,ptmxmode=0666
mount -t tmpfs shm dev/shm
ln -s /proc/self/fd dev/fd
cat >etc/systemd/system/sightline-trial.target <<'UNIT'
[Unit]
DefaultDependencies=no
Requires=systemd-journald.service
UNIT
mkdir -p old
pivot_root . old
cd /
umount -l /old
ip link set lo up
exec env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin container=other \
    /lib/systemd/systemd --system --unit=sightline-trial.target --show-status=no </dev/null
