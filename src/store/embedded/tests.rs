//! The embedded store by itself: order, expiry, turns.

use heed::{CommitOrAbort, EnvFlags};

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn open() -> (tempfile::TempDir, Embedded) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let store = Embedded::open(folder.path(), Usage::Serve, SECOND).expect("opens");
    (folder, store)
}

fn bytes(text: &'static str) -> Bytes {
    Bytes::from_static(text.as_bytes())
}

#[test]
fn only_a_load_leaves_the_sync_to_its_end() {
    for (usage, leaves) in [(Usage::Serve, false), (Usage::Load, true)] {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let store = Embedded::open(folder.path(), usage, SECOND).expect("opens");
        let flags = store.env.flags().expect("flags").expect("known ones");
        assert_eq!(flags.contains(EnvFlags::NO_SYNC), leaves, "{usage:?}");
    }
}

#[tokio::test]
async fn values_come_back_in_the_order_of_the_keys() {
    let (_folder, store) = open();
    store.put(bytes("a"), bytes("1"), None).await.expect("put");
    store.put(bytes("b"), bytes(""), None).await.expect("put");
    let got = store.get_many(&[bytes("b"), bytes("x"), bytes("a"), bytes("")]);
    let expected = vec![Some(bytes("")), None, Some(bytes("1")), None];
    assert_eq!(got.expect("get"), expected);
}

#[tokio::test]
async fn an_expired_value_is_absent_to_every_reader() {
    let (_folder, store) = open();
    let ttl = Some(Duration::from_millis(1));
    store
        .put(bytes("gone"), bytes("1"), ttl)
        .await
        .expect("put");
    tokio::time::sleep(Duration::from_millis(3)).await;
    assert_eq!(store.get_many(&[bytes("gone")]).expect("get"), [None]);
    assert_eq!(store.describe(&bytes("gone")).expect("describe"), None);
    assert!(store.scan(None, 10).expect("scan").keys.is_empty());
    assert_eq!(store.delete(vec![bytes("gone")]).await.expect("delete"), 0);
}

#[tokio::test]
async fn a_key_is_written_once_until_it_expires() {
    let (_folder, store) = open();
    let put = |value, ttl| store.put_if(Only::IfAbsent, bytes("a"), bytes(value), ttl);
    let long = Some(Duration::from_hours(1));
    assert!(put("1", long).await.expect("put"));
    assert!(!put("2", None).await.expect("put"));
    let left = store.time_to_live(&bytes("a")).expect("ttl");
    assert!(matches!(left, TimeToLive::Left(_)), "{left:?}");
    let short = Some(Duration::from_millis(20));
    let again = store.put(bytes("a"), bytes("1"), short);
    again.await.expect("put");
    while !put("3", None).await.expect("put") {}
    let stored = store.get_many(&[bytes("a")]).expect("get");
    assert_eq!(stored, [Some(bytes("3"))]);
    assert_eq!(
        store.time_to_live(&bytes("a")).expect("ttl"),
        TimeToLive::Forever
    );
    assert_eq!(
        store.time_to_live(&bytes("b")).expect("ttl"),
        TimeToLive::Absent
    );
}

#[tokio::test]
async fn a_scan_visits_every_key_once() {
    let (_folder, store) = open();
    let mut batch = Batch::default();
    for index in 0..25_u8 {
        batch.push(|key| key.put_u8(index + 1), |value| value.put_u8(index));
    }
    store.put_batch(batch, None).await.expect("put");
    let (mut seen, mut cursor) = (Vec::new(), None);
    loop {
        let page = store.scan(cursor.as_ref(), 10).expect("scan");
        seen.extend(page.keys);
        match page.next {
            Some(next) => cursor = Some(next),
            None => break,
        }
    }
    assert_eq!(seen.len(), 25);
    assert!(seen.is_sorted());
}

#[tokio::test]
async fn a_writer_that_does_not_get_its_turn_gives_up_and_the_next_one_succeeds() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let timeout = Duration::from_millis(50);
    let store = Embedded::open(folder.path(), Usage::Serve, timeout).expect("opens");
    let other = store.clone();
    let (entered, is_in) = std::sync::mpsc::channel();
    let (leave, is_told) = std::sync::mpsc::channel::<()>();
    let holder = std::thread::spawn(move || {
        let _txn = other.env.write_txn().expect("a transaction");
        entered.send(()).expect("somebody waits");
        let _ = is_told.recv();
    });
    is_in.recv().expect("the other writer is in");
    for _ in 0..3 {
        let refused = store.put(bytes("a"), bytes("1"), None).await;
        assert!(
            matches!(refused, Err(StoreError::Timeout(_))),
            "{refused:?}"
        );
    }
    drop(leave);
    holder.join().expect("it ends");
    while store.put(bytes("a"), bytes("2"), None).await.is_err() {}
    let expected = vec![Some(bytes("2"))];
    assert_eq!(store.get_many(&[bytes("a")]).expect("get"), expected);
}

