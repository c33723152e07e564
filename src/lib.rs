//! A message broker that lets many services share one WhatsApp number.

pub mod domain;
#[cfg(feature = "broker")]
pub mod journal;
pub mod wire;
