# make           build dpd; installs from Debian what is missing
# make demo      see it work: services for workloads and for the network, in labs of network namespaces
# make test      every check and test
# make test-kernels   run the tests of tests/kernels on other kernels, in virtual machines; writes docs/kernels.md
# make bench     print what packets, events and changes cost, compared with plain routing and nftables
# make fuzz      feed generated configurations, packets and ring records to dpd, each for FUZZ_SECONDS (60)
# make deb       make a Debian package
# make rpm       make an RPM package
# make install   install the same files on this host without a package; make uninstall removes them

PREFIX ?= /usr/local
SYSCONFDIR ?= /etc
FUZZ_SECONDS ?= 60
TARGET := $(or $(CARGO_TARGET_DIR),target)
BINARY = $(TARGET)/release/dpd

# Rustup's cargo is often missing from root's PATH.
export PATH := $(PATH):$(HOME)/.cargo/bin:/usr/local/cargo/bin:/usr/sbin:/sbin

# In the kernel's own style: .clang-format
C_SOURCES = $(shell find bpf tests -name "*.[ch]")

.PHONY: build demo test test-kernels bench fuzz lab-up lab-down install install-files uninstall stage \
	deb deb-only rpm rpm-only clean packages test-packages kernel-packages bench-packages cargo

build: packages cargo
	cargo build --release --locked

demo: build
	DPD=$(abspath $(TARGET)/release/dpd) netns-lab/demo
	DPD=$(abspath $(TARGET)/release/dpd) netns-lab/demo-two-hosts
	DPD=$(abspath $(TARGET)/release/dpd) netns-lab/demo-north-south

test: test-packages cargo
	@cargo fmt --version >/dev/null 2>&1 && cargo clippy --version >/dev/null 2>&1 || \
		rustup component add rustfmt clippy || \
		{ echo "make: cargo fmt and cargo clippy are missing: install Rust's rustfmt and clippy" >&2; exit 1; }
	cargo fmt --check
	$(if $(C_SOURCES),clang-format-19 --dry-run -Werror $(C_SOURCES))
	cargo clippy --locked --all-targets -- -D warnings
	cargo test --locked

# Linux 6.1, 6.12, the newest that Debian has, and one that is too old. Downloads them once, to target/kernels.
test-kernels: kernel-packages cargo
	@[ "$$(id -u)" = 0 ] || { echo "make: the machines' files are this machine's: run 'make test-kernels' as root" >&2; exit 1; }
	tests/kernels/run

# One after the other, on an otherwise idle machine.
bench: bench-packages cargo
	@[ "$$(id -u)" = 0 ] || { echo "make: the benches create network namespaces: run 'make bench' as root" >&2; exit 1; }
	cargo build --benches --profile bench --locked
	for bench in path traffic external sockets size backends flood events scale; do \
		echo "== $$bench" && cargo bench --quiet --locked --bench $$bench || exit 1; \
	done

# One target after the other, each for FUZZ_SECONDS. Packets run through the real programs, which needs root; without it that
# target is left out. Findings are in fuzz/artifacts: fix the cause, and put the input into the target's folder of fuzz/corpus,
# which 'make test' replays. Inputs that only add coverage go to the build's folder. RUSTC_BOOTSTRAP: no nightly compiler is
# needed.
fuzz: packages cargo
	@command -v cargo-fuzz >/dev/null || cargo install --locked cargo-fuzz
	@for target in config record packet; do \
		if [ $$target = packet ] && [ "$$(id -u)" != 0 ]; then \
			echo "make: packet is left out: run 'make fuzz' as root" >&2; continue; \
		fi; \
		mkdir -p $(TARGET)/fuzz-corpus/$$target && \
		RUSTC_BOOTSTRAP=1 CARGO_TARGET_DIR=$(abspath $(TARGET))/fuzz nice cargo fuzz run --sanitizer none $$target \
			$(abspath $(TARGET))/fuzz-corpus/$$target fuzz/corpus/$$target -- \
			-max_total_time=$(FUZZ_SECONDS) -max_len=4096 -timeout=10 || exit 1; \
	done

lab-up: build
	netns-lab/lab up
	DPD=$(abspath $(TARGET)/release/dpd) netns-lab/lab start

lab-down:
	netns-lab/lab down

# Builds nothing, so that 'make && sudo make install' needs no Rust for root.
install: install-files
	@test -n "$(DESTDIR)" || ! test -d /run/systemd/system || \
		{ systemd-sysusers dpd.conf && systemd-tmpfiles --create dpd.conf && systemctl daemon-reload; }
	@echo "Installed. Edit $(SYSCONFDIR)/dpd/config.toml, then: dpd check && systemctl enable --now dpd"

