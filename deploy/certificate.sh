# shellcheck shell=sh disable=SC2154 # the names are install.sh's
# Sourced by install.sh: nginx's certificate, made here at first and a known authority's afterwards.

# What ours are signed with; they are ours to replace.
self_signer='Parley on this machine'

# certificate_lasts SECONDS: there is none, or it is good for that long.
certificate_lasts() {
    ! [ -s "$etc/tls/fullchain.pem" ] || ! command -v openssl >/dev/null || openssl x509 -checkend "$1" -noout -in "$etc/tls/fullchain.pem" >/dev/null
}

certificate_is_ours() {
    case $(openssl x509 -noout -issuer -in "$etc/tls/fullchain.pem") in
        *"$self_signer"*) ;;
        *) return 1 ;;
    esac
}

# Before anything is changed: one that an operator put there, and that nobody can use any more.
require_certificate() {
    if [ -n "$dry" ] || certificate_lasts 0 || certificate_is_ours; then return; fi
    ended=$(openssl x509 -noout -enddate -in "$etc/tls/fullchain.pem" | sed 's/notAfter=//')
    stop 10 "the certificate in $etc/tls ended on $ended; renew it (certbot renew --force-renewal), or remove" \
        "$etc/tls for a self-signed one. Nothing was changed."
}

# One of ours is replaced two weeks before it ends, as `parley doctor` says.
certificate_is_wanted() {
    [ -z "$dry" ] && [ -s "$etc/tls/privkey.pem" ] || return 0
    ! certificate_lasts 1209600 && certificate_is_ours
}

make_certificate() {
    name=${domain:-$(hostname)}
    say "making a self-signed certificate for $name"
    run openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 825 -sha256 \
        -keyout "$etc/tls/privkey.pem" -out "$etc/tls/fullchain.pem" -subj "/O=$self_signer/CN=$name" \
        -addext "subjectAltName=DNS:$name,DNS:localhost,IP:127.0.0.1" \
        -addext extendedKeyUsage=serverAuth 2>/dev/null
    run chmod 600 "$etc/tls/privkey.pem"
    changed="$changed certificate"
    if [ -z "$dry" ] && systemctl is-active --quiet nginx.service; then systemctl reload nginx.service; fi
}

# A certificate that browsers trust, when DOMAIN and EMAIL are given; renewed by certbot's timer.
obtain_certificate() {
    [ -n "$domain" ] || return 0
    put "$here/nginx/certbot-hook.sh" /etc/letsencrypt/renewal-hooks/deploy/parley 755 || true
    # Another authority than certbot's own: `server =` in /etc/letsencrypt/cli.ini.
    run certbot certonly --webroot -w /var/lib/parley-acme -d "$domain" --email "$email" \
        --agree-tos --non-interactive --keep-until-expiring --quiet || {
        say "no certificate for $domain yet (its name must lead to this machine, port 80); the self-signed one stays."
        return 0
    }
    # The hook runs at renewals; certbot calls it for the first one, too, but not when there is one already.
    if [ -z "$dry" ] && ! cmp -s "/etc/letsencrypt/live/$domain/fullchain.pem" "$etc/tls/fullchain.pem"; then
        RENEWED_LINEAGE=/etc/letsencrypt/live/$domain sh "$here/nginx/certbot-hook.sh"
    fi
}
