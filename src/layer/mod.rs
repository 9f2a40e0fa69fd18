//! The layer, its service and its response future.

pub(crate) mod attempt;
pub(crate) mod builder;
mod cold_path;
mod context;
pub(crate) mod future;
#[expect(
    clippy::module_inception,
    reason = "the file of the layer itself, as in tower-http"
)]
pub(crate) mod layer;
pub(crate) mod service;
pub(crate) mod settings;
mod shard;
mod template;
