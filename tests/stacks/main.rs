//! The layer in the stacks that users have.
#![cfg(all(feature = "reqwest-middleware", feature = "sandbox"))]

#[path = "../support/mod.rs"]
mod support;

mod axum;
mod grpc;
mod hyper;
mod products;
mod requests;
mod reqwest;
mod reqwest_company;
mod reqwest_middleware;
mod reqwest_retry;
mod revoking;
mod send;
mod tonic;
mod tower;
mod tower_http;
mod tower_retry;
