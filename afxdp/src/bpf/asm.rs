//! A small assembler for BPF: just the instructions the redirect programs use.
//!
//! Encoding: RFC 9669, sections 3 and 4. One instruction is eight bytes: opcode, registers, offset, immediate.

use std::os::fd::{AsRawFd, BorrowedFd};

/// A BPF register. R0 results, R1-R5 arguments (lost in a call), R6-R9 kept, R10 the frame pointer (read only).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "numbered registers")]
pub(crate) enum Reg {
    R0,
    R1,
    R2,
    R3,
    R4,
    R5,
    R6,
    R7,
    R8,
    R9,
    R10,
}

/// How many bytes a load or store moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Size {
    /// One byte.
    Byte,
    /// Two bytes.
    Half,
    /// Four bytes.
    Word,
}

impl Size {
    fn bits(self) -> u8 {
        match self {
            Self::Word => 0x00,
            Self::Half => 0x08,
            Self::Byte => 0x10,
        }
    }
}

/// A place to jump to, bound before or after the jump is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Label(usize);

/// Why a listing can't be turned into a program. Both are bugs of whoever wrote the listing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum AsmError {
    #[error("a jump to a label that was never bound")]
    Unbound,
    #[error("a jump further than 32767 instructions")]
    TooFar,
}

/// A program under construction.
#[derive(Debug, Default)]
pub(crate) struct Assembler {
    code: Vec<u64>,
    labels: Vec<Option<usize>>,
    /// Instructions whose offset waits for a label.
    jumps: Vec<(usize, Label)>,
}

fn encode(opcode: u8, dst: Reg, src: Reg, offset: i16, immediate: i32) -> u64 {
    u64::from(opcode)
        | (dst as u64) << 8
        | (src as u64) << 12
        | u64::from(offset as u16) << 16
        | u64::from(immediate as u32) << 32
}

impl Assembler {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    fn emit(&mut self, opcode: u8, dst: Reg, src: Reg, offset: i16, immediate: i32) {
        self.code.push(encode(opcode, dst, src, offset, immediate));
    }

    pub(crate) fn label(&mut self) -> Label {
        self.labels.push(None);
        Label(self.labels.len() - 1)
    }

    /// Makes `label` mean the next instruction.
    pub(crate) fn bind(&mut self, label: Label) {
        self.labels[label.0] = Some(self.code.len());
    }

    /// `dst = src`
    pub(crate) fn mov(&mut self, dst: Reg, src: Reg) {
        self.emit(0xbf, dst, src, 0, 0);
    }

    /// `dst = value`
    pub(crate) fn mov_imm(&mut self, dst: Reg, value: i32) {
        self.emit(0xb7, dst, Reg::R0, 0, value);
    }

    /// `dst += src`
    pub(crate) fn add(&mut self, dst: Reg, src: Reg) {
        self.emit(0x0f, dst, src, 0, 0);
    }

    /// `dst += value`
    pub(crate) fn add_imm(&mut self, dst: Reg, value: i32) {
        self.emit(0x07, dst, Reg::R0, 0, value);
    }

    /// `dst &= value`
    pub(crate) fn and_imm(&mut self, dst: Reg, value: i32) {
        self.emit(0x57, dst, Reg::R0, 0, value);
    }

    /// `dst <<= value`
    pub(crate) fn shl_imm(&mut self, dst: Reg, value: i32) {
        self.emit(0x67, dst, Reg::R0, 0, value);
    }

    /// `dst = *(src + offset)`, as many bytes as `size` says, in the machine's byte order.
    pub(crate) fn load(&mut self, size: Size, dst: Reg, src: Reg, offset: i16) {
        self.emit(0x61 | size.bits(), dst, src, offset, 0);
    }

    /// `*(dst + offset) = src`
    pub(crate) fn store(&mut self, size: Size, dst: Reg, offset: i16, src: Reg) {
        self.emit(0x63 | size.bits(), dst, src, offset, 0);
    }

    /// `dst = map`: two instructions, the map named by its descriptor (source register 1: `BPF_PSEUDO_MAP_FD`).
    pub(crate) fn load_map(&mut self, dst: Reg, map: BorrowedFd<'_>) {
        self.emit(0x18, dst, Reg::R1, 0, map.as_raw_fd());
        self.code.push(0);
    }

    fn jump_to(&mut self, opcode: u8, dst: Reg, src: Reg, immediate: i32, label: Label) {
        self.jumps.push((self.code.len(), label));
        self.emit(opcode, dst, src, 0, immediate);
    }

    pub(crate) fn jump(&mut self, label: Label) {
        self.jump_to(0x05, Reg::R0, Reg::R0, 0, label);
    }

    /// Jumps if `dst == value`.
    pub(crate) fn jump_eq(&mut self, dst: Reg, value: i32, label: Label) {
        self.jump_to(0x15, dst, Reg::R0, value, label);
    }

    /// Jumps if `dst != value`.
    pub(crate) fn jump_ne(&mut self, dst: Reg, value: i32, label: Label) {
        self.jump_to(0x55, dst, Reg::R0, value, label);
    }

    /// Jumps if `dst >= value`, unsigned.
    pub(crate) fn jump_ge(&mut self, dst: Reg, value: i32, label: Label) {
        self.jump_to(0x35, dst, Reg::R0, value, label);
    }

    /// Jumps if `dst < value`, unsigned.
    pub(crate) fn jump_lt(&mut self, dst: Reg, value: i32, label: Label) {
        self.jump_to(0xa5, dst, Reg::R0, value, label);
    }

