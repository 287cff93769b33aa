#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| daos_vos::fuzz::header(data));
