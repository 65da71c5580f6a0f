//! Between archives and other registries, without a registry of ours.

mod pull;
mod push;

pub use pull::{Pulled, To, pull};
pub use push::{Push, Pushed, Sessions};
