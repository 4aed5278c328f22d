# Sourced by the scripts beside it: packages from Debian, and the program.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)

skip() { echo "SKIPPED $(basename "$0"): $*"; exit 0; }

# Packages, installed if need be and possible within INSTALL_WITHIN seconds.
packages() {
  local lacks=()
  for package in "$@"; do
    dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || lacks+=("$package")
  done
  [ ${#lacks[@]} -eq 0 ] && return
  command -v apt-get >/dev/null || skip "no apt-get here to install ${lacks[*]}"
  [ "$(id -u)" -eq 0 ] || skip "not root, so that ${lacks[*]} cannot be installed"
  local log within=${INSTALL_WITHIN:-180}
  log=$(mktemp)
  # Nothing it installs is started: the tests start what they need, on ports of their own.
  export DEBIAN_FRONTEND=noninteractive RUNLEVEL=1
  timeout "$within" sh -c 'apt-get update -qq && apt-get install -y -qq --no-install-recommends "$@"' \
    sh "${lacks[@]}" >"$log" 2>&1 || skip "${lacks[*]} not installed within $within s: $(tail -n 1 "$log")"
  rm -f "$log"
}

# The daemon, built if need be.
program() {
  if [ -z "${VENEUR:-}" ]; then
    (cd "$here/../.." && cargo build --locked --quiet)
    VENEUR="$here/../../target/debug/veneur"
  fi
}
