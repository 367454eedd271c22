//! Other kernels, in virtual machines of QEMU: `tests/kernels/run` boots them, docs/kernels.md has what was found there.

mod boots;
mod document;
