//! The lines of a file as keys and values: what `kvpoc seed --from` loads.
//!
//! Enters: a file with one JSON object on each line, and a template of the key over its members. Leaves: the key and the
//! value of any index, and a checksum of the whole. Must not hold the file in memory, nor take a line that has no key, or
//! the key of another line: a load that counts its keys would never be complete.
//!
//! A value is its line, without white space around it. Empty lines count for nothing. While a file is checked, eight bytes
//! a line are held, by which a key that stands twice is found; afterwards the place of one line in 256.

use std::fmt;
use std::fs::{File, Metadata};
use std::io::{self, BufRead as _, BufReader, Read};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::SystemTime;

use serde_json::{Map, Value};

use crate::units::{KeyCount, MAX_KEY_BYTES, MAX_VALUE_BYTES, UnitError, grouped};

/// Lines between two places that are kept.
const BLOCK: u64 = 256;
/// So many lines take 0.8 GB while their keys are checked.
const MAX_LINES: u64 = 100_000_000;
/// Bytes of the file that are read at once.
const READ_BYTES: usize = 64 * 1024;

/// Why a file cannot be loaded. All but the first name the line.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The file cannot be read.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// It has none, or more than this program holds.
    #[error("it has {0} lines; give one with 1 to {most}", most = grouped(MAX_LINES))]
    Lines(u64),
    /// A line is no value, or has no key.
    #[error("line {0}: {1}")]
    Line(u64, String),
    /// Two lines have one key.
    #[error(
        "lines {0} and {1} have the same key, {2}; leave one of them out, or give a --key that tells them apart"
    )]
    Twice(u64, u64, String),
    /// It is another one now.
    #[error("it has changed since this run began to read it; begin again")]
    Changed,
}

/// A key with places for members of a line: `user:{id}`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyTemplate(Vec<Piece>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Text(String),
    Member(String),
}

impl KeyTemplate {
    /// What stands before its first member.
    #[must_use]
    pub fn prefix(&self) -> &str {
        match self.0.first() {
            Some(Piece::Text(text)) => text,
            _ => "",
        }
    }

    /// Replaces `out` by the key of an object.
    fn put(&self, object: &Map<String, Value>, out: &mut String) -> Result<(), String> {
        out.clear();
        for piece in &self.0 {
            match piece {
                Piece::Text(text) => out.push_str(text),
                Piece::Member(name) => match object.get(name) {
                    Some(Value::String(text)) => out.push_str(text),
                    Some(Value::Number(number)) => out.push_str(&number.to_string()),
                    Some(Value::Bool(is)) => out.push_str(if *is { "true" } else { "false" }),
                    Some(_) => return Err(format!("{name:?} is no text, number or boolean")),
                    None => return Err(format!("it has no {name:?} for the key")),
                },
            }
        }
        match out.len() {
            1..=MAX_KEY_BYTES => Ok(()),
            bytes => Err(format!(
                "its key has {bytes} bytes; give a --key that has 1 to {MAX_KEY_BYTES}"
            )),
        }
    }
}

impl FromStr for KeyTemplate {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let refused = || {
            let mend = "write a key with members of a line in braces, such as user:{id}";
            UnitError(mend.into())
        };
        let (mut pieces, mut rest) = (Vec::new(), text);
        while !rest.is_empty() {
            let (before, after) = rest.split_once('{').unwrap_or((rest, ""));
            if before.contains('}') {
                return Err(refused());
            }
            if !before.is_empty() {
                pieces.push(Piece::Text(before.to_owned()));
            }
            if before.len() == rest.len() {
                break;
            }
            let (name, after) = after.split_once('}').ok_or_else(refused)?;
            if name.is_empty() || name.contains('{') {
                return Err(refused());
            }
            pieces.push(Piece::Member(name.to_owned()));
            rest = after;
        }
        if !pieces.iter().any(|piece| matches!(piece, Piece::Member(_))) {
            return Err(refused());
        }
        Ok(Self(pieces))
    }
}

/// As it was written.
impl fmt::Display for KeyTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|piece| match piece {
            Piece::Text(text) => f.write_str(text),
            Piece::Member(name) => write!(f, "{{{name}}}"),
        })
    }
}

