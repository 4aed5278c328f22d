#!/usr/bin/env bash
# A known load through the daemon into the real carbon from Debian, read back from its whisper files.
# Where the packages cannot be had it says SKIPPED and succeeds. VENEUR names the program, if it
# has been built elsewhere.
. "$(dirname "$0")/prepare.sh"
packages graphite-carbon python3-whisper
program
exec /usr/bin/python3 "$here/graphite.py" "$VENEUR"
