//! The prose of `RESULTS.md`. What it says about a peer was read in the sources of the version that
//! `Cargo.toml` pins, and is in the table beside it.

pub const HEAD: &str = "# klavi-auth and its peers in the situations that users fear

Written by `compare/run`. Do not edit it; the prose is in `src/report/notes.rs`. The peers are the real
crates, in the newest versions of 2026-11-25, pinned in `Cargo.toml`. Endpoint and API are simulated, and
so is the time: half an hour passes in an instant, for `SystemTime` and `Instant` too.
";

pub const READING: &str = "A cell has two numbers: requests that **failed needlessly** / token calls. A \
request failed needlessly if a token that the API would have accepted was in hand, or could have been \
fetched, early enough for a response within the caller's patience. A 503 of the API and a path that is \
always rejected do not count. Peers that do not resend on a 401 do so by design: most see no responses \
at all.
";

pub const BETTER: &str = "Where a peer does better than klavi-auth:

* **Provider panics once**: klavi-auth gives the error to all callers that wait for the flight. With a \
lock (mutex, azure, aws-smithy) only the caller that runs the provider fails, and the next one calls it.
* **Both down, token expires**: gcp_auth fails fewest requests, because its callers try again within \
their patience. The mutexes and aws-smithy recover at once, since every request calls the endpoint: that \
is more than ten times as many token calls as klavi-auth makes. klavi-auth backs off for up to 5 s and \
fails the requests that come in the meantime.
* **API rejects one path always**: cf-gears makes fewer token calls, because it replaces a token on a \
401 at most every 15 minutes. The row of the second revocation shows the price. Peers that do nothing on \
a 401 make fewest.
* **Token endpoint down, token lives**: klavi-auth makes more token calls than all but azure. Peers that \
refresh later do not notice the outage, and cf-gears, google-cloud-auth and middle wait longer between \
attempts.
* **Tokens of 60 s**: aws-smithy refreshes later and makes fewer token calls.

Notes on the results:

* azure, token endpoint down: from 5 minutes ahead of expiry every request waits, under the lock, for \
`ClientSecretCredential`, which retries for up to a minute. Callers with more patience than that would \
be served late, with the current token.
* azure, 401: the policy forgets the token, but `ClientSecretCredential` has a cache of its own and \
returns the same one again.
* azure, tokens of 60 s: both of its caches refresh 5 minutes ahead, so each request fetches.
* middle and the static header have their first token before the first request, so their cache is not \
cold. middle keeps the error of a failed refresh for 30 s, its tolerance, once the token has expired.
* cf-gears, revoked again: the 15 minutes between two replacements are its default \
(`min_invalidation_interval`), and can be set.
* reqwest-auth adds a header and leaves the rest to a source of the user; its numbers are the mutex's.
* cf-gears' client admits 100 requests at a time by default and rejects others. No situation has more.
* Redirects: azure, aws-smithy and cf-gears do not follow one to another host, so nothing can leak. \
reqwest removes the header. The static header leaks if its layer is inside of `FollowRedirect`, and does \
not if it is outside.
";

pub const ALL_FAILED: &str = "Of the requests above, all that failed, needless or not. azure and \
aws-smithy also retry a 503 of the API; in this outage that saves no request within the patience.
";

pub const LEFT_OUT: &str = "
Two more that were considered and are not here:

* azure_core's `OnChallenge`: code of the user decides what to do on a 401. A measurement would show \
that code, not the crate.
* `tower::retry` around `AddAuthorization`: it would send the same constant again.

## How far to trust it

* All peers have their default configuration. All numbers depend on the load, the lifetimes and the \
patience that were chosen; `src/situations.rs` and `src/load.rs` have them.
* Some peers draw random numbers (jitter of refreshes and retries), klavi-auth among them. In \"both \
down\", they decide when the first attempt after the outage comes, so this row is the mean of five runs. \
Between two runs of the whole, some cells still differ: in this row, failures of klavi-auth (single \
runs: 6 to 42), cf-gears (27 to 133) and azure; in \"token endpoint down\" one or two failures of azure; \
and token calls of klavi-auth, cf-gears and azure in a few rows. All other failures are the same in \
every run. In the chart, klavi-auth and the mutex that resends may change places.
* Peers with an HTTP client of their own use sockets on loopback, the others none. Both take the same \
simulated time: 50 ms for a token call, 20 ms for a request.
* In the sums of the chart, each situation weighs as many requests as it sends. One that does not apply \
to a peer counts as 0.
";