/// A file that was read once to its end.
#[derive(Debug)]
pub struct Source {
    path: PathBuf,
    file: File,
    stamp: Stamp,
    template: KeyTemplate,
    /// Where line 0, `BLOCK`, 2 × `BLOCK` … begin.
    blocks: Vec<u64>,
    lines: KeyCount,
    checksum: u64,
    /// Bytes of all keys and values.
    bytes: u64,
    longest_bytes: usize,
}

/// By which a file that was written meanwhile is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp(u64, Option<SystemTime>);

impl From<Metadata> for Stamp {
    fn from(of: Metadata) -> Self {
        Self(of.len(), of.modified().ok())
    }
}

impl Source {
    /// Reads a file once, and checks every line of it. No line may have the reserved key.
    ///
    /// # Errors
    /// What is wrong with it, and in which line.
    pub fn open(path: &Path, template: &KeyTemplate, reserved: &[u8]) -> Result<Self, SourceError> {
        let file = File::open(path)?;
        let stamp = file.metadata()?.into();
        let mut source = Self {
            path: path.to_owned(),
            file,
            stamp,
            template: template.clone(),
            blocks: Vec::new(),
            lines: KeyCount::ONE,
            checksum: FNV_OFFSET,
            bytes: 0,
            longest_bytes: 0,
        };
        let mut hashes = Vec::new();
        let mut lines = Lines::at(&source.file, 0, 0);
        let (mut key, mut count) = (String::new(), 0);
        while let Some(line) = lines.next()? {
            if count % BLOCK == 0 {
                source.blocks.push(line.starts_at);
            }
            count += 1;
            template.key_of(&line, &mut key)?;
            if key.as_bytes() == reserved {
                return Err(SourceError::Line(
                    line.number,
                    format!("its key, {key}, is seed's own"),
                ));
            }
            hashes.push(fnv(FNV_OFFSET, key.as_bytes()));
            source.checksum = fnv(fnv(source.checksum, line.value), b"\n");
            let bytes = key.len() + line.value.len();
            source.bytes += bytes as u64;
            source.longest_bytes = source.longest_bytes.max(bytes);
            if count > MAX_LINES {
                return Err(SourceError::Lines(count));
            }
        }
        source.lines = KeyCount::new(count).ok_or(SourceError::Lines(count))?;
        hashes.sort_unstable();
        match hashes.windows(2).find(|pair| pair[0] == pair[1]) {
            Some(twice) => Err(source.twice(twice[0])?),
            None => Ok(source),
        }
    }

