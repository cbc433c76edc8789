#!/bin/bash
# Runs `echo tail; exit 3` in containers, RUNV_SOAK_ROW times in a row and then
# RUNV_SOAK_MANY times, RUNV_SOAK_AT_ONCE of them at a time (1000, 1000, 20), and
# fails if output or a status is lost, or if anything is left behind.
set -eu
cd "$(dirname "$0")/.."

usage() { echo "usage: soak.sh [--row N] [--many N] [--at-once N]" >&2; exit 2; }
row=${RUNV_SOAK_ROW:-1000} many=${RUNV_SOAK_MANY:-1000} once=${RUNV_SOAK_AT_ONCE:-20}
while [ $# -gt 0 ]; do
	[ $# -ge 2 ] || usage
	case $1 in
	--row) row=$2 ;;
	--many) many=$2 ;;
	--at-once) once=$2 ;;
	*) usage ;;
	esac
	shift 2
done

RUNV_TEST_KERNEL=${RUNV_TEST_KERNEL:-${RUNV_KERNEL:-$(agent/kernel/build.sh | tail -n 1)}}
export RUNV_TEST_KERNEL RUNV_SOAK_ROW=$row RUNV_SOAK_MANY=$many RUNV_SOAK_AT_ONCE=$once

echo "==> $row runs in a row, then $many, $once at a time" >&2
exec go test -count=1 -timeout 0 -v -run '^TestSoak' ./tests/soak
