#!/bin/sh
# install.sh install VERSION | remove: the target's side of `make deploy`, run as root in an unpacked
# bundle. Safe to repeat: what is in place already is left alone. DRY_RUN=1 prints instead of doing.
#
#   /opt/parley/releases/VERSION  the code with its own .venv, root's, read-only for the service
#   /opt/parley/current           a link to the release that serves
#   /etc/parley                   settings and certificate; made once, never overwritten
#   /var/lib/parley               the state (PARLEY_STATE_DIR)
#   /var/cache/parley             compiled wheels
#
# Exit codes: 2 wrong use or system, 3 not root, 4 a port is taken, 5 too little disk, 6 the new
# release is not good and the old one goes on, 7 nginx refuses its configuration, 9 packages cannot be
# had, 10 the certificate has expired and is not ours to replace, 11 the model cannot be had.
set -eu
umask 022
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin

here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
tree=$(dirname -- "$here")
bundle=$(dirname -- "$tree")
base=/opt/parley
etc=/etc/parley
cache=/var/cache/parley
units=/etc/systemd/system
dry=${DRY_RUN:-}
domain=${DOMAIN:-}
email=${EMAIL:-}
ready_timeout=${READY_TIMEOUT:-1800}
keep=${KEEP_RELEASES:-3}
changed='' # what this run has changed, in words

say() { echo "parley: $*" >&2; }
stop() { code=$1; shift; say "$*"; exit "$code"; }

# run COMMAND...: do it, or in a dry run print it.
run() { if [ -n "$dry" ]; then echo "+ $*"; else "$@"; fi; }

# put FILE PATH MODE: make PATH hold FILE. True when that changed something.
put() {
    if [ -z "$dry" ] && [ -f "$2" ] && cmp -s "$1" "$2"; then return 1; fi
    run install -D -m "$3" "$1" "$2.new"
    run mv -f "$2.new" "$2"
    changed="$changed $2"
}

# link TARGET PATH: a link that is never absent, because rename puts it in place.
link() {
    if [ -z "$dry" ] && [ "$(readlink "$2" 2>/dev/null)" = "$1" ]; then return 1; fi
    run ln -sfn "$1" "$2.new"
    run mv -fT "$2.new" "$2"
}

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

# shellcheck source=deploy/packages.sh
. "$here/packages.sh"
# shellcheck source=deploy/certificate.sh
. "$here/certificate.sh"
# shellcheck source=deploy/release.sh
. "$here/release.sh"
# shellcheck source=deploy/switch.sh
. "$here/switch.sh"

# --- is this a machine for it --------------------------------------------------------------------

require_machine() {
    [ -n "$dry" ] && return
    [ "$(id -u)" -eq 0 ] || stop 3 "this has to run as root; use a user with sudo."
    { command -v apt-get && [ -d /run/systemd/system ]; } >/dev/null ||
        stop 2 "this machine has no apt or no systemd; Debian 12, Ubuntu 22.04 or 24.04 is needed."
    exec 9>/run/parley-install.lock
    flock -n 9 || stop 2 "another installation is running on this machine; wait for it."
}

require_disk() {
    [ -n "$dry" ] && return
    need=$((1024 * 1024)) # KiB: a release, its libraries, and room to breathe
    wheel_is_cached || need=$((4 * 1024 * 1024)) # and a compiler with what it writes
    [ -e "$base/releases/$version/.complete" ] && need=$((64 * 1024))
    free=$(df -Pk /opt | awk 'NR == 2 { print $4 }')
    [ "$free" -ge "$need" ] ||
        stop 5 "/opt has $((free / 1024)) MiB free and $((need / 1024)) MiB are needed; nothing was changed."
}

require_ports() {
    [ -n "$dry" ] && return
    for port in 80 443; do
        holder=$(ss -Hltnp "sport = :$port" | sed -n 's/.*users:(("\([^"]*\)".*/\1/p' | sort -u | head -n 1)
        case $holder in
            '' | nginx) ;;
            *) stop 4 "port $port is taken by $holder; stop it, as nginx needs that port. Nothing was changed." ;;
        esac
    done
}

# --- packages, users, secrets ----------------------------------------------------------------------

