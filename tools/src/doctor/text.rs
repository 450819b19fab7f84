//! The findings for people: what the host offers, then a paragraph for each tool.

use std::fmt::{self, Write as _};

use loader::features::Report;

use super::host::{Host, Memlock, Types};
use super::{Examined, Findings};
use crate::advice::Advised;

/// Width of the first column.
const WIDTH: usize = 14;

pub(super) fn all(host: &Host, tools: &[Examined]) -> String {
    let mut text = String::new();
    of_host(host, &mut text);
    for tool in tools {
        text.push('\n');
        of_tool(tool, &mut text);
    }
    text
}

// Writing to a String cannot fail.
fn line(text: &mut String, head: &str, rest: fmt::Arguments<'_>) {
    let _ = writeln!(text, "{head:WIDTH$} {rest}");
}

fn of_host(host: &Host, text: &mut String) {
    let version = host.version.as_deref().unwrap_or("-");
    line(text, "kernel", format_args!("{} ({version}), {}", host.release, host.arch));
    match &host.lockdown {
        Some(mode) => line(text, "lockdown", format_args!("{mode}")),
        None => line(
            text,
            "lockdown",
            format_args!("- (to see it: mount -t securityfs securityfs /sys/kernel/security)"),
        ),
    }
    let capabilities = host.capabilities.as_ref().map_or_else(
        || "-".to_owned(),
        |held| if held.is_empty() { "none that tcptools uses".to_owned() } else { held.join(" ") },
    );
    line(text, "capabilities", format_args!("{capabilities}"));
    match host.memlock {
        Memlock::Uncharged => {
            line(text, "locked memory", format_args!("not limited: since 5.11 maps do not count"))
        }
        Memlock::Unlimited => line(text, "locked memory", format_args!("unlimited")),
        Memlock::Bytes(bytes) => {
            line(text, "locked memory", format_args!("{bytes} bytes, unless CAP_SYS_RESOURCE lifts it"));
        }
    }
    let settings = host.settings.map(|(name, value)| {
        format!("kernel.{name}={}", value.map_or_else(|| "-".to_owned(), |value| value.to_string()))
    });
    line(text, "settings", format_args!("{}", settings.join(" ")));
    match &host.types {
        Ok(Types { path, bytes }) => line(text, "types (BTF)", format_args!("{path}, {bytes} bytes")),
        Err(error) => line(text, "types (BTF)", format_args!("{}", Advised(error))),
    }
    if host.spares_init == Some(true) {
        line(
            text,
            "not seen",
            format_args!(
                "PID 1: this kernel does not run BPF programs in PID 1, or in interrupts taken while it runs, and does not count the skips"
            ),
        );
    }
    match &host.tracefs {
        Some(path) => line(text, "tracefs", format_args!("{path}")),
        None => {
            line(text, "tracefs", format_args!("not mounted (mount -t tracefs tracefs /sys/kernel/tracing)"))
        }
    }
    match &host.nameless {
        None => line(text, "symbols", format_args!("/proc/kallsyms has addresses")),
        Some(why) => line(text, "symbols", format_args!("{why}")),
    }
    match &host.features {
        Ok(features) => of_features(features, text),
        Err(error) => line(text, "attaches", format_args!("- ({error})")),
    }
}

/// What is available and what is missing, each in a line, and what could not be found out, with the
/// reason.
fn of_features(features: &[Report], text: &mut String) {
    for (head, wanted) in [("available", true), ("missing", false)] {
        let names: Vec<_> = features
            .iter()
            .filter(|report| report.result.as_ref().is_ok_and(|works| *works == wanted))
            .map(|report| report.name)
            .collect();
        if !names.is_empty() {
            line(text, head, format_args!("{}", names.join(", ")));
        }
    }
    for report in features {
        if let Err(error) = &report.result {
            line(text, "unknown", format_args!("{error}"));
        }
    }
}

fn of_tool(tool: &Examined, text: &mut String) {
    match &tool.verdict {
        Err(failure) => {
            // The first line is enough; the others are the verifier's.
            let why = failure.to_string();
            line(text, tool.name, format_args!("cannot: {}", why.lines().next().unwrap_or_default()));
        }
        Ok(Findings { without, .. }) => {
            if without.is_empty() {
                line(text, tool.name, format_args!("works"));
            }
            for (at, limitation) in without.iter().enumerate() {
                let (name, head) = if at == 0 { (tool.name, "works without") } else { ("", "         and") };
                line(text, name, format_args!("{head} {}", limitation.what));
                if let Some(help) = &limitation.help {
                    line(text, "", format_args!("  what helps: {help}"));
                }
            }
        }
    }
    if let Some(help) = tool.help() {
        line(text, "", format_args!("  what helps: {help}"));
    }
    for hook in tool.verdict.iter().flat_map(|findings| &findings.hooks).filter(|hook| !hook.unneeded) {
        let attached = hook.attach.as_deref().unwrap_or("not attached");
        line(text, "", format_args!("  {}: {attached}", hook.name));
    }
}
