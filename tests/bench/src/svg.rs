//! The table as a picture: how fast we are for each of the others, on a log scale, and what was expected.

use std::fmt::Write as _;

use crate::expected::{Bound, Verdict};
use crate::report::{Report, Row, bound, number};

const WIDTH: f64 = 980.0;
const LEFT: f64 = 330.0;
const RIGHT: f64 = 790.0;
const TOP: f64 = 96.0;
const BAR: f64 = 7.0;
const GAP: f64 = 2.0;
const ROW_GAP: f64 = 9.0;
const HEADING: f64 = 30.0;
/// The ends of the scale: what is beyond them is drawn to the edge.
const LEAST: f64 = 0.01;
const MOST: f64 = 10.0;

/// Plain colours first, for viewers that know neither media queries nor variables.
const STYLE: &str = "
  rect.page { fill: #ffffff; }
  text { font-family: system-ui, -apple-system, 'Segoe UI', sans-serif; font-size: 12px; fill: #1b1f24; }
  text.title { font-size: 17px; font-weight: 600; }
  text.heading { font-size: 13px; font-weight: 600; }
  text.soft { fill: #66707b; font-size: 11px; }
  text.met { fill: #2e8b57; font-size: 11px; }
  text.missed { fill: #c23b3b; font-size: 11px; }
  line.grid { stroke: #d5dae0; stroke-width: 1; }
  line.one { stroke: #66707b; stroke-width: 1; }
  line.mark { stroke: #1b1f24; stroke-width: 2; }
  rect.bar0 { fill: #2f6fb5; }
  rect.bar1 { fill: #e08a1e; }
  rect.bar2 { fill: #7a8794; }
  @media (prefers-color-scheme: dark) {
    rect.page { fill: #14181d; }
    text { fill: #e6e9ed; }
    text.soft { fill: #98a2ad; }
    text.met { fill: #5cc48c; }
    text.missed { fill: #f07373; }
    line.grid { stroke: #343b44; }
    line.one { stroke: #98a2ad; }
    line.mark { stroke: #e6e9ed; }
    rect.bar0 { fill: #6aa9ee; }
    rect.bar1 { fill: #f2ab4e; }
    rect.bar2 { fill: #8c98a5; }
  }
";

/// One bar: a ratio, and the ratio that was expected.
struct Bar {
    class: usize,
    ratio: f64,
    expected: Option<f64>,
}

pub fn draw(report: &Report) -> String {
    let rows: Vec<_> = report
        .rows()
        .iter()
        // What compares something else has no place on this scale.
        .filter(|row| !row.name.starts_with(' ') && !report.has_own_columns(row))
        .map(|row| (row, bars(report, row)))
        .filter(|(_, b)| !b.is_empty())
        .collect();
    let mut body = String::new();
    let mut y = TOP;
    let mut group = "";
    for (row, bars) in &rows {
        if row.group != group {
            group = &row.group;
            y += HEADING;
            text(&mut body, 16.0, y - 8.0, "heading", "start", group);
        }
        draw_row(&mut body, report, row, bars, y);
        y += bars.len() as f64 * (BAR + GAP) + ROW_GAP;
    }
    let height = y + 16.0;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height:.0}\" width=\"{WIDTH}\" height=\"{height:.0}\">\n\
         <style>{STYLE}</style>\n<rect class=\"page\" width=\"100%\" height=\"100%\"/>\n"
    );
    draw_frame(&mut svg, report, y);
    svg + &body + "</svg>\n"
}

fn bars(report: &Report, row: &Row) -> Vec<Bar> {
    let ours = report.ours(row);
    let verdict = Verdict::of(row, ours);
    let mut bars: Vec<_> = report
        .others()
        .iter()
        .enumerate()
        .filter_map(|(class, other)| {
            let expected = match verdict.map(|verdict| verdict.bound) {
                Some(Bound::Speed(of, least)) if of == other => Some(least),
                _ => None,
            };
            Some(Bar { class, ratio: row.speed(ours, other)?, expected })
        })
        .collect();
    // An expectation of the value itself is a ceiling too.
    if let Some(Verdict { bound: Bound::AtLeast(_) | Bound::AtMost(_), reached }) = verdict {
        bars.push(Bar { class: 2, ratio: reached, expected: Some(1.0) });
    }
    bars
}

fn draw_frame(svg: &mut String, report: &Report, bottom: f64) {
    let ours = report.columns().first().map_or("", String::as_str);
    text(svg, 16.0, 30.0, "title", "start", &format!("{ours}: speed relative to its ceilings"));
    text(
        svg,
        16.0,
        50.0,
        "soft",
        "start",
        "Same run, same machine, medians. Right of 1 is faster. A bar's tick is what is expected of it.",
    );
    let mut x = 16.0;
    let others = report.others().iter().map(|other| format!("{ours} / {other}"));
    for (class, label) in others.chain(["of a fixed aim".to_owned()]).enumerate() {
        let class = if class >= report.others().len() { 2 } else { class };
        let _ = writeln!(
            svg,
            "<rect class=\"bar{class}\" x=\"{x}\" y=\"62\" width=\"12\" height=\"12\" rx=\"2\"/>"
        );
        text(svg, x + 18.0, 72.0, "soft", "start", &label);
        x += 42.0 + label.len() as f64 * 6.5;
    }
    for tick in [0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0] {
        let (x, class) = (place(tick), if tick == 1.0 { "one" } else { "grid" });
        let _ = writeln!(
            svg,
            "<line class=\"{class}\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{}\" y2=\"{bottom:.1}\"/>",
            TOP + 2.0
        );
        text(svg, x, TOP - 4.0, "soft", "middle", &format!("{tick}"));
    }
}

fn draw_row(svg: &mut String, report: &Report, row: &Row, bars: &[Bar], top: f64) {
    let middle = top + bars.len() as f64 * (BAR + GAP) / 2.0;
    text(svg, LEFT - 12.0, middle + 3.0, "", "end", row.name.trim());
    for (at, bar) in bars.iter().enumerate() {
        let y = top + at as f64 * (BAR + GAP);
        let (one, end) = (place(1.0), place(bar.ratio));
        let (x, width) = (one.min(end), (one - end).abs().max(1.0));
        let _ = writeln!(
            svg,
            "<rect class=\"bar{}\" x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{BAR}\" rx=\"1.5\"><title>{:.3}</title></rect>",
            bar.class, bar.ratio
        );
        if let Some(expected) = bar.expected {
            let x = place(expected);
            let _ = writeln!(
                svg,
                "<line class=\"mark\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{:.1}\" y2=\"{:.1}\"/>",
                y - 2.0,
                y + BAR + 2.0
            );
        }
    }
    let value = row.value(report.ours(row)).map(|v| format!("{} {}", number(v), row.unit.name()));
    text(svg, RIGHT + 14.0, middle + 3.0, "soft", "start", &value.unwrap_or_default());
    if let Some(verdict) = Verdict::of(row, report.ours(row)) {
        let word = if verdict.met() { "met" } else { "missed" };
        let label = format!("<title>{}</title>{word}", bound(&verdict.bound));
        raw_text(svg, WIDTH - 16.0, middle + 3.0, word, "end", &label);
    }
}

fn place(ratio: f64) -> f64 {
    let share = (ratio.clamp(LEAST, MOST) / LEAST).ln() / (MOST / LEAST).ln();
    LEFT + share * (RIGHT - LEFT)
}

fn text(svg: &mut String, x: f64, y: f64, class: &str, anchor: &str, words: &str) {
    let words = words.replace('&', "&amp;").replace('<', "&lt;");
    raw_text(svg, x, y, class, anchor, &words);
}

fn raw_text(svg: &mut String, x: f64, y: f64, class: &str, anchor: &str, inner: &str) {
    let _ = writeln!(
        svg,
        "<text class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{inner}</text>"
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Unit;

    #[test]
    fn a_row_has_a_bar_for_each_other_and_a_mark_where_it_is_expected() {
        let mut report = Report::new(vec!["dfuse".into(), "ext4".into(), "null".into()]);
        report.begin("files");
        for (column, value) in [("dfuse", 50.0), ("ext4", 100.0), ("null", 60.0)] {
            report.put(column, "create", value, Unit::PerSecond);
        }
        let svg = draw(&report);
        assert_eq!(svg.matches("<title>0.5").count(), 1);
        assert_eq!(svg.matches("<title>0.833").count(), 1);
        assert_eq!(svg.matches("class=\"mark\"").count(), 1);
        assert!(svg.contains(">met<"));
    }

    #[test]
    fn the_scale_is_logarithmic_and_has_ends() {
        assert!((place(0.1) - place(0.01) - (place(10.0) - place(1.0))).abs() < 1e-9);
        assert_eq!(place(0.0001), LEFT);
        assert_eq!(place(1000.0), RIGHT);
    }
}
