//! What a fleet puts on the heap: the record, its value, the sealing keys.

use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use klavi_auth::{
    BoxError, Credentials, Fleet, KlaviApi, KlaviAuthLayer, MemoryStore, Product, SealingKey,
};
use tower::{Layer, ServiceExt, service_fn};

use crate::{
    ACCESS, FIRST, Outgoing, SEALING, SECRET, Script, THIRD, heap, left_by, nothing, owned, pass,
    valid,
};

/// One process of a fleet: its layer.
fn layer(fleet: Fleet, script: Script) -> KlaviAuthLayer {
    let credentials = Credentials::new(owned(ACCESS), owned(SECRET)).unwrap();
    let transport = service_fn(move |_: Outgoing| async move { script(0) });
    KlaviAuthLayer::builder(KlaviApi::production(Product::Monitor), credentials)
        .transport(transport)
        .randomness(|| 0.0)
        .fleet(fleet.randomness(|| 7))
        .build()
        .unwrap()
}

async fn send(layer: &KlaviAuthLayer) {
    let api =
        service_fn(async |_: Outgoing| Ok::<_, BoxError>(Response::new(Full::<Bytes>::default())));
    let request = Request::get("https://api.klavi.ai/monitor/v1/monitors").body(Full::default());
    layer.layer(api).oneshot(request.unwrap()).await.unwrap();
}

fn key() -> SealingKey {
    SealingKey::new(SEALING.as_bytes().try_into().unwrap())
}

/// The fleet of one process, with more keys than a vector takes without growing.
fn sealed(store: &Arc<MemoryStore>) -> Fleet {
    let others = (0..5).map(|number| SealingKey::new([number; 32]));
    let fleet = Fleet::new(Arc::clone(store)).seal_with(key());
    others.fold(fleet, Fleet::open_with)
}

#[test]
fn a_record_and_its_keys_are_wiped() {
    for is_sealed in [false, true] {
        let left = left_by(async {
            let store = Arc::new(MemoryStore::new());
            let fleet = || match is_sealed {
                true => sealed(&store),
                false => Fleet::new(Arc::clone(&store)),
            };
            let first = layer(fleet(), |_| valid(FIRST));
            send(&first).await;
            let second = layer(fleet(), |_| valid(THIRD));
            // Adopted.
            send(&second).await;
            let keys = ["access key", "secret key"];
            let with = |token| match is_sealed {
                true => vec![keys[0], keys[1], token, "sealing key"],
                false => vec![keys[0], keys[1], token],
            };
            assert_eq!(heap::held(), with("first"));
            // Refreshed by one, adopted by the other.
            pass(1400).await;
            send(&second).await;
            pass(0).await;
            pass(400).await;
            for _ in 0..2 {
                send(&first).await;
                send(&second).await;
            }
            assert_eq!(heap::held(), with("third"));
        });
        assert_eq!(left, nothing(), "{is_sealed}");
    }
}
