#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Runs a script where systemd is the first process: in namespaces of its own, over a copy-on-write
# view of this system, without a network, gone when this ends.
#
#     sudo sh tests/benchmarks/apart.sh SCRIPT [ARGUMENT...]
set -eu

if [ "${1:-}" != inside ]; then
    script=$(readlink -f "$1")
    shift
    base=$(mktemp -d)
    trap 'kill -9 "$(pgrep -P "$apart")" 2>/dev/null || true; wait 2>/dev/null || true; rmdir "$base"' EXIT
    unshare -m -p -f -C -u -i -n --kill-child=KILL sh "$0" inside "$base" &
    apart=$!
    try() { nsenter -t "$(pgrep -P "$apart")" -a -- "$@"; }
    until try systemctl is-active --quiet systemd-journald 2>/dev/null; do sleep 0.5; done
    try env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin sh "$script" "$@"
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
