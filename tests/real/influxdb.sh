#!/usr/bin/env bash
# A known load through the daemon into the real InfluxDB from Debian, queried back. Where the package
# cannot be had it says SKIPPED and succeeds. VENEUR names the program, if it has been built
# elsewhere.
. "$(dirname "$0")/prepare.sh"
packages influxdb python3
program
exec /usr/bin/python3 "$here/influxdb.py" "$VENEUR"
