//! The protocol, explored: see `model`.

mod explore;
mod model;
