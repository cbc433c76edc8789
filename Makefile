# runv: see README.md for what it is, ARCHITECTURE.md for where things are.
#
#   make            build ./runv (the agent is embedded)
#   make run        install what is missing, build, run a container in a VM
#   make test       install what is missing, run every test
#   make kernel     build the guest's kernel (cached outside the checkout)
#   make test-kvm   the integration tests on an emulated KVM host (RUN=REGEXP)
#   make test-selinux test-apparmor  what a host with them sees, on an emulated one
#   make conformance  runtime-tools' validation programs, on both backends
#   make test-engines  Docker, Podman and containerd with runv, and with runc
#   make bench-engines  docker run with runv and with runc (N=10)
#   make test-programs  nginx, PostgreSQL, a JVM … in Docker, likewise
#   make bench-kvm  our own VMM beside QEMU, on an emulated KVM host
#   make kvmhost    a shell on an emulated KVM host, or CMD='…' in it
#   make install    PREFIX=/usr/local DESTDIR=
#   make lint fuzz bench soak generate clean

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c

PREFIX  ?= /usr/local
DESTDIR ?=
GO      ?= go

VERSION := $(shell cat VERSION)
COMMIT  := $(shell git rev-parse --short=12 HEAD 2>/dev/null || echo unknown)
LDFLAGS := -s -w -X main.version=$(VERSION) -X main.commit=$(COMMIT)
# urfave_cli_no_docs: no generator of manual pages, whose packages cost each start half a millisecond.
export GOFLAGS := -buildvcs=false -trimpath -tags=urfave_cli_no_docs

AGENT := libvm/initramfs/embed/agent

.PHONY: all runv agent run test test-unit test-integration kernel install lint fuzz bench soak generate clean deps deps-run kvmhost test-kvm test-selinux test-apparmor bench-kvm bench-engines conformance test-engines test-programs

all: runv

# Go's own cache decides what has to be built again.
agent:
	CGO_ENABLED=0 $(GO) build -ldflags '-s -w -X main.version=$(VERSION)' -o $(AGENT) ./agent

runv: agent
	CGO_ENABLED=0 $(GO) build -ldflags '$(LDFLAGS)' -o runv .

deps-run:
	@scripts/deps.sh run

deps:
	@scripts/deps.sh run test

# The path of the kernel is the last line that the script prints.
kernel:
	@agent/kernel/build.sh

run: deps-run runv
	@scripts/run.sh

test: deps runv
	@scripts/test.sh

test-unit: runv
	@scripts/test.sh unit

test-integration: deps runv
	@scripts/test.sh integration

lint:
	@scripts/test.sh lint

fuzz: runv
	@scripts/fuzz.sh

bench: deps runv
	@scripts/bench.sh

bench-kvm: deps runv
	@scripts/bench-kvm.sh $(if $(N),-n $(N))

soak: deps runv
	@scripts/soak.sh

# OPTS: what kvmhost.sh takes (--timeout SECS, --out DIR …).
kvmhost:
	@scripts/kvmhost.sh $(OPTS) $(if $(CMD),-- bash -c '$(subst ','\'',$(CMD))')

test-kvm: deps runv
	@scripts/test-kvm.sh $(if $(RUN),-run '$(RUN)') $(if $(V),-v)

test-selinux test-apparmor: deps runv
	@scripts/test-lsm.sh $(@:test-%=%) $(if $(V),-v)

# FLAGS: --backend qemu|kvm, --runtime runc|crun, -run REGEXP, -v
conformance: deps runv
ifdef FLAGS
	@scripts/conformance.sh $(FLAGS)
else
	@scripts/conformance.sh --backend qemu
	@scripts/conformance.sh --backend kvm
endif

# FLAGS: -run REGEXP, -v
test-engines: runv
	@scripts/test-engines.sh $(FLAGS)

bench-engines: runv
	@scripts/test-engines.sh -run '^$$' -bench . -benchtime $(or $(N),10)x

# FLAGS: as for test-engines
test-programs: runv
	@scripts/deps.sh programs
	@image=$$(scripts/programs-image.sh) && RUNV_ENGINES_PROGRAMS=$$image scripts/test-engines.sh -run TestPrograms $(FLAGS)

install: runv
	install -D -m 0755 runv $(DESTDIR)$(PREFIX)/bin/runv
	install -D -m 0644 "$$(agent/kernel/build.sh | tail -n 1)" $(DESTDIR)$(PREFIX)/share/runv/vmlinux
	mkdir -p $(DESTDIR)$(PREFIX)/share/runv
	for f in share/*; do sed 's|@PREFIX@|$(PREFIX)|g' "$$f" > "$(DESTDIR)$(PREFIX)/share/runv/$${f##*/}"; done
	install -D -m 0644 LICENSE $(DESTDIR)$(PREFIX)/share/doc/runv/LICENSE
	install -D -m 0644 -t $(DESTDIR)$(PREFIX)/share/man/man8 man/*.8
	install -D -m 0644 -t $(DESTDIR)$(PREFIX)/share/doc/runv docs/*.md
	install -D -m 0644 -t $(DESTDIR)$(PREFIX)/share/bash-completion/completions completions/bash/runv
	install -D -m 0644 -t $(DESTDIR)$(PREFIX)/share/zsh/site-functions completions/zsh/_runv
	install -D -m 0644 -t $(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d completions/fish/runv.fish

generate:
	@scripts/deps.sh generate
	PATH="$$PWD/bin:$$PATH"; GOBIN="$$PWD/bin" $(GO) install google.golang.org/protobuf/cmd/protoc-gen-go github.com/containerd/ttrpc/cmd/protoc-gen-go-ttrpc
	PATH="$$PWD/bin:$$PATH" protoc --go_out=. --go_opt=module=runv --go-ttrpc_out=. --go-ttrpc_opt=module=runv agent/api/agent.proto
	$(GO) test . ./libvm/bundle -count=1 -run 'TestManualPages|TestCompletions|TestFlagDocs|TestDocs' -update

clean:
	rm -rf runv bin $(AGENT)
