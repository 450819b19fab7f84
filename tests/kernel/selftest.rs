//! `tcptools selftest`: every tool passes here, a tool that says something wrong does not, and `--selftest` keeps it from running.

use kernel_tests::cli::{Output, Tool, run};
use kernel_tests::gate::{Feature, needs};
use kernel_tests::rights::Capability;
use kernel_tests::runner::{Outcome, Test};

use super::cli::{TOOLS, as_nobody, needs_perf_buffers};

pub const TESTS: &[Test] = &[
    ("selftest::every_tool", || passes(&TOOLS, &[])),
    ("selftest::perf_buffers", || passes(&["tcpconnlat", "tcplife", "tcptracer"], &["--perf"])),
    ("selftest::probe_reads", || {
        needs(Feature::ProbeReads)?;
        passes(&["tcplife", "tcpstates", "tcptop"], &["--access", "probed"])
    }),
    ("selftest::missing_rows", missing_rows),
    ("selftest::names_the_field", names_the_field),
    ("selftest::before_a_run", before_a_run),
    ("selftest::without_privileges", without_privileges),
    ("selftest::wrong_usage", wrong_usage),
];

#[track_caller]
fn selftest(tools: &[&str], options: &[&str]) -> Output {
    let output = run([&["selftest"][..], tools, &["--"], options].concat());
    output.assert_complete_lines();
    let names: Vec<&str> = output.stdout.lines().filter_map(|line| line.split(' ').next()).collect();
    assert_eq!(names, tools, "a line for each\n{output}");
    output
}

/// A lockdown may leave no way to run `tcpdrop`, nor any to send by perf buffers; then that is what it says.
fn passes(tools: &[&str], options: &[&str]) -> Outcome {
    let reads = needs(Feature::ProbeReads);
    if options.contains(&"--perf") {
        needs_perf_buffers()?;
    }
    makes_namespaces()?;
    let output = selftest(tools, options);
    for line in output.stdout.lines() {
        if line.starts_with("tcpdrop ") && reads.is_err() {
            assert!(line.starts_with("tcpdrop     cannot: "), "{output}");
        } else {
            assert!(line.ends_with("  ok"), "{output}");
        }
    }
    let cannot = reads.is_err() && tools.contains(&"tcpdrop");
    output.assert_code(i32::from(cannot));
    Ok(())
}

/// A selftest makes a network namespace.
fn makes_namespaces() -> Outcome {
    needs(Feature::ToolHas(Capability::SysAdmin))
}

/// A tool that shows only what is somebody else's shows nothing of what was made on purpose.
fn missing_rows() -> Outcome {
    makes_namespaces()?;
    let output = selftest(&["tcplife", "tcpsubnet", "tcptracer"], &["--localport", "1"]);
    output.assert_code(1);
    let lines: Vec<&str> = output.stdout.lines().collect();
    assert!(lines[0].contains("no row with ") && lines[0].contains("tx_bytes "), "{output}");
    assert!(lines[1].contains("entries: expected {\"127.0.0.2/32\":"), "{output}");
    assert!(lines[2].contains("no row with ") && lines[2].contains("type \"connect\""), "{output}");
    assert!(output.one_line().ends_with("failed for tcplife, tcpsubnet, tcptracer"), "{output}");
    Ok(())
}

/// A table without room leaves the retransmission without its owner.
fn names_the_field() -> Outcome {
    makes_namespaces()?;
    let output = selftest(&["tcpretrans"], &["--max-sockets", "1"]);
    output.assert_code(1);
    let field = output.stdout.contains("pid: expected ") || output.stdout.contains("comm: expected ");
    assert!(field && output.stdout.contains("seen null"), "{output}");
    Ok(())
}

/// What a run filters by is not asked for in its selftest; what it has room for is.
fn before_a_run() -> Outcome {
    makes_namespaces()?;
    let output = run(["tcptracer", "--selftest", "-p", "1", "--duration", "0.01"]);
    output.assert_code(0);
    assert_eq!((output.stdout.lines().count(), output.complaints().len()), (1, 0), "the headings\n{output}");
    let output = run(["tcpretrans", "--selftest", "--max-sockets", "1"]);
    output.assert_code(1).assert_no_stdout();
    let line = output.one_line();
    assert!(line.starts_with("tcptools: tcpretrans: not started: the selftest failed: tcpretrans "), "{output}");
    Ok(())
}

fn without_privileges() -> Outcome {
    for args in [&["selftest"][..], &["tcplife", "--selftest"]] {
        let (_scratch, mut command) = as_nobody();
        command.args(args);
        let output = Tool::spawn(command).finish();
        output.assert_code(1).assert_no_stdout();
        assert!(output.one_line().contains("CAP_SYS_ADMIN"), "{output}");
    }
    Ok(())
}

fn wrong_usage() -> Outcome {
    run(["selftest", "tcpnothing"]).assert_wrong_usage("tcpnothing");
    run(["selftest", "--csv"]).assert_wrong_usage("--csv");
    makes_namespaces()?;
    // An option that a tool does not have is the tool's to refuse.
    let output = selftest(&["tcplife"], &["--no-such-option"]);
    output.assert_code(1);
    assert!(output.stdout.contains("cannot: ") && output.stdout.contains("--no-such-option"), "{output}");
    Ok(())
}
