//! Opens the folder.
//!
//! Enters: a path, and what it is wanted for. Leaves: LMDB's environment and databases, or what is wrong and what to
//! do about it. Must not create anything for one who only looks, nor wait for a writer but to create.

use std::io::ErrorKind;
use std::path::Path;

use heed::types::Bytes as Raw;
use heed::{CommitOrAbort, Database, Env, EnvFlags, EnvOpenOptions, WithoutTls};

use super::expiry::Expiries;
use super::{MAP_BYTES, StoreError, Usage};

/// One reader per thread of every process on the folder.
const MAX_READERS: u32 = 1_024;

type Opened = (
    Env<WithoutTls>,
    Database<'static, Raw, Raw>,
    Option<Expiries>,
);

pub(super) fn open(folder: &Path, usage: Usage) -> Result<Opened, StoreError> {
    let fail = |error: &dyn std::fmt::Display| {
        StoreError::Setup(format!("embedded store {}: {error}", folder.display()))
    };
    if usage == Usage::Look && !folder.join("data.mdb").exists() {
        return Err(fail(
            &"there is no store here; load one with kvpoc seed --store embedded:DIR",
        ));
    }
    std::fs::create_dir_all(folder).map_err(|error| fail(&error))?;
    let env = environment(folder, usage).map_err(|error| fail(&error))?;
    env.clear_stale_readers().map_err(|error| fail(&error))?;
    // The unnamed database always exists, and reading never waits for a writer.
    let txn = env.read_txn().map_err(|error| match &error {
        heed::Error::Io(io) if is_held_by_a_namesake(io) => fail(&NAMESAKE),
        error => fail(error),
    })?;
    let (database, mut expiries) = env
        .open_databases_and_commit(txn, |opener, txn| {
            let database = opener.open_database::<Raw, Raw>(txn, None)?;
            let expiries = Expiries::options(opener).open(txn)?;
            Ok(CommitOrAbort::<_, ()>::Commit((database, expiries)))
        })
        .map_err(|error: heed::Error| fail(&error))?
        .unwrap_commit();
    let database = database.ok_or_else(|| fail(&"it has no unnamed database"))?;
    if expiries.is_none() && usage != Usage::Look {
        let txn = env.write_txn().map_err(|error| fail(&error))?;
        let created = env.create_databases_and_commit(txn, |opener, txn| {
            let created = Expiries::options(opener).create(txn)?;
            Ok(CommitOrAbort::<_, ()>::Commit(created))
        });
        let created = created.map_err(|error: heed::Error| fail(&error))?;
        expiries = Some(created.unwrap_commit());
    }
    Ok((env, database, expiries.map(Expiries::of)))
}

const NAMESAKE: &str = "another process has it open that has the same process id as this one, in a container of its \
    own: LMDB cannot tell the two apart. Let the containers share their process ids (docker run --pid=container:NAME, \
    shareProcessNamespace: true in Kubernetes), or use it one after the other";

/// The first reader of a process locks the byte of its process id in the lock file, and is not told to wait.
fn is_held_by_a_namesake(error: &std::io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::WouldBlock | ErrorKind::PermissionDenied
    )
}

/// Opens LMDB; `Load` leaves the sync to [`Embedded::sync`](super::Embedded::sync). A power loss during a load may cost the whole
/// folder: pages of the last synced state are written over before the next one is on disk.
#[allow(unsafe_code)]
pub(super) fn environment(folder: &Path, usage: Usage) -> heed::Result<Env<WithoutTls>> {
    let mut options = EnvOpenOptions::new().read_txn_without_tls();
    options
        .map_size(MAP_BYTES)
        .max_readers(MAX_READERS)
        .max_dbs(1);
    if usage == Usage::Load {
        // SAFETY: NO_SYNC gives up the order of writes on disk, which matters when the machine loses power;
        // a process, whether it reads, dies or is killed, sees committed pages only.
        unsafe { options.flags(EnvFlags::NO_SYNC) };
    }
    // SAFETY: the map is only changed through LMDB, which locks the folder among processes. Truncating
    // the file under a running process would be undefined; nothing here ever does.
    unsafe { options.open(folder) }
}
