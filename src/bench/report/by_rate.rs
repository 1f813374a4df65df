//! A study of rates for a person and as files: its table, CSV, and a page with latency by rate.
//!
//! Enters: tries and a [`Study`]. Leaves: text and files, whose folder and names were checked before the first try.
//! Must not judge.

use std::fmt::Write as _;

use super::charts::{line, time_axes};
use super::destination::{Destination, both, check_folder, write_all};
use super::html::{STYLE, escaped, table};
use super::json_file::JsonFile;
use super::svg::{Axes, chart, even_marks};
use crate::bench::judge::tries::{Study, Try, by_rate};
use crate::config::Outputs;
use crate::output;
use crate::units::{grouped, human_us};

/// The columns of the CSV.
const COLUMNS: &str = "rate_rps,verdict,achieved_rps,key_ops_per_second,failed_share,p50_us,p90_us,p99_us,p999_us,\
                       max_us,lag_p99_us,ended_early,started_at";

/// One line of the table that grows while a study goes on.
pub(in crate::bench) fn row(one: &Try) -> String {
    format!(
        "{:>10} requests/s  {:<17} p50 {:>9}  p99 {:>9}  p99.9 {:>9}  {}\n",
        rate(one.rate_rps),
        one.verdict.name(),
        human_us(one.latency_us.p50),
        human_us(one.latency_us.p99),
        human_us(one.latency_us.p999),
        one.reason,
    )
}

/// A rate as a person reads it; those of less than ten requests a second with what is behind the point.
pub(in crate::bench) fn rate(per_second: f64) -> String {
    if per_second < 10.0 && per_second.fract() != 0.0 {
        return format!("{per_second:.2}");
    }
    grouped(per_second.round() as u64)
}

/// Files that can be written and wait for their contents.
pub(in crate::bench) struct StudyFiles {
    pub(in crate::bench) json: JsonFile,
    /// One for each of [`ENDINGS`], or none.
    folder: Vec<Destination>,
}

/// Of what `--out` gets, each behind the name of the study.
const ENDINGS: [&str; 3] = ["json", "csv", "html"];

impl StudyFiles {
    /// Finds out whether what is asked for can be written; `study` gives the files in the folder their name.
    ///
    /// # Errors
    /// When a file or the folder cannot be written.
    pub(in crate::bench) fn create(outputs: &Outputs, study: &str) -> anyhow::Result<Self> {
        let names = ENDINGS.map(|ending| format!("{study}.{ending}"));
        Ok(Self {
            json: JsonFile::create(outputs)?,
            folder: check_folder(outputs.out.as_deref(), &names)?,
        })
    }

    /// Fills them; one setting that fails takes nothing from the other.
    ///
    /// # Errors
    /// When something could not be written; what was found is on standard error then.
    pub(in crate::bench) fn write(self, study: &Study) -> anyhow::Result<()> {
        let json = super::json(study)?;
        // In place of the text on standard output, it is there already.
        let says = !self.json.is_on_stdout();
        let single = self.json.write(&json);
        let forms = [json, csv(&study.tries), page(study)].map(String::into_bytes);
        let written = both(single, write_all(self.folder, &forms));
        if says && (written.is_err() || output::lost().is_some()) {
            output::say(&study.summary);
        }
        written
    }
}

fn csv(tries: &[Try]) -> String {
    let mut text = format!("{COLUMNS}\n");
    for one in tries {
        let latency = &one.latency_us;
        let _ = writeln!(
            text,
            "{},{},{},{},{},{},{},{},{},{},{},{},{}",
            one.rate_rps,
            one.verdict.name(),
            one.achieved_rps,
            one.key_ops_per_second,
            one.failed_share,
            latency.p50,
            latency.p90,
            latency.p99,
            latency.p999,
            latency.max,
            one.lag_us.p99,
            one.ended_early.is_some(),
            one.started_at,
        );
    }
    text
}

