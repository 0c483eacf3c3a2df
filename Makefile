# Aliases for what a newcomer wants to do; the work is done by go and by scripts/.
# Binaries are static: CGO_ENABLED=0 everywhere but under the race detector.
export CGO_ENABLED = 0
PREFIX ?= /usr/local
GOFLAGS_BUILD = -trimpath -ldflags "-s -w"
BINARIES = shoald shoal shoal-shim shoal-agent

.PHONY: help build test test-ring1 test-ring2 demo demo-stop bench bench-kvstore bench-world check fmt fuzz install clean

help: ## show this list
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

build: ## build bin/shoald, bin/shoal, bin/shoal-shim and bin/shoal-agent
	@mkdir -p bin
	go build $(GOFLAGS_BUILD) -o bin/ $(addprefix ./cmd/,$(BINARIES))

test: ## run the tests of rings 1 and 2 (installs what they need; ring 2 needs root)
	scripts/test

test-ring1: ## run the tests that need nothing, with the race detector
	scripts/test 1

test-ring2: ## run the tests that need root, namespaces and a container runtime
	scripts/test 2

demo: ## from nothing to a running Debian container, step by step
	scripts/demo

demo-stop: ## remove the demo's container and stop the daemon
	scripts/demo-stop

bench: ## measure beside Debian's lxd and write docs/reference/performance.md
	scripts/bench

bench-kvstore: ## measure the key-value layer and write docs/reference/performance-kvstore.md
	OUT=docs/reference/performance-kvstore.md scripts/bench-kvstore

bench-world: ## measure the World and write docs/reference/performance-world.md
	OUT=docs/reference/performance-world.md scripts/bench-world

check: ## check format, vet and the rules of the house, without running the tests
	scripts/check

fmt: ## format the Go code
	gofmt -w $(shell git ls-files '*.go')

fuzz: ## run every fuzz target for ten seconds (FUZZTIME=1m for longer)
	scripts/fuzz $(or $(FUZZTIME),10s)

install: build ## install the binaries and the systemd unit below PREFIX (/usr/local)
	install -D -t $(DESTDIR)$(PREFIX)/bin $(addprefix bin/,$(BINARIES))
	install -D -m 644 packaging/shoald.service $(DESTDIR)/etc/systemd/system/shoald.service
	install -D -m 644 packaging/shoal-instances.service $(DESTDIR)/etc/systemd/system/shoal-instances.service
	sed -i 's|/usr/local/bin|$(PREFIX)/bin|' $(DESTDIR)/etc/systemd/system/shoald.service $(DESTDIR)/etc/systemd/system/shoal-instances.service

clean: ## remove what was built, nothing else
	rm -rf bin .cache
