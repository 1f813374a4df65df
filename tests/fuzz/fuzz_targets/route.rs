//! Methods, paths and queries: whatever comes, a route or a refusal; and no key that a store would refuse.

#![no_main]

use http::Method;
use kvpoc::serve::route::{Limits, Route, route};
use kvpoc::store::KeyList as _;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (u8, &str, Option<&str>)| {
    let (choice, path, query) = input;
    let methods = [
        Method::GET,
        Method::HEAD,
        Method::PUT,
        Method::DELETE,
        Method::POST,
    ];
    let limits = Limits {
        allow_writes: choice & 64 != 0,
        upstash: choice & 128 != 0,
        max_keys_per_request: 128,
    };
    let method = &methods[usize::from(choice) % methods.len()];
    // Mostly a path of the right kind, so that the rest is reached.
    let known = [
        "",
        "/user/session/",
        "/user/sessions",
        "/v1/keys/",
        "/v1/keys",
        "/v1/mset",
        "/floor",
    ];
    let path = format!("{}{path}", known[usize::from(choice >> 3) % known.len()]);
    match route(method, &path, query, limits) {
        Ok(Route::GetKeys(keys, _)) => {
            assert!((1..=128).contains(&keys.count()));
            assert!((0..keys.count()).all(|place| (1..=511).contains(&keys.key_len(place))));
        }
        Ok(Route::Sessions(ids)) => assert!((1..=128).contains(&ids.len())),
        Ok(Route::GetKey(key) | Route::DeleteKey(key)) => assert!((1..=511).contains(&key.len())),
        Ok(Route::PutKey(key, ttl)) => {
            assert!(limits.allow_writes && (1..=511).contains(&key.len()));
            assert!(ttl.is_none_or(|ttl| !ttl.is_zero()));
        }
        Ok(_) | Err(_) => {}
    }
});
