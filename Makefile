# What people type. `make help` lists it.
SHELL := /bin/bash
export CGO_ENABLED := 0
export GOFLAGS := -trimpath

VERSION := $(shell cat VERSION)
BUILD   := build
BIN     := $(BUILD)/bin
BUNDLE  := $(BUILD)/dcos-$(VERSION).bundle
LDFLAGS := -s -w -X dcos.example/dcos/runtime/config.Version=$(VERSION)
# The key that bundles are signed with is made once, in the user's configuration
# directory; dcos-install trusts bundles of the key that it was built with.
# KEY=FILE is another one.
KEY     :=
# Packages that `make universe` builds; all if empty.
ONLY    :=
SIGNER  := go run ./ci/bundle -key '$(KEY)'
TOOL    := go tool -modfile=tools/go.mod

.DEFAULT_GOAL := help
.PHONY: help setup build bundle universe e2e-universe up down demo lab lab-down test unit lint generate bench-install bench-onprem bench-catalog drill clean

help: ## List the targets
	@awk -F': .*## ' '/^[a-z-]+:.*## /{printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: ## Install what a fresh Debian machine lacks
	@ci/setup

build: setup ## Build dcos-install and dcos into build/bin
	@mkdir -p $(BIN)
	@key=$$($(SIGNER) -public-key) && go build -ldflags "$(LDFLAGS) -X dcos.example/dcos/installer/bundle.ReleaseKey=$$key" \
		-o $(BIN)/ ./installer/cmd/dcos-install ./cmd/dcos

bundle: setup ## Build the release bundle: everything a host needs, in one file
	@$(SIGNER) -version $(VERSION) -work $(BUILD) -out $(BUNDLE)

universe: setup ## Build the packages and their images (ONLY=kafka,hello-world: these; UPDATE=1: newly resolved; CHECK=1: and run each image)
	@ci/setup universe
	@go run ./ci/universe -key '$(KEY)' -out $(BUILD)/universe -only '$(ONLY)' $(if $(UPDATE),-update-locks) $(if $(CHECK),-check)

e2e-universe: build bundle universe ## Install, use, break and remove every package (ONLY=kafka,nats: these)
	@ci/e2e-universe $(BUNDLE) '$(ONLY)'

up: build bundle ## Make a local cluster and deploy the demo app
	@demo/up $(BUNDLE)

down: build ## Destroy everything that `make up` made
	@demo/down

lab: ## Make five simulated hosts to log into (see ci/lab/README.md)
	@ci/setup lab
	@go build -o $(BIN)/lab ./ci/lab/cmd/lab
	@$(BIN)/lab up

lab-down: ## Take the simulated hosts away
	@go run ./ci/lab/cmd/lab down

test: build bundle ## Run all tests that must pass before a change lands (as root)
	@ci/test $(BUNDLE)

unit: ## Run the tests that need neither root nor a bundle
	@go test ./...

lint: ## Check formatting, vet and staticcheck
	@ci/lint

generate: ## Regenerate the protobuf code (needs protoc)
	@ci/generate

drill: build bundle ## Break a cluster of simulated machines on purpose; write docs/reliability.md
	@ci/drill/run $(BIN) $(BUNDLE) $(VERSION)

bench-onprem: build bundle ## Measure installs on machines of one's own, few and many
	@ci/setup lab
	@mkdir -p $(BUILD)/next && go build -o $(BUILD)/next/lab ./ci/lab/cmd/lab
	@key=$$($(SIGNER) -public-key) && go build -ldflags "-X dcos.example/dcos/installer/bundle.ReleaseKey=$$key" -o $(BUILD)/next/bench ./ci/bench
	@$(BUILD)/next/bench onprem -bin $(BIN) -bundle $(BUNDLE) -lab $(BUILD)/next/lab

bench-install: build bundle ## Measure install, fail-over and launch times
	@go run ./ci/bench install -bin $(BIN) -bundle $(BUNDLE)

bench-catalog: ## Measure the catalog with the whole public Universe
	@go run ./ci/bench catalog

clean: ## Remove what was built
	@rm -rf $(BUILD)
