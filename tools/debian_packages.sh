#!/bin/sh
# Installs the named Debian packages, and does nothing for those that are there. Needs root.
#   sh tools/debian_packages.sh PACKAGE...
set -eu
export DEBIAN_FRONTEND=noninteractive

installed() { dpkg-query -W -f '${Status}' "$1" 2>/dev/null | grep -q 'ok installed'; }

missing=
for package in "$@"; do
    installed "$package" || missing="$missing $package"
done
[ -n "$missing" ] || exit 0
apt-get update -qq >/dev/null
# shellcheck disable=SC2086 # one word per package is meant
apt-get install -y -qq -o Dpkg::Use-Pty=0 --no-install-recommends $missing >/dev/null
