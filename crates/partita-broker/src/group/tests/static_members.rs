use super::*;

/// A stable group of two static members `x` and `y`; `x` leads.
fn pair(lab: &mut Lab) -> (Joined, Joined) {
    let x = lab.join_now(static_newcomer("x")).unwrap();
    lab.sync_now(sync_of(&x, &[])).unwrap();
    let (ticket_y, _) = lab.join(static_newcomer("y"));
    let (ticket_x, out) = lab.join(JoinRequest {
        member_id: x.member_id.clone(),
        ..static_newcomer("x")
    });
    let x = join_answer(ticket_x, &out).unwrap().unwrap();
    let y = join_answer(ticket_y, &out).unwrap().unwrap();
    lab.sync_all(&[x.clone(), y.clone()]);
    (x, y)
}

#[test]
fn a_restarted_member_keeps_its_assignment_without_a_rebalance() {
    let mut lab = Lab::new();
    let (_, y) = pair(&mut lab);
    let back = lab.join_now(static_newcomer("y")).unwrap();
    assert_ne!(back.member_id, y.member_id);
    assert_eq!(back.generation, y.generation);
    assert_eq!(lab.state(), GroupState::Stable);
    let synced = lab.sync_now(sync_of(&back, &[])).unwrap();
    assert_eq!(synced.assignment, Bytes::from(y.member_id.clone()));
    assert_eq!(
        lab.heartbeat_as(&y.member_id, Some("y"), y.generation),
        Err(GroupError::FencedInstanceId)
    );
    assert_eq!(
        lab.heartbeat_as(&back.member_id, Some("y"), y.generation),
        Ok(())
    );
}

#[test]
fn a_restarted_leader_leads_but_need_not_assign() {
    let mut lab = Lab::new();
    let (x, _) = pair(&mut lab);
    let back = lab.join_now(static_newcomer("x")).unwrap();
    assert_eq!(back.leader, back.member_id);
    assert!(back.skip_assignment);
    assert_eq!(back.members.len(), 2);
    let older_client = JoinRequest {
        supports_skipping_assignment: false,
        ..static_newcomer("x")
    };
    let again = lab.join_now(older_client).unwrap();
    assert_eq!(
        again.leader, back.member_id,
        "its former self appears to lead"
    );
    assert!(!again.skip_assignment);
    assert_eq!(again.generation, x.generation);
}

#[test]
fn what_a_restart_forgets_is_no_reason_to_rebalance_but_other_topics_are() {
    let mut lab = Lab::new();
    let (_, y) = pair(&mut lab);
    let mut with_state = protocol("range", &["t"]);
    let mut metadata = with_state.metadata.to_vec();
    metadata.extend([0, 0, 0, 3, 1, 2, 3]);
    with_state.metadata = metadata.into();
    let same_topics = JoinRequest {
        protocols: vec![with_state],
        ..static_newcomer("y")
    };
    let back = lab.join_now(same_topics).unwrap();
    assert_eq!(back.generation, y.generation);
    let other_topics = JoinRequest {
        protocols: vec![protocol("range", &["u"])],
        ..static_newcomer("y")
    };
    assert!(lab.join(other_topics).1.is_empty());
    assert_eq!(lab.state(), GroupState::PreparingRebalance);
}

#[test]
fn an_instance_id_has_one_owner() {
    let mut lab = Lab::new();
    let (x, y) = pair(&mut lab);
    let impostor = JoinRequest {
        member_id: y.member_id.clone(),
        ..static_newcomer("x")
    };
    let refusal = lab.join_now(impostor).unwrap_err();
    assert_eq!(refusal.error, GroupError::FencedInstanceId);
    let mut sync = sync_of(&y, &[]);
    sync.instance_id = Some("x".to_owned());
    assert_eq!(lab.sync_now(sync), Err(GroupError::FencedInstanceId));
    let stranger = JoinRequest {
        member_id: x.member_id,
        ..static_newcomer("z")
    };
    let refusal = lab.join_now(stranger).unwrap_err();
    assert_eq!(refusal.error, GroupError::UnknownMemberId);
}