install_foundation() {
    # Any flavour will do, but for Ubuntu 22.04's nginx-light, which cannot limit.
    server=nginx
    if [ -z "$dry" ] && command -v nginx >/dev/null; then
        server=''
        ! nginx -V 2>&1 | grep -q without-http_limit_req_module || server=nginx-core
    fi
    # shellcheck disable=SC2086 # empty when there is one already
    install_packages $server openssl curl ca-certificates ${domain:+certbot}
    put "$here/systemd/sysusers.conf" /usr/lib/sysusers.d/parley.conf 644 || true
    run systemd-sysusers parley.conf
    put "$here/systemd/tmpfiles.conf" /usr/lib/tmpfiles.d/parley.conf 644 || true
    run systemd-tmpfiles --create parley.conf
    run install -d -m 755 "$base" "$base/releases" "$etc"
    # The certificate is public, and looked at by `parley doctor`; the key is root's.
    run install -d -m 755 "$etc/tls"
    put "$here/parley.sh" /usr/local/bin/parley 755 || true
    put "$here/systemd/parley.env.example" "$etc/parley.env.example" 644 || true
    if [ -n "$dry" ] || [ ! -e "$etc/parley.env" ]; then
        run install -m 640 -g parley /dev/null "$etc/parley.env"
        changed="$changed $etc/parley.env"
    fi
    install_model
    ! certificate_is_wanted || make_certificate
}

# What a bundle brings along, and the settings that let it work without a network. Only a machine
# that has no settings yet gets them.
install_model() {
    [ -f "$bundle/model" ] || return 0
    for model in "$bundle"/models/*.gguf; do
        [ -e "$model" ] || continue
        run install -d -o parley -g parley -m 750 /var/lib/parley /var/lib/parley/models
        cmp -s "$model" "/var/lib/parley/models/${model##*/}" ||
            run install -o parley -g parley -m 640 "$model" /var/lib/parley/models/
    done
    [ ! -s "$etc/parley.env" ] || return 0
    printf 'PARLEY_MODEL__NAME=%s\nPARLEY_MODEL__OFFLINE=true\n' "$(cat "$bundle/model")" >"$scratch/parley.env"
    run install -m 640 -g parley "$scratch/parley.env" "$etc/parley.env"
}

# --- units and nginx ---------------------------------------------------------------------------------

install_units() {
    units_changed=''
    next=$scratch/parley-next.service
    sed 's|/opt/parley/current/|/opt/parley/next/|' "$here/systemd/parley.service" >"$next"
    put "$here/systemd/parley.service" "$units/parley.service" 644 && units_changed=yes
    put "$next" "$units/parley-next.service" 644 && units_changed=yes
    for unit in parley-backup.service parley-backup.timer; do
        put "$here/systemd/$unit" "$units/$unit" 644 && units_changed=yes
    done
    run install -d -m 755 "$units/parley.service.d"
    link parley.service.d "$units/parley-next.service.d" && units_changed=yes
    drop_in gpu "$([ -e /dev/nvidiactl ] && echo yes)" && units_changed=yes
    drop_in offline "$(setting PARLEY_MODEL__OFFLINE | grep -ix true)" && units_changed=yes
    drain_drop_in && units_changed=yes
    [ -z "$units_changed" ] || run systemctl daemon-reload
    run systemctl enable --quiet parley.service nginx.service
    run systemctl enable --now --quiet parley-backup.timer
}

# setting NAME: what parley.env says.
setting() { sed -n "s/^$1=[\"']*\([^\"']*\)[\"']*\$/\1/p" "$etc/parley.env" 2>/dev/null | tail -n 1; }

# drop_in NAME WANTED: have the drop-in or not. True when that changed something.
drop_in() {
    path=$units/parley.service.d/$1.conf
    if [ -n "$2" ]; then put "$here/systemd/$1.conf" "$path" 644; return; fi
    [ -e "$path" ] || return 1
    run rm -f "$path"
    changed="$changed -$path"
}

# systemd has to wait a little longer than the service drains.
drain_drop_in() {
    seconds=$(setting PARLEY_DRAIN_SECONDS)
    path=$units/parley.service.d/drain.conf
    if [ -z "$seconds" ]; then [ -e "$path" ] && run rm -f "$path"; return; fi
    printf '# From PARLEY_DRAIN_SECONDS=%s in parley.env, by the installer.\n[Service]\nTimeoutStopSec=%s\n' \
        "$seconds" "$(awk "BEGIN { print int($seconds) + 16 }")" >"$scratch/drain.conf"
    put "$scratch/drain.conf" "$path" 644
}

