//! How cases are generated.

use proptest::{collection::vec, prelude::*};

use crate::{
    backoff::Asker,
    ops::{
        Call, Case, Edge, FACES, Face, Kind, Later, Mark, Moment, Op, Readiness, Reply, Token, What,
    },
};

pub(crate) fn case() -> impl Strategy<Value = Case> {
    // Without a pause, the background refresh calls a source that always fails in a loop.
    let draws = |background_refresh| vec(u8::from(background_refresh)..=4, 1..6);
    let burst = prop_oneof![3 => Just(5), 1 => Just(1), 1 => Just(2), 1 => Just(0)];
    let background_refresh = prop_oneof![3 => Just(false), 1 => Just(true)];
    let ops = vec(phrase(), 1..30).prop_map(|phrases| phrases.concat());
    let choices = background_refresh.prop_flat_map(move |background_refresh| {
        (draws(background_refresh), Just(background_refresh))
    });
    (choices, burst, any::<bool>(), ops).prop_map(
        |((draws, background_refresh), burst, small_limit, ops)| Case {
            draws,
            burst,
            background_refresh,
            small_limit,
            ops,
        },
    )
}

/// Sequences of ops that reach deep states in few steps.
fn phrase() -> impl Strategy<Value = Vec<Op>> {
    let plain = |kind| Call {
        kind,
        face: Face::Http,
        client: 0,
        mark: Mark::None,
        eager: false,
    };
    let warm = Token::New {
        life: 1_800_000,
        age: None,
    };
    let rejection = |read| Reply {
        what: What::Status(401),
        read,
    };
    prop_oneof![
        16 => op().prop_map(|op| vec![op]),
        // There is a token.
        1 => Just(vec![Op::Call(1, plain(Kind::Token)), Op::Source(warm)]),
        // It is due for a refresh, expiring or expired, and a caller comes.
        2 => (edge(), token()).prop_map(move |(edge, token)| {
            vec![Op::PassTo(Moment::Refresh, edge), Op::Call(1, plain(Kind::Token)), Op::Source(token)]
        }),
        2 => (edge(), call(), token()).prop_map(move |(edge, call, token)| {
            vec![Op::PassTo(Moment::Expiring, edge), Op::Call(2, call), Op::Source(token)]
        }),
        1 => edge().prop_map(move |edge| vec![Op::PassTo(Moment::End, edge), Op::Call(1, plain(Kind::Bare))]),
        // A token of a short life, whose successor comes too late.
        2 => (edge(), call(), token()).prop_map(move |(edge, call, token)| {
            let short = Op::Source(Token::New { life: 20_000, age: None });
            let before = [Op::PassTo(Moment::End, Edge::At), Op::Call(1, plain(Kind::Token)), short];
            let expiring = [Op::PassTo(Moment::Expiring, Edge::At), Op::Call(2, call)];
            let after = [Op::PassTo(Moment::Release, edge), Op::Call(1, call), Op::Source(token)];
            before.into_iter().chain(expiring).chain(after).collect()
        }),
        // It is rejected, perhaps while it is being refreshed.
        2 => (1..4_u8, call(), 0..3_u8).prop_map(move |(times, call, read)| {
            vec![Op::Call(times, call), Op::Api(u8::MAX, rejection(read))]
        }),
        1 => (call(), token()).prop_map(move |(call, token)| {
            let due = Op::PassTo(Moment::Refresh, Edge::At);
            vec![due, Op::Call(2, call), Op::Api(u8::MAX, rejection(0)), Op::Source(token)]
        }),
        // It is rejected, cannot be replaced, and is rejected again.
        2 => (call(), failure(), token()).prop_map(move |(call, failure, token)| {
            let rejected = || [Op::Call(2, call), Op::Api(u8::MAX, rejection(0))];
            let later = Op::PassTo(Moment::FetchBackoffOver(Asker::Waiter), Edge::At);
            let responses = [Op::Source(failure), later, Op::Api(0, rejection(0))];
            rejected().into_iter().chain(responses).chain(rejected()).chain([Op::Source(token)]).collect()
        }),
        // One is rejected just before or after a refill of the budget.
        1 => edge().prop_map(move |edge| {
            let refill = Op::PassTo(Moment::Refill, edge);
            vec![refill, Op::Call(1, plain(Kind::Bare)), Op::Api(u8::MAX, rejection(0))]
        }),
        // It is invalidated twice.
        1 => (0..3_u8, token()).prop_map(move |(back, token)| {
            let again = Op::Call(1, plain(Kind::Token));
            vec![Op::Invalidate(back), again, Op::Invalidate(back), Op::Source(token)]
        }),
        // A runtime is stalled with a flight, until the flight is overdue.
        1 => (edge(), token()).prop_map(move |(edge, token)| {
            let over = Op::PassTo(Moment::End, Edge::At);
            let overdue = Op::PassTo(Moment::FlightOverdue, edge);
            let again = || Op::Call(1, plain(Kind::Token));
            vec![over, again(), Op::Switch, overdue, again(), Op::Source(token), Op::Switch]
        }),
        // Callers in another runtime wait for it.
        2 => (any::<bool>(), edge(), call(), token()).prop_map(move |(over, edge, call, token)| {
            let due = Op::PassTo(if over { Moment::End } else { Moment::Expiring }, Edge::At);
            let overdue = Op::PassTo(Moment::FlightOverdue, edge);
            let waits = || Op::Call(2, call);
            let source = Op::Source(token);
            vec![due, waits(), Op::Switch, waits(), overdue, Op::Pass(1), Op::Pass(1), source]
        }),
    ]
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        12 => (1..4_u8, call()).prop_map(|(times, call)| Op::Call(times, call)),
        9 => token().prop_map(Op::Source),
        2 => proptest::option::of(token()).prop_map(Op::SourceAlways),
        9 => (any::<u8>(), reply()).prop_map(|(which, reply)| Op::Api(which, reply)),
        2 => proptest::option::of(reply()).prop_map(Op::ApiAlways),
        2 => readiness().prop_map(Op::Readiness),
        4 => sample(&[1, 250, 500, 1000, 2000, 5000, 10_000, 30_000, 60_000, 1_400_000]).prop_map(Op::Pass),
        6 => (moment(), edge()).prop_map(|(moment, edge)| Op::PassTo(moment, edge)),
        2 => any::<u8>().prop_map(Op::Drop),
        2 => any::<u8>().prop_map(Op::Hold),
        1 => Just(Op::Release),
        1 => any::<u8>().prop_map(Op::Move),
        2 => (0..3_u8).prop_map(Op::Invalidate),
        2 => Just(Op::Revoke),
        1 => any::<u8>().prop_map(Op::ReadOn),
        1 => Just(Op::Restart),
        1 => Just(Op::Switch),
    ]
}

