//! What was measured, as a table and as JSON.

use std::collections::BTreeMap;

use serde_json::{Value, json};

/// Which way is good.
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
    fn name(self) -> &'static str {
        match self {
            Self::MegabytesPerSecond => "MB/s",
            Self::PerSecond => "/s",
            Self::Seconds => "s",
            Self::Microseconds => "us",
            Self::Bytes => "bytes",
            Self::Ratio => "x",
        }
    }
}

struct Row {
    name: String,
    unit: Unit,
    /// By column; missing where it could not be measured.
    values: BTreeMap<String, f64>,
}

pub struct Report {
    columns: Vec<String>,
    rows: Vec<Row>,
    errors: Vec<(String, String)>,
}

impl Report {
    pub fn new(columns: Vec<String>) -> Self {
        Self { columns, rows: Vec::new(), errors: Vec::new() }
    }

    /// A second value of the same name and column takes the place of the first.
    pub fn put(&mut self, column: &str, name: &str, value: f64, unit: Unit) {
        eprintln!("  {name:44} {column:8} {:>12} {}", number(value), unit.name());
        let row = match self.rows.iter_mut().position(|row| row.name == name) {
            Some(at) => &mut self.rows[at],
            None => {
                self.rows.push(Row { name: name.to_owned(), unit, values: BTreeMap::new() });
                self.rows.last_mut().expect("one was pushed")
            }
        };
        row.values.insert(column.to_owned(), value);
    }

    /// The value is left out and the reason kept.
    pub fn error(&mut self, column: &str, name: &str, reason: impl std::fmt::Display) {
        eprintln!("  {name:44} {column:8} not measured: {reason}");
        self.errors.push((format!("{name} on {column}"), reason.to_string()));
    }

    /// One line per measurement; the ratio is the first column to the second: bigger is better for rates, smaller for times.
    pub fn print(&self) {
        if self.rows.is_empty() && self.errors.is_empty() {
            return;
        }
        print!("\n{:44} {:>6}", "", "");
        for column in &self.columns {
            print!(" {column:>12}");
        }
        println!("{}", if self.columns.len() > 1 { "        ratio" } else { "" });
        for row in &self.rows {
            print!("{:44} {:>6}", row.name, row.unit.name());
            for column in &self.columns {
                let text = row.values.get(column).map_or_else(|| "-".to_owned(), |v| number(*v));
                print!(" {text:>12}");
            }
            match self.ratio(row) {
                Some(ratio) => println!(" {ratio:>12.2}"),
                None => println!(),
            }
        }
        for (name, reason) in &self.errors {
            println!("not measured: {name}: {reason}");
        }
    }

    fn ratio(&self, row: &Row) -> Option<f64> {
        let ours = row.values.get(self.columns.first()?)?;
        let theirs = row.values.get(self.columns.get(1)?)?;
        (*theirs > 0.0).then_some(ours / theirs)
    }

    pub fn json(&self) -> String {
        let rows: Vec<Value> = self
            .rows
            .iter()
            .map(|row| {
                json!({"name": row.name, "unit": row.unit.name(), "values": row.values, "ratio": self.ratio(row)})
            })
            .collect();
        let errors: BTreeMap<_, _> = self.errors.iter().cloned().collect();
        let machine = json!({
            "cores": std::thread::available_parallelism().map_or(0, usize::from),
            "kernel": std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim(),
        });
        let all =
            json!({"columns": self.columns, "rows": rows, "errors": errors, "machine": machine});
        format!("{all:#}\n")
    }
}

fn number(value: f64) -> String {
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
    fn the_ratio_is_first_to_second_and_missing_values_leave_it_out() {
        let mut report = Report::new(vec!["a".into(), "b".into()]);
        report.put("a", "x", 3.0, Unit::PerSecond);
        report.put("b", "x", 2.0, Unit::PerSecond);
        report.put("a", "y", 3.0, Unit::PerSecond);
        assert_eq!(report.ratio(&report.rows[0]), Some(1.5));
        assert_eq!(report.ratio(&report.rows[1]), None);
        assert!(report.json().contains("\"ratio\": 1.5"));
    }
}
