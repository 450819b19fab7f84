//! `tcptools doctor`: what it says of the host is so, and what it says of a tool is what a run of that tool does.

use std::fs;

use kernel_tests::cli::{Output, Tool, run};
use kernel_tests::gate::{Feature, needs, running_version, spares_init};
use kernel_tests::rights::Capability;
use kernel_tests::runner::{Outcome, Test};
use kernel_tests::scratch::Scratch;
use serde_json::Value;

use super::cli::{TOOLS, as_nobody};

pub const TESTS: &[Test] = &[
    ("doctor::host", host),
    ("doctor::verdicts_are_what_runs_do", verdicts_are_what_runs_do),
    ("doctor::text", text),
    ("doctor::without_privileges", without_privileges),
    ("doctor::given_types", given_types),
    ("doctor::wrong_usage", wrong_usage),
];

/// The one object that it writes.
#[track_caller]
fn examined(output: &Output) -> Value {
    output.assert_complete_lines();
    assert_eq!(output.stdout.lines().count(), 1, "{output}");
    let value: Value = serde_json::from_str(&output.stdout).unwrap_or_else(|e| panic!("{e}\n{output}"));
    let keys: Vec<&String> = value.as_object().expect("an object").keys().collect();
    let promised = [
        "btf",
        "capabilities",
        "features",
        "kernel",
        "lockdown",
        "memlock",
        "settings",
        "symbols",
        "tools",
        "tracefs",
    ];
    assert_eq!(keys, promised, "{output}");
    let names: Vec<&str> = tools(&value).iter().map(name).collect();
    assert_eq!(names, TOOLS, "{output}");
    // And it says so by its status.
    output.assert_code(i32::from(!cannot(&value).is_empty()));
    value
}

fn tools(value: &Value) -> &[Value] {
    value["tools"].as_array().map(Vec::as_slice).unwrap_or_default()
}

fn name(tool: &Value) -> &str {
    tool["tool"].as_str().expect("a name")
}

fn is_cannot(tool: &Value) -> bool {
    tool["verdict"] == "cannot"
}

/// The tools that cannot run.
fn cannot(value: &Value) -> Vec<&str> {
    tools(value).iter().filter(|tool| is_cannot(tool)).map(name).collect()
}

/// Whether something of the kernel works here.
#[track_caller]
fn works(value: &Value, feature: &str) -> bool {
    let features = value["features"].as_array().expect("features");
    let found = features.iter().find(|found| found["name"].as_str().is_some_and(|n| n.starts_with(feature)));
    found.and_then(|found| found["works"].as_bool()).unwrap_or_else(|| panic!("no {feature} in {value}"))
}

/// Whether there is a way to a hook of a tool.
#[track_caller]
fn is_seen(value: &Value, tool: &str, hook: &str) -> bool {
    let tool = tools(value).iter().find(|found| name(found) == tool).expect(tool);
    let hooks = tool["hooks"].as_array().expect("hooks");
    hooks.iter().find(|found| found["hook"] == hook).expect(hook)["attach"].is_string()
}

fn host() -> Outcome {
    // What root sees is what the tool sees.
    needs(Feature::ToolHas(Capability::SysAdmin))?;
    let value = examined(&run(["doctor", "--json"]));
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default().trim().to_owned();
    assert_eq!(value["kernel"]["release"], read("/proc/sys/kernel/osrelease"));
    assert_eq!(value["kernel"]["arch"], std::env::consts::ARCH);
    let (major, minor) = running_version();
    let version = value["kernel"]["version"].as_str().expect("a version");
    assert!(version.starts_with(&format!("{major}.{minor}.")), "{version}");

    assert_eq!(value["kernel"]["spares_init"], spares_init());
    let text = run(["doctor"]);
    assert_eq!(text.stdout.contains("in process 1"), spares_init(), "{text}");

    let lockdown = read("/sys/kernel/security/lockdown");
    match value["lockdown"].as_str() {
        Some(mode) => assert!(lockdown.contains(&format!("[{mode}]")), "{mode}: {lockdown:?}"),
        None => assert!(!lockdown.contains('['), "{lockdown:?}"),
    }
    for (setting, seen) in value["settings"].as_object().expect("settings") {
        assert_eq!(
            *seen,
            serde_json::json!(read(&format!("/proc/sys/kernel/{setting}")).parse::<i64>().ok())
        );
    }
    assert_eq!(value["memlock"]["charged"], (major, minor) < (5, 11));
    assert_eq!(value["btf"]["path"], "/sys/kernel/btf/vmlinux");
    let types = fs::metadata("/sys/kernel/btf/vmlinux").expect("the kernel's BTF").len();
    assert_eq!(value["btf"]["bytes"], types);
    let mounted = |path: &str| fs::metadata(format!("{path}/events")).is_ok();
    assert_eq!(value["tracefs"].as_str().is_some_and(mounted), mounted("/sys/kernel/tracing"));
    let addresses = read("/proc/kallsyms").lines().any(|line| !line.starts_with("0000000000000000"));
    assert_eq!(value["symbols"]["works"], addresses);
    let capabilities = value["capabilities"].as_array().expect("capabilities");
    assert!(capabilities.iter().any(|held| *held == "CAP_SYS_ADMIN"), "tests run as root: {capabilities:?}");

    assert_eq!(works(&value, "kprobe"), needs(Feature::Kprobes).is_ok());
    assert_eq!(works(&value, "ring buffer"), (major, minor) >= (5, 8));
    assert!(works(&value, "raw_tp") && works(&value, "perf event array"));
    assert_eq!(is_seen(&value, "tcplife", "first send"), needs(Feature::SocketLengths).is_ok());
    assert_eq!(is_seen(&value, "tcpsubnet", "send"), needs(Feature::SocketLengths).is_ok());
    let no_reads = needs(Feature::ProbeReads).is_err();
    assert_eq!(cannot(&value), if no_reads { vec!["tcpdrop"] } else { vec![] });
    Ok(())
}

