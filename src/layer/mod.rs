//! The layer, its service and its response future.

pub(crate) mod attempt;
pub(crate) mod builder;
mod call_context;
mod cold_path;
pub(crate) mod future;
mod inner_template;
#[expect(
    clippy::module_inception,
    reason = "the file of the layer itself, as in tower-http"
)]
pub(crate) mod layer;
mod send;
pub(crate) mod service;
mod settings;
