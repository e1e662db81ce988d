# What one types in this repository; `make` alone lists it. Needs Rust and a C linker; Luau needs a C++ compiler too.
#
# It does not install anything: where something is missing it says what to install. `.ci/run` is the script that does.

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

CARGO ?= cargo
TARGET := $(or $(CARGO_TARGET_DIR),target)
# What is for others than who works here: archive, packages, bills of materials.
DIST := $(TARGET)/dist

# What `make run` replays, and how. Its store stays in place: a second run goes on counting where the first one ended.
EVENTS ?= examples/events.ndjson
RUN_STORE ?= redb:$(TARGET)/run.redb
RUN_FLAGS ?=

# What `make bench` passes on, such as `--only kv_get`.
BENCH_FLAGS ?=

# Most packages that each feature set may pull in, ours included: `make audit` fails above them. The first number is a
# promise (docs/dependencies.md); the others leave room for a minor version that splits a crate in two, not for more.
BUDGET_NONE := 60
BUDGET_LUAU := 80
BUDGET_POSTGRES := 94
BUDGET_ALL := 132

# Nothing of an async runtime may be in a build without default features.
FORBIDDEN := tokio mio smol async-std async-executor async-global-executor async-io futures-executor futures polling pollster

# The C++ compiler that really builds a program with the standard library: $CXX if it is given, else the first of the
# usual ones; empty if there is none. Looked for once, by the first target that asks. (`make` itself defines CXX, hence
# the question where it comes from.)
CXX_CANDIDATES := $(if $(filter default undefined,$(origin CXX)),c++ g++ clang++,'$(CXX)')
CXX_FOUND = $(eval CXX_FOUND := $$(shell for cxx in $(CXX_CANDIDATES); do \
	printf '\043include <string>\nint main() { return std::string().size(); }\n' | \
	$$$$cxx -x c++ - -o /dev/null >/dev/null 2>&1 && { echo "$$$$cxx"; break; }; done))$(CXX_FOUND)
# The build script of the vendored Luau looks for `c++` by itself: name another one only where it has to be named, as
# naming one makes Cargo build Luau anew.
USE_CXX = $(if $(filter-out c++,$(CXX_FOUND)),CXX='$(CXX_FOUND)')
INSTALL_CXX := install a C++ compiler: apt install g++ / dnf install gcc-c++ / xcode-select --install

# Without a C++ compiler: all but Luau.
WITHOUT_LUAU := --no-default-features --features postgres,worker

# As much of the program as this machine can build.
FEATURES = $(if $(CXX_FOUND),--all-features,$(WITHOUT_LUAU))

define need_cargo
	@command -v $(CARGO) >/dev/null || { echo "make $@ needs Rust: install it from your distribution or with rustup" >&2; exit 1; }
endef

.PHONY: help
help: ## show this list
	@echo "make TARGET, where TARGET is one of"
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-12s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

.PHONY: run
run: ## build it and replay recorded Discord events through a master and two worker processes
	$(need_cargo)
	@test -n "$(CXX_FOUND)" || { echo "make run needs a C++ compiler, as Luau is C++; $(INSTALL_CXX)" >&2; exit 1; }
	$(USE_CXX) $(CARGO) build --release --locked
	$(TARGET)/release/mesophyll replay $(EVENTS) --workers 2 --store $(RUN_STORE) $(RUN_FLAGS)

.PHONY: test
test: ## run every test (without a C++ compiler: every test that does without Luau)
	$(need_cargo)
	@if [ -n "$(CXX_FOUND)" ]; then set -- --all-features; \
	else echo "no C++ compiler, so Luau and its tests are left out; $(INSTALL_CXX)"; set -- $(WITHOUT_LUAU); fi; \
	set -x; $(USE_CXX) $(CARGO) test --locked "$$@"

# Left out of it: unit tests that take seconds each, and integration tests that wait for processes or need a service.
QUICK_SKIPS := redb::tests::faults:: luau::tests::life:: luau::tests::fairness:: luau::tests::costs:: ranges_that_overflow the_corpus_gives
QUICK_SUITES := protocol:: db_routes:: db_client:: status_route:: store_conformance:: cli_usage:: cli_config:: cli_replay:: cli_readme::

