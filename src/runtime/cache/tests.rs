//! What is kept in memory of a partition, by hand.

use super::*;

fn facts(created_at: i64, next_due: Option<i64>) -> EntryFacts {
    EntryFacts {
        status: RunStatus::Running,
        created_at: Timestamp(created_at),
        next_due: next_due.map(Timestamp),
        ended_at: None,
        priority: 0,
        awaiting: Awaiting::default(),
    }
}

fn id(number: usize) -> RunId {
    RunId::parse(&format!("run-{number:03}")).unwrap()
}

fn entry() -> Option<Arc<[u8]>> {
    Some(Arc::from([0_u8; 100].as_slice()))
}

#[test]
fn lists_go_on_where_they_stopped_even_within_one_moment() {
    let mut cache = Cache::default();
    // Put there in an order that is neither that of creation nor that of ids.
    for number in (0..60).map(|number| number * 17 % 60) {
        cache.put_run(&id(number), entry(), facts(number as i64 / 20, None), false);
    }
    let mut listed = Vec::new();
    let mut before = None;
    loop {
        let chunk = cache.newest(before.as_ref(), 7);
        // A reader may stop within what it was given.
        let Some(last) = chunk.get(8).or(chunk.last()) else {
            break;
        };
        before = Some((last.created_at, last.id.clone()));
        listed.extend(chunk.into_iter().take(9).map(|run| run.id));
    }
    let expected: Vec<RunId> = (0..60).rev().map(id).collect();
    assert_eq!(listed, expected);
}

#[test]
fn eviction_goes_around_and_takes_what_the_store_has() {
    let mut cache = Cache::default();
    for number in 0..10 {
        cache.put_run(&id(number), entry(), facts(1, Some(5)), number % 2 == 0);
    }
    let evicted = |cache: &Cache| {
        let is_evicted = |number: &usize| cache.entry(&id(*number)) == Some(None);
        (0..10).filter(is_evicted).collect::<Vec<_>>()
    };
    let bytes = cache.bytes();
    cache.evict(bytes - 1, 4);
    assert_eq!((evicted(&cache), cache.bytes()), (vec![0], bytes - 100));
    cache.evict(0, 4);
    assert_eq!(evicted(&cache), [0, 2, 4]);
    // What comes back is evicted again, after all others.
    cache.put_run(&id(0), entry(), facts(1, Some(5)), true);
    cache.evict(0, 5);
    assert_eq!(evicted(&cache), [2, 4, 6, 8]);
    cache.evict(0, 5);
    assert_eq!(evicted(&cache), [0, 2, 4, 6, 8]);
    assert_eq!(cache.due(Timestamp(5), 100).len(), 10);
}

#[test]
fn the_entry_of_a_run_that_rests_is_left_to_the_store() {
    let mut cache = Cache::default();
    for number in 0..4 {
        cache.put_run(&id(number), entry(), facts(1, Some(5)), number != 3);
    }
    let held = |cache: &Cache| {
        let has_entry = |number: &usize| cache.entry(&id(*number)).flatten().is_some();
        (0..4).filter(has_entry).collect::<Vec<_>>()
    };
    let bytes = cache.bytes();
    // A round is over that has seen each run once, however few they are.
    assert_eq!(cache.rest(0), None);
    assert_eq!(held(&cache), [0, 1, 2, 3]);
    // Run 1 moves, and the store does not have run 3.
    cache.put_run(&id(1), entry(), facts(1, Some(5)), true);
    assert_eq!(cache.rest(0), None);
    assert_eq!((held(&cache), cache.bytes()), (vec![1, 3], bytes - 200));
    assert_eq!(cache.rest(0), None);
    assert_eq!((held(&cache), cache.bytes()), (vec![3], bytes - 300));
    assert_eq!(cache.due(Timestamp(5), 100).len(), 4);
}

#[test]
fn what_waits_is_counted_as_runs_move_on_and_go() {
    let mut cache = Cache::default();
    let waiting = |signals, patterns| EntryFacts {
        awaiting: Awaiting { signals, patterns },
        ..facts(1, None)
    };
    cache.put_run(&id(1), entry(), waiting(2, 1), true);
    cache.put_run(&id(2), entry(), waiting(1, 3), true);
    cache.put_run(&id(1), entry(), waiting(1, 0), true);
    let told = |cache: &Cache| (cache.awaiting().signals, cache.awaiting().patterns);
    assert_eq!(told(&cache), (2, 3));
    // Of an entry that only the store has, it is known all the same.
    cache.evict(0, 2);
    assert_eq!((cache.entry(&id(2)), told(&cache)), (Some(None), (2, 3)));
    cache.remove_run(&id(2));
    assert_eq!(told(&cache), (1, 0));
}

#[test]
fn a_timer_that_is_held_moves_and_goes_with_its_run() {
    let mut cache = Cache::default();
    cache.put_run(&id(1), entry(), facts(1, Some(5)), false);
    cache.put_run(&id(2), entry(), facts(1, None), false);
    cache.hold(&id(1), Timestamp(9));
    cache.hold(&id(2), Timestamp(8));
    assert!(!cache.is_due(&id(1), Timestamp(5)));
    assert_eq!(cache.next_due(), Some(Timestamp(8)));
    cache.remove_run(&id(2));
    assert_eq!(cache.due(Timestamp(9), 10), [Due::Run(id(1))]);
    cache.remove_run(&id(1));
    assert_eq!(
        (cache.next_due(), cache.bytes(), cache.live()),
        (None, 0, 0)
    );
}
