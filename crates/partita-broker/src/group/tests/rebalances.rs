use super::*;

#[test]
fn a_lone_member_leads_the_first_generation() {
    let mut lab = Lab::new();
    let joined = lab.join_now(newcomer("a")).unwrap();
    assert_eq!(joined.generation, 1);
    assert_eq!(joined.leader, joined.member_id);
    assert_eq!(joined.protocol, "range");
    assert_eq!(joined.members.len(), 1);
    assert!(joined.member_id.starts_with("a-"));
    assert_eq!(lab.state(), GroupState::CompletingRebalance);
    let synced = lab
        .sync_now(sync_of(&joined, &[&joined.member_id]))
        .unwrap();
    assert_eq!(synced.assignment, Bytes::from(joined.member_id.clone()));
    assert_eq!(lab.state(), GroupState::Stable);
    assert_eq!(lab.heartbeat(&joined), Ok(()));
}

#[test]
fn newer_clients_first_get_an_id_and_join_with_it() {
    let mut lab = Lab::new();
    let ask = JoinRequest {
        requires_known_member_id: true,
        ..newcomer("a")
    };
    let refusal = lab.join_now(ask.clone()).unwrap_err();
    assert_eq!(refusal.error, GroupError::MemberIdRequired);
    assert_eq!(lab.state(), GroupState::Empty);
    let back = JoinRequest {
        member_id: refusal.member_id.clone(),
        ..ask
    };
    let joined = lab.join_now(back).unwrap();
    assert_eq!(joined.member_id, refusal.member_id);
}

#[test]
fn an_id_that_nobody_comes_back_with_lapses() {
    let mut lab = Lab::new();
    let ask = JoinRequest {
        requires_known_member_id: true,
        ..newcomer("a")
    };
    let id = lab.join_now(ask.clone()).unwrap_err().member_id;
    lab.advance(SESSION_MS);
    let back = JoinRequest {
        member_id: id,
        ..ask
    };
    let refusal = lab.join_now(back).unwrap_err();
    assert_eq!(refusal.error, GroupError::UnknownMemberId);
}

#[test]
fn a_rebalance_waits_for_ids_given_out_but_not_for_ever() {
    let mut lab = Lab::new();
    let ask = JoinRequest {
        requires_known_member_id: true,
        ..newcomer("slow")
    };
    lab.join_now(ask).unwrap_err();
    let (ticket, out) = lab.join(newcomer("a"));
    assert!(out.is_empty());
    let out = lab.advance(SESSION_MS);
    let joined = join_answer(ticket, &out).unwrap().unwrap();
    assert_eq!(joined.members.len(), 1);
}

#[test]
fn a_newcomer_calls_the_others_to_join() {
    let mut lab = Lab::new();
    let a = lab.stable(&["a"]).remove(0);
    let (ticket, out) = lab.join(newcomer("b"));
    assert!(out.is_empty());
    assert_eq!(lab.heartbeat(&a), Err(GroupError::RebalanceInProgress));
    let (again, out) = lab.join(member(&a.member_id));
    let a = join_answer(again, &out).unwrap().unwrap();
    let b = join_answer(ticket, &out).unwrap().unwrap();
    assert_eq!((a.generation, b.generation), (2, 2));
    assert_eq!(a.leader, a.member_id, "the leader stays");
    assert_eq!((a.members.len(), b.members.len()), (2, 0));
    lab.sync_all(&[a, b]);
}

#[test]
fn who_misses_the_rebalance_is_out() {
    let mut lab = Lab::new();
    let members = lab.stable(&["a", "b"]);
    let (ticket, _) = lab.join(newcomer("c"));
    let (again, _) = lab.join(member(&members[1].member_id));
    let mut out = Vec::new();
    for _ in 0..REBALANCE_MS / 5_000 {
        // Alive, but busy with what it has.
        let _ = lab.heartbeat(&members[0]);
        out.extend(lab.advance(5_000));
    }
    let b = join_answer(again, &out).unwrap().unwrap();
    let c = join_answer(ticket, &out).unwrap().unwrap();
    assert_eq!(b.leader, c.leader);
    lab.sync_all(&[b, c]);
    assert_eq!(lab.heartbeat(&members[0]), Err(GroupError::UnknownMemberId));
}

#[test]
fn silence_ends_a_session() {
    let mut lab = Lab::new();
    let members = lab.stable(&["a", "b"]);
    lab.advance(SESSION_MS - 1);
    assert_eq!(lab.heartbeat(&members[0]), Ok(()));
    lab.advance(1);
    assert_eq!(lab.heartbeat(&members[1]), Err(GroupError::UnknownMemberId));
    assert_eq!(
        lab.heartbeat(&members[0]),
        Err(GroupError::RebalanceInProgress)
    );
    let joined = lab.join_now(member(&members[0].member_id)).unwrap();
    assert_eq!(joined.members.len(), 1);
}