.PHONY: test-quick
test-quick: ## after each change: most unit tests, the house rules, and the fast part of tests/it, without any service
	$(need_cargo)
	$(USE_CXX) $(CARGO) test --locked --quiet $(FEATURES) --lib -- $(addprefix --skip ,$(QUICK_SKIPS))
	$(USE_CXX) $(CARGO) test --locked --quiet $(FEATURES) --test tidy
	$(USE_CXX) $(CARGO) test --locked --quiet $(FEATURES) --test it -- $(QUICK_SUITES) --skip postgres --skip in_python

.PHONY: docs
docs: ## write docs/options.md and docs/api.md anew from the tables in the code, and count lines (needs python3)
	$(need_cargo)
	MESOPHYLL_WRITE_DOCS=1 $(USE_CXX) $(CARGO) test --locked $(FEATURES) --lib -- the_page_of_
	packaging/lines.py --write docs/reading-guide.md

.PHONY: lines
lines: ## count the product's lines of Rust by folder, of a default and of a minimal build (needs python3)
	@echo 'default build:'; packaging/lines.py
	@echo 'without default features:'; packaging/lines.py --minimal

.PHONY: check
check: ## format, lints, documentation and scripts, without running a test
	$(need_cargo)
	$(CARGO) fmt --check
	$(CARGO) fmt --check --manifest-path bench/Cargo.toml
	$(CARGO) fmt --check --manifest-path models/Cargo.toml
	$(CARGO) fmt --check --manifest-path models/interleavings/Cargo.toml
	$(CARGO) clippy --locked --all-targets --no-default-features -- -D warnings
	$(CARGO) clippy --locked --all-targets --no-default-features --features worker -- -D warnings
	@if [ -n "$(CXX_FOUND)" ]; then set -- --all-features; \
	else echo "no C++ compiler, so Luau is left out; $(INSTALL_CXX)"; set -- $(WITHOUT_LUAU); fi; \
	set -ex; $(USE_CXX) $(CARGO) clippy --locked --all-targets "$$@" -- -D warnings; \
	$(USE_CXX) RUSTDOCFLAGS=-Dwarnings $(CARGO) doc --locked --no-deps "$$@"
	@set -e; for script in .ci/run clients/*.sh packaging/*.sh packaging/deb/*; do bash -n $$script; done
	@if command -v python3 >/dev/null; then set -ex; python3 examples/make_events.py --check; \
	for script in examples/worker.py clients/generate.py packaging/sbom.py packaging/lines.py tests/conformance/link.py; do python3 -c 'import sys; compile(open(sys.argv[1]).read(), sys.argv[1], "exec")' $$script; done; \
	else echo "no python3, so the scripts in examples/ are not checked"; fi

# One line of `make audit`: $(1) name, $(2) Cargo's flags, $(3) budget.
define count_packages
	@tree=$$($(CARGO) tree --locked --edges normal,build $(2) --prefix none --format '{p}') || exit 1; \
	count=$$(printf '%s\n' "$$tree" | awk '{ print $$1, $$2 }' | sort -u | wc -l | tr -d ' '); \
	printf '%-9s %3d packages, at most %d\n' '$(1)' "$$count" '$(3)'; \
	test "$$count" -le '$(3)' || { echo 'too many packages with features: $(1)' >&2; exit 1; }
endef

.PHONY: audit
audit: ## count packages, look for async runtimes, check licences, list what a build is made of
	$(need_cargo)
	@echo "packages in a build for this platform, ours included, by feature set:"
	$(call count_packages,none,--no-default-features,$(BUDGET_NONE))
	$(call count_packages,luau,--no-default-features --features luau,$(BUDGET_LUAU))
	$(call count_packages,postgres,--no-default-features --features postgres,$(BUDGET_POSTGRES))
	$(call count_packages,all,--all-features,$(BUDGET_ALL))
	@tree=$$($(CARGO) tree --locked --no-default-features --prefix none --format '{p}') || exit 1; \
	for name in $(FORBIDDEN); do \
		if printf '%s\n' "$$tree" | grep -q "^$$name v"; then \
			echo "an async runtime in a build without default features: $$name" >&2; exit 1; \
		fi; \
	done; echo "no async runtime without default features"
	@if command -v python3 >/dev/null; then set -e; \
		python3 packaging/sbom.py $(DIST) minimal --no-default-features; \
		python3 packaging/sbom.py $(DIST) full --all-features; \
	else echo "no python3, so licences are not checked, and no bill of materials is written"; fi
	@echo "packages in more than one version (all features):"
	@$(CARGO) tree --locked --all-features --duplicates --depth 0 --prefix none --format '{p}' | awk 'NF { print "  " $$1, $$2 }' | sort -u

# What the copy in vendor/ leaves out of the crate: the code generator, which nothing here builds, and what no build reads.
VENDOR_LEFT_OUT := luau/CodeGen .github .gitignore .cargo-checksum.json .cargo_vcs_info.json Cargo.lock Cargo.toml.orig
VENDORED := $(TARGET)/vendored

# Cargo gets the crate and checks it against the checksum in vendor/check/Cargo.lock. What differs must be the patch, exactly.
.PHONY: vendored
vendored: ## check that vendor/luau0-src is the registry's crate and vendor/luau0-src.patch (PATCH=write writes the patch anew)
	$(need_cargo)
	@rm -rf '$(VENDORED)' && mkdir -p '$(VENDORED)'
	$(CARGO) vendor --quiet --locked --manifest-path vendor/check/Cargo.toml '$(VENDORED)/crates' >/dev/null
	@mv '$(VENDORED)/crates/luau0-src' '$(VENDORED)/a' && cp -R vendor/luau0-src '$(VENDORED)/b'
	@cd '$(VENDORED)/a' && rm -rf $(VENDOR_LEFT_OUT)
	@cd '$(VENDORED)' && { LC_ALL=C diff -ruN a b || test $$? = 1; } | sed -E 's/^(---|\+\+\+) ([^\t]*)\t.*/\1 \2/' >patch
	$(if $(filter write,$(PATCH)),@cp '$(VENDORED)/patch' vendor/luau0-src.patch)
	@cmp '$(VENDORED)/patch' vendor/luau0-src.patch || \
		{ echo "vendor/luau0-src is not the crate and the patch: see $(VENDORED)/patch" >&2; exit 1; }
	@echo "vendor/luau0-src is the registry's crate and vendor/luau0-src.patch: $$(grep -c '^[-+]' vendor/luau0-src.patch) lines"

