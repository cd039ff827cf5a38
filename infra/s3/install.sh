#!/usr/bin/env bash
# Install Ceph's monitor, storage daemon and S3 gateway from Debian; nothing to do when there.
set -euo pipefail

packages=(ceph-mon ceph-osd radosgw)
missing=0
for program in ceph-mon ceph-osd radosgw radosgw-admin monmaptool ceph; do
    command -v "$program" >/dev/null || missing=1
done
[[ $missing == 0 ]] && exit 0
if [[ $(id -u) != 0 ]] || ! command -v apt-get >/dev/null; then
    echo "not installed: apt-get install --no-install-recommends ${packages[*]}" >&2
    exit 1
fi
export DEBIAN_FRONTEND=noninteractive
install=(apt-get install -yq --no-install-recommends "${packages[@]}")
"${install[@]}" || { apt-get update -q && "${install[@]}"; }
