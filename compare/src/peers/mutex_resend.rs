//! The best that one writes by hand in half an hour: the mutex, and on a 401 the token is forgotten
//! unless it was replaced, and the request is sent once more.

use super::{Peer, client, mutex::Cache};

pub fn peer() -> Peer {
    Peer {
        name: "mutex + resend",
        version: "by hand",
        resends: true,
        how: "The mutex below. On a 401 it forgets the token, unless another caller replaced it, and \
              sends the request once more.",
        no_panic: None,
        start: |world, wire| {
            Box::pin(async move {
                let (cache, http) = (Cache::new(world), reqwest::Client::new());
                client(move |path| {
                    let (cache, http, url) = (cache.clone(), http.clone(), wire.url(path));
                    async move {
                        let token = cache.token().await?;
                        let response = http.get(&url).bearer_auth(&token).send().await?;
                        if response.status() != 401 {
                            return Ok(response.status().as_u16());
                        }
                        cache.reject(&token).await;
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
