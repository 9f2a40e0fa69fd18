//! Everything the sandbox knows, behind one lock.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use http::{HeaderMap, StatusCode, header::AUTHORIZATION, request::Parts};

use super::{
    Counts, Endpoint, Fault,
    record::{Log, Recorded},
    route::Route,
    tokens::{Owner, Tokens},
};

/// What the handlers share with the handle. They do not keep the handle, so that its drop ends
/// them.
pub(super) struct Server(Mutex<State>);

impl Server {
    pub(super) fn new(state: State) -> Self {
        Self(Mutex::new(state))
    }

    /// Never held across an await: whatever the sandbox decides, it decides at one moment.
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(super) struct State {
    pub(super) tokens: Tokens,
    pub(super) refresh_kills_old: bool,
    /// What `expireIn` says, as JSON, if that is not to be the truth.
    pub(super) expire_in: Option<String>,
    pub(super) counts: Counts,
    pub(super) log: Log,
    customers: HashMap<String, String>,
    monitors: HashMap<Owner, Vec<serde_json::Value>>,
    controls: [Controls; Endpoint::ALL.len()],
}

/// What was asked for one endpoint.
#[derive(Default)]
pub(super) struct Controls {
    pub(super) latency: Duration,
    faults: VecDeque<(usize, Fault)>,
}

impl Controls {
    pub(super) fn fail_next(&mut self, times: usize, fault: Fault) {
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

/// What was decided about a request the moment it arrived.
pub(super) struct Arrival {
    /// Its number in the log.
    pub(super) number: u64,
    pub(super) route: Route,
    /// Whose request it is, and the number of the token that says so, if that token is good here.
    pub(super) caller: Option<(u64, Owner)>,
    pub(super) fault: Option<Fault>,
    pub(super) latency: Duration,
}

impl State {
    pub(super) fn new() -> Self {
        Self {
            tokens: Tokens::new(),
            refresh_kills_old: false,
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

    pub(super) fn knows(&self, access_key: &str, secret_key: &str) -> bool {
        self.customers
            .get(access_key)
            .is_some_and(|secret| secret == secret_key)
    }

    pub(super) fn controls(&mut self, endpoint: Endpoint) -> &mut Controls {
        &mut self.controls[endpoint as usize]
    }

    /// Writes a request down, and decides everything about it that its head can tell.
    pub(super) fn arrive(&mut self, parts: &Parts) -> Arrival {
        let route = Route::of(parts.uri.path());
        let endpoint = route.endpoint();
        let number = bearer(&parts.headers).and_then(|token| self.tokens.number(token));
        let caller = number.and_then(|number| {
            let owner = self.tokens.owner(number)?;
            (route.product() == Some(&*owner.product)).then(|| (number, owner.clone()))
        });
        let (fault, latency) = match endpoint {
            None => (None, Duration::ZERO),
            Some(endpoint) => {
                self.counts.count(endpoint);
                let controls = self.controls(endpoint);
                (controls.next_fault(), controls.latency)
            }
        };
        let number = self.log.push(Recorded::new(parts, endpoint, number));
        Arrival {
            number,
            route,
            caller,
            fault,
            latency,
        }
    }

    pub(super) fn answered(&mut self, arrival: &Arrival, status: StatusCode) {
        if arrival.route.endpoint() == Some(Endpoint::Resource)
            && status == StatusCode::UNAUTHORIZED
        {
            self.counts.unauthorized += 1;
        }
        self.log.answered(arrival.number, status);
    }

    /// A new token, and `expireIn` to go with it, as JSON.
    pub(super) fn issue(&mut self, access_key: Arc<str>, product: Arc<str>) -> (String, String) {
        let token = self.tokens.issue(Owner {
            access_key,
            product,
        });
        let expire_in = match &self.expire_in {
            Some(raw) => raw.clone(),
            None => self.tokens.lifetime().as_secs().to_string(),
        };
        (token, expire_in)
    }

    /// A new token for the owner of a token, `None` if that has died since its request arrived.
    pub(super) fn renew(&mut self, old: u64) -> Option<(String, String)> {
        let Owner {
            access_key,
            product,
        } = self.tokens.owner(old)?.clone();
        if self.refresh_kills_old {
            self.tokens.kill(old);
        }
        Some(self.issue(access_key, product))
    }

    /// Remembers a monitor and says the id it was given.
    pub(super) fn add_monitor(
        &mut self,
        owner: Owner,
        mut monitor: serde_json::Map<String, serde_json::Value>,
    ) -> String {
        let monitors = self.monitors.entry(owner).or_default();
        let id = format!("monitor-{}", monitors.len() + 1);
        monitor.insert("id".to_owned(), id.as_str().into());
        monitors.push(monitor.into());
        id
    }

    pub(super) fn monitors(&self, owner: &Owner) -> Vec<serde_json::Value> {
        self.monitors.get(owner).cloned().unwrap_or_default()
    }
}

/// The one bearer token of a request. Two `Authorization` headers are none.
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let (Some(value), None) = (values.next(), values.next()) else {
        return None;
    };
    let (scheme, token) = value.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(token)
}
