# shellcheck shell=sh disable=SC2154 # the names are install.sh's
# Sourced by install.sh: the distribution's packages, out of a bundle or from the machine's sources.

# A bundle may bring the packages of this distribution along; then apt sees these alone.
use_bundled_packages() {
    # shellcheck source=/dev/null # the system's own
    debs=$bundle/debs/$(. /etc/os-release && echo "$ID-${VERSION_ID:-unknown}")
    [ -e "$debs/Packages" ] || return 0
    [ -z "${APT_CONFIG:-}" ] || return 0
    mkdir -p "$scratch/lists/partial"
    ln -s "$debs" "$scratch/debs"
    echo "deb [trusted=yes] file:$scratch/debs ./" >"$scratch/sources.list"
    cat >"$scratch/apt.conf" <<EOF
Dir::Etc::SourceList "$scratch/sources.list";
Dir::Etc::SourceParts "/dev/null";
Dir::State::Lists "$scratch/lists";
APT::Sandbox::User "root";
EOF
    export APT_CONFIG="$scratch/apt.conf"
}

install_packages() {
    missing=''
    for package in "$@"; do
        [ -z "$dry" ] && dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null | grep -qx installed ||
            missing="$missing $package"
    done
    [ -n "$missing" ] || return 0
    say "installing$missing"
    [ -n "$dry" ] || use_bundled_packages
    run apt-get -qq update || say "apt-get update did not succeed; going on with older lists"
    # What an operator has written already stays, and nobody is there to be asked about it.
    # shellcheck disable=SC2086 # the list is meant to be split
    run env DEBIAN_FRONTEND=noninteractive apt-get -qq -y -o Dpkg::Options::=--force-confdef \
        -o Dpkg::Options::=--force-confold install --no-install-recommends $missing >"$scratch/apt.log" 2>&1 || {
        tail -n 15 "$scratch/apt.log" >&2
        stop 9 "apt cannot install$missing, for the reason above; what serves was not touched."
    }
    [ -z "$dry" ] || cat "$scratch/apt.log"
    changed="$changed packages"
}
