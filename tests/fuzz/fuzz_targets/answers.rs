//! Answers of a store to what reads keys: the same however they are cut, and nothing that is none.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|answers: &[u8]| kvpoc::store::fuzz(answers));