    /// Jumps if `dst > src`, unsigned.
    pub(crate) fn jump_gt(&mut self, dst: Reg, src: Reg, label: Label) {
        self.jump_to(0x2d, dst, src, 0, label);
    }

    /// Calls a kernel function by its number in include/uapi/linux/bpf.h.
    pub(crate) fn call(&mut self, function: i32) {
        self.emit(0x85, Reg::R0, Reg::R0, 0, function);
    }

    /// Returns R0.
    pub(crate) fn exit(&mut self) {
        self.emit(0x95, Reg::R0, Reg::R0, 0, 0);
    }

    /// The finished instructions.
    pub(crate) fn finish(mut self) -> Result<Vec<u64>, AsmError> {
        for (at, label) in self.jumps {
            let target = self.labels[label.0].ok_or(AsmError::Unbound)?;
            // A jump counts from the instruction after it.
            let offset = i16::try_from(target as i64 - at as i64 - 1).map_err(|_| AsmError::TooFar)?;
            self.code[at] |= u64::from(offset as u16) << 16;
        }
        Ok(self.code)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(write: impl FnOnce(&mut Assembler)) -> [u8; 8] {
        let mut asm = Assembler::new();
        write(&mut asm);
        asm.finish().unwrap()[0].to_le_bytes()
    }

    #[test]
    fn instructions_encode_as_rfc_9669_lays_them_out() {
        assert_eq!(one(|a| a.mov(Reg::R6, Reg::R1)), [0xbf, 0x16, 0, 0, 0, 0, 0, 0]);
        assert_eq!(one(|a| a.mov_imm(Reg::R0, 2)), [0xb7, 0x00, 0, 0, 2, 0, 0, 0]);
        assert_eq!(one(|a| a.add(Reg::R9, Reg::R4)), [0x0f, 0x49, 0, 0, 0, 0, 0, 0]);
        assert_eq!(one(|a| a.add_imm(Reg::R2, -4)), [0x07, 0x02, 0, 0, 0xfc, 0xff, 0xff, 0xff]);
        assert_eq!(one(|a| a.and_imm(Reg::R4, 15)), [0x57, 0x04, 0, 0, 15, 0, 0, 0]);
        assert_eq!(one(|a| a.shl_imm(Reg::R4, 2)), [0x67, 0x04, 0, 0, 2, 0, 0, 0]);
        assert_eq!(one(|a| a.load(Size::Word, Reg::R7, Reg::R6, 4)), [0x61, 0x67, 4, 0, 0, 0, 0, 0]);
        assert_eq!(one(|a| a.load(Size::Half, Reg::R5, Reg::R7, 12)), [0x69, 0x75, 12, 0, 0, 0, 0, 0]);
        assert_eq!(one(|a| a.load(Size::Byte, Reg::R5, Reg::R7, 23)), [0x71, 0x75, 23, 0, 0, 0, 0, 0]);
        assert_eq!(one(|a| a.store(Size::Word, Reg::R10, -4, Reg::R5)), [0x63, 0x5a, 0xfc, 0xff, 0, 0, 0, 0]);
        assert_eq!(one(|a| a.call(51)), [0x85, 0, 0, 0, 51, 0, 0, 0]);
        assert_eq!(one(Assembler::exit), [0x95, 0, 0, 0, 0, 0, 0, 0]);
    }

    #[test]
    fn jumps_count_from_the_next_instruction_forward_and_back() {
        let mut asm = Assembler::new();
        let (top, end) = (asm.label(), asm.label());
        asm.bind(top);
        asm.jump_gt(Reg::R4, Reg::R8, end);
        asm.jump_ge(Reg::R1, 224, top);
        asm.jump_lt(Reg::R1, 20, top);
        asm.jump_eq(Reg::R1, 1, end);
        asm.jump_ne(Reg::R1, 1, end);
        asm.jump(end);
        asm.bind(end);
        asm.exit();
        let code: Vec<_> = asm.finish().unwrap().into_iter().map(u64::to_le_bytes).collect();
        assert_eq!(code[0], [0x2d, 0x84, 5, 0, 0, 0, 0, 0]);
        assert_eq!(code[1], [0x35, 0x01, 0xfe, 0xff, 224, 0, 0, 0]);
        assert_eq!(code[2], [0xa5, 0x01, 0xfd, 0xff, 20, 0, 0, 0]);
        assert_eq!(code[3], [0x15, 0x01, 2, 0, 1, 0, 0, 0]);
        assert_eq!(code[4], [0x55, 0x01, 1, 0, 1, 0, 0, 0]);
        assert_eq!(code[5], [0x05, 0x00, 0, 0, 0, 0, 0, 0]);
    }

    #[test]
    fn a_map_takes_two_instructions() {
        let null = std::fs::File::open("/dev/null").unwrap();
        let mut asm = Assembler::new();
        asm.load_map(Reg::R1, std::os::fd::AsFd::as_fd(&null));
        let code = asm.finish().unwrap();
        assert_eq!(code.len(), 2);
        assert_eq!(code[0].to_le_bytes()[..2], [0x18, 0x11]);
        assert_eq!(code[0] >> 32, null.as_raw_fd() as u64);
        assert_eq!(code[1], 0);
    }

    #[test]
    fn a_jump_to_nowhere_is_refused() {
        let mut asm = Assembler::new();
        let label = asm.label();
        asm.jump(label);
        assert_eq!(asm.finish(), Err(AsmError::Unbound));
    }
}
