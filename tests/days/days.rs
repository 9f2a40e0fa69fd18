//! The days: the faults of each, and how often the token endpoints may be called meanwhile.

use std::time::Duration;

use crate::klavi::{Chance, Fault, Schedule, Script};

pub(crate) struct Day {
    pub(crate) name: String,
    pub(crate) seed: u64,
    pub(crate) script: Script,
    pub(crate) poisoned: Option<Duration>,
    pub(crate) most: Most,
}

/// How many token calls there may be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Most {
    /// In a day of 24 hours.
    pub(crate) auth: u64,
    pub(crate) refresh: u64,
    /// In any 60 s.
    pub(crate) in_60_s: usize,
}

const MINUTE: u64 = 60;
const HOUR: u64 = 60 * MINUTE;

const fn most(auth: u64, refresh: u64, in_60_s: usize) -> Most {
    Most {
        auth,
        refresh,
        in_60_s,
    }
}

/// No fault: one `/auth`, and a `/refresh` for each 65 to 75 % of 1800 s.
const WELL: Most = most(1, 70, 1);

/// `/refresh` is down: two of them and an `/auth` per token.
const NO_REFRESH: Most = most(72, 144, 3);

/// One forced refresh for each refill of the budget, 4.8 to 6 s, and the bucket at the start.
const BUDGET: Most = most(15_300, 70, 16);

/// All days, cut to `length`.
pub(crate) fn all(length: Duration) -> Vec<Day> {
    let mut days = Days {
        length,
        days: Vec::new(),
    };
    days.add("all well", WELL, |_| {});
    for (what, fault) in [
        ("500", Fault::Status(500)),
        ("400", Fault::Status(400)),
        ("HTML", Fault::Html),
        ("silent", Fault::Silence),
        ("repeats the live token", Fault::Repeats),
        ("429, `Retry-After: 300`", Fault::Throttled(300)),
    ] {
        days.add(&format!("`/refresh` {what}"), NO_REFRESH, |day| {
            day.script.refresh = Schedule::always(fault);
        });
    }
    days.add("`/auth` down 24 × 5 min", WELL, |day| {
        day.script.auth = Schedule::windows(day.down(HOUR, 5 * MINUTE, Fault::Status(500)));
    });
    days.add("both down 48 × 2 min", most(24, 93, 10), |day| {
        day.both(HOUR / 2, 2 * MINUTE, Fault::Status(500));
    });
    days.add("both down 24 × 10 min", most(436, 504, 32), |day| {
        day.both(HOUR, 10 * MINUTE, Fault::Status(500));
    });
    days.add("keys rejected 24 × 10 min", most(105, 105, 16), |day| {
        day.both(HOUR, 10 * MINUTE, Fault::Status(401));
    });
    days.add(
        "a spurious 401 a minute, `/auth` repeats its live token",
        most(1_441, 50, 3),
        |day| {
            day.script.auth_repeats = true;
            day.script.spurious = day.moments(MINUTE);
        },
    );
    days.add(
        "both down 48 × 2 min, a spurious 401 in each",
        most(850, 70, 16),
        |day| {
            let down = day.both(HOUR / 2, 2 * MINUTE, Fault::Status(500));
            day.script.spurious = down
                .iter()
                .map(|(from, ..)| *from + day.chance.seconds(100))
                .collect();
        },
    );
    for every in [10, 5, 1] {
        days.add(
            &format!("a path that always responds 401, every {every} s, and 144 revocations"),
            BUDGET,
            |day| {
                day.poisoned = Some(Duration::from_secs(every));
                day.script.revocations = day.moments(10 * MINUTE);
            },
        );
    }
    days.add("a new token revokes the old one", WELL, |day| {
        day.script.new_revokes_old = true
    });
    days.add(
        "a new token revokes the old one, `/refresh` 500",
        NO_REFRESH,
        |day| {
            day.script.new_revokes_old = true;
            day.script.refresh = Schedule::always(Fault::Status(500));
        },
    );
    for (what, auth_repeats, new_revokes_old) in [
        ("", false, false),
        (", `/auth` repeats its live token", true, false),
        (", a new token revokes the old one", false, true),
    ] {
        for (mood, bound) in [
            ("busy", most(8_500, 70, 35)),
            ("quiet", most(1_000, 100, 35)),
        ] {
            days.add(&format!("{mood} at random{what}"), bound, |day| {
                day.script.auth_repeats = auth_repeats;
                day.script.new_revokes_old = new_revokes_old;
                day.at_random(mood == "busy");
            });
        }
    }
    days.days
}

