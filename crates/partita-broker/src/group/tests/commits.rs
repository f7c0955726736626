use super::*;
use crate::group::CommitClaim;

const NOBODY: CommitClaim<'static> = CommitClaim {
    generation: -1,
    member_id: "",
    instance_id: None,
    is_transactional: false,
};

fn by(joined: &Joined) -> CommitClaim<'_> {
    CommitClaim {
        generation: joined.generation,
        member_id: &joined.member_id,
        ..NOBODY
    }
}

fn transactional(claim: CommitClaim<'_>) -> CommitClaim<'_> {
    CommitClaim {
        is_transactional: true,
        ..claim
    }
}

#[test]
fn without_members_anyone_without_a_generation_may_commit() {
    let mut lab = Lab::new();
    let mut check = |claim| lab.coordinator.check_commit(GROUP, claim, 0);
    assert_eq!(check(NOBODY), Ok(()));
    assert_eq!(check(transactional(NOBODY)), Ok(()));
    let of_a_lost_generation = CommitClaim {
        generation: 3,
        member_id: "a-1",
        ..NOBODY
    };
    assert_eq!(
        check(of_a_lost_generation),
        Err(GroupError::UnknownMemberId)
    );
    let a = lab.stable(&["a"]).remove(0);
    lab.leave(&a.member_id).0.unwrap();
    let mut check = |claim| lab.coordinator.check_commit(GROUP, claim, lab.now);
    assert_eq!(check(NOBODY), Ok(()));
    assert_eq!(check(by(&a)), Err(GroupError::UnknownMemberId));
}

#[test]
fn in_a_group_members_of_the_generation_commit() {
    let mut lab = Lab::new();
    let a = lab.stable(&["a"]).remove(0);
    let mut check = |claim| lab.coordinator.check_commit(GROUP, claim, lab.now);
    let stale = CommitClaim {
        generation: a.generation - 1,
        ..by(&a)
    };
    let stranger = CommitClaim {
        member_id: "b",
        ..by(&a)
    };
    let fenced = CommitClaim {
        instance_id: Some("i"),
        ..by(&a)
    };
    assert_eq!(check(by(&a)), Ok(()));
    assert_eq!(check(stale), Err(GroupError::IllegalGeneration));
    assert_eq!(check(stranger), Err(GroupError::UnknownMemberId));
    assert_eq!(check(fenced), Err(GroupError::UnknownMemberId));
    assert_eq!(check(NOBODY), Err(GroupError::UnknownMemberId));
    assert_eq!(check(transactional(by(&a))), Ok(()));
    assert_eq!(
        check(transactional(stale)),
        Err(GroupError::IllegalGeneration)
    );
    assert_eq!(
        check(transactional(stranger)),
        Err(GroupError::UnknownMemberId)
    );
    assert_eq!(
        check(transactional(NOBODY)),
        Ok(()),
        "older producers name no member"
    );
}

#[test]
fn a_rebalance_lets_the_old_generation_finish() {
    let mut lab = Lab::new();
    let a = lab.stable(&["a"]).remove(0);
    let (_, out) = lab.join(newcomer("b"));
    assert!(out.is_empty());
    let now = lab.now;
    assert_eq!(lab.coordinator.check_commit(GROUP, by(&a), now), Ok(()));
    let (ticket, out) = lab.join(member(&a.member_id));
    let a = join_answer(ticket, &out).unwrap().unwrap();
    assert_eq!(
        lab.coordinator.check_commit(GROUP, by(&a), now),
        Err(GroupError::RebalanceInProgress)
    );
}

#[test]
fn a_commit_is_a_sign_of_life() {
    let mut lab = Lab::new();
    let a = lab.stable(&["a"]).remove(0);
    for _ in 0..3 {
        lab.advance(SESSION_MS - 1);
        let now = lab.now;
        assert_eq!(lab.coordinator.check_commit(GROUP, by(&a), now), Ok(()));
    }
    lab.advance(SESSION_MS);
    assert_eq!(lab.state(), GroupState::Empty);
}
