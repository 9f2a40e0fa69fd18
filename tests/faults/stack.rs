//! One server, one layer, and one fault at one place.

use std::{future::Future, net::SocketAddr, time::Duration};

use klavi_auth::{Credentials, Error, KlaviApi, KlaviAuthLayer, Product, RefreshPolicy};
use tokio::{
    net::TcpSocket,
    runtime::Handle,
    time::{sleep, timeout},
};

use crate::{
    clients::{Client, Http, Seen, decompressing, post},
    list::{self, Fault, Kind},
    network::{Network, To},
    server::{Place, Server},
};

/// How long one token call may take where only that ends it, and how long a caller waits for the
/// API there. Not shorter: every response comes within this time.
pub(crate) const SHORT: Duration = Duration::from_secs(1);

/// A test that takes this long hangs.
pub(crate) const LONG: Duration = Duration::from_secs(40);

pub(crate) struct FaultyStack {
    pub(crate) server: Server,
    pub(crate) bare: Http,
    pub(crate) layered: Http,
    pub(crate) layer: KlaviAuthLayer,
    /// Where a redirect leads to.
    elsewhere: Server,
    to_tokens: Network,
    to_api: Network,
    /// Bound to its port, so that nothing else is, and not listening.
    refuser: TcpSocket,
    base: &'static str,
    patience: Duration,
    tasks_before: usize,
}

impl FaultyStack {
    pub(crate) async fn new(fault: &Fault, place: Place, client: Client) -> Self {
        let (server, elsewhere) = (Server::start().await, Server::start().await);
        let refuser = TcpSocket::new_v4().unwrap();
        refuser.bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        let tasks_before = tasks();
        let direct = To::Server(server.addr());
        let (to_tokens, to_api) = (Network::new(direct), Network::new(direct));
        let is_tls = matches!(fault.kind, Kind::Tls(_));
        let base = if is_tls {
            "https://klavi.invalid"
        } else {
            "http://klavi.invalid"
        };

        let api = KlaviApi::at_insecure(base, Product::Monitor).unwrap();
        let builder =
            KlaviAuthLayer::builder(api, Credentials::new("access-4711", "secret-0815").unwrap());
        let builder = match fault.kind {
            Kind::Compressed(_) => builder.transport(decompressing(&to_tokens)),
            _ => client.transport(&to_tokens, builder),
        };
        // No backoff, so that the next request after a failure asks again.
        let builder = builder.randomness(|| 0.0);
        let builder = if place == Place::Refresh {
            builder.refresh_policy(at_once())
        } else {
            builder
        };
        let builder = if fault.is_slow {
            builder.token_call_timeout(SHORT)
        } else {
            builder
        };
        let layer = builder.build().unwrap();

        let (bare, layered) = (client.bare(&to_api), client.layered(&to_api, &layer));
        let patience = if fault.is_slow && place == Place::Api {
            SHORT
        } else {
            LONG
        };
        Self {
            server,
            bare,
            layered,
            layer,
            elsewhere,
            to_tokens,
            to_api,
            refuser,
            base,
            patience,
            tasks_before,
        }
    }

    /// Starts the fault at this place.
    pub(crate) fn strike(&self, fault: &Fault, place: Place) {
        let (network, is_api) = if place == Place::Api {
            (&self.to_api, true)
        } else {
            (&self.to_tokens, false)
        };
        match &fault.kind {
            Kind::Wire(wire) | Kind::Compressed(wire) => self.server.strike(place, wire.clone()),
            Kind::Rejection(wire) => self.server.strike_once(place, wire.clone()),
            Kind::Tls(wire) => {
                self.server.strike_tls(wire.clone());
                network.lead(To::Tls(self.server.addr()));
            }
            Kind::Redirect(status) => {
                let elsewhere = format!("http://{}/monitor/v1/auth", self.elsewhere.addr());
                let in_circles = format!("{}/monitor/v1/round", self.base);
                let location = if is_api { in_circles } else { elsewhere };
                self.server
                    .strike(place, list::redirect(*status, &location));
            }
            Kind::NobodyListens => network.lead(To::Server(self.refuser.local_addr().unwrap())),
            Kind::NoSuchName => network.lead(To::Nowhere),
            Kind::NoNameServer => network.lead(To::Silence),
        }
    }

