//! Other kernels, in virtual machines of QEMU: `make test-kernels` boots them, docs/kernels.md has what was found there, and is
//! checked here.

mod document;
