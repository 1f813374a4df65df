//! Results as files: JSON, `HdrHistogram`'s two forms, CSV, the page.
//!
//! Enters: results and series. Leaves: files, whose folder and names were checked before the run. Must not
//! fail for a reason that could have been known before.

use std::time::{Duration, SystemTime};

use hdrhistogram::Histogram;
use hdrhistogram::serialization::interval_log::IntervalLogWriterBuilder;
use hdrhistogram::serialization::{Deserializer, V2DeflateSerializer};
use serde_json::Value;

use super::destination::{Destination, both, check_folder, write_all};
use super::html;
use crate::bench::judge::results::Results;
use crate::bench::judge::series::{Point, Series};
use crate::config::Outputs;

/// Steps of each halving of the distance to 100 %, as `HdrHistogram`'s own tools print it.
const TICKS_PER_HALF_DISTANCE: u32 = 5;

/// What `--out` writes, in the order of [`forms`].
const NAMES: [&str; 5] = [
    "report.json",
    "report.html",
    "latency.hlog",
    "latency.hgrm",
    "series.csv",
];

/// Files that can be written and wait for their contents.
pub(in crate::bench) struct Files {
    json: Option<Destination>,
    /// One for each of [`NAMES`], or none.
    folder: Vec<Destination>,
}

impl Files {
    /// Finds out whether what is asked for can be written.
    ///
    /// # Errors
    /// When a file or the folder cannot be written.
    pub(in crate::bench) fn create(outputs: &Outputs) -> anyhow::Result<Self> {
        let file = outputs.json.as_ref().filter(|_| !outputs.json_on_stdout());
        let json = file.map(|file| Destination::check("--json", file));
        let json = json.transpose()?;
        let folder = check_folder(outputs.out.as_deref(), &NAMES)?;
        Ok(Self { json, folder })
    }

    /// Fills them; one setting that fails takes nothing from the other.
    ///
    /// # Errors
    /// When the disk is full, or somebody took the folder away. No file is half the new one then.
    pub(in crate::bench) fn write(
        self,
        results: &Results,
        series: &Series,
        earlier: Option<&Value>,
    ) -> anyhow::Result<()> {
        let json = super::json(results)?;
        let single = self
            .json
            .map_or(Ok(()), |file| file.stage(json.as_bytes())?.finish());
        let folder = if self.folder.is_empty() {
            Ok(())
        } else {
            forms(json, results, series, earlier).and_then(|forms| write_all(self.folder, &forms))
        };
        both(single, folder)
    }
}

/// The contents of each of [`NAMES`].
fn forms(
    json: String,
    results: &Results,
    series: &Series,
    earlier: Option<&Value>,
) -> anyhow::Result<[Vec<u8>; NAMES.len()]> {
    let heading = format!("{}: {}", results.verdict.name(), results.reason);
    let page = html::page(&heading, results, series, earlier, false);
    let hlog = interval_log(results, series)?;
    let percentiles = series.latency_us.as_ref().map(percentiles);
    Ok([
        json.into_bytes(),
        page.into_bytes(),
        hlog,
        percentiles.unwrap_or_default().into_bytes(),
        csv(&series.points)?.into_bytes(),
    ])
}

/// The measured seconds as `HdrHistogram`'s interval log, version 1.3. Values are microseconds, and the column
/// of the largest is in milliseconds.
fn interval_log(results: &Results, series: &Series) -> anyhow::Result<Vec<u8>> {
    let began =
        humantime::parse_rfc3339(&results.conditions.started_at).unwrap_or(SystemTime::UNIX_EPOCH);
    let (mut log, mut serializer) = (Vec::new(), V2DeflateSerializer::new());
    let mut builder = IntervalLogWriterBuilder::new();
    builder
        .add_comment("[kvpoc bench: latency from the due time, in microseconds]")
        .with_start_time(began)
        .with_base_time(began)
        .with_max_value_divisor(1_000.0);
    let mut writer = builder.begin_log_with(&mut log, &mut serializer)?;
    let mut deserializer = Deserializer::new();
    for (second, packed) in series.packed.iter().enumerate() {
        let histogram: Histogram<u64> = deserializer
            .deserialize(&mut packed.as_slice())
            .map_err(|error| anyhow::anyhow!("invalid packed histogram: {error:?}"))?;
        if !histogram.is_empty() {
            let start = Duration::from_secs(second as u64);
            writer
                .write_histogram(&histogram, start, Duration::from_secs(1), None)
                .map_err(|error| anyhow::anyhow!("writing the interval log: {error:?}"))?;
        }
    }
    Ok(log)
}

/// `HdrHistogram`'s percentile text, in milliseconds.
fn percentiles(histogram: &Histogram<u64>) -> String {
    use std::fmt::Write as _;
    let mut text = String::from("       Value     Percentile TotalCount 1/(1-Percentile)\n\n");
    let mut total = 0;
    for value in histogram.iter_quantiles(TICKS_PER_HALF_DISTANCE) {
        total += value.count_since_last_iteration();
        let quantile = value.quantile_iterated_to();
        let ms = value.value_iterated_to() as f64 / 1e3;
        let _ = write!(text, "{ms:12.3} {quantile:.12} {total:10}");
        let _ = if quantile < 1.0 {
            writeln!(text, " {:14.2}", 1.0 / (1.0 - quantile))
        } else {
            writeln!(text)
        };
    }
    let _ = write!(
        text,
        "#[Mean    = {:12.3}, StdDeviation   = {:12.3}]\n\
         #[Max     = {:12.3}, Total count    = {:12}]\n\
         #[Buckets = {:12}, SubBuckets     = {:12}]\n",
        histogram.mean() / 1e3,
        histogram.stdev() / 1e3,
        histogram.max() as f64 / 1e3,
        histogram.len(),
        histogram.buckets(),
        2_048,
    );
    text
}

/// One line a second, with the names of [`Point`].
fn csv(points: &[Point]) -> anyhow::Result<String> {
    let mut text = String::new();
    // The first one only gives the names, so that a run without a whole second has them too.
    for (number, point) in std::iter::once(&Point::default()).chain(points).enumerate() {
        let Value::Object(members) = serde_json::to_value(point)? else {
            continue;
        };
        let cells: Vec<String> = if number == 0 {
            members.keys().cloned().collect()
        } else {
            members.values().map(Value::to_string).collect()
        };
        text += &(cells.join(",") + "\n");
    }
    Ok(text)
}
