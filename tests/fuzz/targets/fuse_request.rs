#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| dfuse::fuse::fuzz::request(data));
