//! What must hold whatever the reference says: checked on what the source and the API see, and on nothing else.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    cache::{Answer, Cause, Nature, Predecessor, WINDOW},
    time::{Ns, S},
};

/// More fetches than that in one moment are a loop.
const MOST_AT_ONCE: usize = 50;

#[derive(Debug)]
pub(crate) struct Audit {
    budget: usize,
    /// When the source was asked, by the number of the fetch.
    asked: Vec<Ns>,
    /// Until when a string that the source has handed out may be sent.
    until: BTreeMap<u32, Ns>,
    /// The strings that were refused or invalidated.
    dead: BTreeSet<u32>,
    /// The source has asked to be left alone until then.
    quiet_until: Ns,
    believed: Vec<Ns>,
}

impl Audit {
    pub(crate) fn new(budget: u32) -> Self {
        Self {
            budget: budget as usize,
            asked: Vec::new(),
            until: BTreeMap::new(),
            dead: BTreeSet::new(),
            quiet_until: 0,
            believed: Vec::new(),
        }
    }

    /// [36] No fetch before its time, not even a forced one.
    pub(crate) fn asked(&mut self, now: Ns, predecessor: Predecessor) -> Result<(), String> {
        self.asked.push(now);
        if self.asked.iter().rev().take_while(|&&at| at == now).count() > MOST_AT_ONCE {
            return Err("the source is asked again and again".to_owned());
        }
        if now < self.quiet_until {
            return Err(format!("a fetch at {now}, before {} ({predecessor:?})", self.quiet_until));
        }
        Ok(())
    }

    /// `counts`: the flight that had asked was not given up meanwhile.
    pub(crate) fn answered(&mut self, fetch: usize, now: Ns, answer: &Answer, counts: bool) {
        match *answer {
            Answer::Token { text, life, age } => {
                let end = age.map_or(self.asked[fetch] + life, |age| now + life.saturating_sub(age));
                let over = end - (30 * S).min(life / 8);
                let until = self.until.entry(text).or_default();
                *until = over.max(*until);
            }
            Answer::Failed { nature, ref cause } if counts => {
                let retry_after = match cause {
                    Cause::Source { retry_after, .. } => retry_after.unwrap_or(0).min(300 * S),
                    _ => 0,
                };
                let permanent = if nature == Nature::Permanent { 5 * S } else { 0 };
                self.quiet_until = self.quiet_until.max(now + retry_after.max(permanent));
            }
            Answer::Failed { .. } => {}
        }
    }

    /// [8, 45] A token arrives at the API.
    pub(crate) fn sent(&self, text: u32, now: Ns) -> Result<(), String> {
        if self.dead.contains(&text) {
            return Err(format!("token {text} was sent after it was refused or invalidated"));
        }
        match self.until.get(&text) {
            None => Err(format!("token {text} was never handed out")),
            Some(&until) if now >= until => {
                Err(format!("token {text} was sent at {now}, over since {until}"))
            }
            Some(_) => Ok(()),
        }
    }

    pub(crate) fn invalidated(&mut self, text: u32) {
        self.dead.insert(text);
    }

    /// [47] A 401 was believed while the token could be used.
    pub(crate) fn refused(&mut self, text: u32, now: Ns) -> Result<(), String> {
        self.dead.insert(text);
        self.believed.push(now);
        let recent = self.believed.iter().filter(|&&at| now - at < WINDOW).count();
        if recent > self.budget { Err(format!("{recent} 401s were believed")) } else { Ok(()) }
    }
}
