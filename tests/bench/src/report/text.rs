//! The results as text tables.

use super::{Cell, Figure, Report};

/// A figure as a table, with numbers aligned to the right.
pub fn figure(figure: &Figure) -> String {
    let cells: Vec<Vec<String>> =
        figure.rows.iter().map(|row| row.iter().map(Cell::to_string).collect()).collect();
    let heads = &figure.columns;
    let width = |at: usize| {
        let cells = cells.iter().filter_map(|row| row.get(at)).chain(heads.get(at));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let is_text = |at: usize| figure.rows.iter().any(|row| matches!(row.get(at), Some(Cell::Text(_))));
    let line = |row: &[String]| {
        let cells = row.iter().enumerate().map(|(at, cell)| {
            let width = width(at);
            if is_text(at) { format!("{cell:<width$}") } else { format!("{cell:>width$}") }
        });
        format!("  {}\n", cells.collect::<Vec<_>>().join("  ").trim_end())
    };
    let mut text = format!("\n{}\n  {}\n\n{}", figure.title, figure.about, line(heads));
    cells.iter().for_each(|row| text.push_str(&line(row)));
    text
}

/// The conditions, and the peers that were not measured.
pub fn conditions(report: &Report) -> String {
    let mut text: String =
        report.conditions.iter().map(|(name, value)| format!("{name:<10} {value}\n")).collect();
    for (name, why) in &report.left_out {
        text.push_str(&format!("not measured: {name}: {why}\n"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let mut table = Figure::new("x", "Title", "About.", &["tool", "ms"]);
        table.row(["a".into(), Cell::Number(12345.0, 1)]);
        table.row(["longer".into(), Cell::Unknown]);
        assert_eq!(
            figure(&table),
            "\nTitle\n  About.\n\n  tool          ms\n  a       12,345.0\n  longer         -\n"
        );
    }
}
