//! Results that are to be merged or compared: from a file, and from anybody.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| kvpoc::bench::fuzz(text));
