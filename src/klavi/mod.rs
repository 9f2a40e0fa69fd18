//! Klavi's side: which API, whose keys, and the source that calls `/refresh` and `/auth`.

mod api;
mod credentials;

pub use api::{KlaviApi, Product, ProductName};
pub use credentials::Credentials;