    /// How many keys it has.
    #[must_use]
    pub fn keys(&self) -> KeyCount {
        self.lines
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What its keys are made of.
    #[must_use]
    pub fn template(&self) -> &KeyTemplate {
        &self.template
    }

    /// A hash over all values, in hexadecimal digits.
    #[must_use]
    pub fn checksum(&self) -> String {
        format!("{:016x}", self.checksum)
    }

    /// The mean of what a key and its value take, in bytes.
    #[must_use]
    pub fn typical_bytes(&self) -> usize {
        (self.bytes / self.lines.get()).max(1) as usize
    }

    /// The most that a key and its value take, in bytes.
    #[must_use]
    pub fn longest_bytes(&self) -> usize {
        self.longest_bytes
    }

    /// Gives the key and the value of each of these indexes, which rise.
    ///
    /// # Errors
    /// When the file cannot be read any more, or has changed.
    pub fn entries(
        &self,
        indexes: impl Iterator<Item = u64>,
        mut take: impl FnMut(&[u8], &[u8]),
    ) -> Result<(), SourceError> {
        if Stamp::from(self.file.metadata()?) != self.stamp {
            return Err(SourceError::Changed);
        }
        let (mut key, mut at) = (String::new(), None);
        for index in indexes {
            let block = index / BLOCK;
            let (mut next, mut lines) = match at.take() {
                Some((next, lines)) if next <= index && next / BLOCK == block => (next, lines),
                Some((next, lines)) if next == index => (next, lines),
                _ => {
                    let start = self.blocks.get(block as usize).copied();
                    let start = start.ok_or(SourceError::Changed)?;
                    (block * BLOCK, Lines::at(&self.file, start, block * BLOCK))
                }
            };
            loop {
                let line = lines.next()?.ok_or(SourceError::Changed)?;
                next += 1;
                if next > index {
                    self.template.key_of(&line, &mut key)?;
                    take(key.as_bytes(), line.value);
                    break;
                }
            }
            at = Some((next, lines));
        }
        Ok(())
    }

    /// The key of an index, for a person.
    #[must_use]
    pub fn name(&self, index: u64) -> String {
        let mut name = None;
        let read = self.entries(std::iter::once(index), |key, _| {
            name = Some(String::from_utf8_lossy(key).into_owned());
        });
        let name = name.filter(|_| read.is_ok());
        name.unwrap_or_else(|| format!("value {index} of {}", self.path.display()))
    }

    /// Which two lines have keys of this hash.
    fn twice(&self, hash: u64) -> Result<SourceError, SourceError> {
        let mut lines = Lines::at(&self.file, 0, 0);
        let (mut key, mut first) = (String::new(), None);
        while let Some(line) = lines.next()? {
            self.template.key_of(&line, &mut key)?;
            if fnv(FNV_OFFSET, key.as_bytes()) == hash {
                match first {
                    Some(first) => return Ok(SourceError::Twice(first, line.number, key)),
                    None => first = Some(line.number),
                }
            }
        }
        Ok(SourceError::Changed)
    }
}

impl KeyTemplate {
    /// Replaces `out` by the key of a line.
    fn key_of(&self, line: &Line<'_>, out: &mut String) -> Result<(), SourceError> {
        let refused = |reason: String| SourceError::Line(line.number, reason);
        let object = serde_json::from_slice::<Map<String, Value>>(line.value);
        let object = object.map_err(|error| refused(format!("it is no JSON object: {error}")))?;
        self.put(&object, out).map_err(refused)
    }
}

/// Fowler, Noll and Vo's hash of 64 bits, variant 1a: the same in every build.
fn fnv(hash: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(hash, |hash, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

const FNV_OFFSET: u64 = 0xcbf2_9ce4_8422_2325;

/// A line that holds something.
struct Line<'a> {
    /// Counted from 1, empty ones too; behind a place that is kept, from there on.
    number: u64,
    starts_at: u64,
    value: &'a [u8],
}

/// Reads lines from a place of the file on, whoever else reads it.
struct Lines<'a> {
    reader: BufReader<At<'a>>,
    at: u64,
    number: u64,
    line: Vec<u8>,
}

impl<'a> Lines<'a> {
    fn at(file: &'a File, at: u64, number: u64) -> Self {
        Self {
            reader: BufReader::with_capacity(READ_BYTES, At { file, at }),
            at,
            number,
            line: Vec::new(),
        }
    }

    /// The next line that is not empty.
    fn next(&mut self) -> Result<Option<Line<'_>>, SourceError> {
        loop {
            self.line.clear();
            let starts_at = self.at;
            // A line of any length must not be held, however long it is.
            let most = MAX_VALUE_BYTES as u64 + 2;
            let read = (&mut self.reader)
                .take(most)
                .read_until(b'\n', &mut self.line)?;
            if read == 0 {
                return Ok(None);
            }
            self.at += read as u64;
            self.number += 1;
            let length = self.line.trim_ascii().len();
            if length > MAX_VALUE_BYTES || (read as u64 == most && !self.line.ends_with(b"\n")) {
                let reason = format!("it has more than {MAX_VALUE_BYTES} bytes (1 MiB)");
                return Err(SourceError::Line(self.number, reason));
            }
            if length > 0 {
                return Ok(Some(Line {
                    number: self.number,
                    starts_at,
                    value: self.line.trim_ascii(),
                }));
            }
        }
    }
}

/// A file from a place on, without a cursor that others would share.
struct At<'a> {
    file: &'a File,
    at: u64,
}

impl Read for At<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read_at(out, self.at)?;
        self.at += read as u64;
        Ok(read)
    }
}

#[cfg(test)]
mod tests;
