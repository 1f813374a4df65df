//! The requests that `bench` reads from a file: a list for a schedule, or a log that is its own schedule.
//!
//! Enters: `--requests` or `--replay`, and the flags that go with it. Leaves: a [`RequestsFile`], or a refusal that names the
//! line. Must not repeat what a line holds beyond a time, as headers and bodies may be secrets, nor take any file for small.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::parser::ValueSource;

use super::request::{expected, headers};
use super::{BenchMode, Target};
use crate::cli::BenchArgs;
use crate::config::{ConfigError, TargetUrl, setting};
use crate::load::{
    Asked, Gathered, Header, IsOrigin, Listed, LogFormat, LogLine, Moments, Piece, RequestList,
    RequestsOrder, Speed, Stages, Statuses,
};
use crate::units::UnitError;

const REQUESTS: &str = "--requests";
const REPLAY: &str = "--replay";
/// Every request is kept in memory.
const MAX_BYTES: u64 = 256 * 1024 * 1024;
const MAX_LINES: u64 = 1_000_000;
const MAX_LINE_BYTES: usize = 8 * 1024 * 1024;

/// Settings of what is not asked for with a file.
const OF_OTHER_LOADS: [&str; 10] = [
    "method",
    "body",
    "body_file",
    "preset",
    "workload",
    "keys_dist",
    "keys",
    "keys_per_request",
    "verify",
    "max_miss",
];
/// Settings of the schedule, which a log has itself.
const OF_SCHEDULES: [&str; 8] = [
    "rps",
    "stages",
    "duration",
    "warmup",
    "arrivals",
    "find_max",
    "sweep",
    "requests_order",
];

/// What a file asks for.
#[derive(Debug, Clone)]
pub struct RequestsFile {
    /// Where it is.
    pub file: PathBuf,
    /// How its lines are written, in words.
    pub format: &'static str,
    /// Lines that hold a request or a record, those that are left out included.
    pub lines: u64,
    /// Of those, what is not replayed, by the reason.
    pub left_out: BTreeMap<&'static str, u64>,
    /// The same for the same lines: FNV-1a, 64 bits.
    pub fingerprint: u64,
    /// The requests.
    pub list: Arc<RequestList>,
    /// Which of them comes next.
    pub order: RequestsOrder,
    /// When, where the file says so.
    pub replay: Option<Replay>,
    /// Headers of all requests.
    pub headers: Vec<Header>,
    /// Which statuses are right; `None`: the usual ones.
    pub expect: Option<Statuses>,
    /// What a right answer contains.
    pub contains: Option<String>,
}

/// The schedule of a log.
#[derive(Debug, Clone)]
pub struct Replay {
    /// When its requests are due.
    pub moments: Arc<Moments>,
    /// One stage of the same length and mean rate.
    pub stages: Stages,
    /// How many times as fast as recorded.
    pub speed: Speed,
}

