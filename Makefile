# SPDX-License-Identifier: GPL-2.0
# The commands of the project. Each sets up what it needs, says what it does, can
# be interrupted and run again. Everything is in the scripts that are called.
#
#   make help        this list
#   make demo        real programs run out of jitfd in a guest
#   make test        all tests; the last line counts them (SUITES= for some)
#   make bench       what publishing and trampolines cost, measured in a guest
#   make bench-trampolines
#                    of it, only trampolines next to other ways to have them
#   make bench-validate
#                    how fast validation is, next to other decoders
#   make stress      the protocol under load: 4 and 8 CPUs, both kernels; then under
#                    page table isolation with PCID, in Bochs
#   make engines     engines of Debian (LuaJIT, PHP, V8, the JVM ...) by jitfd-run, in a
#                    guest; half an hour (ENGINES= for some)
#   make adapters    Wasmtime and Cranelift with their code by jitfd, in a guest
#   make mutants     plants a bug for each rule; the stress must catch it
#   make interrupt   ends the set-up and guests at random moments (KILLS= SEED=)
#   make check       formatting, lints, host tests; under two minutes
#   make vm RUN="path/to/static-binary args..."
#                    runs one program in a guest with the module; NOMODULE=1 without
#   make kernel      the set-up: build root and kernel (FLAVOR=)
#   make module      jit.ko (FLAVOR=, KDIR=); prints its path
#   make install     libjitfd, jitctl, jitfd-run, header, man pages, udev rule (PREFIX= LIBDIR= DESTDIR=)
#   make install-module   jit.ko for the kernel it is built for, loaded at boot
#   make uninstall, make uninstall-module
#
# Variables: CACHE= FLAVOR=stock|debug|kcsan KDIR= EMULATOR=qemu|bochs
# ACCEL=auto|kvm|tcg SMP= MEM= MIRROR= FILES= OUT= PARAMS= APPEND= BOOT_LIMIT=
# RUN_LIMIT= KERNEL_LOG= LEAKS=1 (what each does: make vm-help).

CARGO ?= cargo
FLAVOR ?= stock

# What make was given as VARIABLE= is passed on to the scripts.
export FLAVOR
export CARGO_TARGET_DIR := $(CURDIR)/target
$(foreach v,CACHE KDIR EMULATOR ACCEL SMP MEM MIRROR FILES OUT PARAMS APPEND BOOT_LIMIT \
  RUN_LIMIT KERNEL_LOG LEAKS NOMODULE MODULE SUITES ENGINES KSRC LLVM SECONDS_EACH SEED KILLS PREFIX LIBDIR DESTDIR,$(if $(filter-out undefined,$(origin $v)),$(eval export $v)))

.PHONY: help demo test stress engines mutants interrupt bench bench-trampolines bench-validate check vm vm-help kernel module init prerequisites \
  install uninstall install-module uninstall-module
.DEFAULT_GOAL := demo

demo: init
	@tests/demo/run.sh

test: init
	@tests/run.sh

stress: init
	@tests/stress/run.sh

engines: init
	@tests/engines/run.sh

adapters: init
	@tests/adapters/run.sh

mutants: init
	@tests/mutants/run.sh

interrupt: init
	@exec tests/vm/interrupt.sh

bench: init
	@benches/run.sh

bench-trampolines: init
	@benches/trampolines/run.sh

bench-validate: prerequisites
	@benches/validate.sh

check: prerequisites
	@tests/check.sh

# "exec": make passes SIGTERM on to what it has started, and that is no shell then.
vm: init
	$(if $(RUN),,$(error usage: make vm RUN="path/to/static-binary args..."))
	@exec target/release/vm $(RUN)

help:
	@sed -n '/^# The commands/,/^$$/s/^#\( \|$$\)//p' Makefile

vm-help: prerequisites
	@$(CARGO) run --quiet --release -p jitfd-vm -- --help

kernel: prerequisites
	@exec tests/vm/$(if $(filter stock,$(FLAVOR)),kernel.sh,debug-kernel.sh)

module: prerequisites
	@tests/vm/module.sh

install: prerequisites
	@$(CARGO) build --quiet --release -p jitfd-capi -p jitfd-exec -p jitfd-ffi -p jitctl
	@userlib/install/install.sh install

uninstall:
	@userlib/install/install.sh uninstall

install-module uninstall-module: prerequisites
	@MODULE=$${MODULE:-$$(tests/vm/module.sh)} userlib/install/install.sh $@

# The runner and the guest's init: everything that boots a guest needs both.
init: prerequisites
	@$(CARGO) build --quiet --release -p jitfd-vm
	@exec tests/vm/guest.sh -p jitfd-guest --bin init >/dev/null

prerequisites:
	@tests/vm/prerequisites.sh