#[test]
fn those_who_wait_are_not_silent() {
    let mut lab = Lab::new();
    let members = lab.stable(&["a", "b"]);
    let (ticket, _) = lab.join(JoinRequest {
        protocols: vec![protocol("range", &["t", "u"])],
        ..member(&members[0].member_id)
    });
    for _ in 0..4 {
        let _ = lab.heartbeat(&members[1]);
        assert!(lab.advance(SESSION_MS - 1).is_empty());
    }
    let (_, out) = lab.join(member(&members[1].member_id));
    assert!(join_answer(ticket, &out).unwrap().is_ok());
}

#[test]
fn a_newcomer_does_not_wait_for_ever() {
    let mut lab = Lab::new();
    let a = lab.stable(&["a"]).remove(0);
    let patient = JoinRequest {
        rebalance_timeout_ms: 3_600_000,
        ..newcomer("b")
    };
    let (ticket, _) = lab.join(patient);
    let mut out = Vec::new();
    for _ in 0..31 {
        let _ = lab.heartbeat(&a);
        out.extend(lab.advance(9_999));
    }
    let refusal = join_answer(ticket, &out).unwrap().unwrap_err();
    assert_eq!(refusal.error, GroupError::UnknownMemberId);
}

#[test]
fn a_lost_join_answer_is_repeated() {
    let mut lab = Lab::new();
    let (ticket_a, out) = lab.join(newcomer("a"));
    let a = join_answer(ticket_a, &out).unwrap().unwrap();
    let repeated = lab.join_now(member(&a.member_id)).unwrap();
    assert_eq!(repeated, a);
    assert_eq!(lab.generation(), 1);
}

#[test]
fn the_leader_can_ask_for_a_rebalance_and_followers_cannot_by_accident() {
    let mut lab = Lab::new();
    let members = lab.stable(&["a", "b"]);
    let generation = lab.generation();
    let (leader, follower) = match members[0].leader == members[0].member_id {
        true => (&members[0], &members[1]),
        false => (&members[1], &members[0]),
    };
    let same = lab.join_now(member(&follower.member_id)).unwrap();
    assert_eq!(same.generation, generation);
    assert_eq!(lab.state(), GroupState::Stable);
    let (_, out) = lab.join(member(&leader.member_id));
    assert!(out.is_empty());
    assert_eq!(lab.state(), GroupState::PreparingRebalance);
}

#[test]
fn a_changed_subscription_rebalances() {
    let mut lab = Lab::new();
    let a = lab.stable(&["a"]).remove(0);
    let changed = JoinRequest {
        protocols: vec![protocol("range", &["t", "u"])],
        ..member(&a.member_id)
    };
    let again = lab.join_now(changed).unwrap();
    assert_eq!(again.generation, a.generation + 1);
}

#[test]
fn a_join_during_completion_calls_back_those_who_synced() {
    let mut lab = Lab::new();
    let a = lab.stable(&["a"]).remove(0);
    let (ticket_b, _) = lab.join(newcomer("b"));
    let (_, out) = lab.join(member(&a.member_id));
    let b = join_answer(ticket_b, &out).unwrap().unwrap();
    let (waiting, out) = lab.sync(sync_of(&b, &[]));
    assert!(out.is_empty());
    let (_, out) = lab.join(newcomer("c"));
    assert_eq!(
        sync_answer(waiting, &out),
        Some(Err(GroupError::RebalanceInProgress))
    );
}

#[test]
fn members_that_never_sync_are_given_up() {
    let mut lab = Lab::new();
    let a = lab.stable(&["a"]).remove(0);
    let (ticket_b, _) = lab.join(newcomer("b"));
    let (ticket_a, out) = lab.join(member(&a.member_id));
    let a = join_answer(ticket_a, &out).unwrap().unwrap();
    let b = join_answer(ticket_b, &out).unwrap().unwrap();
    lab.sync_now(sync_of(&a, &[])).unwrap();
    for _ in 0..REBALANCE_MS / 5_000 {
        assert_eq!(lab.heartbeat(&a), Ok(()));
        assert_eq!(lab.heartbeat(&b), Ok(()), "alive, but without assignment");
        lab.advance(5_000);
    }
    assert_eq!(lab.heartbeat(&b), Err(GroupError::UnknownMemberId));
    assert_eq!(lab.heartbeat(&a), Err(GroupError::RebalanceInProgress));
}

#[test]
fn when_the_leader_goes_another_leads() {
    let mut lab = Lab::new();
    let members = lab.stable(&["a", "b"]);
    let leader = members[0].leader.clone();
    let other = members.iter().find(|m| m.member_id != leader).unwrap();
    lab.leave(&leader).0.unwrap();
    let joined = lab.join_now(member(&other.member_id)).unwrap();
    assert_eq!(joined.leader, other.member_id);
    assert_eq!(joined.members.len(), 1);
}

