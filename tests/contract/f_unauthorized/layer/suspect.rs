//! Cases 44 and 44a: a rejected token that could not be replaced is in use again, as a suspect.

use futures_util::future::join_all;
use klavi_auth::{Error, KlaviApi, KlaviAuth, KlaviAuthLayer, Predecessor, Product, TokenCache};
use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{Duration, Instant},
};
use tower::{Layer, ServiceExt};

use crate::support::{
    LoggedSource, ManualSource, NS, ScriptedSource,
    api::{Api, ApiResult, BAD, GOOD, get, ok, only, picky, status},
    at_once, cache_drawing, error_of, frugal, layer_of, pass, rejected, reset, secs, settle, token,
    token_for,
};

/// Responds like [`picky`], but to [`BAD`] only when the test says so.
fn late() -> (Api, watch::Sender<bool>) {
    let (open, gate) = watch::channel(true);
    let api = Api::new(move |seen| {
        let mut gate = gate.clone();
        async move {
            if seen.uri.path() != BAD || seen.authorization() == ["Bearer t2"] {
                return ok("fine");
            }
            gate.wait_for(|open| *open).await?;
            status(401, "no")
        }
    });
    (api, open)
}

fn spawn(service: &KlaviAuth<Api>, path: &str) -> JoinHandle<ApiResult> {
    tokio::spawn(service.clone().oneshot(get(path)))
}

#[tokio::test(start_paused = true)]
async fn case_44_each_gets_its_401_and_waiting_requests_are_sent() {
    let source = ManualSource::default();
    let (inner, gate) = late();
    let layer = layer_of(frugal(1, source.clone()));
    let service = layer.layer(inner.clone());
    gate.send(false).unwrap();
    let rejected_calls: Vec<_> = (0..4).map(|_| spawn(&service, BAD)).collect();
    source.respond(token("t1")).await;
    gate.send(true).unwrap();
    settle().await;
    let unsent: Vec<_> = (0..3).map(|_| spawn(&service, GOOD)).collect();
    settle().await;
    assert_eq!((source.fetches(), inner.calls()), (2, 4));
    assert!(layer.cache().snapshot().is_rejected() && !layer.cache().snapshot().is_ready());
    source.respond(rejected()).await;
    for response in join_all(rejected_calls).await {
        let response = response.unwrap().unwrap();
        assert!(response.status() == 401 && error_of(&response).unwrap().is_no_token());
    }
    for response in join_all(unsent).await {
        assert_eq!(response.unwrap().unwrap().status(), 200);
    }
    assert_eq!(
        (source.fetches(), inner.bearers()),
        (2, vec!["Bearer t1".to_owned(); 7])
    );
    let state = layer.cache().snapshot();
    assert!(state.is_suspect() && state.is_ready() && !state.is_rejected());
    assert_eq!(state.generation(), Some(1));
}

/// The response of an API that responds without any time passing.
async fn in_no_time(service: &KlaviAuth<Api>, path: &str) -> (u16, Option<Error>) {
    let sent = Instant::now();
    let response = service.clone().oneshot(get(path)).await.unwrap();
    assert_eq!(sent.elapsed(), secs(0));
    (response.status().as_u16(), error_of(&response).cloned())
}

#[tokio::test(start_paused = true)]
async fn case_44a_a_spurious_401_in_an_outage_fails_no_other() {
    let start = Instant::now();
    let source = LoggedSource::new(|n| if n == 1 { token("t1") } else { reset() });
    let inner = picky("nobody");
    let service = layer_of(frugal(1, source.clone())).layer(inner.clone());
    let calls = [spawn(&service, BAD), spawn(&service, GOOD)];
    settle().await;
    // Nothing is sent during the three attempts.
    let unsent = spawn(&service, GOOD);
    let statuses = join_all(calls.into_iter().chain([unsent])).await;
    let statuses = statuses
        .into_iter()
        .map(|response| response.unwrap().unwrap().status().as_u16());
    assert_eq!(
        (statuses.collect::<Vec<_>>(), start.elapsed()),
        (vec![401, 200, 200], secs(3))
    );
    while start.elapsed() < secs(60) {
        assert_eq!(in_no_time(&service, GOOD).await.0, 200);
        pass(Duration::from_millis(100)).await;
    }
    // The pause of fetches with waiters, up to 5 s. The 401 used up the budget of one.
    let asked = [
        0.0, 0.0, 1.0, 3.0, 7.0, 12.0, 17.0, 22.0, 27.0, 32.0, 37.0, 42.0, 47.0, 52.0, 57.0,
    ];
    assert_eq!(source.seconds_after(start), asked);
    assert_eq!(inner.bearers(), vec!["Bearer t1".to_owned(); 3 + 570]);
}

