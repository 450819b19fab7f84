//! The features of the kernel that the loader finds.

use bpfasm::{Access, KernelVersion, Ring};
use kernel_tests::requirements::running_version;
use kernel_tests::runner::{Outcome, Test, test};

use super::{POINTS, kernel};

pub const TESTS: &[Test] = &[test("loader::probe_agrees_with_doctor", probe_agrees_with_doctor)];

/// The probe and the doctor agree, and no feature is newer than the kernel.
fn probe_agrees_with_doctor() -> Outcome {
    let target = loader::probe(&kernel(), &POINTS).unwrap_or_else(|e| panic!("{e:#}"));
    let KernelVersion { major, minor, .. } = target.version;
    assert_eq!((u32::from(major), u32::from(minor)), running_version());
    let reports = loader::doctor(&kernel(), &POINTS).unwrap_or_else(|e| panic!("{e:#}"));
    let has = |name: &str| {
        let report = reports.iter().find(|report| report.name.starts_with(name)).expect(name);
        let has = *report.result.as_ref().unwrap_or_else(|e| panic!("{name}: {e:#}"));
        assert!(!has || target.version >= report.since, "{name} is older than {}", report.since);
        has
    };
    assert_eq!(has("tp_btf"), target.access == Access::Typed);
    assert_eq!(has("ring buffer"), target.ring == Ring::RingBuf);
    // The probe only loads, so a lockdown may still forbid to attach. The reverse would be wrong.
    assert!(target.trampolines || !has("fentry"));
    assert!(target.kprobes || !has("kprobe"));
    assert!(has("raw_tp"));
    Ok(())
}
