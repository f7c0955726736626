//! A partition of the patterns' stage, by hand.

use super::*;
use crate::codec::signal::{EventParts, WatermarkParts, encode_event, encode_watermark};
use crate::model::Json;
use crate::pattern::syntax;
use crate::runtime::patterns::Bounds;
use crate::runtime::tables::NoTables;

const RULES: &str = "\
kind: rule\nname: busy\ntime: {idle_after: 10s}\nmatch: {absent: {within: 1m, after: {id: a, topic: one}, expect: {id: b, topic: two}}}\n\
---\n\
kind: rule\nname: quiet\ntime: {idle_after: 10s}\nmatch: {absent: {within: 1m, after: {id: a, topic: one}, expect: {id: b, topic: two}}}\n";

struct World {
    partition: RulesPartition,
    now: Timestamp,
    batch: Batch,
}

impl World {
    fn new() -> Self {
        let bounds = Bounds {
            max_depth: 8,
            max_payload_bytes: 1_000,
            at_once: usize::MAX,
        };
        let mut world = Self {
            partition: RulesPartition::new(Arc::new(NoTables)),
            now: Timestamp(0),
            batch: Batch::new(bounds),
        };
        let rules: Vec<_> = syntax::parse(RULES, None).expect("valid");
        let partition = &mut world.partition;
        partition.begin(world.now).expect("nothing was saved");
        let rules = RuleSet::new(1, rules.into());
        assert!(partition.apply_rules(&rules, &|_| None, world.now, &mut world.batch));
        world
    }

    fn take(&mut self, value: &[u8]) {
        let taken = self.partition.take(value, self.now, &mut self.batch);
        taken.expect("a signal");
    }

    /// Both topics have come to `at`.
    fn come_to(&mut self, at: i64) {
        for topic in ["one", "two"] {
            let mut value = Vec::new();
            let watermark = WatermarkParts {
                topic,
                partition: 0,
                partitions: 1,
                clock: "",
                at: Timestamp(at),
            };
            encode_watermark(&watermark, &mut value);
            self.take(&value);
        }
    }

    fn event(&mut self, rule: &str, at: i64) {
        let mut value = Vec::new();
        let event = EventParts {
            rule,
            version: 1,
            key: b"[]",
            topic: "one",
            partition: 0,
            offset: at,
            at: Timestamp(at),
            payload: &Json::from_text("{}").expect("JSON"),
            begins: true,
        };
        encode_event(&event, &mut value);
        self.take(&value);
    }

    /// The rules that looks up to `now` found something to do for.
    fn look(&mut self, now: i64) -> Vec<RuleId> {
        let mut room = usize::MAX;
        loop {
            let next = self.now + LOOK_AT_REST_EVERY;
            self.now = next.min(Timestamp(now));
            self.partition.begin_look(self.now, true);
            self.partition
                .move_time(self.now, &mut room, &mut self.batch);
            if self.now >= Timestamp(now) {
                break;
            }
        }
        let touched = self.partition.agenda.touched().iter().cloned().collect();
        self.partition.save(true, &mut self.batch);
        touched
    }
}

#[test]
fn a_rule_that_nothing_is_due_of_is_not_touched_and_comes_as_far_as_the_others() {
    let mut world = World::new();
    world.come_to(10_000);
    assert_eq!(world.look(0), ["busy@1", "quiet@1"], "both are new");
    assert!(!world.partition.is_waiting(), "neither has anything");
    world.event("busy", 10_000);
    assert_eq!(world.look(1_000), ["busy@1"]);
    assert!(world.partition.is_waiting());
    assert_eq!(world.look(2_000), [""; 0], "what it waits for is not due");
    // All sources are idle, and time goes on with the wall clock; then one speaks again.
    assert_eq!(world.look(40_000), [""; 0]);
    world.come_to(20_000);
    assert_eq!(world.look(40_000), [""; 0]);
    let levels = world.partition.levels();
    let reached = Some(Timestamp(40_000));
    assert_eq!(levels["quiet@1"].watermark, reached);
    assert_eq!(levels["busy@1"].watermark, reached);
    world.event("quiet", 30_000);
    let refused = world.batch.refused.pop().expect("time had come to 40 s");
    assert_eq!(refused.failure.class, "late");
    assert_eq!(world.look(40_000), ["quiet@1"]);
    world.come_to(70_000);
    assert!(world.batch.matched.is_empty());
    assert_eq!(
        world.look(41_000),
        ["busy@1"],
        "nothing came within a minute"
    );
    assert_eq!(world.batch.matched.len(), 1);
    assert!(!world.partition.is_waiting());
}

