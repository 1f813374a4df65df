//! What `bench` asks of another server than kvpoc's own, out of the flags that say so.
//!
//! Enters: what the user typed, and the target. Leaves: a [`Request`] whose parts fit one another, or a refusal with the
//! mend. Must not repeat what a header or a body holds: it may be a secret.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use clap::parser::ValueSource;

use crate::cli::BenchArgs;
use crate::config::{ConfigError, Target, conflict, setting};
use crate::load::{Header, HeaderLine, Method, Request, Statuses, Template};

/// Every arrival is put together in memory anew: what is larger measures the memory.
const MAX_BODY_BYTES: usize = 8 * 1024 * 1024;

/// The request of a target with a path of its own; `None` of any other, which is asked by kvpoc's routes.
pub(super) fn request(args: &BenchArgs, target: &Target) -> Result<Option<Request>, ConfigError> {
    let path = match target {
        Target::Http {
            template: Some(path),
            ..
        } => path.clone(),
        _ => return refuse_any(args, target).map(|()| None),
    };
    let body = body(args)?;
    let method = match &args.method {
        Some(text) => parsed("--method", text)?,
        None => Method::usual(body.is_some()),
    };
    if let Some(body) = body.as_ref().filter(|_| method.takes_no_body()) {
        let value = format!("{} bytes", body.written_bytes());
        let mend = format!("a {} has no body; leave it out", method.name());
        return Err(setting("--body", &value, &mend));
    }
    if args.contains.is_some() && method.is_head() {
        let mend = "no answer to HEAD has a body; leave it out, or give --method GET";
        let text = args.contains.as_deref().unwrap_or_default();
        return Err(setting("--match", text, mend));
    }
    let (expect, contains) = expected(args)?;
    Ok(Some(Request {
        headers: headers(args)?,
        expect,
        contains,
        method,
        path,
        body,
    }))
}

/// Which answers are right: their statuses, and what they contain.
pub(super) fn expected(
    args: &BenchArgs,
) -> Result<(Option<Statuses>, Option<String>), ConfigError> {
    let expect = args.expect.as_ref();
    let expect = expect.map(|text| parsed("--expect", text)).transpose()?;
    if args.contains.as_ref().is_some_and(String::is_empty) {
        let mend = "every body contains it; give a text, or leave it out";
        return Err(setting("--match", "", mend));
    }
    Ok((expect, args.contains.clone()))
}

fn parsed<T>(name: &str, text: &str) -> Result<T, ConfigError>
where
    T: std::str::FromStr<Err = crate::units::UnitError>,
{
    let parsed = text.parse::<T>();
    parsed.map_err(|error| setting(name, text, &error.to_string()))
}

/// Settings of a request, where there is none that they could be of: they would be ignored.
fn refuse_any(args: &BenchArgs, target: &Target) -> Result<(), ConfigError> {
    let header = args.header.first().map(HeaderLine::shown);
    let body = args.body.as_ref().map(|body| bytes(body.len()));
    let file = args.body_file.as_ref();
    let given = [
        ("--method", args.method.clone()),
        ("--header", header),
        ("--body", body),
        ("--body-file", file.map(|file| file.display().to_string())),
        ("--expect", args.expect.clone()),
        ("--match", args.contains.clone()),
    ];
    let found = given
        .into_iter()
        .find_map(|(name, value)| Some((name, value?)));
    let Some((name, value)) = found else {
        return Ok(());
    };
    let mend = match target {
        Target::Store => {
            "it belongs to an HTTP request, and --target store makes none; give a URL with a path, such as --target \
             http://127.0.0.1:8080/path"
                .into()
        }
        Target::Http { url, .. } => format!(
            "it belongs to a URL with a path, but --target {url} is a kvpoc serve, which has its own routes; give \
             --target {url}{joint}/path, or {url}{joint}/? for the root",
            joint = url.before_path()
        ),
    };
    Err(setting(name, &value, &mend))
}

fn bytes(count: usize) -> String {
    format!("{count} bytes")
}

/// A flag is one header; a variable and a settings file hold one on each line.
pub(super) fn headers(args: &BenchArgs) -> Result<Vec<Header>, ConfigError> {
    let is_typed = args
        .given
        .iter()
        .any(|(name, source)| name == "header" && *source == ValueSource::CommandLine);
    let lines: Vec<HeaderLine> = if is_typed {
        args.header.clone()
    } else {
        args.header.iter().flat_map(HeaderLine::lines).collect()
    };
    let mut headers: Vec<Header> = Vec::new();
    for line in &lines {
        let refused = |mend: &str| setting("--header", &line.shown(), mend);
        let header = line.parse().map_err(|error| refused(&error.to_string()))?;
        if header.is("host") && headers.iter().any(|other| other.is("host")) {
            return Err(refused("a request has one Host; give it once"));
        }
        if header.is("authorization") && args.token_file.is_some() {
            return Err(refused(
                "--token-file gives this header too; give one of them",
            ));
        }
        headers.push(header);
    }
    Ok(headers)
}

fn body(args: &BenchArgs) -> Result<Option<Template>, ConfigError> {
    let (name, value, text) = match (&args.body, &args.body_file) {
        (Some(_), Some(_)) => {
            let names = "--body and --body-file";
            return Err(conflict(names, "a request has one body; give one"));
        }
        (None, None) => return Ok(None),
        (Some(text), None) => ("--body", bytes(text.len()), text.clone().into_bytes()),
        (None, Some(file)) => ("--body-file", file.display().to_string(), read(file)?),
    };
    if text.len() > MAX_BODY_BYTES {
        let most = MAX_BODY_BYTES / (1024 * 1024);
        let mend = format!("a body has at most {most} MiB; give a smaller one");
        return Err(setting(name, &value, &mend));
    }
    Ok(Some(Template::of(&text)))
}

/// The file, or so much of it that it is known to be too large.
fn read(file: &Path) -> Result<Vec<u8>, ConfigError> {
    let mut text = Vec::new();
    let opened = File::open(file);
    let read = opened.and_then(|opened| {
        let mut at_most = opened.take(MAX_BODY_BYTES as u64 + 1);
        at_most.read_to_end(&mut text)
    });
    match read {
        Ok(_) => Ok(text),
        Err(error) => {
            let mend = format!("{error}; give a file that can be read");
            Err(setting("--body-file", &file.display().to_string(), &mend))
        }
    }
}
