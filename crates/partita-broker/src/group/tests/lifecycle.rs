use super::*;

#[test]
fn a_group_without_members_is_empty_and_later_forgotten() {
    let mut lab = Lab::new();
    let a = lab.stable(&["a"]).remove(0);
    lab.leave(&a.member_id).0.unwrap();
    assert_eq!(lab.state(), GroupState::Empty);
    assert_eq!(lab.generation(), a.generation + 1);
    lab.advance(GroupLimits::default().empty_group_retention_ms - 1);
    assert_eq!(lab.state(), GroupState::Empty);
    lab.advance(1);
    assert_eq!(lab.state(), GroupState::Dead);
    assert_eq!(lab.coordinator.next_deadline(), None);
}

#[test]
fn the_generation_goes_on_where_an_empty_group_left_off() {
    let mut lab = Lab::new();
    let a = lab.stable(&["a"]).remove(0);
    lab.leave(&a.member_id).0.unwrap();
    let b = lab.join_now(newcomer("b")).unwrap();
    assert_eq!(b.generation, a.generation + 2);
    assert_eq!(lab.heartbeat(&a), Err(GroupError::UnknownMemberId));
}

#[test]
fn members_leave_in_batches_and_each_is_told() {
    let mut lab = Lab::new();
    let members = lab.stable(&["a", "b", "c"]);
    let leaving = |id: &str| LeavingMember {
        member_id: id.to_owned(),
        instance_id: None,
    };
    let batch = vec![
        leaving(&members[0].member_id),
        leaving("nobody"),
        leaving(&members[1].member_id),
    ];
    let (outcomes, _) = lab.coordinator.leave(GROUP, batch, lab.now);
    let results: Vec<_> = outcomes.iter().map(|o| o.result).collect();
    assert_eq!(results, [Ok(()), Err(GroupError::UnknownMemberId), Ok(())]);
    let last = lab.join_now(member(&members[2].member_id)).unwrap();
    assert_eq!(last.members.len(), 1);
}

#[test]
fn a_departure_completes_the_rebalance_of_the_rest() {
    let mut lab = Lab::new();
    let members = lab.stable(&["a", "b"]);
    let (ticket, out) = lab.join(newcomer("c"));
    assert!(out.is_empty());
    lab.leave(&members[0].member_id).0.unwrap();
    let (_, out) = lab.leave(&members[1].member_id);
    assert_eq!(join_answer(ticket, &out).unwrap().unwrap().members.len(), 1);
}

#[test]
fn who_has_yet_to_come_back_with_its_id_can_leave() {
    let mut lab = Lab::new();
    let ask = JoinRequest {
        requires_known_member_id: true,
        ..newcomer("a")
    };
    let id = lab.join_now(ask).unwrap_err().member_id;
    let (ticket, _) = lab.join(newcomer("b"));
    let (result, out) = lab.leave(&id);
    assert_eq!(result, Ok(()));
    assert!(join_answer(ticket, &out).unwrap().is_ok());
}

#[test]
fn leaving_answers_what_the_member_waits_for() {
    let mut lab = Lab::new();
    let a = lab.stable(&["a"]).remove(0);
    lab.join(JoinRequest {
        requires_known_member_id: true,
        ..newcomer("b")
    });
    let changed = JoinRequest {
        protocols: vec![protocol("range", &["u"])],
        ..member(&a.member_id)
    };
    let (waiting, out) = lab.join(changed);
    assert!(out.is_empty(), "waits for b to come back");
    let (result, out) = lab.leave(&a.member_id);
    assert_eq!(result, Ok(()));
    let refusal = join_answer(waiting, &out).unwrap().unwrap_err();
    assert_eq!(refusal.error, GroupError::UnknownMemberId);
}

