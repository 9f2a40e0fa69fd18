#![no_main]

#[path = "../../tests/fuzz/response.rs"]
mod response;
#[path = "../../tests/fuzz/reading.rs"]
mod reading;
#[path = "../../tests/fuzz/token_response.rs"]
mod token_response;

libfuzzer_sys::fuzz_target!(|data: &[u8]| token_response::run(data));
