//! Charts of what was found, as SVG: a bar for each path, or for each figure that has a goal.

use std::fmt::Write as _;
use std::path::Path;

use crate::Result;
use crate::report::{Cell, Goal, Report, short};

/// Colours of the parts of a bar: told apart by people who see colours differently.
const COLOURS: [&str; 6] = ["#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00"];
const WIDTH: f64 = 800.0;
/// Where bars begin and how long the longest is.
const LEFT: f64 = 230.0;
const LONGEST: f64 = 420.0;
const ROW: f64 = 30.0;
const TOP: f64 = 56.0;

/// A bar of one or more pieces.
struct Bar {
    name: String,
    pieces: Vec<(String, f64)>,
}

/// Writes a chart for each cell that has paths, and one of all ratios that have a goal.
pub fn write(report: &Report, folder: &Path) -> Result<()> {
    std::fs::create_dir_all(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    for (name, text) in charts(report) {
        let file = folder.join(format!("{name}.svg"));
        std::fs::write(&file, text).map_err(|error| format!("{}: {error}", file.display()))?;
    }
    Ok(())
}

fn charts(report: &Report) -> Vec<(String, String)> {
    let with_paths = report.cells.iter().filter(|cell| !cell.paths.is_empty());
    let mut all: Vec<(String, String)> = with_paths
        .flat_map(|cell| {
            [("cpu", cpu(cell)), ("rate", rate(cell))]
                .map(|(kind, text)| (format!("{}-{kind}", cell.name), text))
        })
        .collect();
    all.push(("goals".to_owned(), goals(report)));
    all
}

/// CPU time of each path, by part.
fn cpu(cell: &Cell) -> String {
    let bars = cell.paths.iter().filter(|path| !path.cpu.is_empty()).map(|path| Bar {
        name: path.name.clone(),
        pieces: path.cpu.iter().map(|share| (share.part.clone(), share.us)).collect(),
    });
    chart(&format!("{}: CPU, µs a call", cell.name), &bars.collect::<Vec<_>>(), None)
}

/// Calls a second of each path.
fn rate(cell: &Cell) -> String {
    let bars = cell.paths.iter().map(|path| Bar {
        name: path.name.clone(),
        pieces: vec![("calls a second".to_owned(), path.calls_per_s)],
    });
    chart(&format!("{}: calls a second", cell.name), &bars.collect::<Vec<_>>(), None)
}

/// Ratios as shares of their goals: left of the line those that are to be small are reached, right of it the others.
fn goals(report: &Report) -> String {
    let figures = report.cells.iter().flat_map(|cell| &cell.figures);
    let bars = figures.filter(|figure| figure.unit == "x").filter_map(|figure| {
        let (value, (sign, goal)) = (
            figure.value?,
            match figure.goal? {
                Goal::AtMost(most) => ("≤", most),
                Goal::AtLeast(least) => ("≥", least),
            },
        );
        let what = format!("{} × (goal {sign} {})", short(value), short(goal));
        Some(Bar { name: figure.what.clone(), pieces: vec![(what, value / goal)] })
    });
    chart("ratios, as shares of their goals", &bars.collect::<Vec<_>>(), Some(1.0))
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// Horizontal bars; `line` marks a value.
fn chart(title: &str, bars: &[Bar], line: Option<f64>) -> String {
    let sum = |bar: &Bar| bar.pieces.iter().map(|(_, value)| value).sum::<f64>();
    let longest = bars.iter().map(sum).chain(line).fold(0.0, f64::max).max(f64::MIN_POSITIVE);
    let scale = LONGEST / longest;
    let height = TOP + ROW * bars.len() as f64 + 12.0;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" font-family=\"sans-serif\" \
         font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
         <text x=\"8\" y=\"18\" font-size=\"14\" font-weight=\"bold\">{}</text>\n",
        escaped(title)
    );
    let mut parts: Vec<&str> = Vec::new();
    for (row, bar) in bars.iter().enumerate() {
        let y = TOP + ROW * row as f64;
        let label = escaped(&bar.name);
        // A name that is too long for its place stands above its bar.
        let (x, anchor, above) =
            if label.len() > 34 { (LEFT, "start", -2.0) } else { (LEFT - 6.0, "end", 12.0) };
        let _ = writeln!(svg, "<text x=\"{x}\" y=\"{}\" text-anchor=\"{anchor}\">{label}</text>", y + above);
        let mut at = LEFT;
        for (part, value) in &bar.pieces {
            let colour = match bar.pieces.len() {
                1 => 0,
                _ => parts.iter().position(|known| known == part).unwrap_or_else(|| {
                    parts.push(part);
                    parts.len() - 1
                }),
            };
            let (width, colour) = (value * scale, COLOURS[colour % COLOURS.len()]);
            let _ = writeln!(
                svg,
                "<rect x=\"{at:.1}\" y=\"{y}\" width=\"{width:.1}\" height=\"16\" fill=\"{colour}\"/>"
            );
            at += width;
        }
        let text = match (bar.pieces.as_slice(), line) {
            ([(what, _)], Some(_)) => escaped(what),
            _ => short(sum(bar)),
        };
        let _ = writeln!(svg, "<text x=\"{:.1}\" y=\"{}\">{text}</text>", at + 4.0, y + 12.0);
    }
    if let Some(value) = line {
        let x = LEFT + value * scale;
        let _ = writeln!(
            svg,
            "<line x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{}\" y2=\"{height}\" stroke=\"black\"/>",
            TOP - 8.0
        );
    }
    for (index, part) in parts.iter().enumerate() {
        let (x, colour) = (LEFT + 90.0 * index as f64, COLOURS[index % COLOURS.len()]);
        let _ = writeln!(
            svg,
            "<rect x=\"{x}\" y=\"28\" width=\"10\" height=\"10\" fill=\"{colour}\"/><text x=\"{}\" y=\"37\">{}</text>",
            x + 14.0,
            escaped(part)
        );
    }
    svg + "</svg>\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_are_as_long_as_their_values() {
        let bar = |name: &str, pieces: &[f64]| Bar {
            name: name.to_owned(),
            pieces: pieces.iter().enumerate().map(|(n, value)| (format!("part {n}"), *value)).collect(),
        };
        let svg = chart("a < b", &[bar("one", &[10.0, 30.0]), bar("two & more", &[5.0, 5.0])], None);
        for found in
            ["a &lt; b", "two &amp; more", "width=\"105.0\"", "width=\"315.0\"", "width=\"52.5\"", "part 1"]
        {
            assert!(svg.contains(found), "{found} in {svg}");
        }
        assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n"));
    }
}