struct Days {
    length: Duration,
    days: Vec<Day>,
}

impl Days {
    fn add(&mut self, name: &str, most: Most, plan: impl FnOnce(&mut Plan)) {
        let seed = self.days.len() as u64 + 1;
        let mut day = Plan {
            script: Script::default(),
            poisoned: None,
            chance: Chance::new(seed),
            length: self.length,
        };
        plan(&mut day);
        let Plan {
            script, poisoned, ..
        } = day;
        self.days.push(Day {
            name: name.to_owned(),
            seed,
            script,
            poisoned,
            most,
        });
    }
}

struct Plan {
    script: Script,
    poisoned: Option<Duration>,
    chance: Chance,
    length: Duration,
}

type Window = (Duration, Duration, Fault);

impl Plan {
    /// One moment in each `period`, in seconds.
    fn moments(&mut self, period: u64) -> Vec<Duration> {
        let periods = self.length.as_secs() / period;
        (0..periods)
            .map(|number| Duration::from_secs(number * period) + self.chance.seconds(period))
            .collect()
    }

    /// One outage in each `period`.
    fn down(&mut self, period: u64, length: u64, fault: Fault) -> Vec<Window> {
        let room = period - length;
        let periods = self.length.as_secs() / period;
        let from =
            (0..periods).map(|n| Duration::from_secs(n * period) + self.chance.seconds(room));
        from.map(|from| (from, from + Duration::from_secs(length), fault))
            .collect()
    }

    /// One outage of both endpoints in each `period`.
    fn both(&mut self, period: u64, length: u64, fault: Fault) -> Vec<Window> {
        let windows = self.down(period, length, fault);
        self.script.auth = Schedule::windows(windows.clone());
        self.script.refresh = Schedule::windows(windows.clone());
        windows
    }

    /// An outage every 10 minutes, of one endpoint or both, revocations and spurious 401s. If busy,
    /// these are many, and there is a path that always responds 401.
    fn at_random(&mut self, busy: bool) {
        let (mut auth, mut refresh) = (Vec::new(), Vec::new());
        for start in self.moments(10 * MINUTE) {
            // Half of them take less than a minute.
            let longest = [30, 60, 180, 480][self.chance.below(4) as usize];
            let end = start + Duration::from_secs(5) + self.chance.seconds(longest);
            let (at_auth, at_refresh) =
                [(true, true), (true, false), (false, true)][self.chance.below(3) as usize];
            if at_auth && auth.last().is_none_or(|(_, until, _)| *until <= start) {
                auth.push((start, end, self.fault(7)));
            }
            if at_refresh && refresh.last().is_none_or(|(_, until, _)| *until <= start) {
                refresh.push((start, end, self.fault(8)));
            }
        }
        self.script.auth = Schedule::windows(auth);
        self.script.refresh = Schedule::windows(refresh);
        let (revoked, spurious) = if busy {
            (10 * MINUTE, MINUTE)
        } else {
            (2 * HOUR, HOUR / 2)
        };
        self.script.revocations = self.moments(revoked);
        self.script.spurious = self.moments(spurious);
        self.poisoned = busy.then_some(Duration::from_secs(20));
    }

    fn fault(&mut self, kinds: u64) -> Fault {
        match self.chance.below(kinds) {
            0 => Fault::Status(500),
            1 => Fault::Status(400),
            2 => Fault::Status(401),
            3 => Fault::Html,
            4 => Fault::Silence,
            5 => Fault::Reset,
            6 => Fault::Throttled(1 + self.chance.below(60)),
            _ => Fault::Repeats,
        }
    }
}

impl Chance {
    /// Up to so many seconds, in whole milliseconds.
    fn seconds(&mut self, most: u64) -> Duration {
        Duration::from_millis(self.below(most * 1000))
    }
}