# A package of its own, built apart: whatever it depends on is in no build, no test and no count of the product's.
BENCH_PACKAGE := --locked --manifest-path bench/Cargo.toml --target-dir $(TARGET)/bench-build

define need_bench
	$(need_cargo)
	@test -n "$(CXX_FOUND)" || { echo "make $@ needs a C++ compiler, as Luau is C++; $(INSTALL_CXX)" >&2; exit 1; }
endef

define run_bench
	$(need_bench)
	$(USE_CXX) $(CARGO) run --release $(BENCH_PACKAGE) -- --out $(TARGET)/bench $(1) $(BENCH_FLAGS)
endef

.PHONY: bench
bench: ## measure everything beside what it is compared with (docs/benchmarks.md); half an hour
	$(call run_bench)

.PHONY: bench-quick
bench-quick: ## the same in about a minute, and less exactly
	$(call run_bench,--quick)

.PHONY: bench-guard
bench-guard: ## fail if a dispatch takes 10 % more instructions or allocations than is committed (needs valgrind; BENCH_FLAGS='--within 2' for another bound, --update commits to new ones)
	$(need_bench)
	@command -v valgrind >/dev/null || { echo "make bench-guard needs valgrind: apt install valgrind / dnf install valgrind" >&2; exit 1; }
	$(USE_CXX) $(CARGO) run --release $(BENCH_PACKAGE) -- guard bench/guard.json $(BENCH_FLAGS)

.PHONY: bench-test
bench-test: ## test the benchmarks themselves: that the async peer speaks our protocol, and works with our master and our worker
	$(need_bench)
	$(USE_CXX) $(CARGO) test $(BENCH_PACKAGE)

# Apart from what `make test` builds, so that neither has Cargo build the other's anew.
MINIMAL := $(TARGET)/minimal

