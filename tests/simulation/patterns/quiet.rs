//! Sources that fall silent: what the stage tells of its rules goes on with the wall clock.

use super::*;

#[test]
fn what_is_told_of_a_rule_goes_on_with_time_where_all_sources_are_silent() {
    let rule = "kind: rule\nname: r\ntime: {idle_after: 10s}\nmatch: {any: [{id: a, topic: t}]}";
    let rule = syntax::parse(rule, None).expect("a rule").remove(0);
    let mut world = World::new(&rule);
    world.event("t", Timestamp(1_000), &Json::from(json!({})), 0);
    for (waited, expected) in [(0, 1_000), (9_000, 1_000), (51_000, 51_000)] {
        // A worker looks at least once a second: what lies between two looks that are further apart is no silence.
        for _ in 0..waited / 1_000 {
            world.now = world.now + Millis(1_000);
            world.settle();
        }
        world.settle();
        world.worker.as_ref().expect("it was started").observe();
        let level = world.shared.rules().rules().remove(0).level;
        let come_to = level.expect("it is at work").watermark;
        assert_eq!(come_to, Some(Timestamp(expected)), "after {waited}");
    }
}
