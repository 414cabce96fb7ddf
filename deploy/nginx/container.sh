#!/bin/sh
# What compose.yaml's nginx starts with: the same configuration as on a machine, in front of the
# container `parley`, and a self-signed certificate where there is none.
set -eu
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
tls=/etc/parley/tls
if [ ! -s "$tls/privkey.pem" ]; then
    command -v openssl >/dev/null || { apt-get -qq update && apt-get -qq -y install --no-install-recommends openssl; }
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 825 -subj /CN=localhost \
        -addext subjectAltName=DNS:localhost,IP:127.0.0.1 -keyout "$tls/privkey.pem" -out "$tls/fullchain.pem"
fi
mkdir -p /etc/nginx/snippets
rm -f /etc/nginx/conf.d/default.conf
for name in proxy stream headers errors; do cp "$here/$name.inc" "/etc/nginx/snippets/parley-$name.inc"; done
sed 's|server unix:/run/parley-front.sock|server parley:8000|' "$here/http.conf" >/etc/nginx/conf.d/10-parley-http.conf
cp "$here/errors-http.conf" /etc/nginx/conf.d/11-parley-errors.conf
sh "$here/render.sh" _ >/etc/nginx/conf.d/20-parley.conf
exec nginx -g 'daemon off; worker_shutdown_timeout 15m;'
