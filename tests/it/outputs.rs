//! Where results go: files that are replaced as a whole, pipes and devices, and what happens when they are full.

use std::net::SocketAddr;
use std::process::{Command, Output, Stdio};

use rustix::process::Signal;

use crate::stub::{self, Mode};
use crate::support::{
    Process, assert_balanced, eventually, json, json_file, start_until, stderr, stdout,
};

/// A target that answers every request at once.
fn target() -> SocketAddr {
    stub::start(Mode::Constant(0.0))
}

fn bench_line(address: SocketAddr, more: &str) -> String {
    format!(
        "bench --target http://{address}/x/{{id}} --keys 10 --rps 100 --duration 1s --warmup 0s --connections 2 \
         --max-lag 10s {more}"
    )
}

/// Runs a line of the shell, in which `"$@"` stands for the program and its arguments.
fn shell(script: &str, line: &str) -> Output {
    Command::new("bash")
        .args(["-c", script, "bash", env!("CARGO_BIN_EXE_kvpoc")])
        .args(line.split_whitespace())
        .output()
        .expect("the shell starts")
}

#[test]
fn a_full_disk_leaves_the_earlier_results_whole_and_fails_the_run() {
    let address = target();
    let folder = tempfile::tempdir().expect("a folder");
    let (file, out) = (folder.path().join("a.json"), folder.path().join("out"));
    std::fs::create_dir(&out).expect("a folder");
    let earlier = [&file, &out.join("report.json"), &out.join("report.html")];
    for path in earlier {
        std::fs::write(path, "earlier").expect("it is written");
    }
    // No file may grow beyond 1 KiB: writing more fails, as on a disk without room.
    let limited = "trap '' XFSZ; ulimit -f 1; exec \"$@\"";
    let more = format!("--json {} --out {}", file.display(), out.display());
    let output = shell(limited, &bench_line(address, &more));
    let text = stderr(&output);
    assert_eq!(output.status.code(), Some(69), "{text}");
    for part in [
        "PASS: ",
        &format!("writing --json {}", file.display()),
        &format!("writing --out {}/report.json", out.display()),
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    for path in earlier {
        let found = std::fs::read_to_string(path).expect("it is still there");
        assert_eq!(found, "earlier");
    }
    let names = std::fs::read_dir(&out).expect("a folder").count();
    assert_eq!(names, 2, "nothing is left beside them");
    // Where there is room again, all of them are replaced.
    let output = shell("exec \"$@\"", &bench_line(address, &more));
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert_eq!(json_file(&file), json_file(&out.join("report.json")));
    assert_eq!(std::fs::read_dir(&out).expect("a folder").count(), 5);
}

#[test]
fn results_that_reach_nobody_fail_the_run_and_its_verdict_is_still_said() {
    let address = target();
    for (script, more, reason) in [
        (
            "\"$@\" >/dev/full",
            "--json -",
            "writing --json - to standard output",
        ),
        (
            "\"$@\" >/dev/full",
            "",
            "writing results to standard output",
        ),
        ("\"$@\"", "--json /dev/full", "writing --json /dev/full"),
        // The reader is gone before there is anything to read.
        (
            "\"$@\" | true; exit ${PIPESTATUS[0]}",
            "--json -",
            "writing --json - to",
        ),
    ] {
        let output = shell(script, &bench_line(address, more));
        let text = stderr(&output);
        assert_eq!(output.status.code(), Some(69), "{script} {more}: {text}");
        assert!(text.contains(reason), "{script} {more}: {text}");
        assert!(text.contains("PASS: "), "{script} {more}: {text}");
    }
    // What a study of several runs found is said too.
    let line = bench_line(address, "--sweep 50,100 --json /dev/full");
    let output = shell("\"$@\"", &line.replace("--rps 100 ", ""));
    let text = stderr(&output);
    assert_eq!(output.status.code(), Some(69), "{text}");
    assert!(
        text.contains("All rates up to 100 requests/s passed"),
        "{text}"
    );
    // A reader of text that has seen enough is no failure.
    let script = "\"$@\" | true; exit ${PIPESTATUS[0]}";
    let output = shell(script, &bench_line(address, ""));
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
}

#[test]
fn pipes_and_devices_get_the_whole_result() {
    let address = target();
    for (script, more) in [
        ("exec 3>&1; \"$@\" --json >(cat >&3) >/dev/null", ""),
        ("\"$@\" --json /dev/fd/3 3>&1 >/dev/null | cat", ""),
        ("\"$@\" | cat", "--json -"),
    ] {
        let output = shell(script, &bench_line(address, more));
        assert_eq!(
            output.status.code(),
            Some(0),
            "{script}: {}",
            stderr(&output)
        );
        assert_eq!(json(&stdout(&output))["verdict"], "PASS", "{script}");
    }
    // A file that standard output goes to holds the report first, and the JSON behind it.
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("both");
    let script = format!("\"$@\" > {}", file.display());
    let output = shell(&script, &bench_line(address, "--json /dev/stdout"));
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let text = std::fs::read_to_string(&file).expect("it was written");
    let (report, result) = text.split_at(text.find("\n{").expect("both") + 1);
    assert!(report.contains("Requests/s"), "{text}");
    assert_eq!(json(result)["verdict"], "PASS");
    let output = shell("\"$@\"", &bench_line(address, "--json /dev/null"));
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
}

/// A run of a minute, which has begun.
fn long_run(address: SocketAddr, file: &std::path::Path) -> (Process, String) {
    let more = format!("--duration 60s --json {}", file.display());
    let line = bench_line(address, &more).replace("--duration 1s ", "");
    start_until(&line, "requests  ")
}

#[test]
fn a_terminal_that_is_closed_ends_the_run_and_keeps_what_was_measured() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("a.json");
    let (mut running, _) = long_run(target(), &file);
    // The shell and the kernel may both say so.
    running.signal(Signal::HUP);
    running.signal(Signal::HUP);
    assert_eq!(running.ended(), Some(3));
    let results = json_file(&file);
    assert_eq!(results["verdict"], "INVALID", "{results}");
    assert_balanced(&results);
}

#[test]
fn a_run_that_was_started_with_nohup_outlives_its_terminal() {
    let mut command = Command::new("bash");
    command
        .args(["-c", "trap '' HUP; exec \"$@\"", "bash"])
        .arg(env!("CARGO_BIN_EXE_kvpoc"))
        .args(bench_line(target(), "--json -").split_whitespace())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    let mut running = Process(command.spawn().expect("the shell starts"));
    let path = format!("/proc/{}/comm", running.0.id());
    eventually("the program in place of the shell", || {
        let name = std::fs::read_to_string(&path).ok()?;
        (name.trim() == "kvpoc").then_some(())
    });
    running.signal(Signal::HUP);
    let results = json(&running.output());
    assert_eq!(results["verdict"], "PASS", "{results}");
}
