//! The page with all tables, and the block of the README.

use super::{Figure, Report};

/// Where the README's block begins and ends.
pub const BEGIN: &str = "<!-- measured: cargo bench-tools --update-docs -->";
/// See [`BEGIN`].
pub const END: &str = "<!-- end of what was measured -->";

/// How a page begins.
const HEAD: &str = "\
# What it costs, beside its peers

Written by `cargo bench-tools --update-docs`. Ratios hold elsewhere, absolute figures do not. Peers that need kprobes are \
[measured where there are some](emulated.md).
";

/// How it begins when the machine was emulated.
const HEAD_EMULATED: &str = "\
# What it costs, beside its peers, where kprobes are

Written by `cargo vm-test --bench --update-docs`. An emulated machine whose clock counts instructions, each a nanosecond: \
only ratios count. What a real CPU waits for (memory, other CPUs, exceptions and exits) is in no figure; what the host does \
besides is in none either. How far that goes can be seen by the tools that are [measured on a real machine](README.md) as well.
";

/// The whole page.
pub fn page(report: &Report) -> String {
    let mut page = String::from(if report.emulated { HEAD_EMULATED } else { HEAD });
    page.push_str("\n| | |\n|---|---|\n");
    for (name, value) in &report.conditions {
        page.push_str(&format!("| {name} | {} |\n", escaped(value)));
    }
    for (name, why) in &report.left_out {
        page.push_str(&format!("| left out: {name} | {} |\n", escaped(why)));
    }
    for figure in report.all() {
        page.push_str(&format!("\n## {}\n\n{}\n\n", figure.title, escaped(&figure.about)));
        // Of figures that mean little by themselves there are no pictures.
        if figure.chart.is_some() && !report.emulated {
            page.push_str(&format!("![{}]({}.svg)\n\n", figure.title, figure.id));
        }
        page.push_str(&table(figure));
    }
    page
}

/// The README with its block replaced; `None` when it has none.
pub fn readme(readme: &str, report: &Report) -> Option<String> {
    let (before, rest) = readme.split_once(BEGIN)?;
    let (_, after) = rest.split_once(END)?;
    let block = format!("{}.\n\n{}\n", report.caption(), table(&report.headline));
    Some(format!("{before}{BEGIN}\n{block}{END}{after}"))
}

fn table(figure: &Figure) -> String {
    let line = |cells: Vec<String>| format!("| {} |\n", cells.join(" | "));
    let mut text = line(figure.columns.iter().map(|head| escaped(head)).collect());
    text.push_str(&format!("|{}\n", "---|".repeat(figure.columns.len())));
    for row in &figure.rows {
        text.push_str(&line(row.iter().map(|cell| escaped(&cell.to_string())).collect()));
    }
    text
}

fn escaped(text: &str) -> String {
    text.replace('|', "\\|").replace('<', "&lt;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::{Cell, Chart};

    fn report() -> Report {
        let mut headline = Figure::new("headline", "Headline", "All.", &["", "a|b"]);
        headline.row(["start, ms".into(), Cell::Number(5.0, 1)]);
        Report {
            conditions: vec![("machine", "two CPUs".to_owned()), ("kernel", "6.18".to_owned())],
            left_out: vec![("BCC".to_owned(), "no headers".to_owned())],
            headline,
            figures: vec![],
            emulated: false,
        }
    }

    #[test]
    fn the_readme_changes_between_its_marks_only() {
        let text = format!("one\n{BEGIN}\nold\n{END}\ntwo\n");
        let got = readme(&text, &report()).unwrap();
        assert_eq!(
            got,
            format!(
                "one\n{BEGIN}\ntwo CPUs, 6.18.\n\n|  | a\\|b |\n|---|---|\n| start, ms | 5.0 |\n\n{END}\ntwo\n"
            )
        );
        assert_eq!(readme(&got, &report()), Some(got.clone()), "and a second time not at all");
        assert_eq!(readme("no marks", &report()), None);
    }

    #[test]
    fn the_page_has_everything() {
        let page = page(&report());
        assert!(page.contains("| left out: BCC | no headers |") && page.contains("## Headline"));
        assert!(!page.contains(".svg"), "there is no chart");
    }

    #[test]
    fn an_emulated_machine_is_said_to_be_one() {
        let mut report = report();
        report.headline.chart = Some(Chart::Bars { axis: "ms".to_owned(), bars: vec![], goal: None });
        assert!(page(&report).contains(".svg") && !page(&report).contains("An emulated machine"));
        report.emulated = true;
        assert!(!page(&report).contains(".svg") && page(&report).contains("An emulated machine"));
    }
}
