//! Asks the target about itself before the load begins.
//!
//! Enters: a target's name. Leaves: what `GET /stats` tells. Must not be used during the run.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use bytes::{Buf as _, BytesMut};

use super::addresses::Addresses;
use super::http::{Bodies, Reader};
use super::line::Line;
use super::pacer::timeout;
use super::tls::Tls;
use crate::bench::plan::workload::headers;
use crate::config::{Fetch, TargetUrl, Token};
use crate::store::{DatasetInfo, Store, StoreError};
use crate::units::human_duration;

/// A target that does not tell about itself by then would not hold any load either.
const PROBE_TIMEOUT: Duration = Duration::from_secs(3);
/// What a target has against a connection it says by then.
const REFUSED_WITHIN: Duration = Duration::from_millis(300);

/// What the target says about itself; `None` where it does not.
#[derive(Debug, Clone, Default, serde::Deserialize)]
pub(in crate::bench) struct TargetInfo {
    pub(in crate::bench) engine: Option<String>,
    pub(in crate::bench) engine_version: Option<String>,
    pub(in crate::bench) total_keys: Option<u64>,
    pub(in crate::bench) memory_used: Option<u64>,
    pub(in crate::bench) commands_processed: Option<u64>,
    pub(in crate::bench) key_reads: Option<u64>,
    pub(in crate::bench) dataset: Option<DatasetInfo>,
    /// What `seed` has not wholly loaded.
    pub(in crate::bench) unfinished_load: Option<DatasetInfo>,
    pub(in crate::bench) engine_threads: Option<u64>,
    /// `mget` or `pipeline`.
    pub(in crate::bench) fetch: Option<String>,
}

impl TargetInfo {
    /// It tells every counter that it told `before`.
    pub(in crate::bench) fn counts_what(&self, before: &Self) -> bool {
        let told = |before: Option<u64>, now: Option<u64>| before.is_none() || now.is_some();
        told(before.key_reads, self.key_reads)
            && told(before.commands_processed, self.commands_processed)
    }

    /// How it reads several keys; one that does not tell is taken for one of a single command.
    pub(in crate::bench) fn fetch(&self) -> Fetch {
        let told = self.fetch.as_deref();
        told.and_then(Fetch::named).unwrap_or(Fetch::Mget)
    }
}

/// The same from a store that is driven itself.
pub(in crate::bench) async fn ask_store(store: &Store) -> Result<TargetInfo, StoreError> {
    let stats = store.stats().await?;
    let (dataset, unfinished_load) = DatasetInfo::told_apart(store.dataset_note().await?);
    Ok(TargetInfo {
        engine: Some(stats.engine),
        engine_version: stats.version,
        total_keys: Some(stats.keys),
        memory_used: stats.memory_bytes,
        commands_processed: stats.commands_processed,
        key_reads: stats.key_reads,
        dataset,
        unfinished_load,
        engine_threads: stats.threads,
        fetch: Some(store.fetch().name().into()),
    })
}

/// Finds the target's addresses and what it holds.
///
/// # Errors
/// When it cannot be reached, or does not answer `/stats` as `kvpoc serve` does.
pub(in crate::bench) async fn probe(
    target: &TargetUrl,
    tls: Option<&Tls>,
    token: Option<&Token>,
) -> anyhow::Result<(Arc<Addresses>, TargetInfo)> {
    let asked = async {
        let addresses = Addresses::resolve(target, tls).await?;
        let line = addresses.connect(0).await?;
        Ok((addresses, get_stats(&line, target, token).await?))
    };
    tokio::time::timeout(PROBE_TIMEOUT, asked)
        .await
        .unwrap_or_else(|_| {
            Err(anyhow!(
                "no answer within {}",
                human_duration(PROBE_TIMEOUT)
            ))
        })
        .with_context(|| {
            format!(
                "the target {target} cannot be used; start one with kvpoc serve, or give --target"
            )
        })
}

/// Finds the addresses of a target that is asked nothing about itself.
///
/// # Errors
/// When it cannot be reached.
pub(in crate::bench) async fn reach(
    target: &TargetUrl,
    tls: Option<&Tls>,
) -> anyhow::Result<Arc<Addresses>> {
    let reached = async {
        let addresses = Addresses::resolve(target, tls).await?;
        let line = addresses.connect(0).await?;
        if tls.is_some() {
            listen(&line).await?;
        }
        Ok::<_, io::Error>(addresses)
    };
    tokio::time::timeout(PROBE_TIMEOUT, reached)
        .await
        .with_context(|| {
            format!(
                "no answer from {target} within {}",
                human_duration(PROBE_TIMEOUT)
            )
        })?
        .with_context(|| format!("the target {target} cannot be reached"))
}

/// With TLS 1.3, a target that misses a certificate says so only after the handshake. Others say something then too, or
/// nothing for a while.
async fn listen(line: &Line) -> io::Result<()> {
    let mut bytes = BytesMut::new();
    let heard = timeout(REFUSED_WITHIN, line.pull(&mut bytes)).await;
    match heard.flatten() {
        Err(error) if error.kind() == io::ErrorKind::TimedOut => Ok(()),
        Err(error) => Err(error),
        Ok(_) => line.refusal(),
    }
}

async fn get_stats(
    line: &Line,
    target: &TargetUrl,
    token: Option<&Token>,
) -> anyhow::Result<TargetInfo> {
    let headers = headers(&target.authority(), token);
    let request = format!("GET /stats HTTP/1.1\r\n{headers}\r\n");
    line.push_all(request.as_bytes()).await?;
    let (mut buffer, mut reader) = (BytesMut::new(), Reader::new(Bodies::Kept));
    let response = loop {
        let closed = match line.pull(&mut buffer).await? {
            Some(length) => length == 0,
            None => continue,
        };
        let read = reader.read(&buffer, closed)?;
        match read.response {
            Some(response) => break response,
            None if closed => bail!("the connection closed before the answer"),
            None => buffer.advance(read.consumed),
        }
    };
    let body = response.body(&buffer);
    if response.status != 200 {
        bail!(
            "GET /stats returned {}: {}",
            response.status,
            String::from_utf8_lossy(body)
        );
    }
    serde_json::from_slice(body).context("GET /stats did not return the JSON of kvpoc serve")
}
