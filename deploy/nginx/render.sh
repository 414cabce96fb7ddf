#!/bin/sh
# render.sh SERVER_NAME [SIX] [NGINX]: the site's configuration for this nginx, on standard output.
# The directive for HTTP/2 has moved with 1.25.1. SIX is anything where IPv6 is on.
set -eu
found=$("${3:-nginx}" -v 2>&1 | sed -n 's|.*nginx/\([0-9]*\)\.\([0-9]*\)\.\([0-9]*\).*|\1 \2 \3|p') || found=''
name=$1 six=${2:-}
tls=' ssl http2 default_server;' http2='' # what every version understands
# shellcheck disable=SC2086 # three numbers
set -- ${found:-1 22 0}
if [ $(($1 * 1000000 + $2 * 1000 + $3)) -ge 1025001 ]; then
    tls=' ssl default_server;' http2='\n    http2 on;'
fi
listen="listen 80 default_server;" listen_tls="listen 443$tls"
if [ -n "$six" ]; then
    listen="$listen\\n    listen [::]:80 default_server;" listen_tls="$listen_tls\\n    listen [::]:443$tls"
fi
sed -e "s|@SERVER_NAME@|$name|" -e "s|@LISTEN_80@|$listen|" -e "s|@LISTEN_443@|$listen_tls$http2|" \
    "$(dirname -- "$0")/site.conf"
