#!/bin/sh
# check-config.sh CONFIG: does a kernel have what Docker asks of one?
#
# The options are those of moby's contrib/check-config.sh for a kernel of 5.9 or
# later under cgroup v2 ("Generally Necessary" and "Optional Features", storage
# drivers among the latter). Prints what is missing, and each exception with its
# reason; fails if something is missing that is no exception.
set -eu

necessary='
NAMESPACES NET_NS PID_NS IPC_NS UTS_NS
CGROUPS CGROUP_CPUACCT CGROUP_DEVICE CGROUP_FREEZER CGROUP_SCHED CPUSETS MEMCG
KEYS
VETH BRIDGE BRIDGE_NETFILTER
IP_NF_FILTER IP_NF_MANGLE IP_NF_TARGET_MASQUERADE
IP6_NF_FILTER IP6_NF_MANGLE IP6_NF_TARGET_MASQUERADE
NETFILTER_XT_MATCH_ADDRTYPE NETFILTER_XT_MATCH_CONNTRACK NETFILTER_XT_MATCH_IPVS
NETFILTER_XT_MARK
IP_NF_RAW IP_NF_NAT NF_NAT IP6_NF_RAW IP6_NF_NAT
POSIX_MQUEUE
CGROUP_BPF
'

optional='
USER_NS SECCOMP SECCOMP_FILTER CGROUP_PIDS CGROUP_HUGETLB MEMCG_SWAP
LEGACY_VSYSCALL_EMULATE
BLK_CGROUP BLK_DEV_THROTTLING CGROUP_PERF NET_CLS_CGROUP CGROUP_NET_PRIO
CFS_BANDWIDTH FAIR_GROUP_SCHED
IP_NF_TARGET_REDIRECT
IP_VS IP_VS_NFCT IP_VS_PROTO_TCP IP_VS_PROTO_UDP IP_VS_RR
SECURITY_SELINUX SECURITY_APPARMOR
EXT4_USE_FOR_EXT2 EXT4_FS EXT4_FS_POSIX_ACL EXT4_FS_SECURITY
VXLAN BRIDGE_VLAN_FILTERING
CRYPTO CRYPTO_AEAD CRYPTO_GCM CRYPTO_SEQIV CRYPTO_GHASH
XFRM XFRM_USER XFRM_ALGO INET_ESP NETFILTER_XT_MATCH_BPF
IPVLAN MACVLAN DUMMY
NF_NAT_FTP NF_CONNTRACK_FTP NF_NAT_TFTP NF_CONNTRACK_TFTP
BTRFS_FS BTRFS_FS_POSIX_ACL OVERLAY_FS
'

# why OPTION: the reason that it is not in our kernel, or nothing.
why() {
	case $1 in
	MEMCG_SWAP) echo 'always on with MEMCG and SWAP since 6.1, which removed the option' ;;
	LEGACY_VSYSCALL_EMULATE) echo 'XONLY instead: serves glibc <= 2.13 as well, and nothing can read the page' ;;
	SECURITY_SELINUX) echo 'labels are confined on the host, where the monitor runs under them' ;;
	SECURITY_APPARMOR) echo 'profiles are confined on the host, where the monitor runs under them' ;;
	BTRFS_FS | BTRFS_FS_POSIX_ACL) echo 'one storage driver is enough, overlay; 1.5 MB of kernel' ;;
	esac
}

if [ $# -ne 1 ] || [ ! -r "$1" ]; then
	echo "usage: check-config.sh CONFIG (a readable kernel .config)" >&2
	exit 2
fi

total=0
missing=0
excepted=0
for group in necessary optional; do
	eval "options=\$$group"
	for option in $options; do
		total=$((total + 1))
		if grep -qE "^CONFIG_$option=[ym]$" "$1"; then
			continue
		fi
		reason=$(why "$option")
		if [ -n "$reason" ]; then
			excepted=$((excepted + 1))
			echo "exception: CONFIG_$option ($group): $reason"
		else
			missing=$((missing + 1))
			echo "missing: CONFIG_$option ($group)"
		fi
	done
done
echo "check-config: $((total - missing - excepted)) of $total options there, $excepted exceptions, $missing missing"
[ "$missing" -eq 0 ]
