//! What is counted, and how it is told.
//!
//! Enters: requests and key operations. Leaves: nothing. Must not need a server.

use super::*;

#[test]
fn a_scrape_holds_what_every_thread_counted_and_no_key() {
    let metrics = Arc::new(Metrics::new(2));
    for number in 0..2 {
        let counters = metrics.of_thread(number);
        let entry = counters.enter(Path::Sessions, &Method::GET);
        entry.answered(StatusCode::OK);
        drop(counters.enter(Path::Key, &Method::PATCH));
        counters.key_ops(Op::Get, Found::Hit, 15);
        counters.command(Command::Mget, 1, Duration::from_micros(100));
        counters.store_connections(2);
    }
    let counters = metrics.of_thread(0);
    let _under_way = counters.enter(Path::Stats, &Method::GET);
    let text = metrics.scrape();
    for line in [
        r#"kvpoc_http_requests_total{route="/user/sessions",method="GET",code="200"} 2"#,
        r#"kvpoc_http_requests_total{route="/v1/keys/{key}",method="other",code="499"} 2"#,
        r#"kvpoc_http_request_duration_seconds_count{route="/user/sessions"} 2"#,
        "kvpoc_http_requests_in_flight 1.0",
        r#"kvpoc_key_ops_total{op="get",result="hit"} 30"#,
        r#"kvpoc_store_commands_total{cmd="mget"} 2"#,
        r#"kvpoc_store_command_duration_seconds_bucket{le="0.000128"} 2"#,
        "kvpoc_store_connections 4.0",
        "kvpoc_build_info{version=",
        "process_cpu_seconds_total ",
        "process_resident_memory_bytes ",
    ] {
        assert!(text.contains(line), "{line} in {text}");
    }
    assert!(text.ends_with("# EOF\n"));
}

#[test]
fn totals_are_the_sums_of_all_threads() {
    let metrics = Metrics::new(2);
    let entry = |number: usize, status| {
        let counters = metrics.of_thread(number);
        counters.enter(Path::Key, &Method::GET).answered(status);
        counters.key_ops(Op::Get, Found::Miss, 1);
    };
    entry(0, StatusCode::OK);
    entry(1, StatusCode::SERVICE_UNAVAILABLE);
    let totals = metrics.totals();
    assert_eq!((totals.requests, totals.errors), (2, 1));
    assert_eq!((totals.key_ops, totals.latency.count()), (2, 1));
}

#[test]
fn the_dashboard_sees_what_was_done_and_not_itself() {
    let metrics = Metrics::new(1);
    let counters = metrics.of_thread(0);
    for path in [
        Path::Dashboard,
        Path::DashboardData,
        Path::Livez,
        Path::Readyz,
        Path::Metrics,
    ] {
        counters
            .enter(path, &Method::GET)
            .answered(StatusCode::SERVICE_UNAVAILABLE);
    }
    let _looking = counters.enter(Path::DashboardData, &Method::GET);
    let _working = counters.enter(Path::Key, &Method::GET);
    counters.key_ops(Op::Get, Found::Error, 15);
    counters.key_ops(Op::Get, Found::Hit, 2);
    let totals = metrics.totals();
    assert_eq!(
        (totals.requests, totals.errors, totals.in_flight),
        (0, 0, 1)
    );
    assert_eq!((totals.key_ops, totals.latency.count()), (2, 0));
}
