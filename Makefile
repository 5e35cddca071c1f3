# Everything a developer needs; `make help` lists it. Versions are pinned in go.mod files.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

VERSION ?= 0.1.0
GOFLAGS_BUILD := -trimpath -ldflags "-s -w -X main.version=$(VERSION)"
ARCHES := amd64 arm64
export CGO_ENABLED = 0

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: build
build: ## build bin/nodeagent
	go build $(GOFLAGS_BUILD) -o bin/nodeagent ./cmd/nodeagent

.PHONY: test
test: ## tier 1: unit tests with a real etcd; no root, needs only Go
	go test ./...
	go -C packaging test -count=1 ./... # it reads deploy/, outside its module, which Go's cache of results does not see

# Tier 2 waits for other programs most of the time: at nice 19 it costs the VM beside it nothing that shows.
INTEGRATION := nice -n 19 go test -tags integration -p 1 -count=1 -timeout 40m -v ./test/nspawn ./test/integration/...
E2E := go test -tags e2e -p 1 -count=1 -timeout 50m -v ./test/vm ./test/e2e

.PHONY: integration
integration: lab package ## tiers 2 and 2b: a control plane in a namespace, systemd in nspawn (root)
	$(INTEGRATION)

.PHONY: e2e
e2e: lab package ## tier 3: a fresh VM from .deb to Ready, and what may happen to it (root)
	$(E2E)

.PHONY: lab-tests
lab-tests: lab package # both at once, as CI runs them: two cores are enough
	$(INTEGRATION) >dist/integration.log 2>&1 & tier2=$$!; \
	failed=0; $(E2E) || failed=1; wait $$tier2 || failed=1; \
	cat dist/integration.log; exit $$failed

.PHONY: lab
lab: tools # the programs and images that the tests of the lab need; quick when they are there
	go run ./test/lab/cmd/lab build all

.PHONY: tools
tools: # what the lab needs of the machine; quick when it is there
	bash test/lab/install-tools.sh

.PHONY: soak
soak: lab package ## killed at every point; further lives of a VM: by cloud-init, from an image, interrupted in every phase (root)
	NODEAGENT_CRASH_EVERY=1 nice -n 19 go test -tags integration -p 1 -count=1 -timeout 150m -v \
	  -run 'TestApplyOnARunningSystem|TestPhasesKilled' ./test/integration/crash ./test/integration/controlplane
	go test -tags e2e,soak -p 1 -count=1 -timeout 150m -v -run 'TestCloudInit|TestBakedImage|TestInterrupted|TestAddon' ./test/e2e

.PHONY: lint
lint: bin/golangci-lint ## gofmt, go vet and golangci-lint, the tagged files too
	@test -z "$$(gofmt -l $$(git ls-files '*.go'))" || { gofmt -d $$(git ls-files '*.go'); exit 1; }
	bin/golangci-lint run --build-tags integration,e2e,soak ./...

bin/golangci-lint: tools/go.mod tools/go.sum
	cd tools && go build -o ../bin/golangci-lint github.com/golangci/golangci-lint/v2/cmd/golangci-lint

.PHONY: generate
generate: ## write the generated parts of the docs
	go test ./cmd/nodeagent -run '^TestDocs$$' -update

.PHONY: package
package: $(ARCHES:%=dist/%/nodeagent) ## dist/nodeagent_VERSION_ARCH.deb for amd64 and arm64, reproducible
	mkdir -p dist/generated
	for shell in bash zsh fish; do \
	  go run ./cmd/nodeagent completion $$shell > dist/generated/nodeagent.$$shell; \
	done
	for arch in $(ARCHES); do \
	  (cd packaging && go run . -version $(VERSION) -arch $$arch -binary ../dist/$$arch/nodeagent \
	    -generated ../dist/generated -time $(SOURCE_TIME) -out ../dist); \
	done

# The time of the last commit, so that the same commit makes the same package.
SOURCE_TIME := $(shell git log -1 --format=%ct 2>/dev/null || date +%s)

.PHONY: FORCE
dist/%/nodeagent: FORCE
	GOARCH=$* go build $(GOFLAGS_BUILD) -o $@ ./cmd/nodeagent

.PHONY: demo
demo: build ## see it work in a minute: no root, no cluster (DEMO_SECONDS=60)
	go run ./test/demo $(if $(RECORD),-record $(RECORD))

.PHONY: bench
bench: ## a table of ratios to etcdctl, kubeadm and a shell script, measured in one run
	go test -run '^$$' -bench . -benchtime 3x ./test/bench | go run ./test/bench/table

.PHONY: bench-vm
bench-vm: lab package ## measure a whole bootstrap against two shell scripts, in VMs (root, an hour)
	go test -tags e2e -run '^$$' -bench Bootstrap -benchtime 1x -timeout 120m ./test/e2e

.PHONY: check
check: ## what CI runs
	$(MAKE) lint
	$(MAKE) generate && git diff --exit-code
	$(MAKE) test
	$(MAKE) lab-tests
