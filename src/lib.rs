//! Outport: a container registry in one small binary.
//!
//! The modules in reading order; ARCHITECTURE.md has the map.

/// Archives of images, read: bytes in; blobs, and what they are called, out.
pub mod archive;
/// What a bundle holds, who sent it, and how that is signed.
pub mod bundle;
/// Between archives and other registries.
pub mod carry;
/// The command line.
pub mod cli;
/// Other registries, asked as a client.
pub mod client;
/// File, environment and flags, resolved into plain fields.
pub mod config;
/// One error: a kind that decides the answer, a detail for the client, a cause for the log.
pub mod error;
/// A directory in which bundles are found and taken in.
pub mod folder;
/// Digests, computed.
pub mod hash;
/// HTTP: one route table a dialect, one function every request passes.
pub mod http;
/// What goes on by itself while the server runs.
pub mod jobs;
/// What the kernel tells of the machine we run on.
pub mod machine;
/// What a manifest names: bytes in, digests out.
pub mod manifest;
/// How the C library keeps memory.
pub mod memory;
/// The words of the protocol, parsed once at the door.
pub mod names;
/// True statements about a directory, and the verbs that keep them true.
pub mod registry;
