//! What can happen: small steps that print well, and how they are drawn.

use proptest::{collection::vec, prelude::*};

/// One life of a cache and its callers.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    /// What jitter and back-off draw, in quarters, over and over.
    pub(crate) draws: Vec<u8>,
    /// How many 401s are believed within 30 s.
    pub(crate) budget: u32,
    /// Of a recorded body, only [`SMALL_LIMIT`] bytes are kept.
    pub(crate) small_limit: bool,
    pub(crate) ops: Vec<Op>,
}

/// Two chunks of a body.
pub(crate) const SMALL_LIMIT: usize = 12;

#[derive(Clone, Debug)]
pub(crate) enum Op {
    /// So many callers at once.
    Call(u8, Call),
    /// The oldest fetch that is open is answered.
    Source(Token),
    /// So will all fetches be from now on, as soon as they are begun.
    SourceAlways(Option<Token>),
    /// One of the requests that the API has is answered.
    Api(u8, Reply),
    /// So will all be from now on, as soon as they arrive.
    ApiAlways(Option<Reply>),
    /// The API's own readiness.
    Readiness(Readiness),
    /// Milliseconds.
    Pass(u64),
    PassTo(Moment, Edge),
    /// One of the callers that still wait goes away.
    Drop(u8),
    /// One is not polled, although it may be woken.
    Hold(u8),
    /// All that were held are polled again.
    Release,
    /// One is polled by another task, which nothing has woken.
    Move(u8),
    /// A token that some caller got is taken out of use: the newest, or an older one.
    Invalidate(u8),
    /// The API no longer accepts the token that it saw last. The cache is not told.
    Revoke,
    /// The API reads on in the body of a request that it has answered.
    ReadOn(u8),
    /// The runtime is dropped; another goes on at the same moment.
    Restart,
    /// The runtime stands still, and the one that stood still goes on.
    Switch,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Call {
    pub(crate) kind: Kind,
    /// Which of the long-lived services; from 2 on a clone made for this request.
    pub(crate) client: u8,
    pub(crate) mark: Mark,
    /// Polls in the very moment it is woken, not soon after.
    pub(crate) eager: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// `cache.get()`.
    Token,
    /// A request without a body.
    Bare,
    /// A body that is kept as a clone.
    Clonable,
    /// A body that is recorded: so many chunks, and trailers or not.
    Stream(u8, bool),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mark {
    None,
    SkipAuth,
    NoResend,
    OwnAuthorization,
}

/// What the token source answers. Times are milliseconds.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Token {
    New {
        life: u64,
        age: Option<u64>,
    },
    /// The current string once more.
    Same {
        life: u64,
        age: Option<u64>,
    },
    /// The current string with the very same end.
    Again,
    /// A string of before.
    Former {
        back: u8,
        life: u64,
    },
    /// Not a token.
    Bad,
    Transient {
        retry_after: Option<u64>,
    },
    Permanent {
        retry_after: Option<u64>,
    },
    Panic,
}

/// What the API answers, and how many frames of the body it reads before.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reply {
    pub(crate) what: What,
    pub(crate) read: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum What {
    /// 200, or 401 if the token was revoked.
    Honest,
    Status(u16),
    TransportError,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Readiness {
    Ready,
    Busy,
    Broken,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Moment {
    Renewal,
    Expiry,
    End,
    BackOffOver,
    FlightTimeout,
    NextAttempt,
    FlightOverdue,
    BudgetFree,
}

/// Just before, at, or just after a moment: a nanosecond, or a millisecond where a timer of tokio's decides.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Edge {
    Before,
    At,
    After,
}

pub(crate) fn case() -> impl Strategy<Value = Case> {
    let draws = vec(0..=4_u8, 1..6);
    let budget = prop_oneof![3 => Just(5), 1 => Just(1), 1 => Just(2), 1 => Just(0)];
    (draws, budget, any::<bool>(), vec(phrase(), 1..30)).prop_map(|(draws, budget, small_limit, phrases)| {
        Case { draws, budget, small_limit, ops: phrases.concat() }
    })
}

/// Ops that are worth more together, so that a case gets deep before it gets long.
fn phrase() -> impl Strategy<Value = Vec<Op>> {
    let plain = |kind| Call { kind, client: 0, mark: Mark::None, eager: false };
    let warm = Token::New { life: 1_800_000, age: None };
    let refused = |read| Reply { what: What::Status(401), read };
    prop_oneof![
        16 => op().prop_map(|op| vec![op]),
        // There is a token.
        1 => Just(vec![Op::Call(1, plain(Kind::Token)), Op::Source(warm)]),
        // It is to be renewed, or is over, and somebody notices.
        2 => (edge(), token()).prop_map(move |(edge, token)| {
            vec![Op::PassTo(Moment::Renewal, edge), Op::Call(1, plain(Kind::Token)), Op::Source(token)]
        }),
        1 => edge().prop_map(move |edge| {
            vec![Op::PassTo(Moment::Expiry, edge), Op::Call(1, plain(Kind::Bare))]
        }),
        // It is refused, perhaps while it is being renewed.
        2 => (1..4_u8, call(), 0..3_u8).prop_map(move |(times, call, read)| {
            vec![Op::Call(times, call), Op::Api(u8::MAX, refused(read))]
        }),
        1 => (call(), token()).prop_map(move |(call, token)| {
            let due = Op::PassTo(Moment::Renewal, Edge::At);
            vec![due, Op::Call(2, call), Op::Api(u8::MAX, refused(0)), Op::Source(token)]
        }),
        // One is refused when the budget is just free again, or not quite.
        1 => edge().prop_map(move |edge| {
            let free = Op::PassTo(Moment::BudgetFree, edge);
            vec![free, Op::Call(1, plain(Kind::Bare)), Op::Api(u8::MAX, refused(0))]
        }),
        // It is taken out of use, and that is said twice.
        1 => (0..3_u8, token()).prop_map(move |(back, token)| {
            let again = Op::Call(1, plain(Kind::Token));
            vec![Op::Invalidate(back), again, Op::Invalidate(back), Op::Source(token)]
        }),
        // A runtime stands still with a flight, until that is given up for another.
        1 => (edge(), token()).prop_map(move |(edge, token)| {
            let over = Op::PassTo(Moment::Expiry, Edge::At);
            let overdue = Op::PassTo(Moment::FlightOverdue, edge);
            let again = || Op::Call(1, plain(Kind::Token));
            vec![over, again(), Op::Switch, overdue, again(), Op::Source(token), Op::Switch]
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
    (kind, 0..3_u8, mark, any::<bool>()).prop_map(|(kind, client, mark, eager)| Call {
        kind,
        client,
        mark,
        eager,
    })
}

fn token() -> impl Strategy<Value = Token> {
    let life = || sample(&[1_800_000, 1_800_000, 60_000, 20_000, 2000, 1]);
    let age = || proptest::option::weighted(0.2, sample(&[0, 1000, 46_000, 1_500_000, 1_790_000]));
    let retry_after = || proptest::option::weighted(0.3, sample(&[1000, 3000, 60_000, 400_000]));
    prop_oneof![
        9 => (life(), age()).prop_map(|(life, age)| Token::New { life, age }),
        3 => (life(), age()).prop_map(|(life, age)| Token::Same { life, age }),
        1 => Just(Token::Again),
        1 => (0..3_u8, life()).prop_map(|(back, life)| Token::Former { back, life }),
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
    prop_oneof![
        4 => Just(Moment::Renewal),
        4 => Just(Moment::Expiry),
        1 => Just(Moment::End),
        3 => Just(Moment::BackOffOver),
        2 => Just(Moment::FlightTimeout),
        2 => Just(Moment::NextAttempt),
        1 => Just(Moment::FlightOverdue),
        2 => Just(Moment::BudgetFree),
    ]
}

fn edge() -> impl Strategy<Value = Edge> {
    prop_oneof![Just(Edge::At), Just(Edge::Before), Just(Edge::After)]
}

fn sample(choices: &'static [u64]) -> impl Strategy<Value = u64> {
    proptest::sample::select(choices)
}
