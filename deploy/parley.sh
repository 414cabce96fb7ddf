#!/bin/sh
# /usr/local/bin/parley: the service's command line on this machine, with its settings.
#   sudo parley token create --name laptop
#   sudo parley doctor
# It runs as the service's user, so that whatever it makes is the service's; `doctor` stays root, as
# only root may ask nginx, and reads the service's files as that user itself.
set -eu
[ "$(id -u)" -eq 0 ] || exec sudo -- "$0" "$@"
export HOME=/var/lib/parley PYTHONDONTWRITEBYTECODE=1
export PARLEY_STATE_DIR=/var/lib/parley PARLEY_RUNTIME_DIR=/run/parley/private PARLEY_API__UNIX_SOCKET=/run/parley/http.sock
umask 007
cd /
program=/opt/parley/current/.venv/bin/parley
# systemd's own reader of parley.env, which is no shell script.
while IFS= read -r line; do
    case $line in
        [A-Za-z_]*=*)
            value=${line#*=}
            case $value in \"*\") value=${value#\"} value=${value%\"} ;; "'"*"'") value=${value#"'"} value=${value%"'"} ;; esac
            export "${line%%=*}=$value"
            ;;
    esac
done </etc/parley/parley.env
if [ "${1:-}" = doctor ]; then exec "$program" "$@"; fi
exec runuser -u parley -- "$program" "$@"
