#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Undo an update that was cut off, before the service starts: for systemd, as root,
# ExecStartPre=-+/bin/sh /opt/sightline/current/deploy/recover.sh
#
# The version before does it, for the new one may not even start. Without an update, and while one
# is at work, there is nothing to do.
set -eu
folder=${SIGHTLINE_ROOT:-}/opt/sightline
[ -e "$folder/update.json" ] || exit 0
old=$(sed -n 's/.*"old":"\([^"]*\)".*/\1/p' "$folder/update.json")
exec "$folder/$old/venv/bin/sightline" update --recover --no-start
