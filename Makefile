# Sandbar: what can be made. `make` lists it.
SHELL := /bin/sh
PREFIX ?= /usr/local
UNITS ?= /etc/systemd/system
TARGET := $(or $(CARGO_TARGET_DIR),target)

# Each target wants the whole machine, and two package managers at once lock each other out.
.NOTPARALLEL:
.PHONY: help build examples demo test model miri test-cgroup2 soak fuzz many check bench bench-bus bench-coap install install-systemd clean

help:
	@echo "make demo             build, and show a host at work: chains, pictures, and what is refused (as root)"
	@echo "make test             install what the tests need, and run all of them (as root)"
	@echo "make test-cgroup2     limits, and the service for systemd, on control groups v2, in virtual machines (as root)"
	@echo "make check            formatting and lints, all warnings as errors"
	@echo "make soak             100 million messages over processes that are killed, 10 million rounds beside a hostile one, 10 million CoAP datagrams, two minutes of libFuzzer on each layer, abuse of the CoAP doors, 3,400 kills (as root)"
	@echo "make fuzz             libFuzzer on the layers of the CoAP door, a minute each; ARGUMENTS='300 codec' for one of them and longer"
	@echo "make many             500 sandboxes side by side, or SANDBAR_MANY, killed and started again (as root)"
	@echo "make bench            measure what is claimed, beside floors and peers, on this machine (as root; half an hour, once it is built)"
	@echo "make bench-bus        measure the application bus alone, beside floors, iceoryx2 and NATS (two minutes, once it is built)"
	@echo "make bench-coap       measure the CoAP door alone, beside libcoap's server and a bare loop (a minute, once it is built)"
	@echo "make build            the command, in $(TARGET)/release/sandbar"
	@echo "make install          the command, to $(PREFIX)/bin"
	@echo "make install-systemd  the command, and a service for systemd, to $(UNITS)"
	@echo "make clean            remove what was built"

build:
	@sh scripts/setup.sh build
	cargo build --release --locked

examples:
	@sh scripts/setup.sh build
	sh examples/build.sh

demo: build examples
	$(TARGET)/release/sandbar demo

test: examples
	@sh scripts/setup.sh test
	@bash scripts/test.sh

# Every interleaving that the memory model allows, of the bus's algorithms. A part of `make test`.
model:
	RUSTFLAGS="--cfg loom" cargo test --release --locked -p sandbar-bus --lib --target-dir $(TARGET)/loom -- --nocapture

# The same algorithms under Miri, which sees undefined behaviour. A part of `make test` where Miri is installed.
miri:
	@bash scripts/miri.sh

test-cgroup2:
	@sh scripts/setup.sh build
	@bash scripts/cgroup2.sh

soak:
	@sh scripts/setup.sh fuzz
	SANDBAR_SOAK=1 cargo test --release --locked -p sandbar-bus --test soak
	SANDBAR_SOAK=1 cargo test --release --locked -p sandbar-proxy --lib fuzz -- --nocapture
	sh scripts/fuzz.sh 120
	SANDBAR_SOAK=1 cargo test --release --locked -p sandbar-proxy --test coap_abuse -- --nocapture
	SANDBAR_SOAK=1 cargo test --release --locked -p sandbar-proxy --test observers_memory -- --nocapture
	SANDBAR_SOAK=1 cargo test --release --locked -p sandbar-proxy --test coap loss -- --nocapture
	SANDBAR_SOAK=1 CARGO_PROFILE_RELEASE_DEBUG_ASSERTIONS=true CARGO_PROFILE_RELEASE_OVERFLOW_CHECKS=true \
		cargo test --release --locked -p sandbar-bus --test hostile
	SANDBAR_SOAK=1 CARGO_PROFILE_RELEASE_DEBUG_ASSERTIONS=true CARGO_PROFILE_RELEASE_OVERFLOW_CHECKS=true \
		cargo test --release --locked -p sandbar-proxy --lib dtls -- --nocapture
	sh examples/build.sh
	SANDBAR_SOAK=1 cargo test --release --locked --test drills -- --nocapture

# What it tries is a part of `make test`, drawn at random there. ARGUMENTS: seconds for each, and names of targets, if not all are wanted.
fuzz:
	@sh scripts/setup.sh fuzz
	sh scripts/fuzz.sh $(ARGUMENTS)

# A part of `make test`, which builds it without optimisation.
many: examples
	SANDBAR_MANY=$${SANDBAR_MANY:-500} cargo test --release --locked --test drills many -- --nocapture

check:
	cargo fmt --all --check
	cargo fmt --manifest-path benches/bus/Cargo.toml --check
	cargo fmt --manifest-path benches/wasm/Cargo.toml --check
	cargo fmt --manifest-path fuzz/Cargo.toml --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	cargo clippy -p sandbar-proxy --features fuzz --locked -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --locked --quiet

# Peers are packages of their own, with lock files of their own; one that does not build is skipped. Those who are started for each call run
# the function linked statically. ARGUMENTS: --quick, --strict (a goal that is missed is a failure), --peer NAME=URL (a server that runs
# already), and names of parts, if not all are wanted.
bench: build examples
	@sh scripts/setup.sh bench
	cargo build --release --locked -p claims-functions
	cargo rustc --release --locked -p claims-functions --target-dir $(TARGET)/bench-static -- -C target-feature=+crt-static
	-cargo build --release --locked --manifest-path benches/wasm/Cargo.toml --target-dir $(TARGET)/bench-wasm
	-cargo build --release --locked --manifest-path benches/bus/Cargo.toml --target-dir $(TARGET)/bench-bus
	$(if $(ARGUMENTS),,cargo bench --locked --bench sandbox)
	cargo bench --locked --bench claims -- $(ARGUMENTS)

# A package of its own, with a lock file of its own: its peers are heavy, and nothing else needs them.
bench-bus:
	@sh scripts/setup.sh build
	cargo run --release --locked --manifest-path benches/bus/Cargo.toml --target-dir $(TARGET)/bench-bus -- $(ARGUMENTS)

# The door alone, with a built-in echo behind it. libcoap's part needs libcoap3-dev. ARGUMENTS: --quick.
bench-coap:
	@sh scripts/setup.sh build
	cargo bench --locked -p sandbar-proxy --bench coap -- $(ARGUMENTS)

install: build
	install -D -m 755 $(TARGET)/release/sandbar $(DESTDIR)$(PREFIX)/bin/sandbar

install-systemd: install
	install -d $(DESTDIR)$(UNITS)
	sed 's|/usr/local/bin|$(PREFIX)/bin|' packaging/sandbar.service >$(DESTDIR)$(UNITS)/sandbar.service
	chmod 644 $(DESTDIR)$(UNITS)/sandbar.service
	@echo "now: systemctl daemon-reload && systemctl enable --now sandbar"

clean:
	cargo clean
	rm -rf examples/*/bin examples/pictures
