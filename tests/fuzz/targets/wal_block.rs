#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| daos_vos::fuzz::wal_block(data));
