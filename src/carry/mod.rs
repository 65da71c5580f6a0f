//! Between archives and other registries, without a registry of ours.

mod bundle;
mod pull;
mod push;

pub use pull::{Pulled, To, pull};
pub use push::{Archives, Push, Pushed, Sessions};