#[tokio::test(start_paused = true)]
async fn case_44a_the_backoff_of_a_suspect_has_no_jitter() {
    let start = Instant::now();
    let source = LoggedSource::new(|n| if n == 1 { token("t1") } else { reset() });
    let service = layer_of(cache_drawing(0.0, source.clone())).layer(picky("nobody"));
    assert_eq!(in_no_time(&service, BAD).await.0, 401);
    while start.elapsed() < secs(20) {
        assert_eq!(in_no_time(&service, GOOD).await.0, 200);
        pass(Duration::from_millis(100)).await;
    }
    // The first token, three attempts for the 401 and one for the next request; then every 5 s.
    assert_eq!(
        source.seconds_after(start),
        [0.0, 0.0, 0.0, 0.0, 0.0, 5.0, 10.0, 15.0]
    );
}

#[tokio::test(start_paused = true)]
async fn case_44a_a_suspect_withdraws_nothing_from_the_budget() {
    let outage = [rejected(), rejected(), rejected()];
    let source = ScriptedSource::new(
        [token("t1")]
            .into_iter()
            .chain(outage)
            .chain([token("t2"), token("t3")]),
    );
    let layer = layer_of(frugal(2, source.clone()));
    let service = layer.layer(only("nobody"));
    let mut told = Vec::new();
    for _ in 0..6 {
        let response = service.clone().oneshot(get(BAD)).await.unwrap();
        assert_eq!(response.status(), 401);
        told.push((
            source.fetches(),
            error_of(&response).map(Error::is_over_budget),
        ));
        pass(secs(5)).await;
    }
    let expected = [
        // The first 401 of T1 takes one of two. T1 is a suspect, and each further request has it
        // replaced if it can be.
        (2, Some(false)),
        (3, Some(false)),
        (4, Some(false)),
        (5, None),
        // The first 401 of T2 takes the other, that of T3 finds none.
        (6, None),
        (6, Some(true)),
    ];
    assert_eq!(told, expected);
}

/// A layer whose token T1 was rejected once and could not be replaced. The next fetch may start in
/// 5 s.
async fn with_a_suspect(source: &ManualSource, inner: &Api) -> KlaviAuth<Api> {
    let service = layer_of(frugal(1, source.clone())).layer(inner.clone());
    let call = spawn(&service, BAD);
    source.respond(token("t1")).await;
    source.respond(rejected()).await;
    assert_eq!(call.await.unwrap().unwrap().status(), 401);
    assert!(service.layer().cache().snapshot().is_suspect());
    assert_eq!((source.fetches(), inner.calls()), (2, 1));
    service
}

#[tokio::test(start_paused = true)]
async fn case_44a_during_the_backoff_a_401_returns_at_once() {
    let (source, inner) = (ManualSource::default(), picky("nobody"));
    let service = with_a_suspect(&source, &inner).await;
    for _ in 0..3 {
        let (status, error) = in_no_time(&service, BAD).await;
        assert!(status == 401 && error.unwrap().is_no_token());
        assert_eq!(in_no_time(&service, GOOD).await.0, 200);
    }
    assert_eq!((source.fetches(), inner.calls()), (2, 1 + 6));
    assert!(service.layer().cache().snapshot().is_suspect());
}

