//! Tests of files that loom compiles a second time, where they cannot have tests of their own.

mod adoption;
mod copies;
mod displaced;
mod refresh_task;
