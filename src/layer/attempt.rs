//! One attempt to send a request: the token attached, a backup saved, the response judged.

use http::{HeaderMap, HeaderValue, Uri, header::AUTHORIZATION};

use super::layer::KlaviAuthLayer;
use crate::{
    cache::token_cache::TokenCache,
    error::Error,
    events::event::{Event, SkipReason},
    replay::Replay,
    request::http_types::{HttpRequest, HttpResponse},
    token::AccessToken,
};

/// An attempt whose response is awaited.
pub(crate) struct Attempt<B> {
    /// The generation of the token that was sent.
    generation: u64,
    /// What the request can be sent again from.
    backup: Result<B, SkipReason>,
}

/// The first attempt. Saves a backup if resending is enabled and the body allows it.
///
/// # Errors
///
/// The request has too many headers to add one.
#[inline]
pub(crate) fn first<R, Q>(
    request: &mut Q,
    token: &AccessToken,
    no_resend: bool,
    layer: &KlaviAuthLayer<R>,
) -> Result<Attempt<R::Backup>, Error>
where
    R: Replay<Q>,
    Q: HttpRequest,
{
    attach(request, token)?;
    let backup = if R::IS_ENABLED && !no_resend {
        layer.replay().back_up(request).ok_or(SkipReason::NoBackup)
    } else {
        Err(SkipReason::Disabled)
    };
    Ok(Attempt {
        generation: token.generation(),
        backup,
    })
}

/// The resend. There is no further one.
///
/// # Errors
///
/// As [`first`].
pub(crate) fn resend<Q: HttpRequest, B>(
    request: &mut Q,
    token: &AccessToken,
    cache: &TokenCache,
) -> Result<Attempt<B>, Error> {
    attach(request, token)?;
    let generation = token.generation();
    cache.emit(&Event::Resent { generation });
    Ok(Attempt {
        generation,
        backup: Err(SkipReason::RejectedAgain),
    })
}

#[inline]
fn attach(request: &mut impl HttpRequest, token: &AccessToken) -> Result<(), Error> {
    let (headers, value) = (request.headers_mut(), token.header_value());
    match headers.try_insert(AUTHORIZATION, value.clone()) {
        Ok(_) => Ok(()),
        Err(_) => attach_to_full(headers, value),
    }
}

/// The map refuses to grow before it looks for a value to replace.
#[cold]
fn attach_to_full(headers: &mut HeaderMap, value: &HeaderValue) -> Result<(), Error> {
    headers.remove(AUTHORIZATION);
    let inserted = headers.try_insert(AUTHORIZATION, value.clone());
    inserted.map(drop).map_err(|_| Error::too_many_headers())
}

/// Whether the response rejects the token. A 401 from outside of the scope, to which the client
/// followed a redirect, says nothing about it.
#[inline]
pub(crate) fn is_rejection<R>(
    response: &impl HttpResponse,
    layer: &KlaviAuthLayer<R>,
    own_cache: Option<&TokenCache>,
) -> bool {
    let options = &layer.settings().options;
    let in_scope = |uri: &Uri| options.scope.contains(uri, own_cache.is_some());
    options.is_rejection(response.status(), response.headers())
        && response.responder().is_none_or(|uri| in_scope(&uri))
}

/// A rejected first attempt, to be followed by a resend.
pub(crate) struct Rejected<A, B> {
    /// The generation of the rejected token.
    pub(crate) generation: u64,
    backup: B,
    response: A,
}

impl<B> Attempt<B> {
    /// The response rejects the token.
    ///
    /// # Errors
    ///
    /// The response, if it goes to the caller: nothing is resent.
    #[cold]
    pub(crate) fn reject<R, Q, A>(
        self,
        mut response: A,
        layer: &KlaviAuthLayer<R>,
        cache: &TokenCache,
    ) -> Result<Rejected<A, B>, A>
    where
        R: Replay<Q, Backup = B>,
        A: HttpResponse,
    {
        let generation = self.generation;
        let backup = self
            .backup
            .and_then(|backup| match layer.replay().is_complete(&backup) {
                true => Ok(backup),
                false => Err(SkipReason::NoBackup),
            });
        let reason = match backup {
            // The token was fetched for this very request, so the 401 is about the request.
            Err(reason @ SkipReason::RejectedAgain) => reason,
            backup => match (cache.reject(generation), backup) {
                (Ok(()), Ok(backup)) => {
                    return Ok(Rejected {
                        generation,
                        backup,
                        response,
                    });
                }
                (Ok(()), Err(reason)) => reason,
                (Err(error), backup) => {
                    response.extensions_mut().insert(error);
                    backup.err().unwrap_or(SkipReason::OverBudget)
                }
            },
        };
        cache.emit(&Event::ResendSkipped { generation, reason });
        Err(response)
    }
}

impl<A: HttpResponse, B> Rejected<A, B> {
    /// The response for the caller: there is no token for the resend.
    pub(crate) fn without_token(mut self, error: Error, cache: &TokenCache) -> A {
        let (generation, reason) = (self.generation, SkipReason::NoToken);
        cache.emit(&Event::ResendSkipped { generation, reason });
        self.response.extensions_mut().insert(error);
        self.response
    }

    /// The request to resend. Drops the response, whose body may occupy a connection, or a permit
    /// of the inner service.
    ///
    /// # Errors
    ///
    /// The response, if the backup is no longer complete.
    pub(crate) fn into_request<R, Q>(self, replay: &R, cache: &TokenCache) -> Result<Q, A>
    where
        R: Replay<Q, Backup = B>,
    {
        replay.restore(self.backup).ok_or_else(|| {
            let (generation, reason) = (self.generation, SkipReason::NoBackup);
            cache.emit(&Event::ResendSkipped { generation, reason });
            self.response
        })
    }
}
