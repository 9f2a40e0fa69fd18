//! Tests of files that loom compiles a second time, where they cannot have tests of their own.

mod copies;
mod displaced;
mod look_for_token;
mod refresh_task;