fn page(study: &Study) -> String {
    let summary = escaped(&study.summary);
    let mut html = format!(
        "<!DOCTYPE html><html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\
         <link rel=\"icon\" href=\"data:,\"><title>kvpoc bench: {0}</title><style>{STYLE}</style></head>\
         <body><h1>{0}</h1><p>{summary}</p>\
         <section><h2>Latency by rate</h2>{1}{KNEE_NOTE}</section>",
        study.name,
        latency_chart(study),
    );
    let rows: Vec<Vec<String>> = study.tries.iter().map(cells).collect();
    let head = [
        "requests/s",
        "verdict",
        "achieved",
        "key operations/s",
        "p50",
        "p99",
        "p99.9",
        "max",
        "lag p99",
        "why",
    ];
    let _ = write!(
        html,
        "<section><h2>Tries</h2>{}</section>",
        table(&head, &rows)
    );
    if let Some(conditions) = &study.conditions {
        let machine = &conditions.machine;
        let request = conditions.request();
        let rows = [
            ("target", request.unwrap_or(conditions.target.clone())),
            ("workload", conditions.workload.clone()),
            (
                "each try",
                format!(
                    "{} s after {} s of warm-up",
                    conditions.duration_s, conditions.warmup_s
                ),
            ),
            ("arrivals", conditions.arrivals.clone()),
            ("connections", conditions.connections.to_string()),
            ("keys per request", conditions.keys_per_request.to_string()),
            ("store", conditions.store_engine.clone().unwrap_or_default()),
            ("machine", machine.cpu_model.clone().unwrap_or_default()),
            ("cores", machine.cpu_count.to_string()),
            (
                "version",
                format!("{} {}", conditions.version, conditions.commit),
            ),
        ];
        let rows = rows.map(|(name, value)| vec![name.to_owned(), value]);
        let _ = write!(
            html,
            "<section><h2>Conditions</h2>{}</section>",
            table(&[], &rows)
        );
    }
    html + "</body></html>\n"
}

const KNEE_NOTE: &str = "<p class=\"note\">Latency from the due time; the median of several tries at one rate. The knee is where latency \
                         p99 deviates most from the straight line between its ends (Kneedle, Satopää et al. 2011).</p>";

fn cells(one: &Try) -> Vec<String> {
    let latency = &one.latency_us;
    let mut cells = vec![
        rate(one.rate_rps),
        one.verdict.name().to_owned(),
        rate(one.achieved_rps),
        grouped(one.key_ops_per_second.round() as u64),
    ];
    let times = [
        latency.p50,
        latency.p99,
        latency.p999,
        latency.max,
        one.lag_us.p99,
    ];
    cells.extend(times.map(human_us));
    cells.push(one.reason.clone());
    cells
}

fn latency_chart(study: &Study) -> String {
    let points = |figure| by_rate(&study.tries, figure);
    let mut lines = vec![
        line("p50", "a", points(|one| one.latency_us.p50)),
        line("p99", "c", points(|one| one.latency_us.p99)),
        line("p99.9", "b", points(|one| one.latency_us.p999)),
    ];
    let tops = study.tries.iter().map(|one| one.latency_us.p999 as f64);
    let top = tops.fold(1.0, f64::max);
    let marks = [
        ("knee", study.finding.knee_rps),
        ("highest passing rate", study.finding.highest_passing_rps),
    ];
    for (name, place) in marks {
        if let Some(place) = place {
            let name = format!("{name} {}", rate(place));
            lines.push(line(&name, "d", vec![(place, 1.0), (place, top)]));
        }
    }
    let highest = study
        .tries
        .iter()
        .map(|one| one.rate_rps)
        .fold(1.0, f64::max);
    let axes = Axes {
        x_marks: even_marks(highest)
            .into_iter()
            .map(|place| (place, rate(place)))
            .collect(),
        x_name: "requests/s",
        ..time_axes()
    };
    chart(&axes, &lines)
}
