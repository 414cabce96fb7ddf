#!/bin/sh
# The startup script of a machine with a GPU: NVIDIA's driver from Debian, once. It takes some minutes
# and a reboot; `make deploy` afterwards finds /dev/nvidiactl and opens it to the service.
set -eu
if command -v nvidia-smi >/dev/null; then exit 0; fi
sed -i 's/^Components: main$/Components: main contrib non-free non-free-firmware/' /etc/apt/sources.list.d/*.sources
apt-get -qq update
DEBIAN_FRONTEND=noninteractive apt-get -qq -y install --no-install-recommends linux-headers-cloud-amd64 nvidia-driver-cuda nvidia-kernel-dkms nvidia-smi ||
    DEBIAN_FRONTEND=noninteractive apt-get -qq -y install --no-install-recommends linux-headers-cloud-amd64 nvidia-driver nvidia-smi
reboot