.PHONY: minimal
minimal: ## build a master without Luau, and replay events through it with full workers
	$(need_cargo)
	@test -n "$(CXX_FOUND)" || { echo "make $@ needs a C++ compiler; $(INSTALL_CXX)" >&2; exit 1; }
	$(CARGO) build --locked --no-default-features --target-dir $(MINIMAL) --bin mesophyll
	MESOPHYLL_TEST_MINIMAL='$(abspath $(MINIMAL))/debug/mesophyll' $(USE_CXX) \
		$(CARGO) test --locked --all-features --test it -- --nocapture a_minimal_master_

# The suites' packages, in an environment of their own that `make clean` removes. Pinned: a suite that changes by itself would fail
# changes that did nothing.
SUITES := kosoku==0.1.0 schemathesis==4.32.5
CONFORMANCE_VENV := $(TARGET)/conformance-venv

.PHONY: conformance
conformance: ## run a WebSocket suite against both ends of a link, and check the API against its description (needs python3 with venv, and PyPI)
	$(need_cargo)
	@test -n "$(CXX_FOUND)" || { echo "make conformance needs a C++ compiler, as Luau is C++; $(INSTALL_CXX)" >&2; exit 1; }
	$(CARGO) build --locked --no-default-features --example ws_echo
	$(USE_CXX) $(CARGO) build --locked --all-features --bin mesophyll
	@test -x $(CONFORMANCE_VENV)/bin/python || python3 -m venv $(CONFORMANCE_VENV)
	$(CONFORMANCE_VENV)/bin/python -m pip install --quiet --disable-pip-version-check $(SUITES)
	$(CONFORMANCE_VENV)/bin/python tests/conformance/link.py $(TARGET)/debug/examples/ws_echo
	$(CONFORMANCE_VENV)/bin/python tests/conformance/api.py $(TARGET)/debug/mesophyll

.PHONY: clients
clients: ## write the operations of the clients anew from what a master says of itself (needs python3)
	$(need_cargo)
	@test -n "$(CXX_FOUND)" || { echo "make $@ needs a C++ compiler, as Luau is C++; $(INSTALL_CXX)" >&2; exit 1; }
	$(USE_CXX) $(CARGO) build --locked --all-features --bin mesophyll
	clients/generate.py $(TARGET)/debug/mesophyll

.PHONY: clients-test
clients-test: ## test the clients, the gateways and the bridges against a real master (needs python3 with venv, Node.js with npm, Redis, NATS, and PyPI and npm)
	$(need_cargo)
	@test -n "$(CXX_FOUND)" || { echo "make $@ needs a C++ compiler, as Luau is C++; $(INSTALL_CXX)" >&2; exit 1; }
	$(USE_CXX) $(CARGO) build --locked --all-features --bin mesophyll
	clients/test.sh $(TARGET)/debug/mesophyll $(TARGET)

