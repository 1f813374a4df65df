//! Stored values: a session, an older loader's JSON, or an error; and what is read is written the same.

#![no_main]

use bytes::BytesMut;
use kvpoc::record::{Decoded, decode};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(Decoded::Session(session)) = decode(bytes) {
        let mut again = BytesMut::new();
        session.put(&mut again);
        assert_eq!(&again[..], bytes);
    }
});
