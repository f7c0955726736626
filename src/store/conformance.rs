//! What every store does, whatever it is made of.

use std::sync::Arc;

use super::memory::MemoryStores;
use super::sled::SledStores;
use super::{Store, StoreChange, Stores};

fn put(key: &str, value: &str) -> StoreChange {
    (key.as_bytes().to_vec(), Some(Arc::from(value.as_bytes())))
}

fn gone(key: &str) -> StoreChange {
    (key.as_bytes().to_vec(), None)
}

fn content(store: &dyn Store, after: Option<&[u8]>) -> Vec<(String, String)> {
    let mut content = Vec::new();
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("a text");
    store
        .scan(after, &mut |key, value| {
            content.push((text(key), text(value)));
            true
        })
        .expect("a scan");
    content
}

/// The suite. `stores` is fresh.
fn conforms(stores: &dyn Stores) {
    let store = stores.open("cluster", 3).expect("a store");
    assert_eq!(
        store.offset().unwrap(),
        0,
        "a new store stands at the beginning"
    );
    assert_eq!(store.get(b"run/a").unwrap(), None);

    store
        .apply(
            &[put("run/b", "2"), put("run/a", "1"), put("parked/a/7", "p")],
            12,
        )
        .unwrap();
    assert_eq!(store.offset().unwrap(), 12);
    assert_eq!(store.get(b"run/a").unwrap().as_deref(), Some(&b"1"[..]));
    let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    let all = [
        pair("parked/a/7", "p"),
        pair("run/a", "1"),
        pair("run/b", "2"),
    ];
    assert_eq!(
        content(store.as_ref(), None),
        all,
        "entries alone, in the order of their keys"
    );
    assert_eq!(
        content(store.as_ref(), Some(b"run/a")),
        all[2..],
        "after a key, without it"
    );

    store
        .apply(&[put("run/a", "3"), gone("run/b"), gone("run/never")], 20)
        .unwrap();
    assert_eq!(
        content(store.as_ref(), None),
        [pair("parked/a/7", "p"), pair("run/a", "3")]
    );
    let asked = &mut |key: &[u8], value: &[u8]| {
        assert_eq!(store.get(key).unwrap().as_deref(), Some(value));
        true
    };
    store.scan(None, asked).expect("whoever looks may ask");
    let many = |value: Option<&str>| -> Vec<StoreChange> {
        let key = |number| format!("run/many/{number:04}").into_bytes();
        let changes =
            (0..600).map(|number| (key(number), value.map(|text| text.as_bytes().into())));
        changes.collect()
    };
    store.apply(&many(Some("v")), 21).unwrap();
    let found = content(store.as_ref(), Some(b"run/b"));
    assert_eq!(found.len(), 600);
    assert!(found.is_sorted(), "in the order of their keys");
    store.apply(&many(None), 22).unwrap();
    let mut visited = 0;
    let stop = &mut |_: &[u8], _: &[u8]| {
        visited += 1;
        false
    };
    store.scan(None, stop).unwrap();
    assert_eq!(visited, 1, "a scan stops when it is told to");

    store.apply(&[], 25).unwrap();
    assert_eq!(
        store.offset().unwrap(),
        25,
        "an offset moves without entries"
    );

    let again = stores.open("cluster", 3).expect("the same store");
    assert_eq!(again.get(b"run/a").unwrap().as_deref(), Some(&b"3"[..]));
    for (cluster, partition) in [("cluster", 4), ("other", 3)] {
        let other = stores.open(cluster, partition).expect("another store");
        assert_eq!(
            other.offset().unwrap(),
            0,
            "partitions and clusters are apart"
        );
        assert!(content(other.as_ref(), None).is_empty());
    }

    store.clear().unwrap();
    assert_eq!(store.offset().unwrap(), 0);
    assert!(content(store.as_ref(), None).is_empty());
}

#[test]
fn the_memory_store_conforms() {
    conforms(&MemoryStores::default());
}

#[test]
fn the_sled_store_conforms() {
    let folder = tempfile::tempdir().expect("a folder");
    conforms(&SledStores::open(&folder.path().join("store"), "p.").expect("stores"));
}

#[test]
fn sled_keeps_entries_over_a_restart() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("store");
    for round in 0..3_i64 {
        let stores = SledStores::open(&path, "p.").expect("stores");
        let store = stores.open("cluster", 0).expect("a store");
        assert_eq!(store.offset().unwrap(), round * 10);
        store
            .apply(&[put("run/a", &round.to_string())], (round + 1) * 10)
            .unwrap();
    }
}

#[test]
fn a_store_that_is_no_store_is_put_aside() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("store");
    std::fs::create_dir(&path).unwrap();
    std::fs::write(path.join("conf"), b"this is not sled's").unwrap();
    std::fs::write(path.join("db"), [0xff; 4_096]).unwrap();
    let stores = SledStores::open(&path, "p.").expect("a new store in its place");
    assert_eq!(stores.open("cluster", 0).unwrap().offset().unwrap(), 0);
    let names: Vec<String> = std::fs::read_dir(folder.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    assert!(
        names.iter().any(|name| name.starts_with("store.broken-")),
        "{names:?}"
    );
}

#[test]
fn a_store_in_use_is_left_alone() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("store");
    let _first = SledStores::open(&path, "p.").expect("stores");
    let Err(error) = SledStores::open(&path, "p.") else {
        panic!("opened twice")
    };
    assert!(error.to_string().contains("another process"), "{error}");
}
