#!/bin/sh
# ./install: puts Parley onto this machine out of the folder that this file is in, without a network.
# For root, or a user with sudo. Exit codes: as tree/deploy/install.sh, and 2 for a damaged bundle.
set -eu
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
[ "$(id -u)" -eq 0 ] || exec sudo env DOMAIN="${DOMAIN:-}" READY_TIMEOUT="${READY_TIMEOUT:-1800}" "$here/install" "$@"
cd "$here"
sha256sum --quiet --check SHA256SUMS >&2 || {
    echo "parley: the bundle is damaged, as the lines above say; copy it here again. Nothing was changed." >&2
    exit 2
}
exec sh "$here/tree/deploy/install.sh" "${1:-install}" "$(cat version)"
