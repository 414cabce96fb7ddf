#!/bin/sh
# /etc/letsencrypt/renewal-hooks/deploy/parley: what certbot runs when it has a new certificate.
set -eu
install -m 600 "$RENEWED_LINEAGE/privkey.pem" /etc/parley/tls/privkey.pem.new
install -m 644 "$RENEWED_LINEAGE/fullchain.pem" /etc/parley/tls/fullchain.pem.new
mv -f /etc/parley/tls/privkey.pem.new /etc/parley/tls/privkey.pem
mv -f /etc/parley/tls/fullchain.pem.new /etc/parley/tls/fullchain.pem
systemctl reload nginx.service
