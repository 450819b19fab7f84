//! The command of a tool, and the answers of the command line.

use std::io::Write;

use clap::Command;
use clap::error::ErrorKind;

use super::{args, filters};
use crate::failure::Failure;
use crate::tool::Tool;
use crate::tools::TOOLS;

/// The name of the program.
pub const NAME: &str = "tcptools";

/// The command of a tool: its own options, and those that all tools share.
pub fn of_tool(tool: &Tool) -> Command {
    let command =
        Command::new(tool.name).display_name(tool.name).version(env!("CARGO_PKG_VERSION")).about(tool.about);
    let command = args::add_missing(args::shared((tool.args)(command)), [args::json(), args::csv()]);
    filters::add(command)
}

/// Help and version go to stdout. Anything else is a usage error.
pub fn clap_answer(error: &clap::Error) -> Result<(), Failure> {
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            let text = error.render().to_string();
            std::io::stdout().write_all(text.as_bytes()).map_err(|error| Failure::output(&error))
        }
        _ => Err(usage_error(error)),
    }
}

/// A usage error in one line, which says what would be right.
pub fn usage_error(error: &clap::Error) -> Failure {
    let text = error.render().to_string();
    Failure::Usage(match error.kind() {
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => format!("no tool named; {}", names()),
        ErrorKind::InvalidSubcommand => format!("{}; {}", first_paragraph(&text), names()),
        _ => format!("{} (--help shows the options)", first_paragraph(&text)),
    })
}

/// The first paragraph of clap's text, which is the error without advice and usage, on one line.
fn first_paragraph(text: &str) -> String {
    let lines: Vec<_> = text.lines().map(str::trim).take_while(|line| !line.is_empty()).collect();
    let line = lines.join(" ");
    line.strip_prefix("error: ").map_or(line.clone(), str::to_owned)
}

/// All subcommands, for messages.
pub fn names() -> String {
    let names: Vec<_> = TOOLS.iter().map(|tool| tool.name).collect();
    format!("there are {}, doctor, selftest and links", names.join(", "))
}
