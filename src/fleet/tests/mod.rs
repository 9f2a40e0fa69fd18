//! The protocol: every order of its steps (`explore`, over `model`), and single rules.

mod explore;
mod model;
mod rules;
