//! The JSON of a token response: which fields it has, and how they are read.

use std::{collections::BTreeMap, time::Duration};

use secrecy::zeroize::Zeroizing;
use serde_json::value::RawValue;

use super::wiped::json_string;

/// Klavi's documentation: "default 1800 seconds".
const KLAVI_LIFETIME: Duration = Duration::from_secs(1800);

/// Whose responses are read.
#[derive(Clone, Copy, Debug)]
pub(super) enum ResponseFormat {
    /// Klavi's `/auth` and `/refresh`.
    Klavi,
    /// RFC 6749, sections 5.1 and 5.2.
    OAuth2 {
        /// The lifetime of a token whose response does not state one.
        default_lifetime: Option<Duration>,
    },
}

impl ResponseFormat {
    /// The names of the field with the token. Klavi's documented spelling comes first; some
    /// versions of its endpoints use the other one.
    pub(super) fn token_fields(self) -> &'static [&'static str] {
        match self {
            Self::Klavi => &["accessToken", "accesstoken"],
            Self::OAuth2 { .. } => &["access_token"],
        }
    }

    /// The names of the field with the lifetime.
    pub(super) fn lifetime_fields(self) -> &'static [&'static str] {
        match self {
            Self::Klavi => &["expireIn", "expirein"],
            Self::OAuth2 { .. } => &["expires_in"],
        }
    }

    pub(super) fn default_lifetime(self) -> Option<Duration> {
        match self {
            Self::Klavi => Some(KLAVI_LIFETIME),
            Self::OAuth2 { default_lifetime } => default_lifetime,
        }
    }
}

/// The fields of a JSON object, undecoded: no value, which may be a secret, is copied.
pub(super) struct Fields<'a>(BTreeMap<String, &'a RawValue>);

impl<'a> Fields<'a> {
    pub(super) fn parse(body: &'a [u8]) -> Option<Self> {
        serde_json::from_slice(body).ok().map(Self)
    }

    /// The JSON of the first of these fields that is present. `null` counts as absent.
    pub(super) fn json(&self, names: &[&str]) -> Option<&'a str> {
        let value = names.iter().find_map(|name| self.0.get(*name));
        value
            .map(|value| value.get())
            .filter(|json| *json != "null")
    }

    /// The string in the first of these fields that is present.
    pub(super) fn string(&self, names: &[&str]) -> Option<Zeroizing<String>> {
        json_string(self.json(names)?)
    }
}
