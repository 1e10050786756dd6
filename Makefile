# Plain `make` lists the targets.

CARGO ?= cargo
SEEDS ?= 200
TIME ?= 60
NODES ?= 1
WORKLOAD ?= all
NEMESIS ?= all

.DEFAULT_GOAL := help
.PHONY: help dev cluster build test jepsen jepsen-short sdk services fmt fmt-check clippy deny sim bench ci clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

dev: ## run one node on loopback that needs nothing else
	$(CARGO) run --release -- dev

cluster: build ## run three nodes of one cluster on loopback; says how to talk to them
	@sh config/cluster/up.sh

build: ## build every binary, optimised
	$(CARGO) build --workspace --release

test: services ## install what tests need when it is missing, then run every test
	$(CARGO) test --workspace
	@$(MAKE) --no-print-directory jepsen-short

jepsen: ## faults and checked histories: TIME=s SEED=n NODES=1|3|5 NEMESIS=.. WORKLOAD=.. (jepsen/README.md)
	$(CARGO) build --release -p tokligence-node -p tokligence-test-support -p tokligence-jepsen
	target/release/tokligence-jepsen run --nodes $(NODES) --time $(TIME) $(if $(SEED),--seed $(SEED)) \
		--workload '$(WORKLOAD)' --nemesis '$(NEMESIS)' $(if $(OUT),--out $(OUT))

# A step of its own, not a cargo test: it needs the programs of other packages, and both processors.
jepsen-short:
	$(CARGO) build -p tokligence-node -p tokligence-test-support -p tokligence-jepsen
	@# 1 is a broken claim. 2 says that a fault had no turn on a slow machine: no pass, and no fault of the gateway either.
	"$${CARGO_TARGET_DIR:-target}/debug/tokligence-jepsen" run --time 90 || test $$? -eq 2

sdk: ## the official OpenAI, Anthropic and Google Python SDKs against the gateway (skipped when pip cannot reach its registry)
	@CARGO="$(CARGO)" sh tests/sdk/run.sh

services: ## see to the servers that tests run against (apt when root, else it says what to install)
	@sh tests/install-services.sh

fmt: ## format the code
	$(CARGO) fmt --all

fmt-check: ## fail when the code is not formatted
	$(CARGO) fmt --all --check

clippy: ## lint everything, warnings denied
	$(CARGO) clippy --workspace --all-targets -- -D warnings

deny: ## check bans, licences and sources; advisories when their database can be reached
	@$(CARGO) deny --version >/dev/null 2>&1 || { echo "make deny needs cargo-deny: cargo install --locked cargo-deny"; exit 1; }
	$(CARGO) deny --workspace check bans licenses sources
	@if $(CARGO) deny fetch db >/dev/null 2>&1; then \
		echo "$(CARGO) deny --workspace check advisories"; $(CARGO) deny --workspace check advisories; \
	else echo "advisories not checked: their database cannot be reached"; fi

# The simulator is a test module of the ledger crate; building only that one keeps a long run's start short.
sim: ## simulate the cluster with SEEDS=n seeds (SEED=n: from that one on)
	SEEDS=$(SEEDS) $(CARGO) test --release -p tokligence-ledger --lib sim -- --nocapture

bench: ## measure beside a plain nginx proxy to the same upstream
	$(CARGO) bench -p tokligence-ledger --bench admission
	$(CARGO) bench -p tokligence-api --bench keys
	bash tests/bench/run.sh

ci: ## what .ci/run runs
	./.ci/run

clean: ## remove what was built; data/ stays
	$(CARGO) clean
