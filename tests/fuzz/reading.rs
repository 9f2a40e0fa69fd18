//! What a response means: the contract read a second time, so that two readings can be compared.

use std::{collections::BTreeMap, time::Duration};

use http::header::RETRY_AFTER;
use serde_json::{Value, value::RawValue};

use super::response::TokenResponse;

/// Fields that mean nothing to us may hold any JSON, also such that serde_json cannot represent.
type Fields = BTreeMap<String, Box<RawValue>>;

const YEAR: u64 = 365 * 24 * 60 * 60;

/// What stands in the place of a piece of a secret.
const MASK: &str = "***";

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Token {
    pub(crate) value: String,
    pub(crate) lifetime: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Throttled,
    Server,
    Transport,
    InvalidResponse,
}

#[derive(Clone, Debug)]
pub(crate) struct Failure {
    pub(crate) kind: Kind,
    pub(crate) status: u16,
    pub(crate) message: Option<Message>,
    pub(crate) wait: Option<Wait>,
}

/// What the response says, and what must not be shown of it.
#[derive(Clone, Debug)]
pub(crate) struct Message {
    text: String,
    secrets: Vec<String>,
}

impl Message {
    /// Case 61: what can be shown of it, with pieces of secrets masked.
    pub(crate) fn is_shown_as(&self, shown: &str) -> bool {
        if self.may_be_escaped()
            || self
                .secrets
                .iter()
                .any(|secret| secret.chars().count() < PIECE)
        {
            // Which part is a secret is for unit tests to say. At least no other part is missing.
            let is_cut = shown.chars().count() == 200;
            return shown
                .split(MASK)
                .try_fold(self.text.as_str(), |rest, kept| {
                    let kept = if is_cut {
                        kept.trim_end_matches('*')
                    } else {
                        kept
                    };
                    Some(&rest[rest.find(kept)? + kept.len()..])
                })
                .is_some();
        }
        let chars: Vec<char> = self.text.chars().collect();
        let lower = |chars: &[char]| chars.iter().collect::<String>().to_ascii_lowercase();
        let secrets: Vec<_> = self
            .secrets
            .iter()
            .map(|secret| secret.to_ascii_lowercase())
            .collect();
        let mut is_masked = vec![false; chars.len()];
        for (at, piece) in chars.windows(PIECE).enumerate() {
            if secrets.iter().any(|secret| secret.contains(&lower(piece))) {
                is_masked[at..at + PIECE].fill(true);
            }
        }
        let mut expected = String::new();
        for (at, c) in chars.iter().enumerate() {
            match is_masked[at] {
                false => expected.push(*c),
                true if at == 0 || !is_masked[at - 1] => expected.push_str(MASK),
                true => {}
            }
        }
        expected.chars().take(200).collect::<String>() == shown
    }

    fn may_be_escaped(&self) -> bool {
        self.text.contains(['\\', '%', '+', '*'])
    }
}

/// What `Retry-After` asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wait {
    Seconds(u64),
    /// A date, this far away from now.
    Date(Duration),
}

impl Wait {
    pub(crate) fn duration(self) -> Duration {
        match self {
            Self::Seconds(seconds) => Duration::from_secs(seconds),
            Self::Date(away) => away,
        }
    }
}

impl Failure {
    pub(crate) fn is_transient(&self) -> bool {
        self.kind != Kind::InvalidResponse
    }
}