#[test]
fn limits_hold() {
    let limits = GroupLimits {
        max_members: 2,
        max_groups: 1,
        ..GroupLimits::default()
    };
    let mut lab = Lab::with_limits(limits);
    lab.stable(&["a", "b"]);
    let mut refused = |request| lab.join_now(request).unwrap_err().error;
    assert_eq!(refused(newcomer("c")), GroupError::GroupMaxSizeReached);
    type Change = fn(&mut JoinRequest);
    let cases: [(Change, GroupError); 10] = [
        (|r| r.group_id = String::new(), GroupError::InvalidGroupId),
        (
            |r| r.group_id = "g".repeat(5_000),
            GroupError::InvalidGroupId,
        ),
        (|r| r.group_id = "h".into(), GroupError::TooManyGroups),
        (
            |r| r.session_timeout_ms = 0,
            GroupError::InvalidSessionTimeout,
        ),
        (
            |r| r.session_timeout_ms = 86_400_000,
            GroupError::InvalidSessionTimeout,
        ),
        (
            |r| r.protocols[0].metadata = vec![0; 2 << 20].into(),
            GroupError::TooLarge,
        ),
        (|r| r.client_id = "c".repeat(5_000), GroupError::TooLarge),
        (
            |r| r.protocol_type = "c".repeat(5_000),
            GroupError::TooLarge,
        ),
        (
            |r| {
                let none = Protocol {
                    name: String::new(),
                    metadata: Bytes::new(),
                };
                r.protocols = vec![none; 101];
            },
            GroupError::TooLarge,
        ),
        (
            |r| r.instance_id = Some("i".repeat(5_000)),
            GroupError::TooLarge,
        ),
    ];
    for (change, error) in cases {
        let mut request = newcomer("d");
        change(&mut request);
        assert_eq!(refused(request), error);
    }
}

#[test]
fn ids_given_out_count_towards_the_size_of_the_group() {
    let mut lab = Lab::with_limits(GroupLimits {
        max_members: 2,
        ..GroupLimits::default()
    });
    let ask = || JoinRequest {
        requires_known_member_id: true,
        ..newcomer("a")
    };
    let errors: Vec<_> = (0..3)
        .map(|_| lab.join_now(ask()).unwrap_err().error)
        .collect();
    assert_eq!(
        errors,
        [
            GroupError::MemberIdRequired,
            GroupError::MemberIdRequired,
            GroupError::GroupMaxSizeReached
        ]
    );
}

#[test]
fn groups_are_listed_described_and_deleted() {
    let mut lab = Lab::new();
    let members = lab.stable(&["a", "b"]);
    let listed = lab.coordinator.list();
    assert_eq!(listed.len(), 1);
    assert_eq!(listed[0].protocol_type, "consumer");
    assert_eq!(listed[0].state.to_string(), "Stable");
    let description = lab.coordinator.describe(GROUP).unwrap();
    assert_eq!(description.protocol, "range");
    assert_eq!(description.members.len(), 2);
    for shown in &description.members {
        assert_eq!(shown.assignment, Bytes::from(shown.member_id.clone()));
        assert_eq!(shown.client_host, "/127.0.0.1");
    }
    assert!(lab.coordinator.is_subscribed(GROUP, "t"));
    assert!(!lab.coordinator.is_subscribed(GROUP, "u"));
    assert_eq!(
        lab.coordinator.delete(GROUP),
        Err(GroupError::NonEmptyGroup)
    );
    for gone in members {
        lab.leave(&gone.member_id).0.unwrap();
    }
    assert!(!lab.coordinator.is_subscribed(GROUP, "t"));
    assert_eq!(lab.coordinator.delete(GROUP), Ok(true));
    assert_eq!(lab.coordinator.delete(GROUP), Ok(false));
    assert_eq!(lab.coordinator.next_deadline(), None);
}

#[test]
fn unreadable_subscriptions_count_as_everything() {
    let mut lab = Lab::new();
    let odd = JoinRequest {
        protocols: vec![Protocol {
            name: "own".to_owned(),
            metadata: Bytes::from_static(&[0, 1, 255, 255]),
        }],
        ..newcomer("a")
    };
    lab.join_now(odd).unwrap();
    assert!(lab.coordinator.is_subscribed(GROUP, "anything"));
}
