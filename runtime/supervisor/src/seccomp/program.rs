//! A filter as a program for the kernel (classic BPF over `struct seccomp_data`), arranged as a search tree.
//!
//! ```text
//!   architecture is another ──▶ kill the process
//!   number of the call
//!   ├── below M ──▶ ├── below … ──▶ …      Neighbouring numbers with one verdict are one leaf; numbers below and above all
//!   │               └── else ─────▶ …      that have rules, x32's among them, are leaves with the verdict "otherwise".
//!   └── else ─────▶ …
//! ```
//!
//! The kernel runs a new filter once for every number there is, to remember which of them it allows whatever the arguments. A
//! list that is walked from its head makes that the largest part of the installation; the tree takes a few steps for each.

use std::collections::BTreeMap;

use libc::c_long;
use seccompiler::{BpfProgram, SeccompCmpOp, sock_filter};

/// What must hold for the lower halves of a call's arguments: argument, comparison, value.
pub(super) type Rule = Vec<(u8, SeccompCmpOp, u32)>;

/// The filter has more on one side of a decision than a program can jump over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a decision has more than 255 instructions on one side")]
pub struct TooLong;

/// Verdicts, as the kernel has them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Verdicts {
    /// For a call that has no rules, or of whose rules one holds.
    pub(super) matched: u32,
    /// For all others.
    pub(super) otherwise: u32,
}

/// Calls from this number up to the next leaf's.
struct Leaf<'a> {
    from: u32,
    /// `None` for calls that are not listed.
    rules: Option<&'a [Rule]>,
}

/// Of linux/bpf_common.h: a class, a size or an operation, and where the operand is.
const LOAD: u16 = 0x20;
const AND: u16 = 0x54;
const RETURN: u16 = 0x06;
const IF_EQUAL: u16 = 0x15;
const IF_ABOVE: u16 = 0x25;
const IF_NOT_BELOW: u16 = 0x35;

const NUMBER_AT: u32 = 0;
const ARCHITECTURE_AT: u32 = 4;
const ARGUMENTS_AT: u32 = 16;

/// Of linux/audit.h: the machine's ELF number, 64 bits, little endian.
#[cfg(target_arch = "x86_64")]
const ARCHITECTURE: u32 = 62 | 0xC000_0000;
#[cfg(target_arch = "aarch64")]
const ARCHITECTURE: u32 = 183 | 0xC000_0000;

/// The program that gives calls with these rules the one verdict and all others the other. No rules mean: whatever the
/// arguments.
pub(super) fn program(rules: &BTreeMap<c_long, Vec<Rule>>, verdicts: Verdicts) -> Result<BpfProgram, TooLong> {
    let mut program = vec![
        instruction(LOAD, ARCHITECTURE_AT),
        jump(IF_EQUAL, ARCHITECTURE, 1, 0),
        instruction(RETURN, libc::SECCOMP_RET_KILL_PROCESS),
        instruction(LOAD, NUMBER_AT),
    ];
    program.extend(tree(&leaves(rules), verdicts)?);
    Ok(program)
}

fn leaves(rules: &BTreeMap<c_long, Vec<Rule>>) -> Vec<Leaf<'_>> {
    let mut leaves = vec![Leaf { from: 0, rules: None }];
    let mut next = 0;
    for (number, rules) in rules {
        let Ok(number) = u32::try_from(*number) else { continue };
        if number > next {
            add(&mut leaves, Leaf { from: next, rules: None });
        }
        add(&mut leaves, Leaf { from: number, rules: Some(rules) });
        next = number + 1;
    }
    add(&mut leaves, Leaf { from: next, rules: None });
    leaves
}

/// Adds a leaf; one with the verdict of its neighbour is a part of that, and one that begins where its neighbour does takes
/// its place.
fn add<'a>(leaves: &mut Vec<Leaf<'a>>, leaf: Leaf<'a>) {
    let Some(last) = leaves.last_mut() else { return };
    if last.from == leaf.from {
        *last = leaf;
    } else if last.rules != leaf.rules {
        leaves.push(leaf);
    }
}

/// Finds the leaf of the number in the accumulator.
fn tree(leaves: &[Leaf<'_>], verdicts: Verdicts) -> Result<BpfProgram, TooLong> {
    let (below, above) = leaves.split_at(leaves.len() / 2);
    let Some(first_above) = above.first() else { return Ok(vec![instruction(RETURN, verdicts.otherwise)]) };
    if below.is_empty() {
        return leaf(first_above.rules, verdicts);
    }
    let below = tree(below, verdicts)?;
    let mut program = vec![jump(IF_NOT_BELOW, first_above.from, distance(&below)?, 0)];
    program.extend(below);
    program.extend(tree(above, verdicts)?);
    Ok(program)
}

fn leaf(rules: Option<&[Rule]>, verdicts: Verdicts) -> Result<BpfProgram, TooLong> {
    let Some(rules) = rules else { return Ok(vec![instruction(RETURN, verdicts.otherwise)]) };
    if rules.is_empty() {
        return Ok(vec![instruction(RETURN, verdicts.matched)]);
    }
    let mut program = Vec::new();
    for rule in rules {
        let mut holds = vec![instruction(RETURN, verdicts.matched)];
        for (argument, comparison, value) in rule.iter().rev() {
            let mut condition = vec![instruction(LOAD, ARGUMENTS_AT + 8 * u32::from(*argument))];
            condition.extend(unless(comparison, *value, distance(&holds)?));
            condition.append(&mut holds);
            holds = condition;
        }
        program.append(&mut holds);
    }
    program.push(instruction(RETURN, verdicts.otherwise));
    Ok(program)
}

/// Jumps so far if the comparison of the accumulator with the value does not hold.
fn unless(comparison: &SeccompCmpOp, value: u32, far: u8) -> BpfProgram {
    match comparison {
        SeccompCmpOp::Eq => vec![jump(IF_EQUAL, value, 0, far)],
        SeccompCmpOp::Ne => vec![jump(IF_EQUAL, value, far, 0)],
        SeccompCmpOp::Gt => vec![jump(IF_ABOVE, value, 0, far)],
        SeccompCmpOp::Le => vec![jump(IF_ABOVE, value, far, 0)],
        SeccompCmpOp::Ge => vec![jump(IF_NOT_BELOW, value, 0, far)],
        SeccompCmpOp::Lt => vec![jump(IF_NOT_BELOW, value, far, 0)],
        SeccompCmpOp::MaskedEq(mask) => {
            // Of an argument's lower half only the mask's lower half can be seen.
            let mask = u32::try_from(mask & u64::from(u32::MAX)).unwrap_or(0);
            vec![instruction(AND, mask), jump(IF_EQUAL, value & mask, 0, far)]
        }
    }
}

fn distance(over: &[sock_filter]) -> Result<u8, TooLong> {
    u8::try_from(over.len()).map_err(|_| TooLong)
}

fn instruction(code: u16, k: u32) -> sock_filter {
    sock_filter { code, jt: 0, jf: 0, k }
}

fn jump(code: u16, k: u32, if_so: u8, if_not: u8) -> sock_filter {
    sock_filter { code, jt: if_so, jf: if_not, k }
}

#[cfg(test)]
pub(super) mod tests;
