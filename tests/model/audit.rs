//! Invariants, whatever the reference says: checked on what the source and the API see, on what
//! callers get, and on what the cache says of itself.

use std::collections::BTreeMap;

use crate::{
    budget::FULL_REFILL,
    cache::{Cause, Nature, Outcome},
    flight::Predecessor,
    time::{Ns, S},
};

/// More fetches than that in one moment are a loop. Without a pause, each of the calls in one
/// moment may wait for four flights of three attempts.
const MOST_AT_ONCE: usize = 1000;

/// The longest backoff of fetches that somebody waits for [34, 35].
const LONGEST_BACKOFF: Ns = 5 * S;

/// Of one 401, in the fractions in which [`Budget`] counts.
const COST: u64 = 9 * FULL_REFILL;

/// Counts the events, for their order within one instant.
type Stamp = u64;

#[derive(Debug)]
pub(crate) struct Audit {
    stamps: Stamp,
    /// When the source was asked, by the number of the fetch.
    asked: Vec<(Ns, Stamp)>,
    /// The tokens that it returned.
    tokens: BTreeMap<u32, Handed>,
    /// The last generation that was invalidated, and when: everything that was asked for before is
    /// not used.
    invalidated: (u64, Stamp),
    /// The strings that were rejected, and are not used until they are returned again or cannot
    /// be replaced.
    rejected: BTreeMap<u32, Stamp>,
    /// The end of the source's `Retry-After`.
    quiet_until: Ns,
    failed_at: Option<Ns>,
    budget: Budget,
}

#[derive(Clone, Copy, Debug, Default)]
struct Handed {
    /// Until when it may be sent.
    until: Ns,
    /// When it was last asked for.
    asked: Stamp,
}

/// A bucket that fills as fast as the fastest refills do.
#[derive(Debug)]
struct Budget {
    burst: u64,
    /// In fractions of a 401, which is [`COST`].
    level: u64,
    at: Ns,
}

/// What is known of a caller that gets an error.
#[derive(Debug)]
pub(crate) struct Failed {
    /// There is a token that can be sent, says the cache.
    pub(crate) ready: bool,
    /// It was held at some time.
    pub(crate) was_held: bool,
    pub(crate) what: String,
}

impl Audit {
    pub(crate) fn new(burst: u32) -> Self {
        let burst = u64::from(burst);
        Self {
            stamps: 0,
            asked: Vec::new(),
            tokens: BTreeMap::new(),
            invalidated: (0, 0),
            rejected: BTreeMap::new(),
            quiet_until: 0,
            failed_at: None,
            budget: Budget {
                burst,
                level: burst * COST,
                at: 0,
            },
        }
    }

    fn stamp(&mut self) -> Stamp {
        self.stamps += 1;
        self.stamps
    }

    /// [36] No fetch during a `Retry-After`, not even after a 401.
    pub(crate) fn asked(&mut self, now: Ns, predecessor: Predecessor) -> Result<(), String> {
        let stamp = self.stamp();
        self.asked.push((now, stamp));
        if self
            .asked
            .iter()
            .rev()
            .take_while(|(at, _)| *at == now)
            .count()
            > MOST_AT_ONCE
        {
            return Err("the source is asked again and again".to_owned());
        }
        if now < self.quiet_until {
            return Err(format!(
                "a fetch at {now}, before {} ({predecessor:?})",
                self.quiet_until
            ));
        }
        Ok(())
    }

