//! What a command prints: a table for people, or one JSON object.

use std::io::{self, Write};

use serde_json::{Value, json};

/// Rows under headings, or pairs of a name and a value.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Text(String);

impl Text {
    pub fn line(text: impl Into<String>) -> Self {
        Self(text.into() + "\n")
    }

    pub fn table(headings: &[&str], rows: &[Vec<String>]) -> Self {
        let mut widths: Vec<usize> = headings.iter().map(|h| h.chars().count()).collect();
        for row in rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.chars().count());
            }
        }
        let mut text = String::new();
        let headings: Vec<String> = headings.iter().map(|h| (*h).into()).collect();
        for row in std::iter::once(&headings).chain(rows) {
            let cells: Vec<String> =
                row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
            text.push_str(cells.join("  ").trim_end());
            text.push('\n');
        }
        Self(text)
    }

    pub fn pairs(pairs: &[(&str, String)]) -> Self {
        let width = pairs.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
        let lines = pairs.iter().map(|(name, value)| format!("{name:<width$}  {value}\n"));
        Self(lines.collect())
    }

    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        self.0.push_str(&other.0);
        self
    }
}

/// The answer of a command that could do its work.
#[derive(Debug)]
pub struct Answered {
    pub text: Text,
    pub json: Value,
    pub status: u8,
}

/// Prints to standard output, whole, in one write.
pub fn print(answered: &Answered, as_json: bool) -> io::Result<()> {
    let text = if as_json {
        object(&answered.json, None, answered.status)
    } else {
        answered.text.0.clone()
    };
    io::stdout().lock().write_all(text.as_bytes())
}

/// An error: for people to standard error, as JSON where answers go.
pub fn print_error(kind: &str, message: &str, status: u8, as_json: bool) {
    if as_json {
        // Nobody reads it: then nothing can be said about that either.
        let _ = io::stdout()
            .lock()
            .write_all(object(&Value::Null, Some((kind, message)), status).as_bytes());
    } else {
        eprintln!("daos: {message}");
    }
}

fn object(response: &Value, error: Option<(&str, &str)>, status: u8) -> String {
    format!("{:#}\n", answer(response, error, status))
}

/// The shape that every answer ends with.
pub fn answer(response: &Value, error: Option<(&str, &str)>, status: u8) -> Value {
    let (kind, message) = error.unzip();
    json!({ "response": response, "error": message, "kind": kind, "status": status })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let rows = [vec!["a".into(), "1 GiB".into()], vec!["longer".into(), "2".into()]];
        assert_eq!(
            Text::table(&["NAME", "SIZE"], &rows).0,
            "NAME    SIZE\na       1 GiB\nlonger  2\n"
        );
        assert_eq!(Text::pairs(&[("a", "1".into()), ("bcd", "2".into())]).0, "a    1\nbcd  2\n");
    }

    #[test]
    fn answers_and_errors_have_one_shape() {
        let good: Value = serde_json::from_str(&object(&json!({"x": 1}), None, 0)).unwrap();
        assert_eq!(good, json!({"response": {"x": 1}, "error": null, "kind": null, "status": 0}));
        let bad: Value =
            serde_json::from_str(&object(&Value::Null, Some(("not-found", "no")), 3)).unwrap();
        assert_eq!(bad, json!({"response": null, "error": "no", "kind": "not-found", "status": 3}));
    }
}
