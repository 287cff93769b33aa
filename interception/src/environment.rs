//! What the environment says of this program, as it was before main.

#![allow(unsafe_code)]

use std::ffi::{CStr, c_char};

unsafe extern "C" {
    static program_invocation_short_name: *const c_char;
}

/// For before main only: nobody changes the environment then.
pub(crate) fn variable(name: &CStr) -> Option<&'static CStr> {
    // SAFETY: before main there is one thread.
    let value = unsafe { libc::getenv(name.as_ptr()) };
    // SAFETY: not null, so it is a string of the environment, which stays where it is.
    (!value.is_null()).then(|| unsafe { CStr::from_ptr(value) })
}

/// The name by which it was started, without directories.
pub(crate) fn program() -> &'static [u8] {
    // SAFETY: the C library has set it before it runs what comes before main; it points into the program's arguments.
    let name = unsafe { program_invocation_short_name };
    // SAFETY: not null, so it is a string.
    if name.is_null() { b"" } else { unsafe { CStr::from_ptr(name) }.to_bytes() }
}

/// Whether `D_IL_BYPASS_LIST` says that this program is not to be touched. `D_IL_NO_BYPASS=1`: nobody asks it.
pub(crate) fn is_bypassed() -> bool {
    let asks = variable(c"D_IL_NO_BYPASS").is_none_or(|value| value == c"0" || value.is_empty());
    asks && variable(c"D_IL_BYPASS_LIST").is_some_and(|list| has(list.to_bytes(), program()))
}

fn has(list: &[u8], name: &[u8]) -> bool {
    list.split(|byte| *byte == b':').any(|one| !one.is_empty() && one == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_has_whole_names() {
        assert!(has(b"ls:my-tool:cp", b"my-tool"));
        assert!(has(b"ls", b"ls"));
        for (list, name) in
            [(&b"ls:cp"[..], &b"l"[..]), (b"lsx", b"ls"), (b"", b""), (b"a::b", b"")]
        {
            assert!(!has(list, name));
        }
    }
}
