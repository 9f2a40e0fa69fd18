# The commands of this project by name. `make` lists them. What must pass before a change lands is `.ci/run`; it does
# not use this file.

FEATURES = "" fleet metrics redis reqwest reqwest-middleware sandbox
EXAMPLES = hyper axum_state oauth2 reqwest reqwest_middleware tonic fleet
MTLS = --manifest-path tests/mtls/Cargo.toml

.PHONY: help ci weekly fmt lint doc minimal-versions test test-default mtls redis-variants gateway quickstart examples \
	structure loom model days faults fleet-faults soak fuzz bench compare footprint mutants

help: ## list the commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "%-18s%s\n", $$1, $$2 }' Makefile

ci: ## everything that must pass before a change lands
	.ci/run

weekly: ## what takes too long for every change, or depends on the day
	.ci/weekly

fmt: ## check the format
	cargo fmt --check --all
	cargo fmt --check $(MTLS)

lint: ## clippy without features, with each one, and with all
	set -e; for features in $(FEATURES); do \
		cargo clippy --all-targets --features "$$features" -- -D warnings; \
	done
	cargo clippy --workspace --all-targets --all-features -- -D warnings

doc: ## build the documentation; a warning is an error
	RUSTDOCFLAGS="-D warnings" cargo doc --no-deps
	RUSTDOCFLAGS="-D warnings" cargo doc --no-deps --all-features

minimal-versions: ## compile with the oldest version of each dependency
	.ci/minimal-versions

test: ## all tests, with all features
	cargo test --workspace --all-features

test-default: ## all tests without features
	cargo test

mtls: ## lint and test the recipe for client certificates
	cargo clippy --locked --all-targets $(MTLS) --target-dir target -- -D warnings
	cargo test --locked $(MTLS) --target-dir target

redis-variants: ## Redis over TLS, as a cluster and behind Sentinel, and Valkey; needs redis-server
	.ci/weekly redis-variants

gateway: ## lint and test the gateway; with real clients if they are installed
	cargo clippy -p klavi-auth-gateway --all-targets --all-features -- -D warnings
	cargo test -p klavi-auth-gateway

quickstart: ## the example of the README
	cargo run -p examples --example quickstart

examples: ## run the other examples that end by themselves
	set -e; for example in $(EXAMPLES); do cargo run -p examples --all-features --example $$example; done

structure: ## check that imports point downwards
	cargo test --all-features --test structure

loom: ## explore the interleavings of a flight
	cargo test --all-features --lib loom

model: ## compare 100,000 random histories with the reference
	MODEL_CASES=100000 cargo test --release --all-features --test model

days: ## write both tables of src/docs/days.md
	DAYS=write cargo test --release --all-features --test days
	DAYS=write DAYS_SECONDS=86400 cargo test --release --all-features --test days

faults: ## write src/docs/faults.md
	FAULTS=write cargo test --all-features --test faults

fleet-faults: ## write src/docs/fleet_faults.md; needs redis-server
	KLAVI_REQUIRE_REDIS=1 FLEET_FAULTS=write cargo test --all-features --test redis faults

soak: ## five minutes of load and failures, on one thread and on four at the same time
	SOAK_SECONDS=300 cargo test --all-features --test soak -- --nocapture

fuzz: ## a million inputs made from the corpus
	FUZZ_RUNS=1000000 cargo test --release --all-features --test fuzz

bench: ## run the benches and draw benches/chart.svg
	benches/run

compare: ## ask the peer crates, and write compare/RESULTS.md and its charts
	compare/run

footprint: ## build programs with this crate and with others, and write compare/footprint/RESULTS.md
	compare/footprint/run

mutants: ## mutation testing; needs cargo-mutants
	cargo mutants --all-features -e 'src/sandbox/*' -e 'src/cache/loom/*'
