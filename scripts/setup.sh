#!/usr/bin/env bash
# Installs the packages of scripts/packages.txt that are missing. Needs root or sudo only
# when something is missing; without either it prints what to install and exits with 1.
# Options: --print lists all packages, --missing lists the missing ones; neither installs.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)

packages() { sed -e 's/#.*//' -e '/^[[:space:]]*$/d' "$here/packages.txt" | tr -d ' '; }

# pkg-config is a name that pkgconf provides in newer releases, so a provided name counts.
missing() {
  local installed
  # shellcheck disable=SC2016  # the dollar signs belong to dpkg-query
  installed=$(dpkg-query -W -f '${db:Status-Status}|${Package}, ${Provides}\n' |
    sed -n 's/^installed|//p' | tr ',' '\n' | sed 's/(.*//' | tr -d ' ' | sort -u)
  comm -23 <(packages | sort -u) <(echo "$installed")
}

case "${1:-}" in
  --print) packages; exit 0 ;;
  --missing) missing; exit 0 ;;
  "") ;;
  *) echo "usage: setup.sh [--print|--missing]" >&2; exit 2 ;;
esac

if ! command -v dpkg-query >/dev/null; then
  echo "setup.sh: not a Debian or Ubuntu system; install the counterparts of:" >&2
  packages >&2
  exit 1
fi
mapfile -t wanted < <(missing)
[ ${#wanted[@]} -gt 0 ] || exit 0

as_root=()
if [ "$(id -u)" -ne 0 ]; then
  if ! command -v sudo >/dev/null; then
    echo "setup.sh: these packages are missing and neither root nor sudo is here to install them:" >&2
    echo "  apt-get install ${wanted[*]}" >&2
    exit 1
  fi
  as_root=(sudo)
fi
echo "setup: installing ${#wanted[@]} packages: ${wanted[*]}"
log=$(mktemp)
trap 'rm -f "$log"' EXIT
install() {
  "${as_root[@]}" apt-get update -q &&
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -q -y \
      --no-install-recommends "${wanted[@]}"
}
if ! install >"$log" 2>&1 </dev/null; then
  tail -n 20 "$log" >&2
  echo "setup.sh: installing failed (its last lines are above)" >&2
  exit 1
fi
