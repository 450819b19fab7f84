#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| programs::hostile::events(data));