#[test]
fn looking_at_a_folder_that_is_not_there_creates_nothing() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let absent = folder.path().join("absent");
    assert!(Embedded::open(&absent, Usage::Look, SECOND).is_err());
    assert!(!absent.exists());
}

#[tokio::test]
async fn what_has_expired_is_not_counted_and_is_removed_unless_it_was_written_anew() {
    let (_folder, store) = open();
    let keys = |store: &Embedded| store.stats().expect("stats").keys;
    let entries = |store: &Embedded| {
        let txn = store.env.read_txn().expect("a transaction");
        store.database.len(&txn).expect("a count")
    };
    let soon = Some(Duration::from_millis(1));
    for (key, first, second) in [
        ("gone", soon, None),
        ("anew", soon, Some(None)),
        ("later", soon, Some(Some(Duration::from_hours(1)))),
        ("twice", Some(Duration::from_millis(2)), Some(soon)),
        ("stays", None, None),
    ] {
        let put = |ttl| store.put(bytes(key), bytes("1"), ttl);
        put(first).await.expect("put");
        if let Some(second) = second {
            put(second).await.expect("put");
        }
    }
    tokio::time::sleep(Duration::from_millis(5)).await;
    assert_eq!(keys(&store), 3);
    // With the two that are dead, and the name of what knows of them.
    assert_eq!(entries(&store), 6);
    assert!(!store.sweep().await.expect("sweeps"));
    assert_eq!((keys(&store), entries(&store)), (3, 4));
    assert!(!store.sweep().await.expect("has nothing to do"));
    let left = store.scan(None, 10).expect("scan").keys;
    assert_eq!(left, [bytes("anew"), bytes("later"), bytes("stays")]);
}

#[tokio::test]
async fn a_sweep_is_bounded_and_repeated_until_all_is_gone() {
    let (_folder, store) = open();
    let mut batch = Batch::default();
    for index in 0..10_000_u64 {
        batch.push(|key| key.put_u64(index), |value| value.put_u8(1));
    }
    let soon = Some(Duration::from_millis(1));
    store.put_batch(batch, soon).await.expect("put");
    store.put(bytes("a"), bytes("1"), None).await.expect("put");
    tokio::time::sleep(Duration::from_millis(5)).await;
    let mut sweeps = 1;
    while store.sweep().await.expect("sweeps") {
        sweeps += 1;
    }
    assert!(sweeps > 1, "{sweeps}");
    let left = store.scan(None, 10).expect("scan").keys;
    assert_eq!(left, [bytes("a")]);
}

#[tokio::test]
async fn a_key_is_replaced_only_from_what_was_expected() {
    let (_folder, store) = open();
    for (expected, value, replaced, left) in [
        (Some("x"), "1", false, None),
        (None, "1", true, Some("1")),
        (None, "2", false, Some("1")),
        // A repetition of the step before, whose answer was lost.
        (None, "1", true, Some("1")),
        (Some("1"), "2", true, Some("2")),
        (Some("1"), "3", false, Some("2")),
    ] {
        let done = store.replace(bytes("a"), expected.map(bytes), bytes(value), None);
        assert_eq!(
            done.await.expect("replace"),
            replaced,
            "{expected:?} {value}"
        );
        let held = store.get_many(&[bytes("a")]).expect("get");
        assert_eq!(held, [left.map(bytes)]);
    }
}

#[tokio::test]
async fn the_name_of_the_other_database_is_no_key() {
    let (_folder, store) = open();
    let name = bytes(expiry::NAME);
    assert_eq!(
        store.get_many(std::slice::from_ref(&name)).expect("get"),
        [None]
    );
    assert_eq!(store.describe(&name).expect("describe"), None);
    assert!(store.scan(None, 10).expect("scan").keys.is_empty());
    assert_eq!(store.delete(vec![name.clone()]).await.expect("delete"), 0);
    let refused = store.put(name, bytes("1"), None).await;
    assert!(
        matches!(refused, Err(StoreError::Refused(_))),
        "{refused:?}"
    );
    assert_eq!(store.stats().expect("stats").keys, 0);
}

#[tokio::test]
async fn a_folder_of_before_is_read_as_it_is_and_keeps_its_keys() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    {
        // As it was made without the second database.
        let env = open::environment(folder.path(), Usage::Serve).expect("opens");
        let txn = env.write_txn().expect("a transaction");
        let written = env.create_databases_and_commit(txn, |opener, txn| {
            let database = opener.create_database::<Raw, Raw>(txn, None)?;
            let value = [&[0; EXPIRY_BYTES][..], b"1"].concat();
            database.put(txn, b"a", &value)?;
            Ok::<_, heed::Error>(CommitOrAbort::<_, ()>::Commit(()))
        });
        written.expect("commits");
    }
    for usage in [Usage::Look, Usage::Serve, Usage::Look] {
        let store = Embedded::open(folder.path(), usage, SECOND).expect("opens");
        assert_eq!(store.stats().expect("stats").keys, 1, "{usage:?}");
        let held = store.get_many(&[bytes("a")]).expect("get");
        assert_eq!(held, [Some(bytes("1"))]);
        assert!(!store.sweep().await.expect("sweeps"));
    }
}
