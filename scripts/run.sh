#!/bin/bash
# Runs a container in a VM and prints what it printed. The bundle is made here,
# from busybox-static and `runv spec`.
set -eu
cd "$(dirname "$0")/.."

RUNV_KERNEL=${RUNV_KERNEL:-$(agent/kernel/build.sh | tail -n 1)}
export RUNV_KERNEL

bundle=$(mktemp -d)
trap 'rm -rf "$bundle"' EXIT
scripts/rootfs.sh "$bundle/rootfs"
./runv spec --bundle "$bundle"
script='echo "hello from $(hostname), kernel $(uname -r), as $(id)"; ps; free -m; ls /'
sed -i -e 's/"terminal": true/"terminal": false/' -e "s|^\(\s*\)\"sh\"$|\1\"sh\", \"-c\", \"${script//\"/\\\\\"}\"|" "$bundle/config.json"

echo "==> the host: kernel $(uname -r)" >&2
echo "==> runv run --bundle $bundle hello" >&2
./runv run --bundle "$bundle" "hello-$$"
