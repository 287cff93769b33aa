//! What was measured, as a table and as JSON.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::expected::{Bound, Verdict};
use crate::mounted::Requests;

/// The column of what is measured without a mount.
pub const VOS: &str = "vos";
/// Kinds of requests that are rarer than this per operation are not worth a word.
const RARE: f64 = 0.005;

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    MegabytesPerSecond,
    PerSecond,
    Seconds,
    Microseconds,
    Bytes,
    Ratio,
}

impl Unit {
    pub fn name(self) -> &'static str {
        match self {
            Self::MegabytesPerSecond => "MB/s",
            Self::PerSecond => "/s",
            Self::Seconds => "s",
            Self::Microseconds => "us",
            Self::Bytes => "bytes",
            Self::Ratio => "x",
        }
    }

    /// Twice as much is twice as good.
    fn more_is_better(self) -> bool {
        matches!(self, Self::MegabytesPerSecond | Self::PerSecond)
    }
}

pub struct Row {
    pub group: String,
    pub name: String,
    pub unit: Unit,
    /// By column; missing where it could not be measured.
    samples: BTreeMap<String, Vec<f64>>,
    /// Per operation, by column and kind; of the last round.
    requests: BTreeMap<String, BTreeMap<String, f64>>,
}

impl Row {
    /// The median.
    pub fn value(&self, column: &str) -> Option<f64> {
        let mut samples = self.samples.get(column)?.clone();
        samples.sort_by(f64::total_cmp);
        let middle = samples.len() / 2;
        Some(match samples.len() % 2 {
            1 => samples[middle],
            _ => f64::midpoint(samples[middle - 1], samples[middle]),
        })
    }

    /// How fast `ours` is for each unit of speed of `theirs`: more is better, whatever the unit.
    pub fn speed(&self, ours: &str, theirs: &str) -> Option<f64> {
        let (ours, theirs) = (self.value(ours)?, self.value(theirs)?);
        let (up, down) = if self.unit.more_is_better() { (ours, theirs) } else { (theirs, ours) };
        (up > 0.0 && down > 0.0).then_some(up / down)
    }
}

pub struct Report {
    columns: Vec<String>,
    /// Of groups that compare something else.
    own_columns: BTreeMap<String, Vec<String>>,
    group: String,
    rows: Vec<Row>,
    errors: Vec<(String, String)>,
}

impl Report {
    /// The first column is ours, the others are what it is compared with.
    pub fn new(columns: Vec<String>) -> Self {
        let (own_columns, group, rows, errors) = Default::default();
        Self { columns, own_columns, group, rows, errors }
    }

    /// What comes from now on belongs to `group`.
    pub fn begin(&mut self, group: &str) {
        self.group = group.to_owned();
    }

    /// The group that begins has columns of its own.
    pub fn compare(&mut self, columns: &[&str]) {
        let columns = columns.iter().map(|&column| column.to_owned()).collect();
        self.own_columns.insert(self.group.clone(), columns);
    }

    pub fn rows(&self) -> &[Row] {
        &self.rows
    }

    pub fn columns(&self) -> &[String] {
        &self.columns
    }

    pub fn has_own_columns(&self, row: &Row) -> bool {
        self.own_columns.contains_key(&row.group)
    }

    fn columns_of(&self, group: &str) -> &[String] {
        self.own_columns.get(group).unwrap_or(&self.columns)
    }

    /// What the columns of the filesystems are compared with.
    pub fn others(&self) -> &[String] {
        self.columns.get(1..).unwrap_or_default()
    }

    fn others_of(&self, group: &str) -> &[String] {
        self.columns_of(group).get(1..).unwrap_or_default()
    }