fn call() -> impl Strategy<Value = Call> {
    let kind = prop_oneof![
        2 => Just(Kind::Token),
        2 => Just(Kind::Bare),
        2 => Just(Kind::Clonable),
        3 => (0..4_u8, any::<bool>()).prop_map(|(chunks, trailers)| Kind::Stream(chunks, trailers)),
    ];
    let mark = prop_oneof![
        12 => Just(Mark::None),
        1 => Just(Mark::SkipAuth),
        1 => Just(Mark::NoResend),
        1 => Just(Mark::OwnAuthorization),
    ];
    let face = proptest::sample::select(FACES);
    (kind, face, 0..3_u8, mark, any::<bool>()).prop_map(|(kind, face, client, mark, eager)| Call {
        kind,
        face,
        client,
        mark,
        eager,
    })
}

fn token() -> impl Strategy<Value = Token> {
    let life = || sample(&[1_800_000, 1_800_000, 60_000, 20_000, 2000, 1]);
    let age = || proptest::option::weighted(0.2, sample(&[0, 1000, 46_000, 1_500_000, 1_790_000]));
    prop_oneof![
        9 => (life(), age()).prop_map(|(life, age)| Token::New { life, age }),
        3 => (life(), age()).prop_map(|(life, age)| Token::Same { life, age }),
        1 => Just(Token::Again(Later::Never)),
        1 => edge().prop_map(|edge| Token::Again(Later::Tenth(edge))),
        1 => (0..3_u8, life()).prop_map(|(back, life)| Token::Former { back, life }),
        8 => failure(),
    ]
}

fn failure() -> impl Strategy<Value = Token> {
    let retry_after = || proptest::option::weighted(0.3, sample(&[1000, 3000, 60_000, 400_000]));
    prop_oneof![
        1 => Just(Token::Bad),
        4 => retry_after().prop_map(|retry_after| Token::Transient { retry_after }),
        2 => retry_after().prop_map(|retry_after| Token::Permanent { retry_after }),
        1 => Just(Token::Panic),
    ]
}

fn reply() -> impl Strategy<Value = Reply> {
    let what = prop_oneof![
        3 => Just(What::Honest),
        2 => Just(What::Status(200)),
        6 => Just(What::Status(401)),
        1 => Just(What::Status(403)),
        1 => Just(What::Status(500)),
        1 => Just(What::TransportError),
    ];
    let read = prop_oneof![Just(0), 1..3_u8, Just(u8::MAX)];
    (what, read).prop_map(|(what, read)| Reply { what, read })
}

fn readiness() -> impl Strategy<Value = Readiness> {
    prop_oneof![6 => Just(Readiness::Ready), 2 => Just(Readiness::Busy), 1 => Just(Readiness::Broken)]
}

fn moment() -> impl Strategy<Value = Moment> {
    let asker = || prop_oneof![Just(Asker::Background), Just(Asker::Waiter)];
    prop_oneof![
        4 => Just(Moment::Refresh),
        4 => Just(Moment::Expiring),
        3 => Just(Moment::End),
        2 => asker().prop_map(Moment::RefreshBackoffOver),
        3 => asker().prop_map(Moment::FetchBackoffOver),
        2 => Just(Moment::Release),
        2 => Just(Moment::FlightTimeout),
        2 => Just(Moment::NextAttempt),
        1 => Just(Moment::FlightOverdue),
        2 => Just(Moment::Refill),
    ]
}

fn edge() -> impl Strategy<Value = Edge> {
    prop_oneof![Just(Edge::At), Just(Edge::Before), Just(Edge::After)]
}

fn sample(choices: &'static [u64]) -> impl Strategy<Value = u64> {
    proptest::sample::select(choices)
}
