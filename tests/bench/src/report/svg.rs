//! Draws charts as SVG files.

use std::fmt::Write;

use super::{Chart, Figure};

const WIDTH: f64 = 720.0;
const MARGIN: f64 = 16.0;
/// Height of a line of text.
const LINE: f64 = 20.0;
/// Width for the names of bars.
const NAMES: f64 = 190.0;
/// Width for the values behind bars.
const VALUES: f64 = 70.0;
/// Colours of lines; bars of tcptools have the first, those of peers the second.
const COLOURS: [&str; 8] =
    ["#0b6e4f", "#c8553d", "#3d5a80", "#8f6c3a", "#7b2d8b", "#4c956c", "#b08900", "#555555"];

/// The chart of a figure, with the caption under it.
pub fn chart(figure: &Figure, caption: &str) -> Option<String> {
    let mut drawing = Drawing { body: String::new(), height: MARGIN + LINE };
    drawing.text(MARGIN, MARGIN + 12.0, "start", "title", &figure.title);
    match figure.chart.as_ref()? {
        Chart::Bars { axis, bars, goal } => drawing.bars(axis, bars, *goal),
        Chart::Lines { size, cost, lines } => drawing.lines(size, cost, lines),
    }
    drawing.height += LINE;
    drawing.text(MARGIN, drawing.height - 6.0, "start", "small", caption);
    Some(drawing.finish())
}

struct Drawing {
    body: String,
    height: f64,
}

impl Drawing {
    fn text(&mut self, x: f64, y: f64, anchor: &str, class: &str, text: &str) {
        let text = escaped(text);
        self.add(&format!(
            r#"<text x="{x:.1}" y="{y:.1}" text-anchor="{anchor}" class="{class}">{text}</text>"#
        ));
    }