    /// Ends the fault.
    pub(crate) fn heal(&self) {
        self.server.heal();
        for network in [&self.to_tokens, &self.to_api] {
            network.lead(To::Server(self.server.addr()));
        }
    }

    pub(crate) async fn ask(&self, http: &Http) -> Seen {
        soon(post(
            http,
            format!("{}/monitor/v1/thing", self.base),
            self.patience,
        ))
        .await
    }

    /// Makes the next fetch call `/auth`.
    pub(crate) async fn invalidate(&self) {
        if self.layer.cache().snapshot().is_ready() {
            let token = self.layer.cache().get().await.unwrap();
            self.layer.cache().invalidate(&token);
        }
    }

    /// How many calls were made, or begun, to fetch a token.
    pub(crate) fn attempts(&self, fault: &Fault) -> usize {
        if fault.is_before_the_request() {
            self.to_tokens.asked()
        } else {
            self.server.calls(Place::Auth)
        }
    }

    pub(crate) fn calls(&self) -> [usize; 3] {
        [Place::Auth, Place::Refresh, Place::Api].map(|place| self.server.calls(place))
    }

    /// Waits until the connection that had the fault is gone, if it is to go.
    pub(crate) async fn struck_is_gone(&self, fault: &Fault) {
        if !fault.leaves_the_connection_open() {
            // The clients still exist, but the connection with the fault must be closed.
            until(|| self.server.open_and_struck() == 0).await;
            // A reset has reached the system on this side, and in the next turns of this runtime
            // the client.
            sleep(Duration::from_millis(5)).await;
        }
    }

    /// Sends a request that must succeed, and says how it came.
    pub(crate) async fn next(&self, fault: &Fault, place: Place) -> String {
        self.struck_is_gone(fault).await;
        let seen = self.ask(&self.layered).await;
        assert!(seen.is_fine(), "the next request: {seen:?}");
        if place == Place::Refresh {
            let failed = landed(&self.layer).await;
            assert!(failed.is_none(), "the next refresh: {failed:?}");
        }
        if self.server.latest_came_on_struck(place) {
            return "200, on the same connection".to_owned();
        }
        until(|| self.server.open_and_struck() == 0).await;
        "200, on a new connection".to_owned()
    }

    /// Drops the clients, and says what is there of them after that.
    pub(crate) async fn leave(self) -> String {
        let Self {
            server,
            bare,
            layered,
            layer,
            elsewhere,
            tasks_before,
            ..
        } = self;
        assert_eq!(
            elsewhere.accepted(),
            0,
            "somebody followed a redirect of a token endpoint"
        );
        drop((bare, layered, layer));
        left_behind(|| server.open(), tasks_before).await
    }
}

/// What is there of connections and tasks after a while.
pub(crate) async fn left_behind(connections: impl Fn() -> usize, tasks_before: usize) -> String {
    let gone = until(|| connections() == 0 && tasks() == tasks_before);
    if timeout(Duration::from_secs(10), gone).await.is_ok() {
        return "nothing".to_owned();
    }
    format!(
        "{} connections, {} tasks",
        connections(),
        tasks() - tasks_before
    )
}

/// What the fetch that is under way, or was the last one, failed with.
pub(crate) async fn landed(layer: &KlaviAuthLayer) -> Option<Error> {
    until(|| !layer.cache().snapshot().is_fetching()).await;
    layer.cache().snapshot().last_error().cloned()
}

/// Waits for as long as no token call is made after a failure.
pub(crate) async fn back_off(layer: &KlaviAuthLayer) {
    until(|| layer.cache().snapshot().retry_in().is_none()).await;
}

/// A refresh is due as soon as there is a token.
pub(crate) fn at_once() -> RefreshPolicy {
    RefreshPolicy::default().jitter(0.0).refresh_after(1e-9)
}

pub(crate) fn tasks() -> usize {
    Handle::current().metrics().num_alive_tasks()
}

pub(crate) async fn soon<T>(future: impl Future<Output = T>) -> T {
    timeout(LONG + LONG / 2, future).await.expect("it hangs")
}

async fn until(happened: impl Fn() -> bool) {
    soon(async {
        while !happened() {
            sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
}
