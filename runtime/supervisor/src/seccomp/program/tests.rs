#![allow(clippy::cast_possible_truncation, reason = "halves of arguments are what a filter sees")]

use super::*;

const VERDICTS: Verdicts = Verdicts { matched: libc::SECCOMP_RET_ALLOW, otherwise: libc::SECCOMP_RET_ERRNO | 38 };

/// One call, as a filter sees it.
#[derive(Clone, Copy, Debug)]
pub(in crate::seccomp) struct Call {
    pub(in crate::seccomp) number: u32,
    pub(in crate::seccomp) architecture: u32,
    pub(in crate::seccomp) arguments: [u64; 6],
}

impl Call {
    pub(in crate::seccomp) fn here(number: u32, arguments: [u64; 6]) -> Self {
        Self { number, architecture: ARCHITECTURE, arguments }
    }

    fn word_at(&self, at: u32) -> u32 {
        let halves = |value: u64| [value as u32, (value >> 32) as u32];
        match at {
            NUMBER_AT => self.number,
            ARCHITECTURE_AT => self.architecture,
            at => halves(self.arguments[(at - ARGUMENTS_AT) as usize / 8])[(at % 8) as usize / 4],
        }
    }
}

/// Runs a program as the kernel would: its verdict, and how many instructions that took.
pub(in crate::seccomp) fn run(program: &[sock_filter], call: &Call) -> (u32, usize) {
    let (mut accumulator, mut at) = (0u32, 0);
    for steps in 1..=program.len() {
        let sock_filter { code, jt, jf, k } = program[at].clone();
        at += 1;
        let mut go = |holds: bool| at += usize::from(if holds { jt } else { jf });
        match code {
            LOAD => accumulator = call.word_at(k),
            AND => accumulator &= k,
            RETURN => return (k, steps),
            IF_EQUAL => go(accumulator == k),
            IF_ABOVE => go(accumulator > k),
            IF_NOT_BELOW => go(accumulator >= k),
            other => panic!("the program has an instruction {other:#x}"),
        }
    }
    panic!("the program goes round in circles");
}

/// What the rules say, read without a program.
fn meant(rules: &BTreeMap<c_long, Vec<Rule>>, verdicts: Verdicts, call: &Call) -> u32 {
    if call.architecture != ARCHITECTURE {
        return libc::SECCOMP_RET_KILL_PROCESS;
    }
    let holds = |(argument, comparison, value): &(u8, SeccompCmpOp, u32)| {
        let argument = call.arguments[usize::from(*argument)] as u32;
        match comparison {
            SeccompCmpOp::Eq => argument == *value,
            SeccompCmpOp::Ne => argument != *value,
            SeccompCmpOp::Lt => argument < *value,
            SeccompCmpOp::Le => argument <= *value,
            SeccompCmpOp::Gt => argument > *value,
            SeccompCmpOp::Ge => argument >= *value,
            SeccompCmpOp::MaskedEq(mask) => argument & *mask as u32 == *value & *mask as u32,
        }
    };
    let matched = rules
        .get(&c_long::from(call.number))
        .is_some_and(|rules| rules.is_empty() || rules.iter().any(|rule| rule.iter().all(holds)));
    if matched { verdicts.matched } else { verdicts.otherwise }
}

/// Compares the program for these rules with the rules themselves, for calls with each value in each argument.
pub(in crate::seccomp) fn assert_means(
    rules: &BTreeMap<c_long, Vec<Rule>>,
    verdicts: Verdicts,
    numbers: impl IntoIterator<Item = u32>,
    values: &[u64],
) {
    let program = program(rules, verdicts).unwrap();
    for number in numbers {
        for value in values {
            for argument in 0..6 {
                let mut arguments = [0; 6];
                arguments[argument] = *value;
                let call = Call::here(number, arguments);
                assert_eq!(run(&program, &call).0, meant(rules, verdicts, &call), "{call:?}");
            }
        }
    }
}

fn allowed(numbers: impl IntoIterator<Item = c_long>) -> BTreeMap<c_long, Vec<Rule>> {
    numbers.into_iter().map(|number| (number, Vec::new())).collect()
}

const EDGES: [u32; 6] = [511, 512, 0x3FFF_FFFF, 0x4000_0000, 0x7FFF_FFFF, u32::MAX];

#[test]
fn every_number_has_the_verdict_of_the_list() {
    let lists = [
        allowed([]),
        allowed([0]),
        allowed([7]),
        allowed([0, 1, 2, 3]),
        allowed([1, 3, 5, 200, 201, 202, 450]),
        allowed((0..200).filter(|number| number % 3 == 0)),
    ];
    for rules in &lists {
        assert_means(rules, VERDICTS, (0..512).chain(EDGES), &[0]);
    }
}

#[test]
fn every_comparison_means_what_it_says() {
    use SeccompCmpOp::{Eq, Ge, Gt, Le, Lt, MaskedEq, Ne};
    let values = [0, 1, 9, 10, 11, 0xFFFF_FFFF, 0x1_0000_000A, 0xFFFF_FFFF_0000_0000, u64::MAX];
    for comparison in [Eq, Ne, Lt, Le, Gt, Ge, MaskedEq(0x0A), MaskedEq(0xFFFF_FFFF_0000_0003)] {
        for argument in 0..6 {
            let one = vec![vec![(argument, comparison.clone(), 10)]];
            let both = vec![vec![(argument, comparison.clone(), 10), (0, Ne, 9)], vec![(1, Eq, 11)]];
            let mut rules = allowed([3, 5, 8]);
            rules.insert(4, one);
            rules.insert(7, both);
            assert_means(&rules, VERDICTS, 0..12, &values);
        }
    }
}

#[test]
fn another_architecture_is_killed_whatever_it_calls() {
    let rules = allowed(0..100);
    let program = program(&rules, VERDICTS).unwrap();
    for number in 0..512 {
        let call = Call { architecture: 3 | 0x4000_0000, ..Call::here(number, [0; 6]) };
        assert_eq!(run(&program, &call), (libc::SECCOMP_RET_KILL_PROCESS, 3));
    }
}

#[test]
fn a_filter_that_no_program_can_hold_is_refused() {
    let rules = allowed((0..2000).filter(|number| number % 2 == 0));
    assert_eq!(program(&rules, VERDICTS), Err(TooLong));
}
