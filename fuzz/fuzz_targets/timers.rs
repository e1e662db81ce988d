//! Drives `timers::timers` of tests/it/fuzzed/, where it says what must hold.
#![no_main]
#![allow(dead_code, reason = "the other checks in the file have targets of their own")]

#[path = "../../tests/it/fuzzed/timers.rs"]
mod timers;

libfuzzer_sys::fuzz_target!(|input: &[u8]| timers::timers(input));