    /// `counts`: the flight that had asked was not overdue meanwhile.
    pub(crate) fn responded(&mut self, fetch: usize, now: Ns, response: &Outcome, counts: bool) {
        let (asked_at, asked) = self.asked[fetch];
        match *response {
            Outcome::Token { text, life, age } => {
                let end = age.map_or(asked_at + life, |age| now + life.saturating_sub(age));
                let handed = self.tokens.entry(text).or_default();
                handed.until = handed.until.max(end);
                handed.asked = handed.asked.max(asked);
                if end <= now && counts {
                    return self.failed(asked, now);
                }
                // [45] The issuer confirms it.
                if self
                    .rejected
                    .get(&text)
                    .is_some_and(|&rejected| rejected < asked)
                {
                    self.rejected.remove(&text);
                }
            }
            Outcome::Failed { nature, ref cause } if counts => {
                let retry_after = match cause {
                    Cause::Source { retry_after, .. } => retry_after.unwrap_or(0).min(300 * S),
                    _ => 0,
                };
                let permanent = if nature == Nature::Permanent {
                    LONGEST_BACKOFF
                } else {
                    0
                };
                self.quiet_until = self.quiet_until.max(now + retry_after.max(permanent));
                self.failed(asked, now);
            }
            Outcome::Failed { .. } => {}
        }
    }

    fn failed(&mut self, asked: Stamp, now: Ns) {
        self.failed_at = Some(now);
        // [44a] What was rejected before cannot be replaced; nor anything, while nothing may be
        // asked for.
        let quiet = now < self.quiet_until;
        self.rejected
            .retain(|_, rejected| *rejected > asked && !quiet);
    }

    /// [8, 31, 45] A token arrives at the API.
    pub(crate) fn sent(&self, text: u32, now: Ns) -> Result<(), String> {
        let Some(handed) = self.tokens.get(&text) else {
            return Err(format!("token {text} was never handed out"));
        };
        if now >= handed.until {
            return Err(format!(
                "token {text} was sent at {now}, over since {}",
                handed.until
            ));
        }
        if handed.asked < self.invalidated.1 {
            return Err(format!(
                "token {text} was asked for before an invalidation, and sent after it"
            ));
        }
        if self.rejected.contains_key(&text) {
            return Err(format!("token {text} was sent while it was being replaced"));
        }
        Ok(())
    }

    /// The current token was invalidated, perhaps once more.
    pub(crate) fn invalidated(&mut self, generation: u64) {
        if self.invalidated.0 != generation {
            self.invalidated = (generation, self.stamp());
        }
    }

    /// [47] A 401 had an effect. `expired`: its token had expired.
    pub(crate) fn rejected(&mut self, text: u32, now: Ns, expired: bool) -> Result<(), String> {
        if now < self.quiet_until {
            // [44a] It makes a suspect, and withdraws nothing.
            return Ok(());
        }
        let stamp = self.stamp();
        self.rejected.insert(text, stamp);
        if expired {
            Ok(())
        } else {
            self.budget.withdraw(now)
        }
    }

    /// The first rule: a request that was not sent fails only if nothing could have served it.
    pub(crate) fn failed_unsent(&self, now: Ns, failed: &Failed) -> Result<(), String> {
        if failed.ready {
            return Err(format!("{failed:?}, although there is a token"));
        }
        // The flight of a caller may have ended long before it is polled again; and nothing follows
        // lost flights.
        if failed.was_held
            || failed.what.contains("several fetches")
            || failed.what.contains("the runtime of")
        {
            return Ok(());
        }
        let Some(failed_at) = self.failed_at else {
            return Err(format!("{failed:?}, although no fetch has failed"));
        };
        if now < self.quiet_until.max(failed_at + LONGEST_BACKOFF) || now == failed_at {
            return Ok(());
        }
        Err(format!(
            "{failed:?} at {now}, although the last fetch has failed at {failed_at}"
        ))
    }
}

impl Budget {
    fn withdraw(&mut self, now: Ns) -> Result<(), String> {
        // A refill takes at least nine tenths of its usual time.
        let filled = (now - self.at) * self.burst * 10;
        self.level = (self.level + filled).min(self.burst * COST);
        self.at = now;
        self.level = self
            .level
            .checked_sub(COST)
            .ok_or("more 401s are believed than the budget has")?;
        Ok(())
    }
}
