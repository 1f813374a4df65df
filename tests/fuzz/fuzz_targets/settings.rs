//! Settings files, store URLs and every value that a user types.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| kvpoc::config::fuzz(text));
