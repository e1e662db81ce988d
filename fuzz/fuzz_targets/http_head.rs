//! Drives `head::http_head` of tests/it/fuzzed/, where it says what must hold.
#![no_main]
#![allow(dead_code, reason = "the other checks in the file have targets of their own")]

#[path = "../../tests/it/fuzzed/head.rs"]
mod head;

libfuzzer_sys::fuzz_target!(|input: &[u8]| head::http_head(input));
