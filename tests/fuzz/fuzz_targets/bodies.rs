//! Bodies of `/v1/mget`, `/v1/mset` and `/pipeline`.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|body: &[u8]| kvpoc::serve::fuzz(body));
