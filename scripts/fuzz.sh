#!/bin/bash
# Runs every fuzz target of the tree for FUZZTIME (10s if not set) each, one at a
# time, and fails if one of them does. Arguments are packages (all: ./...).
#
# Go writes an input that makes a target fail to testdata/fuzz/<target> of its
# package; `go test` runs it from then on.
set -u
cd "$(dirname "$0")/.."

time=${FUZZTIME:-10s}
list=$(go list -f '{{if or .TestGoFiles .XTestGoFiles}}{{.ImportPath}}{{end}}' "${@:-./...}") || exit 1

targets=() failed=()
for package in $list; do
	# Only names that begin with Fuzz, not the "ok" line.
	names=$(go test -list '^Fuzz' "$package") || { failed+=("$package: its tests do not build"); continue; }
	for name in $(grep '^Fuzz' <<<"$names"); do
		targets+=("$package $name")
	done
done
if [ ${#targets[@]} -eq 0 ] && [ ${#failed[@]} -eq 0 ]; then
	echo "fuzz.sh: no fuzz target in ${*:-./...}" >&2
	exit 1
fi

# only_late says whether nothing failed but Go itself, which at the end of the time
# may take that for an error (https://go.dev/issue/75804).
only_late() {
	! grep -q 'Failing input' "$log" &&
		[ "$(grep -A 2 '^--- FAIL' "$log" | tail -n +2)" = $'    context deadline exceeded\nFAIL' ]
}

log=$(mktemp)
trap 'rm -f "$log"' EXIT
n=0
for t in "${targets[@]}"; do
	read -r package name <<<"$t"
	n=$((n + 1))
	echo "==> [$n/${#targets[@]}] $package $name, $time" >&2
	if ! go test -run '^$' -fuzz "^$name\$" -fuzztime "$time" -fuzzminimizetime 10x -parallel 2 "$package" >"$log" 2>&1 && ! only_late; then
		cat "$log" >&2
		failed+=("$package $name")
		echo "$package $name FAILED"
		continue
	fi
	execs=$(grep -o 'execs: [0-9]*' "$log" | tail -n 1)
	echo "$package $name ok, ${execs:-execs: ?}"
done

if [ ${#failed[@]} -gt 0 ]; then
	echo "==> failed:" >&2
	printf '      %s\n' "${failed[@]}" >&2
	exit 1
fi
echo "==> all ${#targets[@]} fuzz targets passed" >&2
