//! `tcptools doctor`: its facts about the host are right, and a run of each tool does what its
//! verdict says.

use std::fs;

use kernel_tests::cli::{Output, Tool, run};
use kernel_tests::requirements::{Feature, needs, running_version, spares_init};
use kernel_tests::rights::Capability;
use kernel_tests::runner::{Outcome, Test, test};
use kernel_tests::scratch::Scratch;
use serde_json::Value;

use super::cli::as_unprivileged_user;
use crate::known_tools::names as tool_names;

pub const TESTS: &[Test] = &[
    test("doctor::host", host),
    test("doctor::verdicts_are_what_runs_do", verdicts_are_what_runs_do),
    test("doctor::text", text),
    test("doctor::without_privileges", without_privileges),
    test("doctor::given_types", given_types),
    test("doctor::wrong_usage", wrong_usage),
];

/// The JSON object that it prints.
#[track_caller]
fn examined(output: &Output) -> Value {
    output.assert_complete_lines();
    assert_eq!(output.stdout.lines().count(), 1, "{output}");
    let value: Value = serde_json::from_str(&output.stdout).unwrap_or_else(|e| panic!("{e}\n{output}"));
    let keys: Vec<&String> = value.as_object().expect("an object").keys().collect();
    let documented = [
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
    assert_eq!(keys, documented, "{output}");
    let names: Vec<&str> = tools(&value).iter().map(name).collect();
    assert_eq!(names, tool_names(), "{output}");
    // The exit code says the same.
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

/// Whether a feature of the kernel works here.
#[track_caller]
fn works(value: &Value, feature: &str) -> bool {
    let features = value["features"].as_array().expect("features");
    let found = features.iter().find(|found| found["name"].as_str().is_some_and(|n| n.starts_with(feature)));
    found.and_then(|found| found["works"].as_bool()).unwrap_or_else(|| panic!("no {feature} in {value}"))
}

/// Whether a hook of a tool can attach.
#[track_caller]
fn is_seen(value: &Value, tool: &str, hook: &str) -> bool {
    let tool = tools(value).iter().find(|found| name(found) == tool).expect(tool);
    let hooks = tool["hooks"].as_array().expect("hooks");
    hooks.iter().find(|found| found["hook"] == hook).expect(hook)["attach"].is_string()
}

fn host() -> Outcome {
    // The test, as root, sees the same as the tool.
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
    assert_eq!(text.stdout.contains("in PID 1"), spares_init(), "{text}");

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
    assert!(
        capabilities.iter().any(|capability| *capability == "CAP_SYS_ADMIN"),
        "tests run as root: {capabilities:?}"
    );

    assert_eq!(works(&value, "kprobe"), needs(Feature::Kprobes).is_ok());
    assert_eq!(works(&value, "ring buffer"), (major, minor) >= (5, 8));
    assert!(works(&value, "raw_tp") && works(&value, "perf event array"));
    assert_eq!(is_seen(&value, "tcplife", "first send"), needs(Feature::SocketLengths).is_ok());
    assert_eq!(is_seen(&value, "tcpsubnet", "send"), needs(Feature::SocketLengths).is_ok());
    let no_reads = needs(Feature::ProbeReads).is_err();
    assert_eq!(cannot(&value), if no_reads { vec!["tcpdrop"] } else { vec![] });
    Ok(())
}

/// A tool that works runs with the attach options that the doctor named. A tool that cannot run
/// fails for the reason that the doctor gave.
fn verdicts_are_what_runs_do() -> Outcome {
    let value = examined(&run(["doctor", "--json"]));
    for tool in tools(&value) {
        let output = run([name(tool), "-v", "--duration", "0.01"]);
        output.assert_code(i32::from(is_cannot(tool)));
        let assert_line = |words: &str| {
            let line = format!("tcptools: {}: {words}", name(tool));
            assert!(output.stderr.lines().any(|seen| seen == line), "no line {line}\n{output}");
        };
        if is_cannot(tool) {
            assert_line(tool["why"].as_str().expect("a reason"));
            continue;
        }
        let mut missing = 0;
        let hooks = tool["hooks"].as_array().expect("hooks");
        for hook in hooks.iter().filter(|hook| hook["unneeded"] == false) {
            let attach = hook["attach"].as_str().unwrap_or("not attached");
            assert_line(&format!("{}: {attach}", hook["hook"].as_str().expect("a name")));
            missing += usize::from(hook["attach"].is_null());
            for refused in hook["refused"].as_array().expect("refusals") {
                let (attach, why) = (refused["attach"].as_str(), refused["why"].as_str());
                let (attach, why) = (attach.expect("an attach option"), why.expect("a reason"));
                assert_line(&format!(
                    "{}: not by {attach}: {}",
                    hook["hook"].as_str().expect("a name"),
                    first(why)
                ));
            }
        }
        let without = tool["without"].as_array().expect("what is missing");
        assert_eq!(tool["verdict"] == "works", without.is_empty(), "{tool}");
        assert!(missing == 0 || !without.is_empty(), "{tool}");
        assert!(
            without
                .iter()
                .all(|limitation| limitation["what"].as_str().is_some_and(|what| !what.starts_with('`')))
        );
    }
    Ok(())
}

/// The first line of a message, which may contain several lines of the verifier.
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

/// For a user without privileges it names what each tool needs, and says once that all of them need
/// it.
fn without_privileges() -> Outcome {
    let (_scratch, mut command) = as_unprivileged_user();
    command.args(["doctor", "--json"]);
    let output = Tool::spawn(command).finish();
    let value = examined(&output);
    assert_eq!(value["capabilities"], serde_json::json!([]), "{output}");
    assert_eq!(cannot(&value), tool_names(), "{output}");
    for tool in tools(&value) {
        let has = |key: &str, word: &str| tool[key].as_str().is_some_and(|text| text.contains(word));
        assert!(has("why", "CAP_BPF") && has("help", "setcap"), "{tool}");
    }
    let count = tool_names().len();
    let line = format!("tcptools: doctor: {count} of {count} tools cannot run here");
    assert!(output.one_line().starts_with(&line), "{output}");
    let (_scratch, mut command) = as_unprivileged_user();
    command.arg("doctor");
    Tool::spawn(command).finish().assert_code(1).assert_complete_lines();
    Ok(())
}

/// `--btf` works as in a run: the kernel's own types are accepted, others are not.
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
    for wrong in ["/etc/no-such-file", "/proc/self/status"] {
        let output = run(["doctor", "--json", "--btf", wrong]);
        let value = examined(&output);
        assert_eq!(cannot(&value), tool_names(), "{output}");
        assert!(value["btf"]["why"].as_str().is_some_and(|why| why.contains(wrong)), "{output}");
    }
    Ok(())
}

fn wrong_usage() -> Outcome {
    run(["doctor", "tcplife"]).assert_wrong_usage("tcplife");
    run(["doctor", "--csv"]).assert_wrong_usage("--csv");
    Ok(())
}