    /// Whose value is judged: the first filesystem's, or that of vos alone.
    pub fn ours<'a>(&'a self, row: &Row) -> &'a str {
        if row.samples.contains_key(VOS) { VOS } else { &self.columns_of(&row.group)[0] }
    }

    /// Further values of the same name and column are further samples.
    pub fn put(&mut self, column: &str, name: &str, value: f64, unit: Unit) {
        eprintln!("  {name:52} {column:8} {:>12} {}", number(value), unit.name());
        let row = self.row(name, unit);
        row.samples.entry(column.to_owned()).or_default().push(value);
    }

    fn row(&mut self, name: &str, unit: Unit) -> &mut Row {
        let at = self.rows.iter().position(|row| row.name == name).unwrap_or_else(|| {
            let (group, name) = (self.group.clone(), name.to_owned());
            let (samples, requests) = (BTreeMap::new(), BTreeMap::new());
            self.rows.push(Row { group, name, unit, samples, requests });
            self.rows.len() - 1
        });
        &mut self.rows[at]
    }

    /// What the kernel asked for during the measurement that was put last.
    pub fn requests(
        &mut self,
        column: &str,
        name: &str,
        before: &Requests,
        after: &Requests,
        operations: u64,
    ) {
        let Some(row) = self.rows.iter_mut().find(|row| row.name == name) else { return };
        let per_operation = |(kind, count): (&String, &u64)| {
            let asked = count - before.get(kind).unwrap_or(&0);
            (kind.clone(), asked as f64 / operations.max(1) as f64)
        };
        let kinds = after.iter().map(per_operation).filter(|(_, n)| *n > 0.0).collect();
        row.requests.insert(column.to_owned(), kinds);
    }

    /// The value is left out and the reason kept.
    pub fn error(&mut self, column: &str, name: &str, reason: impl std::fmt::Display) {
        eprintln!("  {name:52} {column:8} not measured: {reason}");
        self.errors.push((format!("{name} on {column}"), reason.to_string()));
    }

    /// Values, the speed of the first column relative to the others (more is better), and what was expected.
    pub fn print(&self) {
        let mut group = "";
        for row in &self.rows {
            if row.group != group {
                group = &row.group;
                self.print_heading(group);
            }
            self.print_row(row);
        }
        for (name, reason) in &self.errors {
            println!("not measured: {name}: {reason}");
        }
        self.print_requests();
        self.print_verdicts();
    }

    fn print_heading(&self, group: &str) {
        print!("\n{group:52} {:>5}", "");
        if self.rows.iter().filter(|row| row.group == group).all(|row| self.ours(row) == VOS) {
            return println!(" {VOS:>9}   expected");
        }
        for column in self.columns_of(group) {
            print!(" {column:>9}");
        }
        for other in self.others_of(group) {
            print!(" {:>9}", format!("/ {other}"));
        }
        println!("   expected");
    }

    fn print_row(&self, row: &Row) {
        let ours = self.ours(row);
        print!("{:52} {:>5}", row.name, row.unit.name());
        if ours == VOS {
            print!(" {:>9}", row.value(VOS).map_or_else(String::new, number));
            return self.print_verdict(row);
        }
        for column in self.columns_of(&row.group) {
            let value = row.value(column);
            print!(" {:>9}", value.map_or_else(|| "-".to_owned(), number));
        }
        for other in self.others_of(&row.group) {
            let speed = row.speed(ours, other);
            print!(" {:>9}", speed.map_or_else(String::new, |speed| format!("{speed:.2}")));
        }
        self.print_verdict(row);
    }

    fn print_verdict(&self, row: &Row) {
        match Verdict::of(row, self.ours(row)) {
            Some(verdict) => println!("   {}", sentence(&verdict)),
            None => println!(),
        }
    }

    fn print_requests(&self) {
        if self.rows.iter().all(|row| row.requests.is_empty()) {
            return;
        }
        println!("\nrequests per operation");
        for row in &self.rows {
            let mut told: Vec<(&str, String)> = Vec::new();
            for (column, kinds) in &row.requests {
                told.push((column, formula(kinds)));
            }
            match told.as_slice() {
                [] => {}
                [(_, ours), (_, theirs)] if ours == theirs => println!("{:52} {ours}", row.name),
                _ => told.iter().for_each(|(column, formula)| {
                    println!("{:52} {column}: {formula}", row.name);
                }),
            }
        }
    }

    fn print_verdicts(&self) {
        let verdicts: Vec<_> =
            self.rows.iter().filter_map(|row| Verdict::of(row, self.ours(row))).collect();
        if !verdicts.is_empty() {
            let met = verdicts.iter().filter(|verdict| verdict.met()).count();
            println!("\n{met} of {} expectations are met", verdicts.len());
        }
    }

    pub fn json(&self, rounds: usize) -> String {
        let rows: Vec<Value> = self.rows.iter().map(|row| self.json_row(row)).collect();
        let errors: BTreeMap<_, _> = self.errors.iter().cloned().collect();
        let machine = json!({
            "cores": std::thread::available_parallelism().map_or(0, usize::from),
            "kernel": std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim(),
        });
        let all = json!({
            "columns": self.columns, "rounds": rounds, "rows": rows, "errors": errors, "machine": machine,
        });
        format!("{all:#}\n")
    }

    fn json_row(&self, row: &Row) -> Value {
        let ours = self.ours(row);
        let values: BTreeMap<_, _> =
            row.samples.keys().map(|column| (column, row.value(column))).collect();
        let speed: BTreeMap<_, _> = self
            .others_of(&row.group)
            .iter()
            .filter_map(|other| Some((other, row.speed(ours, other)?)))
            .collect();
        let expected = Verdict::of(row, ours).map(|verdict| {
            let (of, bound) = match verdict.bound {
                Bound::Speed(of, least) => (of, least),
                Bound::AtLeast(least) => ("at least", least),
                Bound::AtMost(most) => ("at most", most),
            };
            json!({"of": of, "bound": bound, "reached": verdict.reached, "met": verdict.met()})
        });
        json!({
            "group": row.group, "name": row.name, "unit": row.unit.name(), "values": values, "samples": row.samples,
            "speed": speed, "expected": expected, "requests_per_operation": row.requests,
        })
    }
}

