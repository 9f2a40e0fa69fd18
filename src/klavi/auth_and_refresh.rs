//! The calls of `/refresh` and `/auth`.

use super::{
    encode,
    keys::Keys,
    response_format::{AUTH, REFRESH},
    source::KlaviSource,
    token_call::TokenCall,
};
use crate::{
    error::Error,
    token::{AccessToken, new_token::NewToken},
};

impl KlaviSource {
    pub(super) async fn refresh(
        &self,
        bearer: &AccessToken,
        reason: &'static str,
    ) -> Result<NewToken, Error> {
        // The keys are not sent, but the server may know them and echo them in its response.
        let keys = self.memory().last_keys.clone();
        let (access, secret) = keys.as_ref().map_or(("", ""), Keys::expose);
        let call = TokenCall {
            uri: self.api.refresh_uri(),
            authorization: Some(bearer.header_value().clone()),
            content: None,
            format: &REFRESH,
            reason,
            secrets: &[bearer.expose(), access, secret],
        };
        self.client.send(call).await
    }

    pub(super) async fn authenticate(
        &self,
        replaced: Option<&AccessToken>,
        reason: &'static str,
    ) -> Result<NewToken, Error> {
        let keys = self.read_keys().await?;
        let outcome = self.authenticate_with(&keys, replaced, reason).await;
        if !outcome.as_ref().is_err_and(Error::is_keys_rejected) {
            return outcome;
        }
        // The keys may have changed between the read and the call.
        match self.read_keys().await {
            Ok(newer) if newer.expose() != keys.expose() => {
                self.authenticate_with(&newer, replaced, "keys changed")
                    .await
            }
            _ => outcome,
        }
    }

    pub(super) async fn read_keys(&self) -> Result<Keys, Error> {
        let keys = self.credentials.read_keys().await?;
        self.memory().last_keys = Some(keys.clone());
        Ok(keys)
    }

    /// `replaced` is the bearer to be replaced. It is not sent, but the server may echo it in its
    /// response.
    async fn authenticate_with(
        &self,
        keys: &Keys,
        replaced: Option<&AccessToken>,
        reason: &'static str,
    ) -> Result<NewToken, Error> {
        let (access, secret) = keys.expose();
        let call = TokenCall {
            uri: self.api.auth_uri(),
            authorization: None,
            content: Some(encode::keys(access, secret)),
            format: &AUTH,
            reason,
            secrets: &[replaced.map_or("", AccessToken::expose), access, secret],
        };
        self.client.send(call).await
    }
}
