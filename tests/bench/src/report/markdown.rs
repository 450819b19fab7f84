//! The results as a Markdown page, and as the measured block of the README.

use super::{Figure, Report};

/// The line before the measured block of the README.
pub const BEGIN: &str = "<!-- measured: cargo bench-tools --update-docs -->";
/// The line after it.
pub const END: &str = "<!-- end of what was measured -->";

const HEAD: &str = "\
# Costs, compared with other tools

Written by `cargo bench-tools --update-docs`. Ratios are similar on other machines, absolute figures are not. Peers that need \
kprobes are [measured in an emulated machine](emulated.md).
";

/// For an emulated machine.
const HEAD_EMULATED: &str = "\
# Costs, compared with other tools, on a kernel with kprobes

Written by `cargo vm-test --bench --update-docs`. The machine is emulated, and its clock counts instructions as one nanosecond \
each: only ratios are meaningful. The figures do not contain the time in which a real CPU waits (for memory, other CPUs, \
exceptions, exits to a hypervisor), nor other work of the host. To see how far the ratios can be trusted, compare them with \
those of the tools that are also [measured on a real machine](README.md).
";

/// The whole page.
pub fn page(report: &Report) -> String {
    let mut page = String::from(if report.emulated { HEAD_EMULATED } else { HEAD });
    page.push_str("\n| | |\n|---|---|\n");
    for (name, value) in &report.conditions {
        page.push_str(&format!("| {name} | {} |\n", escaped(value)));
    }
    for (name, why) in &report.left_out {
        page.push_str(&format!("| not measured: {name} | {} |\n", escaped(why)));
    }
    for figure in report.all() {
        page.push_str(&format!("\n## {}\n\n{}\n\n", figure.title, escaped(&figure.about)));
        // Absolute figures of an emulated machine mean little: it gets no charts.
        if figure.chart.is_some() && !report.emulated {
            page.push_str(&format!("![{}]({}.svg)\n\n", figure.title, figure.id));
        }
        page.push_str(&table(figure));
    }
    page
}

/// The README with its measured block replaced; `None` if it has none.
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
    fn the_readme_changes_only_between_its_markers() {
        let text = format!("one\n{BEGIN}\nold\n{END}\ntwo\n");
        let got = readme(&text, &report()).unwrap();
        assert_eq!(
            got,
            format!(
                "one\n{BEGIN}\ntwo CPUs, 6.18.\n\n|  | a\\|b |\n|---|---|\n| start, ms | 5.0 |\n\n{END}\ntwo\n"
            )
        );
        assert_eq!(readme(&got, &report()), Some(got.clone()), "a second update changes nothing");
        assert_eq!(readme("no markers", &report()), None);
    }

    #[test]
    fn the_page_has_conditions_and_tables() {
        let page = page(&report());
        assert!(page.contains("| not measured: BCC | no headers |") && page.contains("## Headline"));
        assert!(!page.contains(".svg"), "there is no chart");
    }

    #[test]
    fn the_page_says_that_a_machine_is_emulated() {
        let mut report = report();
        report.headline.chart = Some(Chart::Bars { axis: "ms".to_owned(), bars: vec![], goal: None });
        assert!(page(&report).contains(".svg") && !page(&report).contains("The machine is emulated"));
        report.emulated = true;
        assert!(!page(&report).contains(".svg") && page(&report).contains("The machine is emulated"));
    }
}
