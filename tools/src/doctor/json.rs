//! The findings as one JSON object, with its keys in a fixed order.

use std::fmt::Write as _;

use loader::features::Report;
use rows::quoted;

use self::Json::{Flag, List, Number, Text, Written};
use super::host::{Host, Memlock};
use super::{Examined, Findings, HookState};
use crate::tool::Limitation;

/// The value of a member; `None` is null.
enum Json<'a> {
    Text(Option<&'a str>),
    Number(Option<i64>),
    Flag(Option<bool>),
    /// Values that are written already.
    List(&'a [String]),
    Written(&'a str),
}

/// Writes an object. Writing to a String cannot fail.
fn object(members: &[(&str, Json<'_>)]) -> String {
    let mut text = String::new();
    for (at, (key, value)) in members.iter().enumerate() {
        let _ = write!(text, "{}\"{key}\":", if at == 0 { '{' } else { ',' });
        let _ = match value {
            Text(Some(value)) => write!(text, "{}", quoted(value)),
            Number(Some(value)) => write!(text, "{value}"),
            Flag(Some(value)) => write!(text, "{value}"),
            Text(None) | Number(None) | Flag(None) => write!(text, "null"),
            List(values) => write!(text, "[{}]", values.join(",")),
            Written(value) => write!(text, "{value}"),
        };
    }
    text.push('}');
    text
}

pub(super) fn all(host: &Host, examined: &[Examined]) -> String {
    let kernel = object(&[
        ("release", Text(Some(&host.release))),
        ("version", Text(host.version.as_deref())),
        ("arch", Text(Some(&host.arch))),
        ("spares_init", Flag(host.spares_init)),
    ]);
    let held: Option<Vec<_>> =
        host.capabilities.as_ref().map(|held| held.iter().map(|name| quoted(name)).collect());
    let limit = if let Memlock::Bytes(bytes) = host.memlock { i64::try_from(bytes).ok() } else { None };
    let memlock =
        object(&[("charged", Flag(Some(host.memlock != Memlock::Uncharged))), ("bytes", Number(limit))]);
    let settings = object(&host.settings.map(|(name, value)| (name, Number(value))));
    let types = host.types.as_ref();
    let why = types.err().map(ToString::to_string);
    let types = types.ok();
    let btf = object(&[
        ("path", Text(types.map(|types| &*types.path))),
        ("bytes", Number(types.and_then(|types| i64::try_from(types.bytes).ok()))),
        ("why", Text(why.as_deref())),
    ]);
    let symbols =
        object(&[("works", Flag(Some(host.nameless.is_none()))), ("why", Text(host.nameless.as_deref()))]);
    let features: Vec<_> = host.features.iter().flatten().map(of_feature).collect();
    let tools: Vec<_> = examined.iter().map(of_tool).collect();
    object(&[
        ("kernel", Written(&kernel)),
        ("lockdown", Text(host.lockdown.as_deref())),
        ("capabilities", held.as_deref().map_or(Text(None), List)),
        ("memlock", Written(&memlock)),
        ("settings", Written(&settings)),
        ("btf", Written(&btf)),
        ("tracefs", Text(host.tracefs.as_deref())),
        ("symbols", Written(&symbols)),
        ("features", List(&features)),
        ("tools", List(&tools)),
    ])
}

fn of_feature(Report { name, since, result }: &Report) -> String {
    let since = format!("{}.{}", since.major, since.minor);
    let why = result.as_ref().err().map(ToString::to_string);
    object(&[
        ("name", Text(Some(name))),
        ("since", Text(Some(&since))),
        ("works", Flag(result.as_ref().ok().copied())),
        ("why", Text(why.as_deref())),
    ])
}

fn of_tool(tool: &Examined) -> String {
    let (mut limitations, mut hooks) = (Vec::new(), Vec::new());
    if let Ok(findings) = &tool.verdict {
        let Findings { hooks: found, without } = findings;
        hooks.extend(found.iter().map(of_hook));
        let entry = |limitation: &Limitation| {
            object(&[("what", Text(Some(&limitation.what))), ("help", Text(limitation.help))])
        };
        limitations.extend(without.iter().map(entry));
    }
    let why = tool.verdict.as_ref().err().map(ToString::to_string);
    object(&[
        ("tool", Text(Some(tool.name))),
        ("verdict", Text(Some(tool.word()))),
        ("without", List(&limitations)),
        ("why", Text(why.as_deref())),
        ("help", Text(tool.help())),
        ("hooks", List(&hooks)),
    ])
}

fn of_hook(hook: &HookState) -> String {
    let refused: Vec<_> = hook
        .refused
        .iter()
        .map(|(attach, why)| object(&[("attach", Text(Some(attach))), ("why", Text(Some(why)))]))
        .collect();
    object(&[
        ("hook", Text(Some(&hook.name))),
        ("required", Flag(Some(hook.required))),
        ("unneeded", Flag(Some(hook.unneeded))),
        ("attach", Text(hook.attach.as_deref())),
        ("refused", List(&refused)),
    ])
}
