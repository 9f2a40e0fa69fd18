//! Single rules that depend on time, which the model does not have.

use std::time::Duration;

use secrecy::zeroize::Zeroizing;

use crate::fleet::{
    record::{Limits, Publication, Record},
    steps::{Asked, Caller, Found, Held},
};

const LIMITS: Limits = Limits {
    burst: 5,
    interval: Duration::from_secs(6),
};

fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// A record with publication 2 of a token, which lives for 1000 s more.
fn record(since: Duration) -> Record {
    let mut record = Record::new(7, LIMITS);
    (record.seq, record.fence) = (2, 2);
    record.token = Some(Publication {
        id: [1; 16],
        seq: 2,
        text: Zeroizing::new("t1".to_owned()),
        lifetime: secs(1800),
        left: secs(1000),
        since,
        rejected: None,
        is_suspect: false,
    });
    record
}

/// A process that holds publication 1 of a token.
fn caller(id: u8, left: Option<Duration>) -> Caller {
    Caller {
        me: 1,
        held: Some(Held {
            id: [id; 16],
            publication: Some((7, 1)),
            left,
            age: Some(secs(800)),
        }),
        is_rejected: left.is_none(),
        limits: LIMITS,
    }
}

const ADOPT: Asked = Asked::Adopt { as_suspect: false };

fn may_refresh(asked: Asked) -> Option<bool> {
    match asked {
        Asked::Fetch { may_refresh, .. } => Some(may_refresh),
        _ => None,
    }
}

#[test]
fn a_401_just_after_a_publication_of_the_string_does_not_count() {
    let mut record = record(secs(1));
    assert_eq!(record.ask(&caller(1, None)), ADOPT);
    assert!(!record.token.unwrap().is_marked());
}

#[test]
fn a_401_during_a_fetch_waits_although_the_string_was_confirmed() {
    let mut record = record(secs(1));
    let mut holder = caller(1, Some(secs(900)));
    (holder.me, holder.held.as_mut().unwrap().publication) = (2, Some((7, 2)));
    assert_eq!(may_refresh(record.ask(&holder)), Some(true));
    assert_eq!(record.ask(&caller(1, None)), Asked::Wait(secs(3)));
    assert_eq!(
        record.find_adoptable(&caller(1, None)),
        Found::Wait(secs(3))
    );
    assert!(!record.token.as_ref().unwrap().is_marked());
    // Another string is adopted at once.
    assert_eq!(record.ask(&caller(2, None)), ADOPT);
}

#[test]
fn a_401_long_after_a_publication_of_the_string_counts() {
    let mut record = record(secs(6));
    assert_eq!(may_refresh(record.ask(&caller(1, None))), Some(false));
    assert!(record.token.unwrap().is_marked());
    assert_eq!(record.forced.left, 4);
}

#[test]
fn a_live_token_gives_way_to_one_that_lives_longer() {
    let asked = |id, left| record(secs(1)).ask(&caller(id, Some(left)));
    assert_eq!(asked(2, secs(1000)), ADOPT);
    assert_eq!(may_refresh(asked(2, secs(1001))), Some(false));
    // The same string must gain a tenth of its life, or the cache would not take it.
    assert_eq!(asked(1, secs(820)), ADOPT);
    assert_eq!(may_refresh(asked(1, secs(821))), Some(true));
}

#[test]
fn a_rejected_token_does_not_give_way_to_an_older_one() {
    // The token of the record is 800 s old.
    let asked = |publication, age| {
        let mut rejected = caller(2, None);
        let held = rejected.held.as_mut().unwrap();
        (held.publication, held.age) = (publication, Some(age));
        let mut record = record(secs(1));
        let asked = record.ask(&rejected);
        // Older or not, it was not reported.
        assert!(!record.token.unwrap().is_marked());
        (asked == ADOPT, may_refresh(asked))
    };
    let (adopted, fetches) = ((true, None), (false, Some(false)));
    // Fetched alone, of another epoch, of the same record before it went back.
    for publication in [None, Some((6, 1)), Some((7, 3)), Some((7, 2))] {
        assert_eq!(asked(publication, secs(798)), fetches, "{publication:?}");
        assert_eq!(asked(publication, secs(799)), adopted, "{publication:?}");
    }
    assert_eq!(asked(Some((7, 1)), secs(0)), adopted);
}

#[test]
fn an_older_token_is_adopted_if_no_fetch_is_possible() {
    let mut rejected = caller(2, None);
    let held = rejected.held.as_mut().unwrap();
    (held.publication, held.age) = (None, Some(secs(10)));
    let as_suspect = false;
    let mut record = record(secs(1));
    assert_eq!(
        record.find_adoptable(&rejected),
        Found::Adopt { as_suspect }
    );
    assert_eq!(record.failed(&rejected, None, None), Some(as_suspect));
    // But not while another process fetches a newer one.
    let newcomer = Caller { me: 2, ..rejected };
    assert!(may_refresh(record.ask(&newcomer)).is_some());
    assert_eq!(record.find_adoptable(&rejected), Found::Wait(secs(3)));
}

#[test]
fn an_expired_token_keeps_its_mark_and_is_not_adopted() {
    let mut record = record(secs(1));
    record.token.as_mut().unwrap().rejected = Some(2);
    let mut record = record.aged(secs(5000), LIMITS);
    assert!(record.token.as_ref().unwrap().is_marked());
    let newcomer = Caller {
        held: None,
        is_rejected: false,
        ..caller(1, None)
    };
    assert_eq!(may_refresh(record.ask(&newcomer)), Some(false));
}

#[test]
fn leases_and_pauses_end_with_time_and_the_budget_refills() {
    let (mut paused, rejected) = (record(secs(6)), caller(1, None));
    paused.pauses.extend(false, secs(1000));
    for _ in 0..5 {
        assert!(paused.forced.withdraw(LIMITS));
    }
    assert!(!paused.forced.withdraw(LIMITS));
    let asked = |by| paused.clone().aged(by, LIMITS).ask(&rejected);
    // `Retry-After` is clamped to five minutes.
    let left = secs(1);
    let is_refresh = false;
    assert_eq!(asked(secs(299)), Asked::Paused { left, is_refresh });
    assert_eq!(may_refresh(asked(secs(300))), Some(false));
    let refilled = |by| paused.clone().aged(by, LIMITS).forced.left;
    let by = [0, 5, 6, 11, 12, 29, 30, 1000].map(|by| refilled(secs(by)));
    assert_eq!(by, [0, 0, 1, 1, 2, 4, 5, 5]);
}

#[test]
fn a_lease_lasts_three_seconds_and_ends_to_the_nanosecond() {
    let mut record = record(secs(6));
    record.ask(&caller(1, None));
    let nanosecond = Duration::from_nanos(1);
    let aged = |by| record.clone().aged(by, LIMITS).lease.is_some();
    assert!(aged(secs(3) - nanosecond) && !aged(secs(3)));
    let other = Caller {
        me: 2,
        ..caller(1, None)
    };
    let mut record = record.aged(secs(1), LIMITS);
    assert_eq!(record.ask(&other), Asked::Wait(secs(2)));
    assert!(record.extend(1, 3) && !record.extend(2, 3));
    assert_eq!(record.ask(&other), Asked::Wait(secs(3)));
}
