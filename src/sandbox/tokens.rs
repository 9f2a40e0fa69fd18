//! The issued tokens.

use std::{
    collections::HashMap,
    hash::{BuildHasher, RandomState},
    sync::Arc,
    time::Duration,
};

use tokio::time::Instant;

const DEFAULT_LIFETIME: Duration = Duration::from_secs(1800);

/// All tokens since the start. Those that are no longer live stay: the log has their numbers.
pub(super) struct Tokens {
    lifetime: Duration,
    /// Token number n has index n - 1.
    issued: Vec<Token>,
    numbers: HashMap<String, u64>,
    // Seeded by std, so the sandbox needs no crate for random numbers.
    random: RandomState,
}

struct Token {
    owner: Owner,
    /// `None` if the clock cannot represent it.
    expires_at: Option<Instant>,
    revoked: bool,
}

/// The customer and the product of a token.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Owner {
    pub(super) access_key: Arc<str>,
    pub(super) product: Arc<str>,
}

impl Tokens {
    pub(super) fn new() -> Self {
        Self {
            lifetime: DEFAULT_LIFETIME,
            issued: Vec::new(),
            numbers: HashMap::new(),
            random: RandomState::new(),
        }
    }

    /// In whole seconds, the unit of `expireIn`.
    pub(super) fn lifetime(&self) -> Duration {
        self.lifetime
    }

    pub(super) fn set_lifetime(&mut self, lifetime: Duration) {
        // A lifetime of zero is an error of the endpoint, which `set_expire_in` makes.
        self.lifetime = Duration::from_secs(lifetime.as_secs().max(1));
    }

    pub(super) fn issue(&mut self, owner: Owner) -> String {
        let number = self.issued.len() as u64 + 1;
        let value = self.jwt_like(number);
        self.issued.push(Token {
            owner,
            expires_at: Instant::now().checked_add(self.lifetime),
            revoked: false,
        });
        self.numbers.insert(value.clone(), number);
        value
    }

    /// The number of this token, live or not.
    pub(super) fn number(&self, value: &str) -> Option<u64> {
        self.numbers.get(value).copied()
    }

    /// The owner of a token, if it is live.
    pub(super) fn owner(&self, number: u64) -> Option<&Owner> {
        let token = self.issued.get(index(number)?)?;
        token.is_live().then_some(&token.owner)
    }

    /// The last token of an owner and the rest of its life, if it is live for a second or more.
    pub(super) fn last_live(&self, owner: &Owner) -> Option<(String, Duration)> {
        let is_theirs = |token: &Token| token.owner == *owner && token.is_live();
        let index = self.issued.iter().rposition(is_theirs)?;
        let token = &self.issued[index];
        let left = match token.expires_at {
            Some(expires_at) => expires_at.saturating_duration_since(Instant::now()),
            None => self.lifetime,
        };
        // Not in its last second, in which `expireIn` would be zero. The string is made again from
        // its number: the table has it as a key only.
        (left.as_secs() > 0).then(|| (self.jwt_like(index as u64 + 1), left))
    }

    pub(super) fn revoke_all_of(&mut self, owner: &Owner) {
        let tokens = self.issued.iter_mut();
        tokens
            .filter(|token| token.owner == *owner)
            .for_each(|token| token.revoked = true);
    }

    pub(super) fn revoke(&mut self, number: u64) {
        if let Some(token) = index(number).and_then(|at| self.issued.get_mut(at)) {
            token.revoked = true;
        }
    }

    pub(super) fn revoke_all(&mut self) {
        self.issued
            .iter_mut()
            .for_each(|token| token.revoked = true);
    }

    pub(super) fn live_count(&self) -> usize {
        self.issued.iter().filter(|token| token.is_live()).count()
    }

    /// Three segments that look random. They are hashes under a key from the start of the sandbox:
    /// unique and hard to mistake for something else, but no cryptography.
    fn jwt_like(&self, number: u64) -> String {
        let mut value = String::with_capacity(98);
        for (segment, words) in [2, 4, 3].into_iter().enumerate() {
            if segment > 0 {
                value.push('.');
            }
            for word in 0..words {
                push_base64url(&mut value, self.random.hash_one((number, segment, word)));
            }
        }
        value
    }
}

impl Token {
    fn is_live(&self) -> bool {
        !self.revoked
            && self
                .expires_at
                .is_none_or(|expires_at| Instant::now() < expires_at)
    }
}

fn index(number: u64) -> Option<usize> {
    usize::try_from(number.checked_sub(1)?).ok()
}

fn push_base64url(to: &mut String, word: u64) {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    to.extend(
        (0..60)
            .step_by(6)
            .map(|shift| char::from(ALPHABET[(word >> shift) as usize & 63])),
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn owner() -> Owner {
        Owner {
            access_key: "a".into(),
            product: "monitor".into(),
        }
    }

    fn is_live(tokens: &Tokens, value: &str) -> bool {
        tokens.owner(tokens.number(value).unwrap()).is_some()
    }

    #[tokio::test(start_paused = true)]
    async fn a_token_expires_after_its_lifetime_and_not_before() {
        let mut tokens = Tokens::new();
        let value = tokens.issue(owner());
        tokio::time::advance(1799 * SECOND).await;
        assert!(is_live(&tokens, &value));
        assert_eq!(tokens.live_count(), 1);
        tokio::time::advance(SECOND).await;
        assert!(!is_live(&tokens, &value));
        assert_eq!(tokens.live_count(), 0);
        assert_eq!(tokens.number(&value), Some(1));
    }

    #[tokio::test(start_paused = true)]
    async fn a_lifetime_is_cut_to_whole_seconds_and_is_one_at_least() {
        let mut tokens = Tokens::new();
        for (set, got) in [
            (Duration::ZERO, 1),
            (Duration::from_millis(2999), 2),
            (Duration::MAX, u64::MAX),
        ] {
            tokens.set_lifetime(set);
            assert_eq!(tokens.lifetime(), Duration::from_secs(got));
        }
        let value = tokens.issue(owner());
        assert!(is_live(&tokens, &value));
    }

    #[tokio::test(start_paused = true)]
    async fn a_lifetime_counts_for_the_tokens_issued_after_it_was_set() {
        let mut tokens = Tokens::new();
        let long = tokens.issue(owner());
        tokens.set_lifetime(SECOND);
        let short = tokens.issue(owner());
        tokio::time::advance(SECOND).await;
        assert!(is_live(&tokens, &long));
        assert!(!is_live(&tokens, &short));
    }

    #[tokio::test(start_paused = true)]
    async fn the_last_live_token_has_the_rest_of_its_life() {
        let mut tokens = Tokens::new();
        assert_eq!(tokens.last_live(&owner()), None);
        tokens.issue(owner());
        let value = tokens.issue(owner());
        tokio::time::advance(1799 * SECOND).await;
        assert_eq!(tokens.last_live(&owner()), Some((value, SECOND)));
        tokio::time::advance(Duration::from_nanos(1)).await;
        assert_eq!(tokens.last_live(&owner()), None);
    }

    #[tokio::test(start_paused = true)]
    async fn tokens_are_unique_and_look_like_jwts() {
        let mut tokens = Tokens::new();
        let values: std::collections::HashSet<_> =
            (0..1000).map(|_| tokens.issue(owner())).collect();
        assert_eq!(values.len(), 1000);
        for value in values {
            assert_eq!(
                value.split('.').map(str::len).collect::<Vec<_>>(),
                [20, 40, 30]
            );
            let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
            assert!(value.bytes().all(legal), "{value}");
        }
    }
}