#[test]
fn the_protocol_most_prefer_among_the_common_ones_wins() {
    let cases: &[(&[&[&str]], &str)] = &[
        (
            &[
                &["range", "sticky"],
                &["sticky", "range"],
                &["sticky", "range"],
            ],
            "sticky",
        ),
        (
            &[&["x", "range"], &["range", "x"], &["range", "y"]],
            "range",
        ),
        (&[&["a", "b"], &["b", "a"]], "a"),
        (&[&["cooperative-sticky", "range"], &["range"]], "range"),
    ];
    for (preferences, expected) in cases {
        let mut lab = Lab::with_limits(GroupLimits {
            initial_rebalance_delay_ms: 100,
            ..GroupLimits::default()
        });
        for names in *preferences {
            let protocols = names.iter().map(|name| protocol(name, &["t"])).collect();
            let request = JoinRequest {
                protocols,
                ..newcomer("m")
            };
            assert!(lab.join(request).1.is_empty());
        }
        let out = lab.advance(REBALANCE_MS);
        assert_eq!(joined(&out[0]).protocol, *expected, "{preferences:?}");
    }
}

#[test]
fn what_has_nothing_in_common_is_refused() {
    let mut lab = Lab::new();
    let a = lab.stable(&["a"]).remove(0);
    let mut refused = |request| lab.join_now(request).unwrap_err().error;
    let other_strategy = JoinRequest {
        protocols: vec![protocol("sticky", &["t"])],
        ..newcomer("b")
    };
    let other_type = JoinRequest {
        protocol_type: "connect".to_owned(),
        ..newcomer("b")
    };
    let nothing = JoinRequest {
        protocols: Vec::new(),
        ..newcomer("b")
    };
    for request in [other_strategy.clone(), other_type, nothing] {
        assert_eq!(refused(request), GroupError::InconsistentGroupProtocol);
    }
    let alone = JoinRequest {
        member_id: a.member_id,
        ..other_strategy
    };
    let again = lab.join_now(alone).unwrap();
    assert_eq!(
        again.protocol, "sticky",
        "alone, a member may change its mind"
    );
}

#[test]
fn the_first_rebalance_can_wait_for_company() {
    let mut lab = Lab::with_limits(GroupLimits {
        initial_rebalance_delay_ms: 3_000,
        ..GroupLimits::default()
    });
    let (a, _) = lab.join(newcomer("a"));
    assert!(lab.advance(2_000).is_empty());
    let (b, _) = lab.join(newcomer("b"));
    assert!(
        lab.advance(3_999).is_empty(),
        "a newcomer prolongs the wait"
    );
    let out = lab.advance(1);
    assert!(join_answer(a, &out).unwrap().is_ok());
    assert!(join_answer(b, &out).unwrap().is_ok());
    assert_eq!(lab.generation(), 1);
}

#[test]
fn the_wait_for_company_is_bounded_by_the_rebalance_timeout() {
    let mut lab = Lab::with_limits(GroupLimits {
        initial_rebalance_delay_ms: 3_000,
        ..GroupLimits::default()
    });
    let hasty = |name| JoinRequest {
        rebalance_timeout_ms: 5_000,
        ..newcomer(name)
    };
    let (first, _) = lab.join(hasty("a"));
    let mut out = Vec::new();
    for second in 0..5 {
        assert!(join_answer(first, &out).is_none(), "after {second} s");
        lab.join(hasty("more"));
        out.extend(lab.advance(1_000));
    }
    assert!(join_answer(first, &out).unwrap().is_ok());
}

#[test]
fn of_two_joins_of_one_member_the_later_counts() {
    let mut lab = Lab::new();
    let members = lab.stable(&["a", "b"]);
    let changed = JoinRequest {
        protocols: vec![protocol("range", &["u"])],
        ..member(&members[0].member_id)
    };
    let (first, _) = lab.join(changed.clone());
    let (second, out) = lab.join(changed);
    let refusal = join_answer(first, &out).unwrap().unwrap_err();
    assert_eq!(refusal.error, GroupError::RebalanceInProgress);
    let (_, out) = lab.join(member(&members[1].member_id));
    assert!(join_answer(second, &out).unwrap().is_ok());
    assert!(
        join_answer(first, &out).is_none(),
        "a ticket is answered once"
    );
}

#[test]
fn a_sync_is_checked() {
    let mut lab = Lab::new();
    let a = lab.join_now(newcomer("a")).unwrap();
    type Change = fn(&mut SyncRequest);
    let cases: [(Change, GroupError); 6] = [
        (|r| r.member_id = "x".into(), GroupError::UnknownMemberId),
        (|r| r.group_id = "x".into(), GroupError::UnknownMemberId),
        (|r| r.generation += 1, GroupError::IllegalGeneration),
        (
            |r| r.protocol = Some("sticky".into()),
            GroupError::InconsistentGroupProtocol,
        ),
        (
            |r| r.protocol_type = Some("connect".into()),
            GroupError::InconsistentGroupProtocol,
        ),
        (
            |r| r.assignments = vec![("m".into(), vec![0; 2 << 20].into())],
            GroupError::TooLarge,
        ),
    ];
    for (change, error) in cases {
        let mut request = sync_of(&a, &[]);
        change(&mut request);
        assert_eq!(lab.sync_now(request), Err(error));
    }
    assert!(lab.sync_now(sync_of(&a, &[])).is_ok());
}
