//! What Outport does, seen from outside: verbs over HTTP, tables, and the real binary.
//!
//! One binary, so that it links once. Every test is named by a sentence that is true.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![expect(clippy::print_stderr, reason = "a random test says its seed")]

mod harness;

mod access;
mod across;
mod auth;
mod binary;
mod damage;
mod flips;
mod gc;
mod gc_model;
mod hostile;
mod hub;
mod index_v1;
mod layers;
mod lists;
mod manifests;
mod mlspace;
mod pulls;
mod scrub;
mod tables;
mod tokens;
mod uploads;