/// `met` or `MISSED`, and by how much.
fn sentence(verdict: &Verdict) -> String {
    let bound = bound(&verdict.bound);
    if verdict.met() {
        format!("met ({bound})")
    } else {
        format!("MISSED ({bound}): {:.0} % of it", verdict.reached * 100.0)
    }
}

pub fn bound(bound: &Bound) -> String {
    match bound {
        Bound::Speed(of, least) => format!("{least:.2} of {of}"),
        Bound::AtLeast(least) => format!("at least {}", number(*least)),
        Bound::AtMost(most) => format!("at most {}", number(*most)),
    }
}

/// `LOOKUP + 2 WRITE + 0.03 GETATTR`, the frequent ones first.
fn formula(kinds: &BTreeMap<String, f64>) -> String {
    let mut kinds: Vec<_> = kinds.iter().filter(|(_, n)| **n >= RARE).collect();
    kinds.sort_by(|a, b| b.1.total_cmp(a.1));
    let term = |(kind, n): &(&String, &f64)| match **n {
        n if (0.995..1.005).contains(&n) => (*kind).clone(),
        n if n >= 100.0 => format!("{n:.0} {kind}"),
        n => format!("{n:.2} {kind}"),
    };
    let terms: Vec<_> = kinds.iter().map(term).collect();
    if terms.is_empty() { "none".to_owned() } else { terms.join(" + ") }
}

pub fn number(value: f64) -> String {
    if value >= 1000.0 {
        format!("{value:.0}")
    } else if value >= 10.0 {
        format!("{value:.1}")
    } else {
        format!("{value:.3}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn speed_is_more_for_more_a_second_and_for_less_time() {
        let mut report = Report::new(vec!["a".into(), "b".into()]);
        report.put("a", "rate", 3.0, Unit::PerSecond);
        report.put("b", "rate", 2.0, Unit::PerSecond);
        report.put("a", "time", 3.0, Unit::Seconds);
        report.put("b", "time", 6.0, Unit::Seconds);
        report.put("a", "alone", 3.0, Unit::Seconds);
        let speeds: Vec<_> = report.rows().iter().map(|row| row.speed("a", "b")).collect();
        assert_eq!(speeds, [Some(1.5), Some(2.0), None]);
    }

    #[test]
    fn the_value_is_the_median_of_the_rounds() {
        let mut report = Report::new(vec!["a".into()]);
        for value in [9.0, 1.0, 2.0] {
            report.put("a", "x", value, Unit::Seconds);
        }
        assert_eq!(report.rows()[0].value("a"), Some(2.0));
        report.put("a", "x", 3.0, Unit::Seconds);
        assert_eq!(report.rows()[0].value("a"), Some(2.5));
    }

    #[test]
    fn requests_are_told_as_a_formula() {
        let mut report = Report::new(vec!["a".into()]);
        report.put("a", "create", 1.0, Unit::PerSecond);
        let before = Requests::from([("LOOKUP".to_owned(), 5)]);
        let after = [("LOOKUP", 15), ("CREATE", 10), ("GETXATTR", 5), ("STATFS", 0)];
        let after = after.map(|(kind, n)| (kind.to_owned(), n)).into();
        report.requests("a", "create", &before, &after, 10);
        assert_eq!(formula(&report.rows()[0].requests["a"]), "CREATE + LOOKUP + 0.50 GETXATTR");
    }
}