#[test]
fn who_was_not_listened_to_is_not_idle_and_a_clock_set_back_holds_nothing_up() {
    let mut world = World::new();
    world.come_to(10_000);
    world.look(0);
    let watermark = |world: &World| world.partition.levels()["busy@1"].watermark;
    let look_once = |world: &mut World, now: i64, is_hearing: bool, told: Option<i64>| {
        world.now = Timestamp(now);
        world.partition.begin_look(world.now, is_hearing);
        if let Some(at) = told {
            world.come_to(at);
        }
        let (room, batch) = (&mut 9, &mut world.batch);
        world.partition.move_time(Timestamp(now), room, batch);
        world.partition.save(true, &mut world.batch);
    };
    look_once(&mut world, 100_000, true, None);
    let at = |at: i64| Some(Timestamp(at));
    assert_eq!(watermark(&world), at(10_000), "a worker that stalled");
    look_once(&mut world, 40_000, true, Some(11_000));
    world.look(50_000);
    assert_eq!(watermark(&world), at(11_000), "the clock was set back");
    look_once(&mut world, 90_000, true, Some(12_000));
    world.look(100_000);
    assert_eq!(watermark(&world), at(12_000), "and forth");
    for now in 101..200 {
        look_once(&mut world, now * 1_000, false, None);
    }
    assert_eq!(watermark(&world), at(12_000), "the brokers are away");
    world.look(202_000);
    assert_eq!(watermark(&world), at(15_000), "idle for three seconds");
}

#[test]
fn what_is_due_at_once_is_done_as_far_as_there_is_room_and_then_the_rest() {
    let mut world = World::new();
    world.come_to(10_000);
    world.look(0);
    world.event("busy", 10_000);
    world.event("quiet", 10_000);
    world.look(0);
    world.come_to(70_000);
    for (matched, is_behind) in [(0, true), (1, true), (2, false), (2, false)] {
        let mut room = usize::from(matched > 0);
        let partition = &mut world.partition;
        partition.move_time(Timestamp(1_000), &mut room, &mut world.batch);
        partition.save(false, &mut world.batch);
        assert_eq!(world.batch.matched.len(), matched);
        assert_eq!(partition.is_behind, is_behind);
    }
}

#[test]
fn what_was_known_under_another_definition_is_forgotten_part_by_part() {
    let mut world = World::new();
    world.partition = RulesPartition::new(Arc::new(NoTables));
    let partition = &mut world.partition;
    let rules: Vec<_> = syntax::parse(RULES, None).expect("valid");
    let id = rules[0].id();
    let parts = 0..=FORGOTTEN_AT_ONCE as u32;
    parts.for_each(|part| partition.remember(entry(&id, "[]", part), Some(&[])));
    let times = state::encode_times(Default::default(), [0; 16]);
    partition.remember(PatternKey::Progress { rule: id }, Some(&times));
    let rules = RuleSet::new(1, rules.into());
    for (gone, is_behind) in [(FORGOTTEN_AT_ONCE, true), (FORGOTTEN_AT_ONCE + 2, false)] {
        assert!(partition.apply_rules(&rules, &|_| None, world.now, &mut world.batch));
        partition.move_time(world.now, &mut 1, &mut world.batch);
        let found = (world.batch.entries.len(), partition.is_behind);
        assert_eq!(found, (gone, is_behind));
    }
}

#[test]
fn rules_that_go_have_come_as_far_as_those_that_take_their_place() {
    let mut world = World::new();
    world.come_to(10_000);
    world.look(0);
    world.event("quiet", 10_000);
    world.look(0);
    world.come_to(40_000);
    world.look(1_000);
    let rules: Vec<_> = syntax::parse(RULES, None).expect("valid");
    let known = |_: &str| None;
    let (partition, batch) = (&mut world.partition, &mut world.batch);
    let rules = RuleSet::new(2, Arc::from(&rules[..1]));
    assert!(partition.apply_rules(&rules, &known, world.now, batch));
    assert_eq!(world.look(2_000), ["busy@1", "quiet@1"]);
    assert_eq!(
        world.look(2_000),
        ["quiet@1"],
        "it goes when it holds nothing"
    );
    assert_eq!(
        world.partition.levels()["quiet@1"].watermark,
        Some(Timestamp(40_000))
    );
    world.come_to(70_000);
    world.look(3_000);
    assert_eq!(
        world.batch.matched.len(),
        1,
        "the deadline that it waited for"
    );
    assert!(!world.partition.levels().contains_key("quiet@1"));
    assert!(!world.partition.is_waiting());
}

#[test]
fn what_comes_while_no_rule_reads_a_topic_is_not_late_for_one_that_comes_back() {
    let mut world = World::new();
    world.come_to(10_000);
    world.look(0);
    let none = RuleSet::new(2, Arc::from([]));
    let (partition, batch) = (&mut world.partition, &mut world.batch);
    assert!(partition.apply_rules(&none, &|_| None, world.now, batch));
    world.look(1_000);
    let rules: Vec<_> = syntax::parse(RULES, None).expect("valid");
    let rules = RuleSet::new(3, rules.into());
    world.now = Timestamp(300_000);
    let (partition, batch) = (&mut world.partition, &mut world.batch);
    assert!(partition.apply_rules(&rules, &|_| None, world.now, batch));
    world.look(300_000);
    world.event("busy", 20_000);
    world.look(300_000);
    assert!(world.batch.refused.is_empty());
    assert_eq!(world.partition.levels()["busy@1"].keys, 1);
}
