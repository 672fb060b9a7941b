use std::os::unix::fs::PermissionsExt;

use tempfile::TempDir;

use super::*;
use crate::accepted::record::Entry;
use crate::call::{CallId, Request, Ticket};

fn store() -> (TempDir, Arc<Store>) {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::new(directory.path().join("calls.db"));
    (directory, Arc::new(store))
}

fn ticket(call: u64) -> Ticket {
    Ticket { call: CallId(call), secret: u64::MAX - call }
}

fn insert(connection: &Connection, call: u64, payload_bytes: usize) -> rusqlite::Result<()> {
    let payload = vec![7; payload_bytes].into();
    let request = Request { application: "porch".to_owned(), payload, ..Request::default() };
    record::insert(connection, ticket(call), &request, 1)
}

async fn calls(store: &Store) -> Vec<u64> {
    let entries = store.run(record::entries).await.unwrap();
    entries.iter().map(|Entry { ticket, .. }| ticket.call.0).collect()
}

#[tokio::test]
async fn what_was_stored_is_there_when_the_file_is_opened_again() {
    let (_directory, store) = store();
    assert!(!store.exists());
    let all: Vec<(u64, usize)> = (1..=300).map(|call| (call, 10)).collect();
    assert!(insert_together(&store, &all).await.iter().all(Result::is_ok));
    store.close().await;
    let again = Store::new(store.path.clone());
    assert_eq!(calls(&again).await, (1..=300).collect::<Vec<_>>());
    let mode = std::fs::metadata(&store.path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    // As unsigned as it was.
    let entries = again.run(record::entries).await.unwrap();
    assert_eq!(entries[0].ticket, ticket(1));
    again.close().await;
}

/// Stores calls, all at once; of which that succeeded.
async fn insert_together(store: &Arc<Store>, calls: &[(u64, usize)]) -> Vec<Result<(), StoreError>> {
    let insert = |&(call, payload_bytes): &(u64, usize)| {
        let store = Arc::clone(store);
        tokio::spawn(async move { store.run(move |database| insert(database, call, payload_bytes)).await })
    };
    let mut results = Vec::new();
    for inserted in calls.iter().map(insert).collect::<Vec<_>>() {
        results.push(inserted.await.unwrap());
    }
    results
}

#[tokio::test]
async fn work_that_fails_takes_no_other_with_it() {
    let (_directory, store) = store();
    store.run(|database| insert(database, 1, 0)).await.unwrap();
    let results = insert_together(&store, &[(2, 0), (1, 0), (3, 0)]).await;
    assert!(matches!(results[..], [Ok(()), Err(StoreError::Database { .. }), Ok(())]), "{results:?}");
    assert_eq!(calls(&store).await, [1, 2, 3]);
}

#[tokio::test]
async fn a_full_disk_is_said_and_does_no_more_harm() {
    let (_directory, store) = store();
    store.run(|database| insert(database, 1, 100_000)).await.unwrap();
    store.run(|database| database.pragma_update(None, "max_page_count", 60)).await.unwrap();
    // Whatever is to be written together with it is written and told so, or neither.
    let results = insert_together(&store, &[(2, 10), (3, 1_000_000), (4, 10)]).await;
    let left = calls(&store).await;
    for (result, call) in results.iter().zip(2..) {
        assert_eq!(result.is_ok(), left.contains(&call), "{results:?} {left:?}");
    }
    let full = std::error::Error::source(results[1].as_ref().unwrap_err()).unwrap().to_string();
    assert!(full.contains("full") && left.contains(&1), "{full} {left:?}");
    store.run(|database| record::delete(database, &[CallId(1)])).await.unwrap();
    assert!(insert_together(&store, &[(5, 100_000)]).await[0].is_ok());
}

#[tokio::test]
async fn what_is_deleted_goes_back_to_the_disk() {
    let (_directory, store) = store();
    for call in 1..=8 {
        store.run(move |database| insert(database, call, 100_000)).await.unwrap();
    }
    let pages = || store.run(|database| database.pragma_query_value(None, "page_count", |row| row.get::<_, i64>(0)));
    let before = pages().await.unwrap();
    let all: Vec<CallId> = (1..=8).map(CallId).collect();
    store.run(move |database| record::delete(database, &all)).await.unwrap();
    let after = pages().await.unwrap();
    assert!(before > 190 && after < 20, "{before} pages before, {after} after");
}

#[tokio::test]
async fn a_closed_store_takes_nothing() {
    let (_directory, store) = store();
    store.close().await;
    assert!(matches!(store.run(record::entries).await, Err(StoreError::Closed)));
    assert!(!store.exists());
}

#[tokio::test]
async fn a_file_of_a_later_version_and_one_that_is_no_database_are_refused() {
    let (_directory, store) = store();
    store.run(|database| database.pragma_update(None, "user_version", 2)).await.unwrap();
    store.close().await;
    let later = Store::new(store.path.clone()).run(record::entries).await.unwrap_err();
    assert!(matches!(later, StoreError::Later { version: 2, .. }), "{later}");
    std::fs::write(&store.path, "not a database, but a text of some length".repeat(100)).unwrap();
    let other = Store::new(store.path.clone()).run(record::entries).await.unwrap_err();
    assert!(matches!(other, StoreError::Database { .. }), "{other}");
}