# How long each fuzz target runs, and which run. Without sanitizers, which want a nightly compiler and look for what `unsafe`
# code does: there is none of ours.
FUZZ_SECONDS ?= 60
FUZZ_TARGETS ?= $(patsubst fuzz/fuzz_targets/%.rs,%,$(wildcard fuzz/fuzz_targets/*.rs))
TOOLS := $(abspath $(TARGET))/tools

.PHONY: fuzz
fuzz: ## fuzz each decoder and model for a minute (FUZZ_SECONDS, FUZZ_TARGETS; builds cargo-fuzz the first time)
	$(need_cargo)
	@test -n "$(CXX_FOUND)" || { echo "make fuzz needs a C++ compiler, as libFuzzer is C++; $(INSTALL_CXX)" >&2; exit 1; }
	@test -x $(TOOLS)/bin/cargo-fuzz || $(CARGO) install --locked --quiet --version 0.13.2 --root $(TOOLS) cargo-fuzz
	cd fuzz && PATH="$(TOOLS)/bin:$$PATH" cargo fuzz build --sanitizer none
	@set -e; cd fuzz; for target in $(FUZZ_TARGETS); do \
		echo "== $$target, $(FUZZ_SECONDS) s"; mkdir -p "corpus/$$target"; \
		PATH="$(TOOLS)/bin:$$PATH" cargo fuzz run --sanitizer none "$$target" "corpus/$$target" "../tests/data/fuzz/$$target" -- \
			-max_total_time=$(FUZZ_SECONDS) -max_len=4096 -verbosity=0 -print_final_stats=1 2>&1 | \
			grep -E 'panicked|^(stat::number_of|Test unit|==[0-9]+== ERROR)'; \
		test -z "$$(ls "artifacts/$$target" 2>/dev/null)" || { echo "$$target: see fuzz/artifacts/$$target; what is mended goes into tests/data/fuzz/" >&2; exit 1; }; \
	done

# Another package of its own. `MODEL_FLAGS=--short` lets fewer things go wrong at once.
MODEL_FLAGS ?=

.PHONY: model
model: ## try every order of events in the model of how masters hold shards (MODEL_FLAGS=--short for fewer)
	$(need_cargo)
	$(CARGO) run --release --locked --quiet --manifest-path models/Cargo.toml --target-dir $(TARGET)/models -- $(MODEL_FLAGS)

# Another one, which compiles the product's own files with other locks. The mistakes stand in a copy of them: each has to be found,
# and what its failing prints is left out. `--short`, `--only NAME`, `--runs COUNT`, `--seed NUMBER`, `--schedule ORDER` (of a failure).
INTERLEAVINGS_FLAGS ?=
INTERLEAVINGS := models/interleavings/Cargo.toml
PLANTED := $(abspath $(TARGET))/planted

.PHONY: interleavings
interleavings: ## try orders of the threads in each concurrent part, and find a mistake planted in each (INTERLEAVINGS_FLAGS=--short for fewer)
	$(need_cargo)
	$(CARGO) run --release --locked --quiet --manifest-path $(INTERLEAVINGS) --target-dir $(TARGET)/models -- $(INTERLEAVINGS_FLAGS)
	$(CARGO) run --release --locked --quiet --manifest-path $(INTERLEAVINGS) --target-dir $(TARGET)/models -- --plant '$(PLANTED)'
	$(CARGO) build --release --locked --quiet --manifest-path '$(PLANTED)/$(INTERLEAVINGS)' --target-dir $(TARGET)/models
	$(CARGO) run --release --locked --quiet --manifest-path '$(PLANTED)/$(INTERLEAVINGS)' --target-dir $(TARGET)/models -- --planted 2>'$(PLANTED)/failures'

# How many seeds, or the one that is repeated. Optimised, with all assertions, in a folder of its own.
SEEDS ?= 20000
SEED ?=
SIMULATION := CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 \
	CARGO_PROFILE_RELEASE_DEBUG_ASSERTIONS=true CARGO_PROFILE_RELEASE_OVERFLOW_CHECKS=true

.PHONY: simulate
simulate: ## simulate masters, workers and callers in virtual time, with 20,000 seeds (SEEDS; SEED=… repeats one, step by step)
	$(need_cargo)
	$(SIMULATION) MESOPHYLL_SIMULATION_SEEDS='$(SEEDS)' $(if $(SEED),MESOPHYLL_SIMULATION_SEED='$(SEED)') \
		$(CARGO) test --release --locked --no-default-features --target-dir $(TARGET)/simulation --lib \
		-- --nocapture pool::simulation::every_seed

# How long, and by which seed; a run that fails says its own. What else there is to set: tests/bin/stress/main.rs.
STRESS_SECONDS ?= 60

.PHONY: stress
stress: ## kill, stop and cut off everything for a minute and check the books (STRESS_SECONDS, STRESS_SEED; STRESS_MASTERS=3 for several masters); kill the master 20 times
	$(need_cargo)
	@test -n "$(CXX_FOUND)" || { echo "make stress needs a C++ compiler, as Luau is C++; $(INSTALL_CXX)" >&2; exit 1; }
	$(USE_CXX) $(CARGO) build --locked --all-features --bin mesophyll --example stress
	STRESS_SECONDS='$(STRESS_SECONDS)' $(TARGET)/debug/examples/stress $(TARGET)/debug/mesophyll
	test -n "$(STRESS_MASTERS)" || STRESS_MASTER_KILLS=20 $(USE_CXX) $(CARGO) test --locked --all-features --test it -- --nocapture faults::kills::

# As it is built for use, as the second is about time: others' p99 is at most three times what it was before.
.PHONY: stress-news
stress-news: ## change the shop 10,000 times while workers are killed; broadcast to 100,000 tenants beside calls of others, and stop it half way; ten minutes
	$(need_cargo)
	@test -n "$(CXX_FOUND)" || { echo "make $@ needs a C++ compiler, as Luau is C++; $(INSTALL_CXX)" >&2; exit 1; }
	MESOPHYLL_TEST_SHOP_CHANGES=10000 MESOPHYLL_BROADCAST_TENANTS=100000 $(USE_CXX) $(CARGO) test --release --locked --all-features --test it -- --nocapture --test-threads 1 shop::the_last_state broadcast::others_hardly

.PHONY: stress-timers
stress-timers: ## fire 100,000 timers of 1,000 tenants within a minute beside calls of others, over a file and over PostgreSQL, and 1,600 while everything is killed; ten minutes
	$(need_cargo)
	@test -n "$(CXX_FOUND)" || { echo "make $@ needs a C++ compiler, as Luau is C++; $(INSTALL_CXX)" >&2; exit 1; }
	MESOPHYLL_TEST_TIMER_TENANTS=1000 MESOPHYLL_TEST_TIMERS=1600 $(USE_CXX) $(CARGO) test --release --locked --all-features --test it -- --nocapture --test-threads 1 timers::

# Which rows, and how long each takes: ATTACK_ONLY, ATTACK_MILLIS. As it is built for use, as much of it is about time.
.PHONY: attack
attack: ## attack quiet tenants with every builtin, call and answer, and fail if that costs them too much; three minutes (ATTACK_ONLY, ATTACK_MILLIS)
	$(need_cargo)
	@test -n "$(CXX_FOUND)" || { echo "make $@ needs a C++ compiler, as Luau is C++; $(INSTALL_CXX)" >&2; exit 1; }
	MESOPHYLL_ATTACK=1 $(USE_CXX) $(CARGO) test --release --locked --all-features --lib -- --nocapture runtime::luau::tests::suite

# What ships is built apart from what one works with, and without a path of this machine in it.
# (docs/decisions/0030)
VERSION = $(shell sed -n 's/^version = "\(.*\)"$$/\1/p' Cargo.toml | head -n 1)
SHIP_FLAGS ?=
# What a path in a message of a panic, or of an assertion of Luau's, becomes.
PATHS := $(CURDIR)=/mesophyll $(or $(CARGO_HOME),$(HOME)/.cargo)=/cargo

.PHONY: ship
ship: ## build the program that ships, in target/dist/build (SHIP_FLAGS=--no-default-features)
	$(need_cargo)
	RUSTFLAGS="$$RUSTFLAGS $(addprefix --remap-path-prefix=,$(PATHS))" \
		CXXFLAGS="$$CXXFLAGS $(addprefix -ffile-prefix-map=,$(PATHS))" $(USE_CXX) \
		$(CARGO) build --release --locked --target-dir $(DIST)/build $(SHIP_FLAGS)

.PHONY: vendor
vendor: ## write the last commit's sources with all dependencies to target/dist (needs git)
	$(need_cargo)
	packaging/vendor.sh $(DIST)

.PHONY: reproduce
reproduce: vendor ## build that archive twice with the network off, and compare (SHIP_FLAGS)
	packaging/reproduce.sh $(DIST)/mesophyll-$(VERSION).tar.gz $(SHIP_FLAGS)

# A program that is there already, to be packed as it is; without it, one is built.
SHIPPED ?=
PROGRAM = $(or $(SHIPPED),$(DIST)/build/release/mesophyll)
DEB = $(DIST)/mesophyll_$(VERSION)_$(shell dpkg --print-architecture).deb

.PHONY: deb
deb: $(if $(SHIPPED),,ship) ## make a Debian package in target/dist (needs dpkg-dev, python3)
	packaging/deb.sh $(PROGRAM) $(DIST)

.PHONY: try
try: deb ## install the package and the image's root into folders, and run both (needs root)
	packaging/try.sh $(DIST)/try $(PROGRAM) $(DEB)

.PHONY: clean
clean: ## remove everything that was built, the store of `make run` included
	$(need_cargo)
	$(CARGO) clean