/// `secrets` are what was sent.
pub(crate) fn read(response: &TokenResponse, secrets: &[&str]) -> Result<Token, Failure> {
    let status = response.status.as_u16();
    let is_too_long = response.body.len() > 64 * 1024;
    let whole = if response.cut || is_too_long {
        &[][..]
    } else {
        &response.body[..]
    };
    let fields: Option<Fields> = serde_json::from_slice(whole).ok();
    let failure = |kind, wait| Failure {
        kind,
        status,
        message: fields.as_ref().and_then(|fields| message(fields, secrets)),
        wait,
    };
    if status == 200 {
        if response.cut && !is_too_long {
            return Err(failure(Kind::Transport, None));
        }
        let token = fields.as_ref().and_then(|fields| {
            let value = string(either(fields, "accessToken", "accesstoken")?)?;
            let legal = (1..=16 * 1024).contains(&value.len())
                && value.bytes().all(|b| (b'!'..=b'~').contains(&b));
            let lifetime = lifetime(either(fields, "expireIn", "expirein"))?;
            legal.then_some(Token { value, lifetime })
        });
        return token.ok_or_else(|| failure(Kind::InvalidResponse, None));
    }
    let wait = retry_after(response);
    Err(match status {
        429 => failure(Kind::Throttled, wait),
        503 if wait.is_some() => failure(Kind::Throttled, wait),
        408 | 500..=599 => failure(Kind::Server, None),
        _ => failure(Kind::InvalidResponse, None),
    })
}

/// Klavi's spelling goes before the other.
fn either<'a>(fields: &'a Fields, first: &str, second: &str) -> Option<&'a RawValue> {
    fields
        .get(first)
        .or_else(|| fields.get(second))
        .map(|value| &**value)
}

fn string(value: &RawValue) -> Option<String> {
    serde_json::from_str(value.get()).ok()
}

fn lifetime(value: Option<&RawValue>) -> Option<Duration> {
    let value = value
        .map(|value| serde_json::from_str(value.get()))
        .transpose()
        .ok()?;
    let seconds = match value {
        None | Some(Value::Null) => 1800.0,
        Some(Value::Number(number)) => number.as_f64()?,
        // `inf` and `NaN` are numbers to Rust, and not to us.
        Some(Value::String(text)) if !text.to_ascii_lowercase().contains(['n', 'i']) => {
            text.trim().parse().ok()?
        }
        Some(_) => return None,
    };
    let whole = seconds >= 1.0 && seconds == seconds.floor();
    // A text like `1e999` is infinite. Above a year everything is one.
    (whole && seconds < f64::INFINITY).then(|| Duration::from_secs(seconds.min(YEAR as f64) as u64))
}

fn message(fields: &Fields, secrets: &[&str]) -> Option<Message> {
    let text = string(either(fields, "message", "error")?)?;
    let visible = |text: &str| text.chars().filter(|&c| is_visible(c)).collect::<String>();
    let tokens = ["accessToken", "accesstoken"]
        .iter()
        .filter_map(|name| string(fields.get(*name)?));
    let secrets = secrets
        .iter()
        .map(|secret| visible(secret))
        .chain(tokens.map(|token| visible(&token)));
    let secrets = secrets.filter(|secret| !secret.is_empty()).collect();
    Some(Message {
        text: visible(&text),
        secrets,
    })
}

/// Whether a character is visible and does not change how its neighbours look: `Debug` prints it as
/// it is, and it is none of the blank Hangul fillers.
fn is_visible(c: char) -> bool {
    let as_it_is = c.is_ascii_graphic() || c.escape_debug().eq([c]);
    as_it_is && !['\u{115F}', '\u{1160}', '\u{3164}', '\u{FFA0}'].contains(&c)
}

/// A piece of a secret that must not be shown, in characters.
const PIECE: usize = 9;

/// Whether more than eight characters of a secret can be read in a text, in any case.
pub(crate) fn shows(text: &str, secret: &str) -> bool {
    let (text, secret) = (text.to_ascii_lowercase(), secret.to_ascii_lowercase());
    let pieces: Vec<char> = secret.chars().collect();
    pieces
        .windows(PIECE)
        .any(|piece| text.contains(&piece.iter().collect::<String>()))
}

fn retry_after(response: &TokenResponse) -> Option<Wait> {
    let text = response.headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
        // More than a u64 holds is a long time, and no reason not to wait.
        return Some(Wait::Seconds(text.parse().unwrap_or(u64::MAX)));
    }
    let date = httpdate::parse_http_date(text).ok()?;
    #[expect(
        clippy::disallowed_types,
        reason = "a date can only be compared with the wall clock"
    )]
    let now = std::time::SystemTime::now();
    Some(Wait::Date(date.duration_since(now).unwrap_or_default()))
}
