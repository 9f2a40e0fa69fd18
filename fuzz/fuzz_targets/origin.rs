#![no_main]

#[path = "../../tests/fuzz/origin.rs"]
mod origin;

libfuzzer_sys::fuzz_target!(|data: &[u8]| origin::run(data));
