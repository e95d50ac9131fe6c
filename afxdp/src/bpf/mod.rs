//! BPF without a compiler: bytecode assembled here, so that nobody needs clang and a program holds only the branches
//! its configuration needs.

pub(crate) mod asm;
pub(crate) mod load;
pub(crate) mod redirect;
