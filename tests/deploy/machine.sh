#!/bin/sh
# machine.sh up|reboot|down|ssh|base: a throw-away machine on this one, to deploy to as to any other.
#
# systemd-nspawn boots a real systemd with sshd in a network namespace of its own, on a copy-on-write
# layer over a pristine base that debootstrap makes once. Needs root and: systemd-container debootstrap
# openssh-client nftables iproute2. `up` prints the address; `ssh` prints the command that gets there.
# MACHINE names it (9 letters at most, they become an interface's), MACHINE_SUITE its distribution
# (bookworm, trixie, jammy, noble), MACHINE_SUBNET its network, MACHINE_NET=none cuts it off from all others,
# MACHINE_CA a bundle of certificates that it trusts as well, MACHINE_STATE where bases and disks lie.
set -eu

state=${MACHINE_STATE:-${PARLEY_CACHE_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/parley}/deploy-lab}
name=${MACHINE:-parley1}
suite=${MACHINE_SUITE:-bookworm}
# RFC 2544's range for benchmarks: no network of anybody's. The host is .1, the machine .2.
subnet=${MACHINE_SUBNET:-198.18.7}
base=$state/base-$suite
dir=$state/vm/$name
root=$dir/root
key=$state/id_ed25519
address=$subnet.2

say() { echo "machine: $*" >&2; }
stop() { say "$*"; exit 1; }

ssh_command() {
    # The key of a machine is pinned when it is made, not ignored.
    echo "ssh -i $key -o IdentitiesOnly=yes -o BatchMode=yes -o ConnectTimeout=3" \
        "-o UserKnownHostsFile=$dir/known_hosts -o StrictHostKeyChecking=accept-new -o LogLevel=ERROR"
}

# --- cgroups: in every hierarchy a child of the caller's own, so that machines do not share a tree -----

cgroup_dirs() {
    while IFS=: read -r _ controllers path; do
        case $controllers in
            '') for d in /sys/fs/cgroup/unified /sys/fs/cgroup; do
                [ -e "$d/cgroup.controllers" ] && { echo "$d${path%/}"; break; }
            done ;;
            name=*) [ -d "/sys/fs/cgroup/${controllers#name=}" ] && echo "/sys/fs/cgroup/${controllers#name=}${path%/}" ;;
            cpuset) ;; # a child of it has to be filled in first, and nothing needs it
            *) [ -d "/sys/fs/cgroup/$controllers" ] && echo "/sys/fs/cgroup/$controllers${path%/}" ;;
        esac
    done </proc/self/cgroup
    return 0
}

enter_cgroup() {
    me=$(sh -c 'echo $PPID')
    for d in $(cgroup_dirs); do
        { mkdir -p "$d/lab-$name" && echo "$me" >"$d/lab-$name/cgroup.procs"; } 2>/dev/null || say "no cgroup in $d"
        # All that runs in it together would else count as much as one process of this machine.
        [ ! -e "$d/lab-$name/cpu.shares" ] || echo 4096 >"$d/lab-$name/cpu.shares"
        [ ! -e "$d/lab-$name/cpu.weight" ] || echo 400 >"$d/lab-$name/cpu.weight"
    done
}

leave_cgroups() {
    for d in $(cgroup_dirs); do
        [ ! -d "$d/lab-$name" ] || find "$d/lab-$name" -depth -type d -exec rmdir {} \; 2>/dev/null || true
    done
}

# --- the base: what a fresh cloud machine has, and no more -----------------------------------------------

