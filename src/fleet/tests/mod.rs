//! The protocol: every order of its steps (`explore`, over `model` and
//! `process_steps`), and single rules.

mod explore;
mod model;
mod process_steps;
mod rules;
