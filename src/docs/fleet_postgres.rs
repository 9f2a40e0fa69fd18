use std::time::Duration;

use klavi_auth::{FleetStore, StoreFuture, Stored};
use tokio_postgres::Client;

/// The table. Its rows may be lost, so it needs no write-ahead log.
pub const TABLE: &str = "
    CREATE UNLOGGED TABLE IF NOT EXISTS klavi_fleet (
        key text PRIMARY KEY,
        value bytea NOT NULL,
        written_at timestamptz NOT NULL,
        expires_at timestamptz NOT NULL
    )";

const LOAD: &str = "
    SELECT value, extract(epoch FROM clock_timestamp() - written_at)::float8
    FROM klavi_fleet
    WHERE key = $1 AND expires_at > clock_timestamp()";

/// A row that has expired counts as none.
const INSERT: &str = "
    INSERT INTO klavi_fleet AS old
    VALUES ($1, $2, clock_timestamp(), clock_timestamp() + $3 * interval '1 second')
    ON CONFLICT (key) DO UPDATE SET
        value = excluded.value,
        written_at = excluded.written_at,
        expires_at = excluded.expires_at
    WHERE old.expires_at <= clock_timestamp()";

const UPDATE: &str = "
    UPDATE klavi_fleet SET
        value = $2,
        written_at = clock_timestamp(),
        expires_at = clock_timestamp() + $3 * interval '1 second'
    WHERE key = $1 AND value = $4 AND expires_at > clock_timestamp()";

/// A store in PostgreSQL. In a service, take the client from your pool: this one does not connect
/// again.
pub struct PostgresStore {
    pub client: Client,
}

impl FleetStore for PostgresStore {
    fn load<'a>(&'a self, key: &'a str) -> StoreFuture<'a, Option<Stored>> {
        Box::pin(async move {
            let row = self.client.query_opt(LOAD, &[&key]).await?;
            Ok(row.map(|row| {
                let age = Duration::try_from_secs_f64(row.get(1)).unwrap_or_default();
                Stored::new(row.get(0), age)
            }))
        })
    }

    fn swap<'a>(
        &'a self,
        key: &'a str,
        expected: Option<&'a [u8]>,
        new: &'a [u8],
        time_to_live: Duration,
    ) -> StoreFuture<'a, bool> {
        Box::pin(async move {
            let seconds = time_to_live.as_secs_f64();
            let rows = match &expected {
                None => self.client.execute(INSERT, &[&key, &new, &seconds]).await?,
                Some(expected) => {
                    let values: [&(dyn tokio_postgres::types::ToSql + Sync); 4] =
                        [&key, &new, &seconds, expected];
                    self.client.execute(UPDATE, &values).await?
                }
            };
            Ok(rows == 1)
        })
    }
}
