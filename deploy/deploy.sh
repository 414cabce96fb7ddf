#!/bin/sh
# deploy.sh install HOST | remove HOST: what stands behind `make deploy` and `make undeploy`.
#
# Sends the committed tree, and a compiled llama.cpp from this machine's cache, as one stream over ssh,
# and runs install.sh there. DRY_RUN=1 prints every command and does nothing.
# SSH="ssh -i key" is another way to get there; WHEELS=dir, a folder of all wheels, makes it work on a
# host without a package index, BUNDLE=file, what `make bundle` made, on one without any network.
# DOMAIN= and EMAIL= obtain a certificate. Exit codes: as install.sh, and 8 when the host cannot be reached.
set -eu
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
root=$(dirname -- "$here")
SSH=${SSH:-ssh -o ConnectTimeout=10}
dry=${DRY_RUN:-}
cache=${PARLEY_CACHE_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/parley}

say() { echo "parley: $*" >&2; }
stop() { code=$1; shift; say "$*"; exit "$code"; }

doing=${1:-}
host=${2:-}
# With PROJECT= instead of a host: the machine that gcp/vm.sh makes, or has made.
if [ -z "$host" ] && [ -n "${PROJECT:-}" ]; then
    host=${VM:-parley}
    SSH=$here/gcp/ssh.sh
    export PROJECT
    [ "$doing" != install ] || sh "$here/gcp/vm.sh" "$([ -n "$dry" ] && echo plan || echo create)"
    patience=${BOOT_TIMEOUT:-180} # seconds until a machine that was just made lets anybody in
fi
[ -n "$host" ] || stop 2 "no host is named; write: make deploy HOST=user@host"

# far COMMAND: run it in the host's shell.
# shellcheck disable=SC2086 # SSH is a command with its options
far() { $SSH "$host" "$@"; }

# Who we are over there, and which compiled wheels are there already.
look() {
    # shellcheck disable=SC2016 # for the other side to expand
    far 'if [ "$(id -u)" = 0 ]; then echo root; elif sudo -n true 2>/dev/null; then echo sudo; else echo neither; fi;
        ls /var/cache/parley/wheels 2>/dev/null || true' </dev/null
}

reach() {
    until=$(($(date +%s) + ${patience:-0}))
    until found=$(look); do
        [ "$(date +%s)" -lt "$until" ] ||
            stop 8 "$host cannot be reached by ssh; its message above says why. Nothing was changed."
        sleep 5
    done
    case $found in
        root*) as_root='' ;;
        sudo*) as_root='sudo -n' ;;
        *) stop 3 "the user at $host is not root and has no sudo without a password. Nothing was changed." ;;
    esac
}

# stage DIR: the committed tree and what the host has not got yet.
stage() {
    mkdir "$1/tree"
    git -C "$root" archive HEAD -- service deploy pyproject.toml README.md CHANGELOG.md LICENSE requirements.lock \
        requirements-build.lock | tar -xf - -C "$1/tree"
    locked=$(sed -n 's/^llama-cpp-python==\([0-9.]*\).*/\1/p' "$root/requirements.lock")
    for wheel in "$cache/wheels/$locked"-*; do
        [ -d "$wheel" ] || continue
        case $found in *"${wheel##*/}"*) continue ;; esac
        mkdir -p "$1/cache/wheels"
        cp -R "$wheel" "$1/cache/wheels/"
    done
    if [ -n "${WHEELS:-}" ]; then
        mkdir "$1/wheels"
        cp "$WHEELS"/*.whl "$1/wheels/"
    fi
}

far_install="d=\$(mktemp -d) && tar STRIP -xf - -C \"\$d\" && chmod 755 \"\$d\" && { AS_ROOT env DOMAIN='${DOMAIN:-}' EMAIL='${EMAIL:-}' \
READY_TIMEOUT='${READY_TIMEOUT:-1800}' sh \"\$d/tree/deploy/install.sh\" DOING; rc=\$?; AS_ROOT rm -rf \"\$d\"; exit \$rc; }"

# send DIR WORDS: unpack DIR, or a bundle's tar, over there and run install.sh with these words.
send() {
    strip=''
    [ -d "$1" ] || strip=--strip-components=1
    command=$(printf '%s' "$far_install" | sed -e "s/AS_ROOT/$as_root/g" -e "s/STRIP/$strip/" -e "s/DOING/$2/")
    if [ -n "$dry" ]; then
        echo "+ tar -C STAGE -cf - . | $SSH $host $command"
        echo "# and over there, on a machine that has nothing of it yet:"
        # shellcheck disable=SC2086 # two words
        DRY_RUN=1 sh "$here/install.sh" $2
        return
    fi
    if [ -d "$1" ]; then tar -C "$1" -cf - . | far "$command"; else far "$command" <"$1"; fi
}

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT TERM
found='' as_root=sudo
[ -n "$dry" ] || { [ "$doing" = remove ] && [ -n "${PROJECT:-}" ]; } || reach
case $doing in
    install)
        if [ -n "${BUNDLE:-}" ]; then
            version=$(tar -xOf "$BUNDLE" --wildcards --no-wildcards-match-slash '*/version' 2>/dev/null) ||
                stop 2 "BUNDLE=$BUNDLE is not what 'make bundle' makes. Nothing was changed."
            say "deploying $version out of $BUNDLE to $host"
            send "$BUNDLE" "install $version"
            exit
        fi
        version=$(sed -n 's/^__version__ = "\(.*\)"/\1/p' "$root/service/__init__.py")-$(git -C "$root" rev-parse --short=10 HEAD)
        [ -z "$(git -C "$root" status --porcelain --untracked-files=no)" ] || say "what is not committed stays here"
        say "deploying $version to $host"
        [ -n "$dry" ] || stage "$work"
        send "$work" "install ${VERSION:-$version}"
        ;;
    remove)
        what="Remove Parley from $host, with its models and all conversations?"
        [ -z "${PROJECT:-}" ] || what="Delete the machine $host in $PROJECT, with its disk, address, firewall rules and service account?"
        if [ -z "$dry" ] && [ "${YES:-}" != 1 ]; then
            printf '%s Type yes: ' "$what" >&2
            read -r answer || answer=''
            [ "$answer" = yes ] || stop 1 "nothing was removed."
        fi
        if [ -n "${PROJECT:-}" ]; then
            DRY_RUN=$dry sh "$here/gcp/vm.sh" delete
            exit
        fi
        mkdir -p "$work/tree"
        cp -R "$here" "$work/tree/deploy"
        send "$work" remove
        ;;
    *) stop 2 "usage: deploy.sh install HOST | deploy.sh remove HOST" ;;
esac
