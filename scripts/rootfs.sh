#!/bin/bash
# Makes a root file system of busybox in the directory given.
set -eu
root=${1:?usage: rootfs.sh DIRECTORY}
busybox=/bin/busybox
[ -x "$busybox" ] || { echo "rootfs.sh: no $busybox (apt-get install busybox-static)" >&2; exit 1; }

mkdir -p "$root"/{bin,dev,etc,home,proc,root,run,sbin,sys,tmp,usr/bin,var}
chmod 1777 "$root/tmp"
cp "$busybox" "$root/bin/busybox"
# The links are to where busybox is on the host, which may be /usr/bin/busybox.
"$busybox" --install -s "$root/bin"
real=$(readlink -f "$busybox")
[ -e "$root$real" ] || ln "$root/bin/busybox" "$root$real"
printf 'root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/bin/false\n' >"$root/etc/passwd"
printf 'root:x:0:\nnogroup:x:65534:\n' >"$root/etc/group"