    fn line(&mut self, (x1, y1): (f64, f64), (x2, y2): (f64, f64), class: &str) {
        self.add(&format!(r#"<line x1="{x1:.1}" y1="{y1:.1}" x2="{x2:.1}" y2="{y2:.1}" class="{class}"/>"#));
    }

    fn add(&mut self, element: &str) {
        self.body.push_str(element);
        self.body.push('\n');
    }

    /// Horizontal bars, from 0; on a logarithmic scale if values differ by more than a factor of
    /// 100.
    fn bars(&mut self, axis: &str, bars: &[(String, f64)], goal: Option<f64>) {
        let values = || bars.iter().map(|(_, value)| *value).chain(goal).filter(|value| *value > 0.0);
        let (least, most) = (values().fold(f64::INFINITY, f64::min), values().fold(0.0, f64::max));
        let logarithmic = most / least > 100.0;
        let width = WIDTH - NAMES - VALUES - 2.0 * MARGIN;
        let left = MARGIN + NAMES;
        let length = |value: f64| match value {
            _ if value <= 0.0 => 0.0,
            _ if logarithmic => {
                let from = least.log10().floor();
                width * (value.log10() - from) / (most.log10() - from)
            }
            _ => width * value / most,
        };
        let note = if logarithmic { format!("{axis} (powers of ten)") } else { axis.to_owned() };
        self.text(left, self.height + 10.0, "start", "small", &note);
        self.height += LINE;
        let top = self.height;
        for (name, value) in bars {
            let y = self.height;
            self.text(left - 8.0, y + 14.0, "end", "name", name);
            let colour = if name.starts_with("tcptools") { COLOURS[0] } else { COLOURS[1] };
            self.add(&format!(
                r#"<rect x="{left:.1}" y="{:.1}" width="{:.1}" height="14" fill="{colour}"/>"#,
                y + 3.0,
                length(*value)
            ));
            self.text(left + length(*value) + 6.0, y + 14.0, "start", "name", &short(*value));
            self.height += LINE;
        }
        if let Some(goal) = goal {
            let x = left + length(goal);
            self.line((x, top), (x, self.height), "goal");
            self.height += LINE;
            self.text(x, self.height - 8.0, "middle", "small", &format!("goal: {}", short(goal)));
        }
    }

    /// Lines with both axes logarithmic.
    fn lines(&mut self, size: &str, cost: &str, lines: &[(String, Vec<(f64, f64)>)]) {
        const PLOT: f64 = 260.0;
        let points = || lines.iter().flat_map(|(_, points)| points).filter(|(x, y)| *x > 0.0 && *y > 0.0);
        let axis = |of: fn(&(f64, f64)) -> f64| {
            let values = || points().map(of).map(f64::log10);
            let (from, to) =
                (values().fold(f64::INFINITY, f64::min), values().fold(f64::NEG_INFINITY, f64::max));
            let (from, to) = if from <= to { (from.floor(), to.ceil()) } else { (0.0, 1.0) };
            (from, if from == to { to + 1.0 } else { to })
        };
        let ((x0, x1), (y0, y1)) = (axis(|point| point.0), axis(|point| point.1));
        let (left, right) = (MARGIN + 60.0, WIDTH - MARGIN - 215.0);
        let top = self.height + LINE;
        let x = |value: f64| left + (right - left) * (value.log10() - x0) / (x1 - x0);
        let y = |value: f64| top + PLOT * (y1 - value.log10()) / (y1 - y0);
        self.text(left, top - 8.0, "start", "small", cost);
        for power in powers(y0, y1) {
            self.line((left, y(power)), (right, y(power)), "grid");
            self.text(left - 6.0, y(power) + 4.0, "end", "small", &short(power));
        }
        for power in powers(x0, x1) {
            self.line((x(power), top), (x(power), top + PLOT), "grid");
            self.text(x(power), top + PLOT + 14.0, "middle", "small", &short(power));
        }
        self.text((left + right) / 2.0, top + PLOT + 30.0, "middle", "small", size);
        for (at, (name, points)) in lines.iter().enumerate() {
            let colour = COLOURS[at % COLOURS.len()];
            let shown: Vec<_> = points.iter().filter(|(x, y)| *x > 0.0 && *y > 0.0).collect();
            let path: Vec<String> = shown.iter().map(|(a, b)| format!("{:.1},{:.1}", x(*a), y(*b))).collect();
            self.add(&format!(
                r#"<polyline points="{}" fill="none" stroke="{colour}" stroke-width="2"/>"#,
                path.join(" ")
            ));
            for (a, b) in shown {
                self.add(&format!(r#"<circle cx="{:.1}" cy="{:.1}" r="3" fill="{colour}"/>"#, x(*a), y(*b)));
            }
            let row = top + 6.0 + LINE * at as f64;
            self.add(&format!(
                r#"<rect x="{:.1}" y="{row:.1}" width="12" height="12" fill="{colour}"/>"#,
                right + 14.0
            ));
            self.text(right + 32.0, row + 11.0, "start", "name", name);
        }
        self.height = top + PLOT + 40.0;
    }

    fn finish(self) -> String {
        let mut svg = String::new();
        let height = self.height;
        let style = "text{font-family:sans-serif;fill:#222}.title{font-size:15px;font-weight:bold}.name{font-size:12px}\
                     .small{font-size:11px;fill:#555}.grid{stroke:#ddd}.goal{stroke:#222;stroke-dasharray:4 3}";
        // Writing to a String does not fail.
        let _ = write!(
            svg,
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height:.0}\" \
             viewBox=\"0 0 {WIDTH} {height:.0}\">\n<style>{style}</style>\n\
             <rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n{}</svg>\n",
            self.body
        );
        svg
    }
}

/// The powers of ten from one exponent to another.
fn powers(from: f64, to: f64) -> impl Iterator<Item = f64> {
    std::iter::successors(Some(from), |power| Some(power + 1.0))
        .take_while(move |power| *power <= to)
        .map(|power| 10_f64.powf(power))
}

/// About three significant digits, thousands as `k`.
fn short(value: f64) -> String {
    let text = match value.abs() {
        size if size >= 10_000.0 => return format!("{}k", short(value / 1000.0)),
        size if size >= 100.0 || size == 0.0 => return format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        size if size >= 0.1 => format!("{value:.2}"),
        _ => format!("{value:.4}"),
    };
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Elements are closed in order, attributes have their quotes, and `&` only begins entities.
    #[track_caller]
    fn assert_well_formed(svg: &str) {
        let mut open = Vec::new();
        for part in svg.split('<').skip(1) {
            let (tag, text) = part.split_once('>').expect("a tag that ends");
            assert_eq!(tag.matches('"').count() % 2, 0, "{tag}");
            let name = tag.split_ascii_whitespace().next().unwrap_or("").trim_end_matches('/');
            if let Some(name) = tag.strip_prefix('/') {
                assert_eq!(open.pop(), Some(name), "{svg}");
            } else if !tag.ends_with('/') {
                open.push(name);
            }
            for entity in text.split('&').skip(1) {
                let known = ["amp;", "lt;", "gt;", "quot;"];
                assert!(known.iter().any(|known| entity.starts_with(known)), "{text}");
            }
        }
        assert!(open.is_empty(), "{open:?}");
        for word in ["NaN", "inf"] {
            assert!(!svg.contains(word), "{word} in {svg}");
        }
    }

    fn figure(chart: Chart) -> Figure {
        Figure { chart: Some(chart), ..Figure::new("x", "A <title> & more", "", &[]) }
    }

    #[test]
    fn bars_are_well_formed() {
        let bars = |bars: &[f64], goal| {
            let bars = bars.iter().map(|value| ("tcptools \"a\" <b>".to_owned(), *value)).collect();
            figure(Chart::Bars { axis: "ms".to_owned(), bars, goal })
        };
        for figure in [
            bars(&[], None),
            bars(&[1.0, 2.0], Some(5.0)),
            bars(&[0.0], None),
            bars(&[0.1, 5000.0], Some(3.0)),
        ] {
            assert_well_formed(&chart(&figure, "two CPUs & a kernel").unwrap());
        }
    }

    #[test]
    fn lines_are_well_formed() {
        let lines = |points: &[(f64, f64)]| {
            let lines = vec![("one".to_owned(), points.to_vec())];
            figure(Chart::Lines { size: "sockets".to_owned(), cost: "ms".to_owned(), lines })
        };
        for points in [&[][..], &[(1.0, 5.0)], &[(1.0, 5.0), (100.0, 5.5), (100_000.0, 200.0)], &[(0.0, 0.0)]]
        {
            assert_well_formed(&chart(&lines(points), "caption").unwrap());
        }
    }

    #[test]
    fn a_figure_without_a_chart_has_no_file() {
        assert_eq!(chart(&Figure::new("x", "t", "a", &[]), "c"), None);
    }

    #[test]
    fn numbers_are_short() {
        let shown = [0.0, 0.057, 0.9, 5.25, 12.0, 120.4, 9999.0, 100_000.0].map(short);
        assert_eq!(shown, ["0", "0.057", "0.9", "5.25", "12", "120", "9999", "100k"]);
    }
}