# All files of dpd on a host; packages have the same.
SHARE = $(DESTDIR)$(PREFIX)/share
DOC = $(SHARE)/doc/dpd
install-files:
	@test -x $(BINARY) || { echo "make: dpd is not built: run 'make' first" >&2; exit 1; }
	install -D -m 755 $(BINARY) $(DESTDIR)$(PREFIX)/sbin/dpd
	install -d $(DESTDIR)$(PREFIX)/lib/systemd/system $(DOC)/examples $(DOC)/docs
	sed 's,/usr/local/sbin/dpd,$(PREFIX)/sbin/dpd,' systemd/dpd.service \
		>$(DESTDIR)$(PREFIX)/lib/systemd/system/dpd.service
	install -D -m 644 systemd/dpd.sysusers $(DESTDIR)$(PREFIX)/lib/sysusers.d/dpd.conf
	install -D -m 644 systemd/dpd.tmpfiles $(DESTDIR)$(PREFIX)/lib/tmpfiles.d/dpd.conf
	$(BINARY) manual $(SHARE)
	install -m 644 README.md CHANGELOG.md ARCHITECTURE.md LICENSE $(DOC)
	install -m 644 docs/* $(DOC)/docs
	cp -r --no-preserve=ownership examples/*.toml examples/two-hosts $(DOC)/examples
	test -e $(DESTDIR)$(SYSCONFDIR)/dpd/config.toml || \
		{ install -D -m 644 packaging/config.toml $(DESTDIR)$(SYSCONFDIR)/dpd/config.toml && \
		sed -i 's,/usr/share,$(PREFIX)/share,' $(DESTDIR)$(SYSCONFDIR)/dpd/config.toml; }

# Leaves the configuration, and what is in the kernel: 'dpd cleanup' removes that, before this.
uninstall:
	rm -f $(DESTDIR)$(PREFIX)/sbin/dpd $(DESTDIR)$(PREFIX)/lib/systemd/system/dpd.service \
		$(DESTDIR)$(PREFIX)/lib/sysusers.d/dpd.conf $(DESTDIR)$(PREFIX)/lib/tmpfiles.d/dpd.conf \
		$(SHARE)/man/man5/dpd.toml.5 $(SHARE)/man/man8/dpd.8 $(SHARE)/man/man8/dpd-*.8 \
		$(SHARE)/bash-completion/completions/dpd $(SHARE)/zsh/site-functions/_dpd \
		$(SHARE)/fish/vendor_completions.d/dpd.fish
	rm -rf $(DOC)
	@test -n "$(DESTDIR)" || ! test -d /run/systemd/system || systemctl daemon-reload

# What both kinds of package hold: the installed files, and the scripts with the layout of the datapath that this version pins.
# The binary keeps the names of functions, for backtraces; the rest of its debug information is apart.
STAGE = target/package
stage:
	rm -rf $(STAGE)
	$(MAKE) --no-print-directory install-files DESTDIR=$(STAGE)/root PREFIX=/usr SYSCONFDIR=/etc
	objcopy --only-keep-debug --compress-debug-sections $(BINARY) $(STAGE)/dpd.debug
	strip --strip-debug $(STAGE)/root/usr/sbin/dpd
	objcopy --add-gnu-debuglink=$(STAGE)/dpd.debug $(STAGE)/root/usr/sbin/dpd
	layout=$$($(BINARY) --version | sed 's/.*abi-\([0-9]*\).*/\1/') && \
		for script in packaging/deb/*inst packaging/deb/*rm packaging/rpm/*; do \
			install -D $$script $(STAGE)/$${script#packaging/} && \
			sed -i "s/@LAYOUT@/$$layout/" $(STAGE)/$${script#packaging/} || exit 1; \
		done

deb: build deb-only
	cargo deb --no-build --locked --variant dbgsym

# Debian's zsh looks for the completions of packages in a folder of their own.
deb-only: stage
	@command -v cargo-deb >/dev/null || cargo install --locked cargo-deb
	mkdir $(STAGE)/root/usr/share/zsh/vendor-completions
	mv $(STAGE)/root/usr/share/zsh/site-functions/_dpd $(STAGE)/root/usr/share/zsh/vendor-completions
	cargo deb --no-build --locked $(DEB_OPTIONS) $(if $(DEB),--output $(DEB))

rpm: build rpm-only

rpm-only: stage
	@command -v cargo-generate-rpm >/dev/null || cargo install --locked cargo-generate-rpm
	install -m 644 LICENSES/* $(STAGE)/root/usr/share/doc/dpd
	cargo generate-rpm

clean:
	cargo clean

packages:
	@tools/install-packages build

bench-packages:
	@tools/install-packages bench

kernel-packages:
	@tools/install-packages kernels

test-packages:
	@tools/install-packages test

cargo:
	@command -v cargo >/dev/null || \
		{ echo "make: cargo is missing: install Rust from https://rustup.rs, or set PATH" >&2; exit 1; }
