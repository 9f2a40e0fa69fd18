//! One attempt to send a request: attach the token, back up the request, judge the response.

use http::{HeaderValue, Uri, header::AUTHORIZATION};

use super::layer::KlaviAuthLayer;
use crate::{
    cache::{acquire::Acquire, core::Core},
    error::{Error, Kind},
    events::event::{Event, SkipReason},
    replay::Replay,
    request::http_traits::{HttpRequest, HttpResponse},
    token::AccessToken,
};

/// An attempt that waits for its response.
pub(crate) struct Attempt<B> {
    /// The generation of the token that was sent.
    generation: u64,
    backup: Option<B>,
    /// The reason for no resend, if there is no complete backup.
    // Beside the backup: a `Result` of both would cost each request another move.
    no_backup: SkipReason,
}

/// Prepares the first attempt: attaches the token, and backs up the request if resending is enabled
/// and the body allows it.
///
/// # Errors
///
/// The request has too many headers to add another.
pub(crate) fn prepare_first<R, Q>(
    request: &mut Q,
    token: AccessToken,
    no_resend: bool,
    layer: &KlaviAuthLayer<R>,
) -> Result<Attempt<R::Backup>, Error>
where
    R: Replay<Q>,
    Q: HttpRequest,
{
    let generation = token.generation();
    insert(request, token.into_header_value())?;
    Ok(Attempt::first(request, generation, no_resend, layer))
}

/// Prepares the resend, which is the last attempt.
///
/// # Errors
///
/// As [`prepare_first`].
pub(crate) fn prepare_resend<Q: HttpRequest, B>(
    request: &mut Q,
    token: AccessToken,
    cache: &Core,
) -> Result<Attempt<B>, Error> {
    let generation = token.generation();
    insert(request, token.into_header_value())?;
    request.mark_resent();
    cache.emit(&Event::Resent { generation });
    Ok(Attempt {
        generation,
        backup: None,
        no_backup: SkipReason::RejectedAgain,
    })
}

/// Attaches the token, and returns its generation.
///
/// Borrows the token: to move it costs more than to clone its header value.
///
/// # Errors
///
/// As [`prepare_first`].
#[inline]
pub(super) fn attach(request: &mut impl HttpRequest, token: &AccessToken) -> Result<u64, Error> {
    insert(request, token.header_value().clone())?;
    Ok(token.generation())
}

#[inline]
fn insert(request: &mut impl HttpRequest, token: HeaderValue) -> Result<(), Error> {
    // `http` allows 24,576 headers. On a full map `try_insert` fails even if the name is in it.
    const NEARLY_FULL: usize = 24_000;
    let headers = request.headers_mut();
    if headers.len() > NEARLY_FULL {
        headers.remove(AUTHORIZATION);
    }
    match headers.try_insert(AUTHORIZATION, token) {
        Ok(_) => Ok(()),
        Err(_) => Err(Error::new(Kind::TooManyHeaders)),
    }
}

/// Whether the response rejects the token.
///
/// The client may have followed a redirect out of the scope. A 401 from there says nothing about
/// the token.
#[inline]
pub(crate) fn is_rejection<R>(
    response: &impl HttpResponse,
    layer: &KlaviAuthLayer<R>,
    has_own_cache: bool,
) -> bool {
    let settings = &layer.settings;
    let in_scope = |uri: &Uri| settings.scope.contains(uri, has_own_cache);
    // The status first: a client may have to parse the URI.
    settings.is_rejection(response.status(), response.headers())
        && response.responder().is_none_or(|uri| in_scope(&uri))
}

/// A rejected first attempt, to be resent once there is another token.
pub(crate) struct Rejected<Res, B> {
    /// The generation of the rejected token.
    pub(crate) generation: u64,
    backup: B,
    // Not dropped while the request waits: if the fetch fails, the caller gets this 401.
    response: Res,
    /// The error if the budget is used up. Then no token is fetched, but another process may have
    /// one.
    over_budget: Option<Error>,
}

impl<B> Attempt<B> {
    /// The first attempt of a request that has its token. Backs up the request if resending is
    /// enabled and the body allows it.
    #[inline]
    pub(super) fn first<R, Q>(
        request: &mut Q,
        generation: u64,
        no_resend: bool,
        layer: &KlaviAuthLayer<R>,
    ) -> Self
    where
        R: Replay<Q, Backup = B>,
        Q: HttpRequest,
    {
        let (backup, no_backup) = if R::IS_ENABLED && !no_resend {
            // Without the cache of the request: a clone of it writes to a reference count that
            // other threads write to.
            let backup = request.without_cache(|request| layer.replay.back_up(request));
            (backup, SkipReason::NoBackup)
        } else {
            (None, SkipReason::Disabled)
        };
        Self {
            generation,
            backup,
            no_backup,
        }
    }

    /// Rejects the token in the cache, and decides whether to resend.
    ///
    /// # Errors
    ///
    /// The response for the caller, if there is no resend.
    #[cold]
    pub(crate) fn reject<R, Q, Res>(
        self,
        mut response: Res,
        layer: &KlaviAuthLayer<R>,
        cache: &Core,
    ) -> Result<Rejected<Res, B>, Res>
    where
        R: Replay<Q, Backup = B>,
        Res: HttpResponse,
    {
        let generation = self.generation;
        let is_complete = |backup: &B| layer.replay.is_complete(backup);
        let backup = self.backup.filter(is_complete).ok_or(self.no_backup);
        let over_budget = match self.no_backup {
            // A 401 to the resend changes nothing in the cache: its token is newer than the
            // rejected one, so the 401 is about the request.
            SkipReason::RejectedAgain => None,
            _ => cache.reject(generation).err(),
        };
        let reason = match backup {
            // Even over budget, another process may have a token.
            Ok(backup) if over_budget.is_none() || cache.can_adopt() => {
                return Ok(Rejected {
                    generation,
                    backup,
                    response,
                    over_budget,
                });
            }
            // The budget is the reason only if the request could have been resent.
            Ok(_) => SkipReason::OverBudget,
            Err(reason) => reason,
        };
        if let Some(error) = over_budget {
            response.extensions_mut().insert(error);
        }
        cache.emit(&Event::ResendSkipped { generation, reason });
        Err(response)
    }
}

impl<Res, B> Rejected<Res, B> {
    /// The wait for another token.
    pub(crate) fn acquire(&mut self) -> Acquire {
        Acquire::new(Some(self.generation), self.over_budget.take())
    }

    /// The response for the caller, since there is no token for the resend.
    pub(crate) fn without_token(mut self, error: Error, cache: &Core) -> Res
    where
        Res: HttpResponse,
    {
        let reason = match error.is_over_budget() {
            true => SkipReason::OverBudget,
            false => SkipReason::NoToken,
        };
        let generation = self.generation;
        cache.emit(&Event::ResendSkipped { generation, reason });
        self.response.extensions_mut().insert(error);
        self.response
    }

    /// The request to resend, as it was backed up: without a token cache in its extensions. Drops
    /// the response: its body may occupy a connection, or a permit of the inner service.
    ///
    /// # Errors
    ///
    /// The response, if the backup is no longer complete.
    pub(crate) fn into_request<R, Q>(self, replay: &R, cache: &Core) -> Result<Q, Res>
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
