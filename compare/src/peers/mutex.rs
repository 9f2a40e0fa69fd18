//! What most programs write by hand: a token and its end behind an async mutex, fetched again 30 s
//! ahead of its end. No resend.

use std::{sync::Arc, time::Duration};

use tokio::{sync::Mutex, time::Instant};

use super::{BoxError, Peer, client};
use crate::world::World;

const MARGIN: Duration = Duration::from_secs(30);

#[derive(Clone)]
pub struct Cache {
    world: World,
    token: Arc<Mutex<Option<(String, Instant)>>>,
}

impl Cache {
    pub fn new(world: World) -> Self {
        Self {
            world,
            token: Arc::default(),
        }
    }

    pub async fn token(&self) -> Result<String, BoxError> {
        let mut cached = self.token.lock().await;
        match &*cached {
            Some((token, end)) if Instant::now() + MARGIN < *end => Ok(token.clone()),
            _ => {
                let (token, lifetime) = self.world.issue().await.ok_or("503 from the endpoint")?;
                *cached = Some((token.clone(), Instant::now() + lifetime));
                Ok(token)
            }
        }
    }

    /// Forgets `token`, unless it was replaced.
    pub async fn reject(&self, token: &str) {
        self.token
            .lock()
            .await
            .take_if(|(cached, _)| cached == token);
    }
}

pub fn peer() -> Peer {
    Peer {
        name: "mutex",
        version: "by hand",
        resends: false,
        how: "`tokio::sync::Mutex<Option<(String, Instant)>>`, fetched under the lock 30 s ahead of \
              expiry, and `bearer_auth` of reqwest 0.12.",
        no_panic: None,
        start: |world, wire| {
            Box::pin(async move {
                let (cache, http) = (Cache::new(world), reqwest::Client::new());
                client(move |path| {
                    let (cache, http, url) = (cache.clone(), http.clone(), wire.url(path));
                    async move {
                        let token = cache.token().await?;
                        Ok(http
                            .get(url)
                            .bearer_auth(token)
                            .send()
                            .await?
                            .status()
                            .as_u16())
                    }
                })
            })
        },
    }
}
