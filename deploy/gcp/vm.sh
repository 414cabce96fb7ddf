#!/bin/sh
# vm.sh plan|create|delete: the machine on Google Cloud that `make deploy PROJECT= ZONE=` deploys to.
#
# Makes a plain Debian machine and nothing more; install.sh does the rest over ssh, where a failure is
# seen. Every step is skipped when its result is there, so that a run that broke off is repeated.
# `delete` takes all of it away again, disk and address included.
#   PROJECT=my-project ZONE=europe-west1-b deploy/gcp/vm.sh plan     prints every command, runs none, as DRY_RUN=1 does
# MACHINE=e2-standard-2 is the kind, GPU=nvidia-l4 a GPU (with MACHINE=g2-standard-8), VM=parley its name.
set -eu

project=${PROJECT:-}
zone=${ZONE:-europe-west1-b}
region=${zone%-*}
name=${VM:-parley}
machine=${MACHINE:-e2-standard-2}
gpu=${GPU:-}
image_family=${IMAGE_FAMILY:-debian-12}
image_project=${IMAGE_PROJECT:-debian-cloud}
account=$name-vm@$project.iam.gserviceaccount.com
doing=${1:-plan}
dry=${DRY_RUN:-}
[ "$doing" != plan ] || dry=1 doing=create

[ -n "$project" ] || { echo "parley: PROJECT is not set; write: make deploy PROJECT=my-project ZONE=$zone" >&2; exit 2; }
case $doing in create | delete) ;; *) echo "parley: vm.sh takes plan, create or delete, not '$doing'" >&2; exit 2 ;; esac
[ -n "$dry" ] || command -v gcloud >/dev/null || { echo "parley: gcloud is missing; install the Google Cloud CLI and run: gcloud auth login" >&2; exit 2; }

# cloud WORDS: run gcloud, or in a dry run print it.
cloud() {
    if [ -n "$dry" ]; then echo "+ gcloud $* --project=$project"; else gcloud "$@" --project="$project"; fi
}

# missing WORDS: true when gcloud cannot describe it; a dry run assumes the most work.
missing() {
    if [ -n "$dry" ]; then [ "$doing" = create ]; return; fi
    ! gcloud "$@" --project="$project" '--format=value(name)' >/dev/null 2>&1
}

# once KIND NAME WHERE WORDS: create it unless it is there.
once() {
    kind=$1 what=$2 where=$3
    shift 3
    # shellcheck disable=SC2086 # kinds are two or three words, the place one or none
    ! missing $kind describe "$what" $where || cloud $kind create "$@" $where
}

create() {
    # Nobody's rights: the service calls no Google API. The default account could often edit everything.
    once "iam service-accounts" "$account" "" "$name-vm" "--display-name=$name-machine-without-roles"
    # Names and certificates outlive the machine.
    once "compute addresses" "$name" "--region=$region" "$name"
    # The world comes in at 80 and 443; ssh only through Google's proxy, which asks who you are.
    once "compute firewall-rules" "$name-web" "" "$name-web" --direction=INGRESS --allow=tcp:80,tcp:443 \
        --source-ranges=0.0.0.0/0 "--target-tags=$name"
    once "compute firewall-rules" "$name-ssh" "" "$name-ssh" --direction=INGRESS --allow=tcp:22 \
        --source-ranges=35.235.240.0/20 "--target-tags=$name"
    set -- "$name" "--machine-type=$machine" "--image-family=$image_family" "--image-project=$image_project" \
        "--boot-disk-size=${DISK_GB:-50}GB" --boot-disk-type=pd-balanced "--address=$name" "--tags=$name" \
        "--labels=app=$name" "--service-account=$account" --scopes=cloud-platform \
        --shielded-vtpm --shielded-integrity-monitoring --metadata=enable-oslogin=TRUE,block-project-ssh-keys=TRUE
    if [ -n "$gpu" ]; then
        # Such a machine cannot be moved while it runs, and the driver's modules are not signed.
        set -- "$@" --maintenance-policy=TERMINATE "--accelerator=type=$gpu,count=1" --no-shielded-secure-boot \
            "--metadata-from-file=startup-script=$(dirname -- "$0")/driver.sh"
    else
        set -- "$@" --shielded-secure-boot
    fi
    once "compute instances" "$name" "--zone=$zone" "$@"
}

# gone KIND NAME WHERE: delete it if it is there. deploy.sh has asked already.
gone() {
    # shellcheck disable=SC2086 # kinds are two or three words, the place one or none
    missing $1 describe "$2" $3 || cloud $1 delete "$2" $3 --quiet
}

delete() {
    gone "compute instances" "$name" "--zone=$zone"
    gone "compute firewall-rules" "$name-ssh" ""
    gone "compute firewall-rules" "$name-web" ""
    gone "compute addresses" "$name" "--region=$region"
    gone "iam service-accounts" "$account" ""
}

"$doing"