/// What `--requests` or `--replay` asks for, if one is given.
pub(super) fn requests_file(
    args: &BenchArgs,
    mode: BenchMode,
    target: &Target,
) -> Result<Option<RequestsFile>, ConfigError> {
    // It has refused what was typed, and heeds no variable of a run.
    if !mode.drives() {
        return Ok(None);
    }
    let (name, file) = match (&args.requests, &args.replay) {
        (Some(_), Some(_)) => {
            let mend = "a run has one load; give one of them";
            return Err(setting("--requests, --replay", "both", mend));
        }
        (Some(file), None) => (REQUESTS, file),
        (None, Some(file)) => (REPLAY, file),
        (None, None) => {
            refuse_typed(
                args,
                &["requests_order"],
                "it belongs to --requests; give that too",
            )?;
            refuse_typed(args, &["speed"], "it belongs to --replay; give that too")?;
            return Ok(None);
        }
    };
    check_fits(args, name, mode)?;
    let shown = file.display().to_string();
    let url = match target {
        Target::Http {
            url,
            template: None,
        } => url,
        Target::Http { url, .. } => {
            let mend = format!("the paths are those of {name}; give --target {url}");
            return Err(setting("--target", &target.to_string(), &mend));
        }
        Target::Store => {
            let mend = format!("{name} asks over HTTP; give --target http://HOST:PORT");
            return Err(setting("--target", "store", &mend));
        }
    };
    let is_origin: IsOrigin<'_> = &|scheme, authority| {
        let is_scheme = scheme.eq_ignore_ascii_case(if url.tls { "https" } else { "http" });
        is_scheme && TargetUrl::parse(authority, url.tls).as_ref() == Some(url)
    };
    let mut read = Lines::new(name, file);
    let headers = headers(args)?;
    let has_place = |header: &Header| {
        header
            .value
            .pieces()
            .iter()
            .any(|piece| matches!(piece, Piece::Place(_)))
    };
    if let Some(header) = headers.iter().find(|header| has_place(header)) {
        let mend = format!(
            "with {name} nothing is filled in; leave out {{id}}, {{ids}}, {{key}} and {{n}}"
        );
        return Err(setting("--header", &format!("{}: …", header.name), &mend));
    }
    let (list, replay, format, left_out) = if name == REQUESTS {
        let list = list(&mut read, is_origin)?;
        (list, None, "one request a line", BTreeMap::new())
    } else {
        let log = log(&mut read, is_origin, args.speed)?;
        (log.list, Some(log.replay), log.format, log.left_out)
    };
    if args.contains.is_some() && list.any(|request| request.method().is_head()) {
        let mend = "it has HEAD requests, and no answer to HEAD has a body; leave --match out";
        return Err(setting(name, &shown, mend));
    }
    let (expect, contains) = expected(args)?;
    Ok(Some(RequestsFile {
        file: file.clone(),
        format,
        lines: read.filled,
        left_out,
        fingerprint: read.fingerprint,
        list: Arc::new(list),
        order: if replay.is_some() {
            RequestsOrder::File
        } else {
            args.requests_order
        },
        replay,
        headers,
        expect,
        contains,
    }))
}

/// Refuses flags that were typed and would be ignored.
fn refuse_typed(args: &BenchArgs, names: &[&str], mend: &str) -> Result<(), ConfigError> {
    let is_typed = |(name, source): &&(String, ValueSource)| {
        *source == ValueSource::CommandLine && names.contains(&name.as_str())
    };
    match args.given.iter().find(is_typed) {
        Some((name, _)) => {
            let flag = format!("--{}", name.replace('_', "-"));
            Err(setting(&flag, "given", mend))
        }
        None => Ok(()),
    }
}

fn check_fits(args: &BenchArgs, name: &str, mode: BenchMode) -> Result<(), ConfigError> {
    let mend = format!("the file of {name} says what is asked for; leave it out");
    refuse_typed(args, &OF_OTHER_LOADS, &mend)?;
    if name == REPLAY {
        let mend = "the log of --replay has its own schedule; leave it out, or give --requests";
        refuse_typed(args, &OF_SCHEDULES, mend)?;
    } else {
        refuse_typed(
            args,
            &["speed"],
            "it belongs to --replay, whose lines have times; leave it out",
        )?;
    }
    let fits = match mode {
        BenchMode::Once | BenchMode::Repeat => true,
        BenchMode::FindMax | BenchMode::Sweep => name == REQUESTS,
        BenchMode::Layers | BenchMode::SelfTest | BenchMode::Merge | BenchMode::Compare => false,
    };
    if fits {
        return Ok(());
    }
    let mend = match (name, mode) {
        (REPLAY, BenchMode::FindMax | BenchMode::Sweep) => {
            "--find-max and --sweep choose the rates themselves; give --requests"
        }
        _ => "--layers, --self-test and --merge have loads of their own; leave it out",
    };
    Err(setting(name, "given", mend))
}

fn list(lines: &mut Lines<'_>, is_origin: IsOrigin<'_>) -> Result<RequestList, ConfigError> {
    let (mut gathered, mut places) = (Gathered::default(), Vec::new());
    lines.each(|line| {
        places.push(gathered.place(Listed::parse(line, is_origin)?));
        Ok(())
    })?;
    if places.is_empty() {
        return Err(lines.refused("it holds no request; give one on each line"));
    }
    Ok(gathered.in_order(places))
}

