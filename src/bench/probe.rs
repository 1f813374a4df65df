//! Asks the target about itself before the load begins.
//!
//! Enters: an address. Leaves: what `GET /stats` tells. Must not be used during the run.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use bytes::BytesMut;
use clap::ValueEnum as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::http::Reader;
use super::workload::headers;
use crate::cli::Fetch;
use crate::config::{TargetUrl, Token};
use crate::store::{DatasetInfo, Store, StoreError};

/// A target that does not tell about itself by then would not hold any load either.
const PROBE_TIMEOUT: Duration = Duration::from_secs(3);

/// What the target says about itself; `None` where it does not.
#[derive(Debug, Clone, Default, serde::Deserialize)]
pub(super) struct TargetInfo {
    pub(super) engine: Option<String>,
    pub(super) engine_version: Option<String>,
    pub(super) total_keys: Option<u64>,
    pub(super) memory_used: Option<u64>,
    pub(super) commands_processed: Option<u64>,
    pub(super) key_reads: Option<u64>,
    pub(super) dataset: Option<DatasetInfo>,
    /// `mget` or `pipeline`.
    fetch: Option<String>,
}

impl TargetInfo {
    /// How it reads several keys; one that does not tell is taken for the cheaper way.
    pub(super) fn fetch(&self) -> Fetch {
        let told = self.fetch.as_deref();
        told.and_then(|text| Fetch::from_str(text, true).ok())
            .unwrap_or(Fetch::Mget)
    }
}

/// The same from a store that is driven itself.
pub(super) async fn ask_store(store: &Store) -> Result<TargetInfo, StoreError> {
    let stats = store.stats().await?;
    Ok(TargetInfo {
        engine: Some(stats.engine),
        engine_version: stats.version,
        total_keys: Some(stats.keys),
        memory_used: stats.memory_bytes,
        commands_processed: stats.commands_processed,
        key_reads: stats.key_reads,
        dataset: store.dataset().await?,
        fetch: None,
    })
}

/// Finds the target's address and what it holds.
///
/// # Errors
/// When it cannot be reached, or does not answer `/stats` as `kvpoc serve` does.
pub(super) async fn probe(
    target: &TargetUrl,
    token: Option<&Token>,
) -> anyhow::Result<(SocketAddr, TargetInfo)> {
    let asked = async {
        // Of several addresses, the first that answers is the one to drive.
        let stream = TcpStream::connect((target.host.as_str(), target.port)).await?;
        Ok((stream.peer_addr()?, get_stats(stream, target, token).await?))
    };
    tokio::time::timeout(PROBE_TIMEOUT, asked)
        .await
        .unwrap_or_else(|_| Err(anyhow!("no answer within {PROBE_TIMEOUT:?}")))
        .with_context(|| {
            format!(
                "the target {target} cannot be used; start one with kvpoc serve, or give --target"
            )
        })
}

/// Finds the address of a target that is asked nothing about itself.
///
/// # Errors
/// When it cannot be reached.
pub(super) async fn reach(target: &TargetUrl) -> anyhow::Result<SocketAddr> {
    let connect = TcpStream::connect((target.host.as_str(), target.port));
    let stream = tokio::time::timeout(PROBE_TIMEOUT, connect)
        .await
        .with_context(|| format!("no answer from {target} within {PROBE_TIMEOUT:?}"))?
        .with_context(|| format!("the target {target} cannot be reached"))?;
    Ok(stream.peer_addr()?)
}

async fn get_stats(
    mut stream: TcpStream,
    target: &TargetUrl,
    token: Option<&Token>,
) -> anyhow::Result<TargetInfo> {
    let headers = headers(&target.authority(), token);
    let request = format!("GET /stats HTTP/1.1\r\n{headers}\r\n");
    stream.write_all(request.as_bytes()).await?;
    let (mut buffer, mut reader) = (BytesMut::new(), Reader::default());
    let response = loop {
        let closed = stream.read_buf(&mut buffer).await? == 0;
        match reader.read(&buffer, closed)? {
            Some(response) => break response,
            None if closed => bail!("the connection was closed before the answer"),
            None => {}
        }
    };
    let body = response.body(&buffer);
    if response.status != 200 {
        bail!(
            "GET /stats was answered {}: {}",
            response.status,
            String::from_utf8_lossy(body)
        );
    }
    serde_json::from_slice(body).context("GET /stats was not answered by the JSON of kvpoc serve")
}
