//! Drives `frames::stream_frames` of tests/it/fuzzed/, where it says what must hold.
#![no_main]
#![allow(dead_code, reason = "the other checks in the file have targets of their own")]

#[path = "../../tests/it/fuzzed/frames.rs"]
mod frames;

libfuzzer_sys::fuzz_target!(|input: &[u8]| frames::stream_frames(input));