/// A tool that works runs, by the ways that were named, and one that cannot does not, for the reason that was named.
fn verdicts_are_what_runs_do() -> Outcome {
    let value = examined(&run(["doctor", "--json"]));
    for tool in tools(&value) {
        let output = run([name(tool), "-v", "--duration", "0.01"]);
        output.assert_code(i32::from(is_cannot(tool)));
        let said = |words: &str| {
            let line = format!("tcptools: {}: {words}", name(tool));
            assert!(output.stderr.lines().any(|seen| seen == line), "no line {line}\n{output}");
        };
        if is_cannot(tool) {
            said(tool["why"].as_str().expect("a reason"));
            continue;
        }
        let mut missing = 0;
        let hooks = tool["hooks"].as_array().expect("hooks");
        for hook in hooks.iter().filter(|hook| hook["unneeded"] == false) {
            let attach = hook["attach"].as_str().unwrap_or("not attached");
            said(&format!("{}: {attach}", hook["hook"].as_str().expect("a name")));
            missing += usize::from(hook["attach"].is_null());
            for refused in hook["refused"].as_array().expect("refusals") {
                let (attach, why) = (refused["attach"].as_str(), refused["why"].as_str());
                let (attach, why) = (attach.expect("a way"), why.expect("a reason"));
                said(&format!("{}: not by {attach}: {}", hook["hook"].as_str().expect("a name"), first(why)));
            }
        }
        let without = tool["without"].as_array().expect("what is missing");
        assert_eq!(tool["verdict"] == "works", without.is_empty(), "{tool}");
        assert!(missing == 0 || !without.is_empty(), "{tool}");
        assert!(without.iter().all(|lack| lack["what"].as_str().is_some_and(|what| !what.starts_with('`'))));
    }
    Ok(())
}

/// The first line of what may have several, of the verifier.
fn first(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}

fn text() -> Outcome {
    let value = examined(&run(["doctor", "--json"]));
    let output = run(["doctor"]);
    output.assert_code(i32::from(!cannot(&value).is_empty())).assert_complete_lines();
    for tool in tools(&value) {
        let verdict = tool["verdict"].as_str().expect("a verdict");
        let line = output.stdout.lines().find(|line| line.starts_with(&format!("{} ", name(tool))));
        assert!(line.is_some_and(|line| line.contains(&format!(" {verdict}"))), "{line:?}\n{output}");
    }
    let release = value["kernel"]["release"].as_str().expect("a release");
    assert!(output.stdout.starts_with(&format!("kernel         {release} (")), "{output}");
    Ok(())
}

/// For a user who may do nothing it says what is missing, of each tool, and that it is one thing.
fn without_privileges() -> Outcome {
    let (_scratch, mut command) = as_nobody();
    command.args(["doctor", "--json"]);
    let output = Tool::spawn(command).finish();
    let value = examined(&output);
    assert_eq!(value["capabilities"], serde_json::json!([]), "{output}");
    assert_eq!(cannot(&value), TOOLS, "{output}");
    for tool in tools(&value) {
        let has = |key: &str, word: &str| tool[key].as_str().is_some_and(|text| text.contains(word));
        assert!(has("why", "CAP_BPF") && has("help", "setcap"), "{tool}");
    }
    assert!(output.one_line().starts_with("tcptools: doctor: 8 of 8 tools cannot run here"), "{output}");
    let (_scratch, mut command) = as_nobody();
    command.arg("doctor");
    Tool::spawn(command).finish().assert_code(1).assert_complete_lines();
    Ok(())
}

/// `--btf` is as in a run: the kernel's own types are taken, others are not.
fn given_types() -> Outcome {
    let scratch = Scratch::new();
    let copy = scratch.path("vmlinux");
    fs::copy("/sys/kernel/btf/vmlinux", &copy).expect("copy the kernel's BTF");
    let copy = copy.to_string_lossy().into_owned();
    let verdicts = |output: &Output| -> Vec<Value> {
        tools(&examined(output)).iter().map(|tool| tool["verdict"].clone()).collect()
    };
    let own = run(["doctor", "--json"]);
    assert_eq!(verdicts(&run(["doctor", "--json", "--btf", &copy])), verdicts(&own));
    for wrong in ["/etc/hostname-of-nobody", "/proc/self/status"] {
        let output = run(["doctor", "--json", "--btf", wrong]);
        let value = examined(&output);
        assert_eq!(cannot(&value), TOOLS, "{output}");
        assert!(value["btf"]["why"].as_str().is_some_and(|why| why.contains(wrong)), "{output}");
    }
    Ok(())
}

fn wrong_usage() -> Outcome {
    run(["doctor", "tcplife"]).assert_wrong_usage("tcplife");
    run(["doctor", "--csv"]).assert_wrong_usage("--csv");
    Ok(())
}
