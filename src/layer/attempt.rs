//! One sending of a request and what follows from its answer: the token attached, the request kept,
//! a 401 judged.

use std::mem;

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

/// What is remembered of a request that the inner service has.
pub(crate) struct Sent<K> {
    generation: u64,
    kept: Result<K, SkipReason>,
}

/// Sends a request with its token for the first time, and keeps it, if it may and can be sent
/// again. `Err` if there is no room for the token: nothing was sent.
#[inline]
pub(crate) fn first_sending<R, Q, T>(
    mut request: Q,
    token: &AccessToken,
    once: bool,
    layer: &KlaviAuthLayer<R>,
    send: impl FnOnce(Q) -> T,
) -> Result<(T, Sent<R::Kept>), Error>
where
    R: Replay<Q>,
    Q: HttpRequest,
{
    attach(&mut request, token)?;
    let resend = layer.settings().options.resend && !once;
    let (response, kept) = if resend {
        let (response, kept) = layer.replay().keep(request, send);
        (response, kept.ok_or(SkipReason::BodyNotKept))
    } else {
        (send(request), Err(SkipReason::SwitchedOff))
    };
    Ok((
        response,
        Sent {
            generation: token.generation(),
            kept,
        },
    ))
}

/// Sends a request with its token for the second time, after which nothing is kept. `Err` as for
/// the first time.
pub(crate) fn second_sending<Q: HttpRequest, T, K>(
    mut request: Q,
    token: &AccessToken,
    cache: &TokenCache,
    send: impl FnOnce(Q) -> T,
) -> Result<(T, Sent<K>), Error> {
    attach(&mut request, token)?;
    cache.emit(&Event::Resent {
        generation: token.generation(),
    });
    Ok((
        send(request),
        Sent {
            generation: token.generation(),
            kept: Err(SkipReason::RejectedAgain),
        },
    ))
}

#[inline]
fn attach(request: &mut impl HttpRequest, token: &AccessToken) -> Result<(), Error> {
    let (headers, value) = (request.headers_mut(), token.header_value());
    match headers.try_insert(AUTHORIZATION, value.clone()) {
        Ok(_) => Ok(()),
        Err(_) => attach_to_full(headers, value),
    }
}

/// A full map takes no value in place of another one either, until that is removed.
#[cold]
fn attach_to_full(headers: &mut HeaderMap, value: &HeaderValue) -> Result<(), Error> {
    headers.remove(AUTHORIZATION);
    headers
        .try_insert(AUTHORIZATION, value.clone())
        .map(drop)
        .map_err(|_| Error::too_many_headers())
}

/// A request that was sent and may be sent again, and what came back: kept until there is a token
/// for the second time.
pub(crate) struct Rejected<A, K> {
    pub(crate) generation: u64,
    kept: K,
    pub(crate) response: A,
}

/// Takes a rejected token out of use. `Err` is the response for the caller, `Ok` what may be sent
/// again. `own` is the cache that the request brought.
///
/// A client that follows redirects may get a 401 from a place where the token may not go, another
/// product's path for one. It says nothing about the token, so it is judged by the path too, as the
/// request was.
#[inline]
pub(crate) fn after_response<R, Q, A>(
    response: A,
    sent: &mut Sent<R::Kept>,
    layer: &KlaviAuthLayer<R>,
    own: Option<&TokenCache>,
) -> Result<Rejected<A, R::Kept>, A>
where
    R: Replay<Q>,
    A: HttpResponse,
{
    let settings = layer.settings();
    let in_scope = |uri: &Uri| settings.options.scope.contains(uri, own.is_some());
    let is_foreign = || response.answered_by().is_some_and(|uri| !in_scope(&uri));
    if !settings
        .options
        .is_rejection(response.status(), response.headers())
        || is_foreign()
    {
        return Err(response);
    }
    let cache = own.unwrap_or(&settings.cache);
    let generation = sent.generation;
    let kept = match mem::replace(&mut sent.kept, Err(SkipReason::RejectedAgain)) {
        // The token was made for this very request, so the 401 is about the request.
        Err(reason @ SkipReason::RejectedAgain) => {
            cache.emit(&Event::ResendSkipped { generation, reason });
            return Err(response);
        }
        Ok(kept) if !layer.replay().is_whole(&kept) => Err(SkipReason::BodyNotKept),
        kept => kept,
    };
    let (reason, response) = match (cache.reject(generation), kept) {
        (Ok(()), Ok(kept)) => {
            return Ok(Rejected {
                generation,
                kept,
                response,
            });
        }
        (Ok(()), Err(reason)) => (reason, response),
        (Err(error), Ok(_)) => (SkipReason::OverBudget, with_error(response, error)),
        (Err(error), Err(reason)) => (reason, with_error(response, error)),
    };
    cache.emit(&Event::ResendSkipped { generation, reason });
    Err(response)
}

impl<A: HttpResponse, K> Rejected<A, K> {
    /// There is no token for a second time: the response goes to the caller, with the reason.
    pub(crate) fn give_up(self, error: Error, cache: &TokenCache) -> A {
        cache.emit(&Event::ResendSkipped {
            generation: self.generation,
            reason: SkipReason::NoToken,
        });
        with_error(self.response, error)
    }

    /// There is one: the request, to be sent again. `Err` is the response for the caller, if more
    /// of the body was read meanwhile than can be kept.
    pub(crate) fn restore<R, Q>(self, replay: &R, cache: &TokenCache) -> Result<Q, A>
    where
        R: Replay<Q, Kept = K>,
    {
        // The response goes here, before the inner service is readied: its body may hold a place
        // there, or a connection.
        replay.restore(self.kept).ok_or_else(|| {
            let (generation, reason) = (self.generation, SkipReason::BodyNotKept);
            cache.emit(&Event::ResendSkipped { generation, reason });
            self.response
        })
    }
}

fn with_error<A: HttpResponse>(mut response: A, error: Error) -> A {
    response.extensions_mut().insert(error);
    response
}
