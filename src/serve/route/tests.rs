//! Which targets ask for what, and which are refused.
//!
//! Enters: targets. Leaves: nothing. Must not need a server.

use super::*;

const LIMITS: Limits = Limits {
    allow_writes: true,
    upstash: true,
    max_keys_per_request: 3,
};
const READ_ONLY: Limits = Limits {
    allow_writes: false,
    upstash: false,
    ..LIMITS
};

fn split(target: &str) -> (&str, Option<&str>) {
    match target.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (target, None),
    }
}

fn ask<'a>(method: &Method, target: &'a str, limits: Limits) -> Result<Route<'a>, Problem> {
    let (path, query) = split(target);
    route(method, path, query, limits)
}

fn get(target: &str) -> Result<Route<'_>, Problem> {
    ask(&Method::GET, target, LIMITS)
}

#[test]
fn each_path_has_its_route() {
    let keys = |keys: &[&[u8]]| {
        let mut buffer = KeyBuffer::default();
        for key in keys {
            buffer.push(|out| out.extend_from_slice(key));
        }
        buffer
    };
    for (target, expected) in [
        ("/user/session/42", Route::Session(42)),
        ("/user/sessions?ids=3,1,2", Route::Sessions(vec![3, 1, 2])),
        ("/user/sessions?x=1&ids=7", Route::Sessions(vec![7])),
        ("/user/sessions?ids=1%2C2", Route::Sessions(vec![1, 2])),
        (
            "/user/sessions?ids=9999999999999999999,18446744073709551615,000000000000000000000007",
            Route::Sessions(vec![9_999_999_999_999_999_999, u64::MAX, 7]),
        ),
        ("/v1/keys/a%2Fb%00", Route::GetKey(b"a/b\0"[..].into())),
        (
            "/v1/keys?k=a%26%00&x=1&k=b",
            Route::GetKeys(keys(&[b"a&\0", b"b"]), Encoding::Text),
        ),
        (
            "/v1/keys?encoding=base64&k=a",
            Route::GetKeys(keys(&[b"a"]), Encoding::Base64),
        ),
        ("/stats", Route::Stats),
        ("/metrics", Route::Metrics),
        ("/openapi.json", Route::OpenApi),
        ("/", Route::Dashboard),
        ("/dashboard.json?after=5", Route::DashboardData(5)),
        ("/livez", Route::Livez),
        ("/readyz", Route::Readyz),
        ("/floor", Route::Floor(4_096)),
        ("/floor?bytes=0", Route::Floor(0)),
    ] {
        assert_eq!(get(target).ok(), Some(expected), "{target}");
    }
    for (target, expected) in [
        ("/v1/mget", Route::Mget(Encoding::Text)),
        (
            "/v1/mset?ttl=1h&encoding=base64",
            Route::Mset(Encoding::Base64, Some(Duration::from_hours(1))),
        ),
        ("/pipeline", Route::Pipeline),
        ("/multi-exec", Route::Transaction),
        ("/", Route::Command),
    ] {
        let found = ask(&Method::POST, target, LIMITS).ok();
        assert_eq!(found, Some(expected), "{target}");
    }
}

#[test]
fn each_path_is_found_by_its_own_template() {
    for path in Path::ALL {
        assert_eq!(Path::of(path.template()), path);
        assert_eq!(Path::ALL[path as usize], path);
    }
}

#[test]
fn what_cannot_be_answered_says_why() {
    let long = format!("/v1/keys?k={}", "a".repeat(MAX_TARGET_BYTES));
    for (target, status, detail) in [
        ("/nowhere", 404, "nothing at this path"),
        ("/user/session/abc", 404, "nothing"),
        ("/user/session/-1", 404, "nothing"),
        ("/user/session/+1", 404, "nothing"),
        ("/user/session/18446744073709551616", 404, "nothing"),
        ("/user/sessions", 400, "ids is missing"),
        ("/user/sessions?ids=", 400, "ids is missing"),
        ("/user/sessions?ids=1,,2", 400, "ids holds \"\", which"),
        ("/user/sessions?ids=1,", 400, "ids holds \"\", which"),
        ("/user/sessions?ids=1,2x,3", 400, "ids holds \"2x\", which"),
        ("/user/sessions?ids=18446744073709551616", 400, "no number"),
        ("/user/sessions?ids=1,2,3,4", 400, "more than 3"),
        ("/v1/keys/", 400, "1 to 511 bytes"),
        ("/v1/keys", 400, "k is missing"),
        ("/v1/keys?k=", 400, "1 to 511 bytes"),
        ("/v1/keys?k=a&k=b&k=c&k=d", 400, "more than 3"),
        ("/v1/keys?k=a&encoding=hex", 400, "text or base64"),
        ("/floor?bytes=65537", 400, "at most 65536"),
        ("/dashboard.json?after=x", 400, "after is \"x\""),
        (&long, 414, "at most 8192"),
    ] {
        let problem = get(target).expect_err(target);
        assert_eq!(problem.status().as_u16(), status, "{target}");
        assert!(problem.detail().contains(detail), "{target}");
    }
}

#[test]
fn writes_carry_their_time_to_live() {
    let put = |target: &'static str| ask(&Method::PUT, target, LIMITS).ok();
    let key = || Cow::from(&b"k"[..]);
    assert_eq!(put("/v1/keys/k"), Some(Route::PutKey(key(), None)));
    let minute = Some(Route::PutKey(key(), Some(Duration::from_mins(1))));
    assert_eq!(put("/v1/keys/k?ttl=60"), minute);
    assert_eq!(put("/v1/keys/k?ttl=60s"), minute);
    assert_eq!(put("/v1/keys/k?ttl=1m"), minute);
    let month = Some(Duration::from_hours(24 * 30));
    assert_eq!(
        put("/v1/keys/k?ttl=30days"),
        Some(Route::PutKey(key(), month))
    );
    for text in ["", "0", "20years", "-1", "soon"] {
        let target = format!("/v1/keys/k?ttl={text}");
        assert!(ask(&Method::PUT, &target, LIMITS).is_err(), "{text}");
    }
}

#[test]
fn writes_are_refused_unless_allowed_and_other_methods_always() {
    let status = |method: Method, target, limits| {
        ask(&method, target, limits)
            .err()
            .map(|problem| problem.status().as_u16())
    };
    assert_eq!(status(Method::PUT, "/v1/keys/k", READ_ONLY), Some(403));
    assert_eq!(status(Method::DELETE, "/v1/keys/k", READ_ONLY), Some(403));
    assert_eq!(status(Method::POST, "/v1/mset", READ_ONLY), Some(403));
    assert_eq!(status(Method::POST, "/v1/mget", READ_ONLY), None);
    assert_eq!(status(Method::POST, "/pipeline", READ_ONLY), Some(404));
    assert_eq!(status(Method::POST, "/", READ_ONLY), Some(405));
    assert_eq!(status(Method::PATCH, "/v1/keys/k", LIMITS), Some(405));
    assert_eq!(status(Method::GET, "/v1/mget", LIMITS), Some(405));
    assert_eq!(status(Method::POST, "/stats", LIMITS), Some(405));
    assert_eq!(status(Method::HEAD, "/stats", LIMITS), None);
}
