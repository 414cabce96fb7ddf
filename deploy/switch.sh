# shellcheck shell=sh disable=SC2154 # the names are install.sh's
# Sourced by install.sh: from the release that serves to the new one, with both running in between.
#
# nginx connects to /run/parley-front.sock, a link to the socket of one of two units. Turning the link
# is a rename; requests under way stay where they are, as no connection is used twice.

front=/run/parley-front.sock

point_nginx_at() { link "/run/$1/http.sock" "$front" || true; }

# start_and_try UNIT: start it, wait until a model answers, and ask it what we know the answers of.
start_and_try() {
    run systemctl reset-failed "$1.service" 2>/dev/null || true
    if ! run timeout "$ready_timeout" systemctl restart "$1.service"; then
        status=$(systemctl show -P StatusText "$1.service")
        say "$1.service does not get ready${status:+ ($status)}; the end of its log:"
        journalctl --no-pager --quiet --output=cat --lines=15 --unit "$1.service" >&2
        return 1
    fi
    PARLEY_GOLDEN_TOKEN=$golden_token \
        run "$base/releases/$version/.venv/bin/python" -B "$here/golden.py" "/run/$1/http.sock"
}

# parley_as_service WORDS: the new release's command line, as the service's user with its settings.
parley_as_service() {
    run systemd-run --quiet --pipe --wait --collect -p User=parley -p Group=parley -p UMask=0007 \
        -p StateDirectory=parley -p StateDirectoryMode=0750 -p Environment=PARLEY_STATE_DIR=/var/lib/parley \
        -p "EnvironmentFile=-$etc/parley.env" "$base/releases/$version/.venv/bin/parley" "$@"
}

# Nobody is let in without an access token, so there has to be one before the first start. The one that
# asks golden prompts gets a new secret for each switch, which nobody keeps.
make_tokens() {
    golden_token=''
    if [ -n "$dry" ]; then
        parley_as_service token create --name first
        parley_as_service token create --name deploy
        return
    fi
    tokens=$(parley_as_service token list --json) ||
        stop 6 "release $version cannot read the access tokens, for the reason above; what serves goes on."
    if [ "$tokens" = '[]' ]; then
        if setting PARLEY_AUTH__ALLOW_ANONYMOUS | grep -qix true; then return; fi
        say "the first access token, shown this once:"
        parley_as_service token create --name first 2>/dev/null
    fi
    golden_token=$(parley_as_service token rotate deploy 2>/dev/null ||
        parley_as_service token create --name deploy 2>/dev/null) ||
        stop 6 "no access token could be made; what serves goes on."
}

# The model first: where it cannot be had, nothing else has happened yet.
fetch_model() {
    if [ -n "$dry" ]; then
        parley_as_service model pull MODEL
        return
    fi
    shown=$(parley_as_service config show) ||
        stop 6 "the settings in $etc/parley.env are not accepted, for the reason above; what serves goes on."
    case $shown in *"
PARLEY_MODEL__STAND_IN="*) return ;; esac # answers until the model is there
    model=$(printf '%s\n' "$shown" | sed -n 's/^PARLEY_MODEL__NAME=//p')
    say "fetching the model $model where it is not here yet"
    parley_as_service model pull "$model" >/dev/null ||
        stop 11 "the model $model cannot be had, for the reason above; what serves goes on."
}

# The release that parley.service runs; `current` may be ahead of it after a run that broke off.
running_release() {
    pid=$(systemctl show -P MainPID parley.service)
    tr '\0' '\n' <"/proc/$pid/cmdline" 2>/dev/null | sed -n "s|^$base/\(releases/[^/]*\)/.*|\1|p" | head -n 1
}

is_in_place() {
    [ -z "$dry" ] && [ -z "$units_changed" ] && systemctl is-active --quiet parley.service &&
        [ "$was" = "releases/$version" ] && [ "$(running_release)" = "$was" ] &&
        [ "$(readlink "$front")" = /run/parley/http.sock ] &&
        [ "$(systemctl is-active parley-next.service)" = inactive ]
}

switch_to_release() {
    was=$(readlink "$base/current" 2>/dev/null) || was=''
    if is_in_place; then return; fi
    fetch_model
    make_tokens
    if [ -z "$dry" ] && [ -n "$was" ] && systemctl is-active --quiet parley.service; then
        upgrade
    else
        first_start
    fi
    changed="$changed current->$version"
}

first_start() {
    say "starting $version"
    link "releases/$version" "$base/current" || true
    if start_and_try parley; then
        point_nginx_at parley
        say "$version serves"
        return
    fi
    run systemctl stop parley.service
    if [ -n "$was" ]; then link "$was" "$base/current" || true; else run rm -f "$base/current"; fi
    [ "$was" = "releases/$version" ] || run rm -rf "$release"
    stop 6 "release $version does not serve, for the reason above; it has been taken away."
}

upgrade() {
    began=$(date +%s)
    # After a run that broke off nginx may lead to the other unit, which is about to be restarted.
    point_nginx_at parley
    say "starting $version beside ${was#releases/}"
    link "releases/$version" "$base/next" || true
    if ! start_and_try parley-next; then
        abandon_next
        stop 6 "release $version is not good, for the reason above; ${was#releases/} goes on and was not touched."
    fi
    point_nginx_at parley-next
    link "releases/$version" "$base/current" || true
    say "$version takes what is new; ${was#releases/} finishes what it has begun"
    if ! start_and_try parley; then
        link "$was" "$base/current" || true
        start_and_try parley || stop 6 "neither release starts again as parley.service; $version serves as parley-next.service."
        point_nginx_at parley
        abandon_next
        stop 6 "release $version did not start as parley.service; ${was#releases/} serves again."
    fi
    point_nginx_at parley
    run systemctl stop parley-next.service
    run rm -f "$base/next"
    count_streams "$began"
}

abandon_next() {
    run systemctl stop parley-next.service || true
    run systemctl reset-failed parley-next.service 2>/dev/null || true
    run rm -f "$base/next"
    [ "$was" = "releases/$version" ] || run rm -rf "$release"
}

# What the access log says of streams (requests for answers, streamed or not) that ended since: all, and
# those whose answer was not whole.
# That a client hung up is counted as lost as well: from here the two cannot be told apart.
count_streams() {
    sleep 1 # nginx writes a line when the last byte is out
    since=$(date -d "@$1" +%Y-%m-%dT%H:%M:%S)
    grep -E '"path":"/(v1/.*|chat.*)"' /var/log/nginx/parley.log 2>/dev/null |
        awk -F '"' -v since="$since" '$4 >= since' | awk '
            { all++ }
            /"done":""/ || /"status":50[0234]/ { lost++ }
            END { printf "parley: %d of %d streams lost during the switch\n", lost, all }' >&2
}
