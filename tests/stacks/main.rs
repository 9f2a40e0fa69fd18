//! The layer in the stacks that people have.
#![cfg(all(feature = "reqwest-middleware", feature = "sandbox"))]

#[path = "../support/front.rs"]
mod front;
#[path = "../support/grpc.rs"]
mod grpc;
#[path = "../support/requests.rs"]
mod requests;
#[path = "../support/revocations.rs"]
mod revocations;
#[path = "../support/revoking.rs"]
mod revoking;
#[path = "../support/sockets.rs"]
mod sockets;
#[path = "../support/mod.rs"]
mod support;

mod axum;
mod hyper;
mod products;
mod reqwest;
mod reqwest_company;
mod reqwest_middleware;
mod reqwest_retry;
mod send;
mod tonic;
mod tower;
mod tower_http;
mod tower_retry;
