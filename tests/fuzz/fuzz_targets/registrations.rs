#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| ampoule_fuzz::run("registrations", bytes));
