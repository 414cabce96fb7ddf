# shellcheck shell=sh disable=SC2154 # the names are install.sh's
# Sourced by install.sh: making /opt/parley/releases/VERSION, complete only with its .complete.

# The Python for the release; empty when there is none from 3.11 to 3.14.
find_python() {
    for name in python3 python3.13 python3.12 python3.11; do
        if "$name" -c 'import ensurepip, sys, venv; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 14))' 2>/dev/null; then
            command -v "$name"
            return
        fi
    done
}

python_packages() {
    for minor in 13 12 11; do
        if apt-cache show "python3.$minor-venv" >/dev/null 2>&1; then
            echo "python3.$minor python3.$minor-venv"
            return
        fi
    done
    stop 2 "no Python from 3.11 to 3.14 is to be had here; on Ubuntu enable 'universe'."
}

# True when a compiled llama.cpp that runs here is in the cache or in the bundle.
wheel_is_cached() {
    found_python=$(find_python)
    [ -n "$found_python" ] || found_python=$(command -v python3) || return 1
    (cd "$tree" && "$found_python" -B -E -s -c '
import sys
from pathlib import Path
from deploy.setup.environment import COMPILED
from deploy.setup.locks import locked_package
from deploy.setup.wheels import usable_wheel
package = locked_package(Path("requirements.lock"), COMPILED)
sys.exit(not any(usable_wheel(package, Path(cache)) for cache in sys.argv[1:]))' "$cache" "$bundle/cache" 2>/dev/null)
}

build_release() {
    release=$base/releases/$version
    if [ -z "$dry" ] && [ -e "$release/.complete" ]; then return; fi
    python=$(find_python)
    # shellcheck disable=SC2046 # a list of packages
    [ -n "$python" ] || install_packages $(apt-get -qq update; python_packages)
    python=$(find_python)
    install_packages libopenblas0 libgomp1
    if ! wheel_is_cached; then
        install_packages build-essential cmake ninja-build pkg-config libopenblas-dev
    fi
    say "building release $version"
    run rm -rf "$release"
    run cp -R "$tree" "$release"
    [ ! -d "$bundle/cache" ] || run cp -R "$bundle/cache/." "$cache/"
    # To where the builder may read: a bundle may have been unpacked at root's home.
    [ ! -d "$bundle/wheels" ] || run cp -R "$bundle/wheels" "$release/.offered"
    [ ! -f "$bundle/sbom.cdx.json" ] || run cp "$bundle/sbom.cdx.json" "$release/"
    run chown -R parley-build:parley-build "$release" "$cache"
    build_as_builder "${python:-python3}" -B -E -s -m deploy.setup ||
        { run rm -rf "$release"; stop 6 "release $version could not be built; what serves goes on."; }
    build_as_builder "$release/.venv/bin/python" -m compileall -q -j 0 .venv/lib service || true
    run rm -rf "$release/.offered"
    run chown -R root:root "$release"
    run touch "$release/.complete"
    changed="$changed $release"
}

# In the release, as the user who owns nothing else. pip's settings are the machine's (/etc/pip.conf).
build_as_builder() {
    wheels=''
    [ ! -d "$bundle/wheels" ] || wheels="PIP_NO_INDEX=1 PIP_FIND_LINKS=$release/.offered"
    # shellcheck disable=SC2086 # words, none with spaces
    run env -i -C "$release" PATH="$PATH" HOME="$cache" PARLEY_CACHE_DIR="$cache" \
        $wheels runuser -u parley-build -- "$@"
}

# Keep the newest few; never remove what serves or what served before.
prune_releases() {
    [ -n "$dry" ] && return
    # shellcheck disable=SC2012 # names of versions, which have no odd characters
    for old in $(ls -1dt "$base"/releases/*/ | tail -n +$((keep + 1))); do
        old=${old%/}
        case ${old##*/} in "$(basename "$(readlink "$base/current")")" | "$version") ;; *) rm -rf "$old" ;; esac
    done
}
