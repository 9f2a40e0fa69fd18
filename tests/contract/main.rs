//! The contract, case by case: a module per section, and in each the parts `cache` (the token cache
//! alone), `layer` (the layer around a test double of the API) and `sockets` (over real sockets,
//! against the sandbox). The name of a test begins with the numbers of its cases.

#[path = "../support/mod.rs"]
mod support;

mod a_attach;
mod b_lifetime;
mod c_refresh;
mod d_single_flight;
mod e_failures;
mod f_unauthorized;
mod g_bodies;
mod h_scope;
mod i_signals;
mod index;
