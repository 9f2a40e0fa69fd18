//! The layer around a test double: what is attached, what a 401 does, what becomes of bodies.
//! Paused time.

#[path = "../support/mod.rs"]
mod support;

mod attach;
mod bodies;
mod budget;
mod clocks;
mod customers;
mod fixed;
mod helpers;
mod margin;
mod outside;
mod printed;
mod replay;
mod same_string;
mod send;
mod stalled;
mod successor;
mod suspect;
mod unauthorized;