#[tokio::test(start_paused = true)]
async fn case_44a_a_401_that_finds_a_fetch_running_waits_for_it() {
    for succeeds in [true, false] {
        let (source, inner) = (ManualSource::default(), picky("Bearer t2"));
        let service = with_a_suspect(&source, &inner).await;
        pass(secs(5)).await;
        // The request is sent at once and starts the fetch.
        assert_eq!(in_no_time(&service, GOOD).await.0, 200);
        settle().await;
        assert_eq!(source.fetches(), 3);
        let waits = spawn(&service, BAD);
        settle().await;
        assert_eq!(
            (source.fetches(), inner.calls(), waits.is_finished()),
            (3, 3, false)
        );
        // Meanwhile all others are sent at once.
        assert_eq!(in_no_time(&service, GOOD).await.0, 200);
        let fetch = source.next().await;
        assert!(
            matches!(&fetch.predecessor, Predecessor::Rejected(token) if token.expose() == "t1")
        );
        fetch.respond(if succeeds { token("t2") } else { rejected() });
        let response = waits.await.unwrap().unwrap();
        assert_eq!(response.status(), if succeeds { 200 } else { 401 });
        assert_eq!(error_of(&response).is_some(), !succeeds);
        assert_eq!(
            (source.fetches(), inner.calls()),
            (3, if succeeds { 5 } else { 4 })
        );
        assert_eq!(service.layer().cache().snapshot().is_suspect(), !succeeds);
    }
}

#[tokio::test(start_paused = true)]
async fn case_44a_a_401_that_may_start_a_fetch_starts_it_and_waits() {
    let source = ManualSource::default();
    let (inner, gate) = late();
    let service = with_a_suspect(&source, &inner).await;
    // It is sent while no fetch may start, and gets its response when one may.
    gate.send(false).unwrap();
    let call = spawn(&service, BAD);
    pass(secs(5)).await;
    assert_eq!((source.fetches(), inner.calls()), (2, 2));
    gate.send(true).unwrap();
    settle().await;
    assert_eq!((source.fetches(), call.is_finished()), (3, false));
    let fetch = source.next().await;
    assert!(matches!(&fetch.predecessor, Predecessor::Rejected(token) if token.expose() == "t1"));
    fetch.respond(token("t2"));
    assert_eq!(call.await.unwrap().unwrap().status(), 200);
    assert_eq!((source.fetches(), inner.calls()), (3, 3));
}

#[tokio::test(start_paused = true)]
async fn case_44a_a_first_401_while_retry_after_runs_calls_nothing() {
    let source = LoggedSource::new(|n| match n {
        2 => reset().map_err(|error| error.with_retry_after(secs(60))),
        n => token(&format!("t{n}")),
    });
    let inner = picky("nobody");
    let layer: KlaviAuthLayer = layer_of(frugal(1, source.clone()));
    let service = layer.layer(inner.clone());
    in_no_time(&service, GOOD).await;
    pass(secs(1170)).await;
    in_no_time(&service, GOOD).await;
    settle().await;
    assert_eq!(source.fetches(), 2);
    assert!(!layer.cache().snapshot().is_suspect());

    let (status, error) = in_no_time(&service, BAD).await;
    assert_eq!(
        (status, error.unwrap().retry_after()),
        (401, Some(secs(60)))
    );
    assert!(layer.cache().snapshot().is_suspect());
    assert_eq!(layer.cache().snapshot().retry_in(), Some(secs(60)));
    pass(secs(60) - NS).await;
    assert_eq!(in_no_time(&service, GOOD).await.0, 200);
    settle().await;
    assert_eq!(
        (source.fetches(), inner.bearers()),
        (2, vec!["Bearer t1".to_owned(); 4])
    );
    pass(NS).await;
    assert_eq!(in_no_time(&service, GOOD).await.0, 200);
    settle().await;
    assert_eq!(
        (source.fetches(), layer.cache().snapshot().generation()),
        (3, Some(2))
    );

    // Nothing was withdrawn: the budget of one is there for T3, and not for T4.
    assert!(in_no_time(&service, BAD).await.1.is_none());
    assert_eq!(source.fetches(), 4);
    assert!(in_no_time(&service, BAD).await.1.unwrap().is_over_budget());
}

