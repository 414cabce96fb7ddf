#!/bin/sh
# image.sh build CONTEXT [FILE] | front | run NAME PORT [podman's options] | podman WORDS: the image without a Docker engine or
# a registry, by buildah, podman and runc. The base is the tree that machine.sh makes for its machines.
# IMAGE is the name of what is built and run.
set -eu
base=localhost/parley-base
tag=${IMAGE:-localhost/parley-test}
pod() { podman --runtime runc --cgroup-manager=cgroupfs "$@"; }
case ${1:-} in
    build)
        if ! podman image exists "$base"; then
            tar -C "$(MACHINE_SUITE=bookworm "$(dirname -- "$0")/machine.sh" base)" -cf - . | podman import -q - "$base" >/dev/null
        fi
        # Steps in a chroot need no namespaces of their own. Docker's format, as OCI's has no HEALTHCHECK.
        # The limits stay below the host's, which cannot be raised everywhere.
        buildah bud --isolation chroot --format docker --layers --network host --pull-never \
            --ulimit nofile=1024:20000 --ulimit nproc=4096:4096 \
            --build-arg "BASE_IMAGE=$base" --build-arg "RUN_IMAGE=$base" --build-arg VERSION=test \
            -f "$2/${3:-Dockerfile}" -t "$tag" "$2"
        ;;
    front)
        # nginx and Prometheus as the distribution has them, for what compose.yaml takes from a registry.
        context=$(mktemp -d)
        printf 'FROM %s\nRUN apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq -y install --no-install-recommends nginx openssl prometheus && rm -f /etc/nginx/sites-enabled/default\n' \
            "$base" >"$context/Dockerfile"
        buildah bud --isolation chroot --format docker --layers --network host --pull-never \
            --ulimit nofile=1024:20000 --ulimit nproc=4096:4096 -t localhost/parley-front "$context"
        rm -rf "$context"
        ;;
    run)
        name=$2 port=$3
        shift 3
        case " $* " in *" --network "*) ;; *) set -- --network host "$@" ;; esac
        pod run -d --name "$name" --read-only --read-only-tmpfs=false \
            --tmpfs /tmp:rw,nosuid,nodev,noexec,size=64m --cap-drop=all --security-opt=no-new-privileges \
            --ulimit nofile=1024:2048 --ulimit nproc=1000:1000 --pids-limit 512 --stop-timeout 45 --log-driver=k8s-file \
            -e "PARLEY_API__PORT=$port" -e PARLEY_MODEL__NAME=pocket -e PARLEY_AUTH__ALLOW_ANONYMOUS=true "$@" "$tag"
        ;;
    podman)
        shift
        pod "$@"
        ;;
    *)
        echo "usage: image.sh build CONTEXT [FILE] | front | run NAME PORT | podman WORDS" >&2
        exit 2
        ;;
esac
