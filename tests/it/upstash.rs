//! The shape of Upstash's REST API: what its client libraries send, they get answered, errors as errors.
//!
//! Enters: commands in bodies and in paths, and its own client from `PyPI` where that can be had. Leaves: results, or errors
//! that such clients see. Must not pass off as done what was not.

mod transactions;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::support::{Reply, Serve, Server, Store, command, eventually, stderr, stdout};

const TOKEN: &str = "a-token-of-these-tests";
const BEARER: &str = "authorization: Bearer a-token-of-these-tests";

/// What each command came to.
fn results(reply: &Reply) -> Value {
    assert_eq!(reply.status, 200, "{reply:?}");
    let answers = reply.json();
    let answers = answers.as_array().expect("an answer for each").clone();
    answers.iter().map(|one| one["result"].clone()).collect()
}

#[test]
fn commands_of_upstash_are_answered_when_they_are_switched_on() {
    for store in Store::all() {
        let serve = Serve::start(&store.url(), "--allow-writes --upstash");
        let commands = json!([
            ["SET", "a", "1"],
            ["GET", "a"],
            ["SET", "a", "2", "NX"],
            ["MSET", "b", 2, "c", "3"],
            ["MGET", "a", "b", "x"],
            ["EXISTS", "a", "b", "x"],
            ["SET", "t", "v", "EX", 100],
            ["TTL", "t"],
            ["TTL", "a"],
            ["TTL", "x"],
            ["DEL", "a", "x"],
            ["GET", "a"],
            ["FLUSHALL"],
        ]);
        let reply = serve.post("/pipeline", &commands);
        let expected = json!([
            "OK",
            "1",
            null,
            "OK",
            ["1", "2", null],
            2,
            "OK",
            100,
            -1,
            -2,
            1,
            null,
            null
        ]);
        assert_eq!(results(&reply), expected);
        assert!(
            reply.json()[12]["error"]
                .as_str()
                .expect("an error")
                .contains("unknown command")
        );
        let headers = ["content-type: application/json", "upstash-encoding: base64"];
        let reply = serve.ask("POST", "/", &headers, br#"["GET","b"]"#);
        assert_eq!(reply.json(), json!({"result": "Mg=="}));
        assert_eq!(serve.post("/", &json!(["NOPE"])).status, 400);

        let closed = Serve::start(&store.url(), "");
        assert_eq!(closed.post("/pipeline", &commands).status, 404);
        let read_only = Serve::start(&store.url(), "--upstash");
        let answers = read_only
            .post("/pipeline", &json!([["SET", "b", "9"], ["GET", "b"]]))
            .json();
        assert!(
            answers[0]["error"]
                .as_str()
                .expect("an error")
                .contains("--allow-writes")
        );
        assert_eq!(answers[1]["result"], "2");
    }
}

/// One that takes writes by the token that it is shown.
fn with_token(store: &str, more: &str) -> Serve {
    let line = format!("serve --port 0 --upstash --allow-writes --store {store} {more}");
    let mut command = command(&line);
    command.env("KVPOC_TOKEN", TOKEN);
    command.stdout(Stdio::piped()).stderr(Stdio::null());
    Serve::from_process(command.spawn().expect("it starts"))
}

#[test]
fn a_command_may_stand_in_the_path() {
    for store in Store::all() {
        let serve = with_token(&store.url(), "");
        let ask = |method: &str, target: &str, body: &str| {
            let reply = serve.ask(method, target, &[BEARER], body.as_bytes());
            (reply.status, reply.json())
        };
        let ok = |result: Value| (200, json!({ "result": result }));
        assert_eq!(ask("GET", "/set/a%2Fb/1?EX=100", ""), ok(json!("OK")));
        assert_eq!(ask("GET", "/get/a%2Fb", ""), ok(json!("1")));
        assert_eq!(ask("GET", "/TTL/a%2Fb", ""), ok(json!(100)));
        assert_eq!(ask("POST", "/set/c?NX", "from the body"), ok(json!("OK")));
        assert_eq!(ask("PUT", "/set/c?NX", "again"), ok(json!(null)));
        let values = json!(["1", "from the body", null]);
        assert_eq!(ask("GET", "/mget/a%2Fb/c/x", ""), ok(values));
        assert_eq!(ask("POST", "/del/c/x", ""), ok(json!(1)));
        let (status, answer) = ask("GET", "/get", "");
        assert_eq!(status, 400);
        assert!(
            answer["error"].to_string().contains("ERR wrong number"),
            "{answer}"
        );

        // Any page may have a browser ask so; only a token keeps it from writing.
        let open = Serve::start(&store.url(), "--upstash --allow-writes");
        assert_eq!(open.get("/get/a%2Fb").json(), json!({"result": "1"}));
        let refused = open.get("/set/a%2Fb/2");
        assert_eq!(refused.status, 400, "{refused:?}");
        assert!(
            refused.json()["error"]
                .to_string()
                .contains("writes are off")
        );
        assert_eq!(open.get("/get/a%2Fb").json(), json!({"result": "1"}));
        assert_eq!(Serve::start(&store.url(), "").get("/get/a%2Fb").status, 404);
    }
}

fn assert_refused(reply: &Reply, status: u16) {
    assert_eq!(reply.status, status);
    let problem = reply.json();
    let error = problem["error"].as_str().expect("an error");
    let detail = problem["detail"].as_str().expect("a detail");
    assert_eq!(error, format!("ERR {detail}"));
}

#[test]
fn whatever_is_refused_has_the_member_that_clients_look_for() {
    let store = &Store::all()[1];
    let serve = with_token(&store.url(), "--max-keys-per-request 2");
    let kind = "content-type: application/json";
    let large = vec![b' '; 2 * 1024 * 1024 + 1];
    for (method, target, headers, body, status) in [
        ("POST", "/pipeline", &[kind][..], &b"[]"[..], 401),
        ("POST", "/multi-exec", &[kind], b"[]", 401),
        ("POST", "/multi-exec", &[BEARER], b"[]", 415),
        ("POST", "/multi-exec", &[BEARER, kind], b"{}", 400),
        ("POST", "/multi-exec", &[BEARER, kind], b"[[],[],[]]", 400),
        ("POST", "/multi-exec", &[BEARER, kind], &large, 413),
        ("GET", "/multi-exec", &[BEARER], b"", 405),
        ("GET", "/get/a", &[], b"", 401),
        (
            "POST",
            "/",
            &["authorization: Bearer another", kind],
            b"[]",
            401,
        ),
        ("POST", "/pipeline", &[BEARER], b"[]", 415),
        ("POST", "/pipeline", &[BEARER, kind], b"{}", 400),
        ("POST", "/pipeline", &[BEARER, kind], b"[[],[],[]]", 400),
        ("POST", "/pipeline", &[BEARER, kind], &large, 413),
        ("DELETE", "/pipeline", &[BEARER], b"", 405),
        ("GET", "/get/%zz", &[BEARER], b"", 400),
        ("GET", "/get/%ff", &[BEARER], b"", 400),
    ] {
        let reply = serve.ask(method, target, headers, body);
        assert_eq!(reply.status, status, "{method} {target}");
        assert_refused(&reply, status);
    }
    // Without a token it answers to few names, and this one takes few connections.
    let store = Server::start();
    let serve = Serve::start(&store.url(), "--upstash --max-connections 1");
    let bytes = b"GET /get/a HTTP/1.1\r\nhost: evil.example\r\nconnection: close\r\n\r\n";
    assert_refused(&serve.send(bytes), 421);
    let taken = std::net::TcpStream::connect(serve.address).expect("serve accepts");
    let refused = eventually("all places taken", || {
        let reply = serve.get("/get/a");
        (reply.status == 503).then_some(reply)
    });
    assert_refused(&refused, 503);
    assert_eq!(refused.header("retry-after"), Some("1"));
    drop(taken);
    // Elsewhere there is none.
    assert_eq!(serve.get("/v1/keys/a").json()["error"], Value::Null);
}

#[test]
fn a_store_that_is_gone_is_an_error_to_each_command_and_in_the_counters() {
    let mut store = Server::start();
    let serve = with_token(&store.url(), "");
    let headers = [BEARER, "content-type: application/json"];
    let post = |target, body: &[u8]| serve.ask("POST", target, &headers, body);
    assert_eq!(post("/", b"[\"SET\",\"a\",1]").status, 200);
    store.kill();
    let commands = br#"[["GET","a"],["SET","a","2"],["MGET","a","b"]]"#;
    eventually("a refusal", || {
        (post("/pipeline", commands).status == 503).then_some(())
    });
    let refused = post("/pipeline", commands);
    let answers = refused.json();
    let answers = answers.as_array().expect("an answer for each");
    assert_eq!((refused.status, answers.len()), (503, 3), "{refused:?}");
    assert_eq!(refused.header("retry-after"), Some("1"));
    for answer in answers {
        let error = answer["error"].as_str().expect("an error");
        assert!(
            error.starts_with("ERR the store cannot be reached"),
            "{error}"
        );
    }
    // What is wrong with a command is its own error, whether or not there is a store.
    for (commands, wrong) in [
        (&br#"[["GET","a"],["NOPE"]]"#[..], 1),
        (br#"[["NOPE"],["GET","a"]]"#, 0),
    ] {
        let mixed = post("/pipeline", commands);
        assert_eq!(mixed.status, 503, "{mixed:?}");
        let answers = mixed.json();
        assert!(
            answers[wrong]["error"]
                .to_string()
                .contains("unknown command"),
            "{answers}"
        );
    }
    assert_eq!(post("/pipeline", br#"[["NOPE"]]"#).status, 200);
    let single = post("/", b"[\"GET\",\"a\"]");
    assert_eq!(single.status, 503, "{single:?}");
    assert_eq!(single.header("retry-after"), Some("1"));
    let in_path = serve.ask("GET", "/get/a", &[BEARER], b"");
    assert_eq!(in_path.status, 503, "{in_path:?}");
    let metrics = serve.ask("GET", "/metrics", &[BEARER], b"").text();
    for route in [
        r#"{route="/pipeline",method="POST",code="503"}"#,
        r#"{route="/",method="POST",code="503"}"#,
        r#"{route="/{command}",method="GET",code="503"}"#,
    ] {
        let line = format!("kvpoc_http_requests_total{route}");
        assert!(metrics.contains(&line), "{line} in {metrics}");
    }
    store.start_again();
    eventually("recovery", || {
        (post("/pipeline", commands).status == 200).then_some(())
    });
}

/// Its own client: <https://pypi.org/project/upstash-redis/>.
const CLIENT: &str = "upstash-redis==1.8.0";
const SCRIPT: &str = r#"
import sys
from upstash_redis import Redis
from upstash_redis.errors import UpstashError
url, token, what = sys.argv[1:]
redis = Redis(url=url, token=token, rest_retries=0, allow_telemetry=False)
def error_of(ask):
    try:
        return f"no error but {ask()!r}"
    except UpstashError as error:
        return str(error)
if what == "works":
    assert redis.set("k", "vé", ex=100) is True
    assert redis.get("k") == "vé"
    assert 0 < redis.ttl("k") <= 100
    assert not redis.set("k", "other", nx=True)
    assert redis.get("k") == "v\u00e9"
    assert redis.mset({"a": "1", "b": "2"}) is True
    assert redis.mget("a", "b", "absent") == ["1", "2", None]
    assert redis.exists("a", "a", "absent") == 2
    pipeline = redis.pipeline()
    pipeline.set("c", "3")
    pipeline.get("c")
    pipeline.delete("c", "a")
    assert pipeline.exec() == [True, "3", 2]
    assert redis.get("c") is None
    assert "unknown command" in error_of(lambda: redis.incr("n"))
    many = redis.pipeline()
    many.get("a")
    many.incr("n")
    assert "unknown command" in error_of(many.exec)
    stranger = Redis(url=url, token="not-the-token", rest_retries=0)
    assert "token" in error_of(lambda: stranger.get("k"))
    transaction = redis.multi()
    transaction.set("c", "3", ex=100)
    transaction.get("c")
    transaction.mset({"d": "vé", "e": "5"})
    transaction.mget("c", "absent", "d")
    transaction.ttl("c")
    transaction.delete("c", "absent")
    assert transaction.exec() == [True, "3", True, ["3", None, "vé"], 100, 1]
    assert redis.get("e") == "5"
    aborted = redis.multi()
    aborted.set("c", "3")
    aborted.incr("n")
    try:
        aborted.exec()
        raise SystemExit("a transaction that was discarded was passed off as done")
    except Exception:
        # It takes an object for the list of answers that it expects.
        pass
    assert redis.get("c") is None
else:
    pipeline = redis.pipeline()
    pipeline.get("k")
    pipeline.set("k", "w")
    for ask in (lambda: redis.get("k"), lambda: redis.set("k", "w"), pipeline.exec):
        assert "the store cannot be reached" in error_of(ask), error_of(ask)
print("as it must be")
"#;

/// A Python with the client, made once; `None` where it cannot be had.
fn python_with_client() -> Option<PathBuf> {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("upstash-redis");
    let (python, made) = (folder.join("bin/python"), folder.join("made"));
    let run = |program: &Path, words: &[&str]| {
        let output = Command::new(program).args(words).output();
        output.is_ok_and(|output| output.status.success())
    };
    if std::fs::read_to_string(&made).is_ok_and(|made| made == CLIENT) {
        return Some(python);
    }
    let pip = "-m pip install --quiet --disable-pip-version-check --retries 1 --timeout 10";
    let pip: Vec<&str> = pip.split(' ').chain([CLIENT]).collect();
    let venv = ["-m", "venv", "--clear", folder.to_str()?];
    let is_made = run(Path::new("python3"), &venv)
        && run(&python, &pip)
        && std::fs::write(&made, CLIENT).is_ok();
    is_made.then_some(python)
}

#[test]
fn its_own_client_works_and_sees_the_errors() {
    let Some(python) = python_with_client() else {
        eprintln!("skipped: {CLIENT} cannot be installed here");
        return;
    };
    let mut store = Server::start();
    let serve = with_token(&store.url(), "");
    let run = |what: &str| {
        let output = Command::new(&python)
            .args(["-c", SCRIPT, &serve.url(), TOKEN, what])
            .env("NO_PROXY", "127.0.0.1")
            .output()
            .expect("python runs");
        assert_eq!(
            stdout(&output),
            "as it must be\n",
            "{what}: {}",
            stderr(&output)
        );
    };
    run("works");
    store.kill();
    eventually("the store to be missed", || {
        let reply = serve.ask("GET", "/get/k", &[BEARER], b"");
        (reply.status == 503).then_some(())
    });
    run("fails");
}
