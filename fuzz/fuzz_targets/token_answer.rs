#![no_main]

#[path = "../../tests/fuzz/answer.rs"]
mod answer;
#[path = "../../tests/fuzz/reading.rs"]
mod reading;
#[path = "../../tests/fuzz/token_answer.rs"]
mod token_answer;

libfuzzer_sys::fuzz_target!(|data: &[u8]| token_answer::run(data));