make_base() {
    [ ! -e "$base/.lab-complete" ] || return 0
    packages=systemd,systemd-sysv,dbus,openssh-server,ca-certificates,curl,sudo,python3,iproute2,procps,kmod,libnss-systemd
    components=main mirror=${MACHINE_MIRROR:-} script=''
    case $suite in
        jammy | noble)
            # All of Ubuntu's releases are made by one script, which Debian has under its oldest name.
            components=main,universe script=/usr/share/debootstrap/scripts/gutsy
            [ -n "$mirror" ] || stop "MACHINE_MIRROR is not set; for $suite it has to name an archive of Ubuntu's"
            ;;
        *)
            packages=$packages,python3-venv
            # shellcheck disable=SC2016 # a name of apt's
            [ -n "$mirror" ] || mirror=$(apt-get indextargets --format '$(SITE)' 'Created-By: Packages' | grep debian | grep -v security | head -n 1)
            ;;
    esac
    mkdir -p "$state"
    # What was interrupted may still have /proc and /sys mounted.
    for mounted in "$base.tmp/proc" "$base.tmp/sys"; do
        ! mountpoint -q "$mounted" || umount "$mounted"
    done
    rm -rf --one-file-system "$base.tmp"
    # shellcheck disable=SC2086 # a script or none
    debootstrap --variant=minbase --components=$components --include=$packages "$suite" "$base.tmp" "$mirror" $script \
        >"$state/debootstrap-$suite.log" 2>&1 ||
        { tail -n 20 "$state/debootstrap-$suite.log" >&2; stop "debootstrap failed"; }
    mirror=$(awk '$1 == "deb" { print $2; exit }' "$base.tmp/etc/apt/sources.list")
    security=$mirror
    case $suite in jammy | noble) ;; *) security=${mirror%/debian}/debian-security ;; esac
    for pocket in "$mirror $suite" "$mirror $suite-updates" "$security $suite-security"; do
        echo "deb $pocket $(echo "$components" | tr , ' ')"
    done >"$base.tmp/etc/apt/sources.list"
    rm -f "$base.tmp"/etc/ssh/ssh_host_* "$base.tmp"/var/cache/apt/archives/*.deb
    : >"$base.tmp/etc/machine-id"
    touch "$base.tmp/.lab-complete"
    mv "$base.tmp" "$base"
}

make_disk() {
    mkdir -p "$dir/upper" "$dir/work" "$root"
    [ -f "$key" ] || ssh-keygen -q -t ed25519 -N '' -C deploy-lab -f "$key"
    mount -t overlay overlay -o "lowerdir=$base,upperdir=$dir/upper,workdir=$dir/work" "$root"
    [ ! -e "$root/etc/hosts.lab" ] || return 0
    install -d -m 700 "$root/root/.ssh"
    install -m 600 "$key.pub" "$root/root/.ssh/authorized_keys"
    echo "$name" >"$root/etc/hostname"
    printf '127.0.0.1 localhost\n127.0.1.1 %s\n' "$name" >"$root/etc/hosts"
    ssh-keygen -q -t ed25519 -N '' -f "$root/etc/ssh/ssh_host_ed25519_key"
    for unit in systemd-networkd-wait-online.service systemd-timesyncd.service systemd-resolved.service console-getty.service; do
        ln -sf /dev/null "$root/etc/systemd/system/$unit"
    done
    rm -f "$root/etc/resolv.conf"
    [ "${MACHINE_NET:-}" = none ] || cp -L /etc/resolv.conf "$root/etc/resolv.conf"
    [ -z "${MACHINE_CA:-}" ] || cp -L "$MACHINE_CA" "$root/etc/ssl/certs/ca-certificates.crt"
    # nspawn mounts the controllers of cgroup v1 read-only, and systemd decides once which it may use.
    {
        echo '#!/bin/sh'
        echo 'for c in memory pids cpu cpuacct; do'
        # shellcheck disable=SC2016 # for the other shell to expand
        echo '    [ -d /sys/fs/cgroup/$c ] && mount -o remount,bind,rw /sys/fs/cgroup/$c 2>/dev/null'
        echo 'done'
        echo 'exec /lib/systemd/systemd'
    } >"$root/sbin/lab-init"
    chmod 755 "$root/sbin/lab-init"
    touch "$root/etc/hosts.lab"
}

connect() {
    ip netns add "lab-$name"
    ip link add "h-$name" type veth peer name host0 netns "lab-$name"
    ip addr add "$subnet.1/30" dev "h-$name"
    ip link set "h-$name" up
    ip -n "lab-$name" addr add "$address/30" dev host0
    ip -n "lab-$name" link set host0 up
    ip -n "lab-$name" link set lo up
    # Without a route out and without a name server: a machine in a cellar.
    [ "${MACHINE_NET:-}" != none ] || return 0
    ip -n "lab-$name" route add default via "$subnet.1"
    sysctl -qw net.ipv4.ip_forward=1
    # A table of its own, removed as a whole.
    printf 'table ip lab_%s {\n chain post { type nat hook postrouting priority 100; ip saddr %s.0/30 oifname != "h-%s" masquerade; }\n}\n' \
        "$name" "$subnet" "$name" | nft -f -
}

boot() {
    # No systemd on this host that it could register with; its own session, so that it outlives the shell.
    (
        enter_cgroup
        exec setsid systemd-nspawn -D "$root" --machine="$name" --register=no --keep-unit \
            --network-namespace-path="/run/netns/lab-$name" --resolv-conf=off --link-journal=no \
            --kill-signal=SIGRTMIN+3 --console=read-only \
            --system-call-filter=bpf --capability=CAP_BPF,CAP_NET_ADMIN,CAP_PERFMON /sbin/lab-init \
            </dev/null >"$dir/console.log" 2>&1
    ) &
    echo $! >"$dir/pid"
    tries=0
    while :; do
        kill -0 "$(cat "$dir/pid")" 2>/dev/null || { tail -n 20 "$dir/console.log" >&2; stop "the machine died"; }
        # shellcheck disable=SC2046 # a command with its options
        found=$($(ssh_command) "root@$address" 'systemctl is-system-running' 2>/dev/null || true)
        case $found in running | degraded) break ;; esac
        tries=$((tries + 1))
        [ "$tries" -lt 240 ] || { tail -n 20 "$dir/console.log" >&2; stop "no ssh after two minutes"; }
        sleep 0.5
    done
}

power_off() {
    [ -s "$dir/pid" ] || return 0
    pid=$(cat "$dir/pid")
    kill -TERM "$pid" 2>/dev/null || true # nspawn: an orderly shut-down
    tries=0
    while kill -0 "$pid" 2>/dev/null && [ "$tries" -lt 450 ]; do
        sleep 0.2
        tries=$((tries + 1))
    done
    ! kill -KILL "$pid" 2>/dev/null || say "$name had to be killed"
    rm -f "$dir/pid"
}

disconnect() {
    leave_cgroups
    ip link del "h-$name" 2>/dev/null || true
    ip netns del "lab-$name" 2>/dev/null || true
    nft delete table ip "lab_$name" 2>/dev/null || true
    ! mountpoint -q "$root" || umount "$root"
}

# Never across a mount that could not be undone.
forget() { rm -rf --one-file-system "$dir"; }

case ${1:-} in
    up)
        make_base
        power_off
        disconnect
        forget
        make_disk
        connect
        boot
        echo "$address"
        ;;
    reboot)
        power_off
        disconnect
        make_disk
        connect
        boot
        ;;
    down)
        power_off
        disconnect
        forget
        ;;
    ssh) ssh_command ;;
    base)
        make_base
        echo "$base"
        ;;
    *) stop "usage: machine.sh up | reboot | down | ssh | base" ;;
esac