#[tokio::test(start_paused = true)]
async fn case_44a_a_suspect_is_used_to_its_real_expiry_and_no_longer() {
    let start = Instant::now();
    let source = LoggedSource::new(|n| {
        if n == 1 {
            token_for("t1", 60)
        } else {
            rejected()
        }
    });
    let inner = picky("nobody");
    let service = layer_of(frugal(1, source.clone())).layer(inner.clone());
    assert_eq!(in_no_time(&service, BAD).await.0, 401);
    for second in 0..60 {
        pass(start + secs(second) - Instant::now()).await;
        assert_eq!(in_no_time(&service, GOOD).await.0, 200);
    }
    pass(secs(1) - NS).await;
    assert_eq!(in_no_time(&service, GOOD).await.0, 200);
    pass(NS).await;
    let error = service.clone().oneshot(get(GOOD)).await.unwrap_err();
    let error = error.downcast_ref::<Error>().unwrap();
    assert_eq!(
        error.to_string(),
        "the access token was rejected and no new one could be fetched"
    );
    assert_eq!(start.elapsed(), secs(60));
    assert_eq!(inner.bearers(), vec!["Bearer t1".to_owned(); 1 + 61]);
    // The fetch of the 401, one every 5 s, and the one that the last request waited for.
    let every_five = (1..12).map(|n| f64::from(5 * n));
    let asked: Vec<_> = [0.0, 0.0]
        .into_iter()
        .chain(every_five)
        .chain([60.0])
        .collect();
    assert_eq!(source.seconds_after(start), asked);
    let state = service.layer().cache().snapshot();
    assert!(!state.is_ready());
}

#[tokio::test(start_paused = true)]
async fn case_44a_a_suspect_that_is_invalidated_is_not_sent_again() {
    let (source, inner) = (ManualSource::default(), picky("nobody"));
    let service = with_a_suspect(&source, &inner).await;
    let tokens = service.layer().cache();
    tokens.invalidate(&at_once(tokens).unwrap());
    let state = tokens.snapshot();
    assert!(state.is_rejected() && !state.is_suspect() && !state.is_ready());
    // Within the pause there is the cached error.
    service.clone().oneshot(get(GOOD)).await.unwrap_err();
    assert_eq!((source.fetches(), inner.calls()), (2, 1));
    pass(secs(5)).await;
    let call = spawn(&service, GOOD);
    source.respond(rejected()).await;
    call.await.unwrap().unwrap_err();
    assert_eq!((source.fetches(), inner.calls()), (3, 1));
    pass(secs(5)).await;
    let call = spawn(&service, GOOD);
    source.respond(token("t1")).await;
    // The source returns it again when called after that.
    assert_eq!(call.await.unwrap().unwrap().status(), 200);
    assert_eq!(
        (source.fetches(), inner.bearers()),
        (4, vec!["Bearer t1".to_owned(); 2])
    );
    assert_eq!(tokens.snapshot().generation(), Some(2));
}

#[tokio::test(start_paused = true)]
async fn case_44a_a_rejected_fixed_token_stays_in_use() {
    let api = Api::accepting(|_| false);
    let tokens = TokenCache::fixed("a-token").unwrap();
    let service = KlaviAuthLayer::new(&KlaviApi::production(Product::Monitor), tokens.clone())
        .layer(api.clone());
    for calls in 1..=100 {
        let response = service.clone().oneshot(get("/monitor/x")).await.unwrap();
        assert_eq!(response.status(), 401);
        let error = response.extensions().get::<Error>().expect("the reason");
        assert!(error.is_no_token(), "{error:?}");
        assert_eq!(api.calls(), calls, "each request is sent once");
        pass(secs(1)).await;
    }
    assert!(tokens.snapshot().is_suspect());
    assert_eq!(tokens.snapshot().generation(), Some(1));
}
