//! A door for `tests/fuzz` to what reads lines of the control socket.

use super::protocol::{LINE_BYTES_MAX, read_answer, read_ask, write_answer, write_ask};

/// Any line is a question, or a failure that fits into an answer; what is understood means the same when it is said again.
///
/// # Panics
/// When that does not hold.
pub fn control_line(line: &[u8]) {
    match read_ask(line) {
        Ok(ask) => assert_eq!(read_ask(write_ask(&ask).as_bytes()), Ok(ask)),
        Err(failure) => {
            let answer = write_answer(Err(failure.clone()));
            assert!(answer.ends_with('\n') && answer.len() <= LINE_BYTES_MAX + 1);
            assert_eq!(answer.matches('\n').count(), 1, "one line");
            assert_eq!(read_answer(answer.as_bytes()), Err(failure));
        }
    }
    if let Ok(answer) = read_answer(line) {
        assert_eq!(read_answer(write_answer(Ok(answer.clone())).as_bytes()), Ok(answer));
    }
    if let Ok(text) = std::str::from_utf8(line)
        && let Some(bytes) = super::unhex(text.trim_end())
    {
        assert_eq!(bytes.len() * 2, text.trim_end().len());
    }
}
