//! The results as JSON.

use serde_json::{Map, Value, json};

use super::{Cell, Figure, Report};

/// One object: conditions, peers that were not measured, and the rows of each figure by the names
/// of their columns.
pub fn report(report: &Report) -> Value {
    let conditions: Map<_, _> =
        report.conditions.iter().map(|(name, value)| ((*name).to_owned(), json!(value))).collect();
    let left_out: Vec<_> =
        report.left_out.iter().map(|(name, why)| json!({ "name": name, "why": why })).collect();
    let figures: Map<_, _> = report.all().map(|figure| (figure.id.to_owned(), rows(figure))).collect();
    json!({ "conditions": conditions, "left_out": left_out, "figures": figures })
}

fn rows(figure: &Figure) -> Value {
    let row = |cells: &Vec<Cell>| {
        let cells = figure.columns.iter().zip(cells).map(|(column, cell)| (column.clone(), value(cell)));
        Value::Object(cells.collect())
    };
    figure.rows.iter().map(row).collect()
}

fn value(cell: &Cell) -> Value {
    match cell {
        Cell::Text(text) => json!(text),
        Cell::Number(value, _) => json!(value),
        Cell::Unknown => Value::Null,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_an_object() {
        let mut figure = Figure::new("start", "Start", "", &["tool", "ms", "MB"]);
        figure.row(["tcplife".into(), Cell::Number(5.25, 1), Cell::Unknown]);
        let got = report(&Report {
            conditions: vec![("kernel", "6.18".to_owned())],
            left_out: vec![("BCC".to_owned(), "no headers".to_owned())],
            headline: Figure::new("headline", "", "", &[]),
            figures: vec![figure],
            emulated: false,
        });
        assert_eq!(got["figures"]["start"], json!([{ "tool": "tcplife", "ms": 5.25, "MB": null }]));
        assert_eq!(got["conditions"]["kernel"], "6.18");
        assert_eq!(got["left_out"][0]["why"], "no headers");
    }
}
