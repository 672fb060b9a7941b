//! Probes that stay alive, die oddly, or take others along.

use crate::battery::{Group, run_group};
use crate::probe::{Probe, Told, native, python, shell};

const PROBES: &[Probe] = &[
    python("daemonise").told(Told::Answer("left")),
    python("deaf-children").told(Told::Answer("left")),
    python("stopped-children").told(Told::Answer("left")),
    python("answer-then-go-on").within_ms(900).told(Told::Answer("first")),
    python("answer-then-fork-on").within_ms(900).told(Told::Answer("first")),
    python("stop-itself").cut_off_after_ms(700),
    python("sleep-deaf").cut_off_after_ms(700),
    python("close-everything").within_ms(1500).told(Told::Any),
    python("kill-everybody").cut_off_after_ms(700),
    python("hold-the-log").told(Told::Answer("left")),
    python("exit-in-a-thread").failed("without answering"),
    native("vfork-and-stay").cut_off_after_ms(700),
    native("leader-ends").cut_off_after_ms(700),
    native("leave-siblings"),
    native("steer-the-supervisor").times(12),
    native("exit-at-once").failed("exited with status 0 without answering"),
    native("exit-with-a-code").failed("exited with status 42 without answering"),
    native("become-another-program").cut_off_after_ms(700),
    native("trap-itself").within_ms(1000).told(Told::Any),
    native("signal-11").failed("killed by signal 11"),
    native("signal-14").failed("killed by signal 14"),
    native("signal-15").failed("killed by signal 15"),
    native("signal-31").failed("killed by signal 31"),
    native("signal-34").failed("killed by signal 34"),
    native("signal-64").failed("killed by signal 64"),
    native("signal-19").cut_off_after_ms(700),
    shell("shell-daemon").told(Told::Answer("left")),
    shell("shell-kills-all").failed("killed by signal 9"),
    shell("shell-dies-oddly").failed("killed by signal 40"),
];

#[test]
fn whatever_a_function_does_to_live_on_it_ends_with_its_call() {
    run_group(&Group { name: "life", probes: PROBES });
}