/// A log that was read.
struct Log {
    list: RequestList,
    replay: Replay,
    format: &'static str,
    left_out: BTreeMap<&'static str, u64>,
}

fn log(lines: &mut Lines<'_>, is_origin: IsOrigin<'_>, speed: Speed) -> Result<Log, ConfigError> {
    let (mut gathered, mut places, mut stamps) = (Gathered::default(), Vec::new(), Vec::new());
    let (mut left_out, mut format) = (BTreeMap::new(), None);
    lines.each(|line| {
        // The first line decides: one of another kind is a mistake.
        let format = *format.get_or_insert_with(|| LogFormat::of(line));
        let LogLine { stamp, asked } = LogLine::parse(line, format, is_origin)?;
        match asked {
            Asked::Request(request) => {
                places.push(gathered.place(*request));
                stamps.push(stamp);
            }
            Asked::LeftOut(why) => *left_out.entry(why).or_default() += 1,
        }
        Ok(())
    })?;
    let Some(format) = format.filter(|_| !stamps.is_empty()) else {
        return Err(lines.refused("it holds no GET or HEAD to replay"));
    };
    let refused = |error: UnitError| lines.refused(&error.to_string());
    let (moments, order) = Moments::of(&stamps, speed).map_err(refused)?;
    let stages = moments.as_stages().map_err(refused)?;
    Ok(Log {
        list: gathered.in_order(order.into_iter().map(|at| places[at]).collect()),
        replay: Replay {
            moments: Arc::new(moments),
            stages,
            speed,
        },
        format: format.name(),
        left_out,
    })
}

/// The lines of a file, of which there are only so many.
struct Lines<'a> {
    name: &'a str,
    file: &'a Path,
    /// Those that hold something.
    filled: u64,
    fingerprint: u64,
}

impl<'a> Lines<'a> {
    fn new(name: &'a str, file: &'a Path) -> Self {
        Self {
            name,
            file,
            filled: 0,
            fingerprint: 0xcbf2_9ce4_8422_2325,
        }
    }

    fn refused(&self, mend: &str) -> ConfigError {
        setting(self.name, &self.file.display().to_string(), mend)
    }

    fn unreadable(&self, error: &std::io::Error) -> ConfigError {
        self.refused(&format!("{error}; give a file that can be read"))
    }

    /// Takes each line that is not empty, without the white space around it.
    fn each(
        &mut self,
        mut take: impl FnMut(&str) -> Result<(), UnitError>,
    ) -> Result<(), ConfigError> {
        let opened = File::open(self.file).map_err(|error| self.unreadable(&error))?;
        let mut reader = BufReader::with_capacity(256 * 1024, opened);
        let (mut bytes, mut line, mut number) = (0, Vec::new(), 0_u64);
        loop {
            line.clear();
            let at_most = MAX_LINE_BYTES as u64 + 1;
            let read = (&mut reader).take(at_most).read_until(b'\n', &mut line);
            let length = read.map_err(|error| self.unreadable(&error))?;
            if length == 0 {
                return Ok(());
            }
            bytes += length as u64;
            number += 1;
            let at_line = |reason: &str| self.refused(&format!("line {number}: {reason}"));
            if line.len() > MAX_LINE_BYTES {
                return Err(at_line("it is longer than 8 MiB"));
            }
            if bytes > MAX_BYTES || number > MAX_LINES {
                let mend = "a file has at most 256 MiB and 1,000,000 lines, all of which are kept in memory; cut it";
                return Err(self.refused(mend));
            }
            let text = std::str::from_utf8(&line).map_err(|_| at_line("it is no UTF-8 text"))?;
            let text = text.trim();
            if text.is_empty() {
                continue;
            }
            take(text).map_err(|error| at_line(&error.to_string()))?;
            self.filled += 1;
            for byte in text.bytes().chain([b'\n']) {
                self.fingerprint =
                    (self.fingerprint ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
            }
        }
    }
}