#[test]
fn a_restart_fences_the_former_self_while_it_waits() {
    let mut lab = Lab::new();
    let x = lab.stable(&["x"]).remove(0);
    let (waiting, out) = lab.join(static_newcomer("y"));
    assert!(out.is_empty());
    let (back, out) = lab.join(static_newcomer("y"));
    let refusal = join_answer(waiting, &out).unwrap().unwrap_err();
    assert_eq!(refusal.error, GroupError::FencedInstanceId);
    let (_, out) = lab.join(member(&x.member_id));
    assert_eq!(out.len(), 2);
    assert!(join_answer(back, &out).unwrap().is_ok());
}

#[test]
fn an_absent_static_member_stays_until_its_session_ends() {
    let mut lab = Lab::new();
    let (x, y) = pair(&mut lab);
    let impatient = |request| JoinRequest {
        rebalance_timeout_ms: 1_000,
        ..request
    };
    // Both ask for a short rebalance, so that it ends before y's session.
    let (_, _) = lab.join(impatient(JoinRequest {
        member_id: y.member_id.clone(),
        protocols: vec![protocol("range", &["t", "u"])],
        ..static_newcomer("y")
    }));
    let (ticket, out) = lab.join(impatient(JoinRequest {
        member_id: x.member_id.clone(),
        ..static_newcomer("x")
    }));
    let x = join_answer(ticket, &out).unwrap().unwrap();
    lab.sync_now(SyncRequest {
        assignments: vec![(y.member_id.clone(), Bytes::from_static(b"y"))],
        ..sync_of(&x, &[])
    })
    .unwrap();
    let y = lab.present(&y.member_id);
    lab.sync_now(sync_of(&y, &[])).unwrap();
    // x asks for a rebalance, y does not answer.
    let (ticket, out) = lab.join(impatient(JoinRequest {
        member_id: x.member_id.clone(),
        protocols: vec![protocol("range", &["v"])],
        ..static_newcomer("x")
    }));
    assert!(out.is_empty());
    let out = lab.advance(1_000);
    let x = join_answer(ticket, &out).unwrap().unwrap();
    assert_eq!(x.members.len(), 2, "y counts although it did not join");
    lab.sync_now(sync_of(&x, &[])).unwrap();
    lab.advance(5_000);
    let x_instance = Some("x");
    assert_eq!(
        lab.heartbeat_as(&x.member_id, x_instance, x.generation),
        Ok(())
    );
    lab.advance(SESSION_MS - 6_000);
    assert_eq!(
        lab.heartbeat_as(&x.member_id, x_instance, x.generation),
        Err(GroupError::RebalanceInProgress),
        "y's session has ended"
    );
}

#[test]
fn an_administrator_removes_by_instance_id() {
    let mut lab = Lab::new();
    let (x, y) = pair(&mut lab);
    assert_eq!(
        lab.leave_as("", Some("z")).0,
        Err(GroupError::UnknownMemberId)
    );
    assert_eq!(
        lab.leave_as(&x.member_id, Some("y")).0,
        Err(GroupError::FencedInstanceId)
    );
    assert_eq!(lab.leave_as("", Some("y")).0, Ok(()));
    assert_eq!(
        lab.heartbeat_as(&y.member_id, Some("y"), y.generation),
        Err(GroupError::UnknownMemberId)
    );
}

#[test]
fn a_group_of_absent_static_members_waits_and_then_empties() {
    let mut lab = Lab::new();
    let (x, _) = pair(&mut lab);
    lab.join(JoinRequest {
        member_id: x.member_id.clone(),
        ..static_newcomer("x")
    });
    lab.leave_as("", Some("x")).0.unwrap();
    assert_eq!(lab.state(), GroupState::PreparingRebalance);
    lab.advance(SESSION_MS);
    assert_eq!(lab.state(), GroupState::Empty);
}
