//! A message broker that lets many services share one WhatsApp number.

pub mod domain;
#[cfg(feature = "broker")]
pub mod gateway;
#[cfg(feature = "broker")]
pub mod journal;
#[cfg(feature = "broker")]
pub mod net;
