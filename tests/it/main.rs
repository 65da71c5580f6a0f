//! What Outport does, seen from outside: verbs over HTTP, tables, and the real binary.
//!
//! One binary, so that it links once. Every test is named by a sentence that is true.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![expect(clippy::print_stderr, reason = "a random test says its seed")]

mod harness;

mod access;
mod across;
mod archives;
mod auth;
mod backup;
mod binary;
mod bombs;
mod carry;
mod check;
mod cli;
mod client;
mod damage;
mod export;
mod flips;
mod folder;
mod gc;
mod gc_model;
mod healthcheck;
mod hostile;
mod hub;
mod import;
mod index_v1;
mod layers;
mod lists;
mod manifests;
mod matrix;
mod mlspace;
mod openapi;
mod proxy;
mod pulls;
mod revocation;
mod scrub;
#[path = "../seeds/mod.rs"]
mod seeds;
mod sums;
mod tables;
mod tls;
mod tokens;
mod trespass;
mod uploads;
