#!/bin/sh
# ssh.sh HOST COMMAND: what deploy.sh uses for SSH with a machine of vm.sh, which ssh reaches only through
# Google's proxy. HOST is the machine's name; PROJECT and ZONE say where it is.
set -eu
host=$1
shift
exec gcloud compute ssh "$host" --project="$PROJECT" --zone="${ZONE:-europe-west1-b}" --tunnel-through-iap --quiet --command="$*"
