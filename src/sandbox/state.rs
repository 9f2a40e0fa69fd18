//! The state of the sandbox, behind one lock.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use http::{HeaderMap, StatusCode, header::AUTHORIZATION, request::Parts};

use super::{
    Counts, Endpoint, Fault,
    request_log::{Log, RecordedRequest},
    route::Route,
    tokens::{Owner, Tokens},
};

/// The state that the request handlers share with the [`Sandbox`](super::Sandbox). They do not keep
/// the sandbox itself alive, since its drop ends them.
pub(super) struct Server(Mutex<State>);

impl Server {
    pub(super) fn new(state: State) -> Self {
        Self(Mutex::new(state))
    }

    /// Never held across an await, so each decision is atomic.
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(super) struct State {
    pub(super) tokens: Tokens,
    pub(super) refresh_revokes_old: bool,
    pub(super) new_token_revokes_old: bool,
    pub(super) auth_repeats_token: bool,
    /// The JSON of `expireIn`, if it is not the true value.
    pub(super) expire_in: Option<String>,
    pub(super) counts: Counts,
    pub(super) log: Log,
    customers: HashMap<String, String>,
    monitors: HashMap<Owner, Vec<serde_json::Value>>,
    controls: [Controls; Endpoint::ALL.len()],
}

/// The latency and the faults of one endpoint.
#[derive(Default)]
pub(super) struct Controls {
    pub(super) latency: Duration,
    faults: VecDeque<(usize, Fault)>,
}

impl Controls {
    pub(super) fn fail_next(&mut self, times: usize, fault: Fault) {
        // `next_fault` takes one before it looks whether any are left.
        if times > 0 {
            self.faults.push_back((times, fault));
        }
    }

    pub(super) fn clear_faults(&mut self) {
        self.faults.clear();
    }

    fn next_fault(&mut self) -> Option<Fault> {
        let (left, fault) = self.faults.front_mut()?;
        *left -= 1;
        if *left > 0 {
            return Some(fault.clone());
        }
        self.faults.pop_front().map(|(_, fault)| fault)
    }
}

/// A request, with all that its head determines.
pub(super) struct Received {
    /// Its number in the log.
    pub(super) number: u64,
    pub(super) route: Route,
    /// The number and the owner of the token, if it is valid for this product.
    pub(super) caller: Option<(u64, Owner)>,
    pub(super) fault: Option<Fault>,
    pub(super) latency: Duration,
}

impl State {
    pub(super) fn new() -> Self {
        Self {
            tokens: Tokens::new(),
            refresh_revokes_old: false,
            new_token_revokes_old: false,
            auth_repeats_token: false,
            expire_in: None,
            counts: Counts::default(),
            log: Log::default(),
            customers: HashMap::new(),
            monitors: HashMap::new(),
            controls: Default::default(),
        }
    }

    pub(super) fn add_customer(&mut self, access_key: String, secret_key: String) {
        self.customers.insert(access_key, secret_key);
    }

    pub(super) fn remove_customer(&mut self, access_key: &str) {
        self.customers.remove(access_key);
    }

    pub(super) fn authenticates(&self, access_key: &str, secret_key: &str) -> bool {
        // Not in constant time: these keys protect nothing.
        self.customers
            .get(access_key)
            .is_some_and(|secret| secret == secret_key)
    }

    pub(super) fn controls(&mut self, endpoint: Endpoint) -> &mut Controls {
        &mut self.controls[endpoint as usize]
    }

    /// Logs a request, and decides all that its head determines.
    pub(super) fn receive(&mut self, parts: &Parts) -> Received {
        let route = Route::of(parts.uri.path());
        let endpoint = route.endpoint();
        // A dead token has a number too, so that the log shows which one a request carried.
        let number = bearer(&parts.headers).and_then(|token| self.tokens.number(token));
        let caller = number.and_then(|number| {
            let owner = self.tokens.owner(number)?;
            (route.product() == Some(&*owner.product)).then(|| (number, owner.clone()))
        });
        let (fault, latency) = match endpoint {
            None => (None, Duration::ZERO),
            Some(endpoint) => {
                // A request counts even if it fails on order.
                self.counts.count(endpoint);
                let controls = self.controls(endpoint);
                (controls.next_fault(), controls.latency)
            }
        };
        let number = self.log.push(RecordedRequest::new(parts, endpoint, number));
        Received {
            number,
            route,
            caller,
            fault,
            latency,
        }
    }

    pub(super) fn set_status(&mut self, received: &Received, status: StatusCode) {
        if received.route.endpoint() == Some(Endpoint::Resource)
            && status == StatusCode::UNAUTHORIZED
        {
            self.counts.unauthorized += 1;
        }
        self.log.set_status(received.number, status);
    }

    /// The token for a customer with its keys: a new one, or the live one again if so configured.
    /// Returns it with the JSON of its `expireIn`.
    pub(super) fn grant(&mut self, access_key: Arc<str>, product: Arc<str>) -> (String, String) {
        let owner = Owner {
            access_key,
            product,
        };
        if self.auth_repeats_token {
            if let Some((token, left)) = self.tokens.last_live(&owner) {
                return (token, self.expire_in(left));
            }
        }
        self.issue(owner.access_key, owner.product)
    }

    /// Issues a token. Returns it with the JSON of its `expireIn`.
    pub(super) fn issue(&mut self, access_key: Arc<str>, product: Arc<str>) -> (String, String) {
        let owner = Owner {
            access_key,
            product,
        };
        // Before the new one is issued, or it would be revoked too.
        if self.new_token_revokes_old {
            self.tokens.revoke_all_of(&owner);
        }
        let token = self.tokens.issue(owner);
        (token, self.expire_in(self.tokens.lifetime()))
    }

    fn expire_in(&self, left: Duration) -> String {
        match &self.expire_in {
            Some(raw) => raw.clone(),
            None => left.as_secs().to_string(),
        }
    }

    /// Issues a token to the owner of an old one, `None` if that is no longer live.
    pub(super) fn refresh(&mut self, old: u64) -> Option<(String, String)> {
        let Owner {
            access_key,
            product,
        } = self.tokens.owner(old)?.clone();
        if self.refresh_revokes_old {
            self.tokens.revoke(old);
        }
        Some(self.issue(access_key, product))
    }

    /// Stores a monitor and returns its id.
    pub(super) fn add_monitor(
        &mut self,
        owner: Owner,
        mut monitor: serde_json::Map<String, serde_json::Value>,
    ) -> String {
        let monitors = self.monitors.entry(owner).or_default();
        // Monitors are never removed, so the number is unique.
        let id = format!("monitor-{}", monitors.len() + 1);
        monitor.insert("id".to_owned(), id.as_str().into());
        monitors.push(monitor.into());
        id
    }

    pub(super) fn monitors(&self, owner: &Owner) -> Vec<serde_json::Value> {
        self.monitors.get(owner).cloned().unwrap_or_default()
    }
}

/// The bearer token of a request, `None` with more than one `Authorization` header.
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    // A server that took one of two would hide a client that adds a second header.
    let (Some(value), None) = (values.next(), values.next()) else {
        return None;
    };
    let (scheme, token) = value.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(token)
}
