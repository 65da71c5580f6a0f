//! Between archives and other registries, without a registry of ours.

mod file;
mod pull;
mod push;

pub use file::{BundleFile, unwritable};
pub use pull::{Pulled, Signing, To, pull};
pub use push::{Push, Pushed, Sessions};