install_nginx() {
    [ -n "$dry" ] || cp -a /etc/nginx "$scratch/nginx"
    nginx_changed=''
    six=''
    [ ! -e /proc/net/if_inet6 ] || six=yes
    sh "$here/nginx/render.sh" "${domain:-_}" "$six" >"$scratch/site.conf"
    put "$scratch/site.conf" /etc/nginx/sites-available/parley 644 && nginx_changed=yes
    put "$here/nginx/http.conf" /etc/nginx/conf.d/10-parley-http.conf 644 && nginx_changed=yes
    put "$here/nginx/errors-http.conf" /etc/nginx/conf.d/11-parley-errors.conf 644 && nginx_changed=yes
    put "$here/nginx/main.conf" /etc/nginx/modules-enabled/50-parley-main.conf 644 && nginx_changed=yes
    for name in proxy stream headers errors; do
        put "$here/nginx/$name.inc" "/etc/nginx/snippets/parley-$name.inc" 644 && nginx_changed=yes
    done
    link ../sites-available/parley /etc/nginx/sites-enabled/parley && nginx_changed=yes
    if [ -L /etc/nginx/sites-enabled/default ]; then
        run rm -f /etc/nginx/sites-enabled/default
        run touch "$etc/had-default-site"
        nginx_changed=yes
    fi
    if ! run nginx -t -q; then
        rm -rf /etc/nginx
        mv "$scratch/nginx" /etc/nginx
        stop 7 "nginx refuses the configuration, for the reason above; its old one is back and still runs."
    fi
    # A sandbox begins with a start; everything else is a reload, which no stream notices.
    if put "$here/nginx/hardening.conf" "$units/nginx.service.d/parley-hardening.conf" 644; then
        run systemctl daemon-reload
        run systemctl restart nginx.service
    elif ! systemctl is-active --quiet nginx.service; then
        run systemctl start nginx.service
    elif [ -n "$nginx_changed" ]; then
        run systemctl reload nginx.service
    fi
}

# --- the two things to do -------------------------------------------------------------------------------

do_install() {
    version=$1
    case $version in '' | *[!A-Za-z0-9._+-]*) stop 2 "VERSION '$version' is not accepted; use letters, digits, . _ + -" ;; esac
    [ -z "$domain" ] || [ -n "$email" ] || stop 2 "DOMAIN=$domain needs EMAIL= as well, for the certificate authority. Nothing was changed."
    require_machine
    require_disk
    require_ports
    require_certificate
    install_foundation
    build_release
    install_units
    install_nginx
    switch_to_release
    obtain_certificate
    prune_releases
    if [ -n "$changed" ]; then say "done; changed:$changed"; else say "done; nothing had to be changed"; fi
}

do_remove() {
    require_machine
    say "removing the service, its releases, settings and state"
    run systemctl disable --now --quiet parley-backup.timer parley-next.service parley.service 2>/dev/null || true
    run rm -f "$units/parley-backup.service" "$units/parley-backup.timer"
    run rm -rf "$units/parley.service" "$units/parley-next.service" "$units/parley.service.d" "$units/parley-next.service.d"
    run rm -f "$units/nginx.service.d/parley-hardening.conf"
    run rmdir --ignore-fail-on-non-empty "$units/nginx.service.d" 2>/dev/null || true
    run rm -f /etc/nginx/sites-enabled/parley /etc/nginx/sites-available/parley /etc/nginx/conf.d/1?-parley-*.conf \
        /etc/nginx/snippets/parley-*.inc /etc/nginx/modules-enabled/50-parley-main.conf \
        /etc/letsencrypt/renewal-hooks/deploy/parley /var/log/nginx/parley*.log*
    [ ! -e "$etc/had-default-site" ] || run ln -sfn ../sites-available/default /etc/nginx/sites-enabled/default
    run systemctl daemon-reload
    run systemctl reset-failed 2>/dev/null || true
    run systemctl try-restart nginx.service || say "nginx does not start again; see: systemctl status nginx"
    run rm -f /var/lib/systemd/timers/stamp-parley-backup.timer
    run rm -rf "$base" "$etc" /var/lib/parley /var/lib/parley-acme "$cache" /run/parley-front.sock
    run rm -f /usr/lib/sysusers.d/parley.conf /usr/lib/tmpfiles.d/parley.conf /run/parley-install.lock /usr/local/bin/parley
    for user in parley-build parley; do
        ! getent passwd "$user" >/dev/null || run userdel "$user"
    done
    ! getent group parley >/dev/null || run groupdel parley
    say "removed; packages that apt installed (nginx, Python, OpenBLAS) stay"
}

case ${1:-} in
    install) do_install "${2:-}" ;;
    remove) do_remove ;;
    *) stop 2 "usage: install.sh install VERSION | install.sh remove" ;;
esac
