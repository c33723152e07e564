//! How often one source address may connect, and be refused its `hello`, and how many HTTP connections it may have at
//! once: so that a flood costs its sender and nobody else. Who is trusted is a proxy, and stands for many.
//!
//! A bucket of tokens for each, by address; an IPv6 network of 64 bits counts as one. An address whose failed hellos
//! are used up is not let in at all until some have come back, since each costs a session.
//!
//! **Invariant:** at most [`ADDRESSES_MAX`] addresses are remembered. Past that those are forgotten that have all their
//! tokens back; where that frees too little, all are.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::config::{Network, one_peer};

/// Most addresses that are remembered; one takes about 100 bytes.
pub const ADDRESSES_MAX: usize = 65_536;
/// How many seconds' worth of connections may come at once: all adapters of a site come again after a restart.
pub const BURST_SECONDS: u32 = 10;

/// How often the log has a line about the same address, at most.
const NAMED_EVERY: Duration = Duration::from_secs(60);

/// What one source address may do; 0 is without limit.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PeerLimits {
    /// Connections a second, on the whole; [`BURST_SECONDS`] of them at once.
    pub connections_per_second: u32,
    /// Refused or missing hellos a minute, on the whole and at once.
    pub failed_hellos_per_minute: u32,
    /// HTTP connections at once.
    pub http_connections: usize,
    /// Who is held to none of these.
    pub trusted: Arc<[Network]>,
}

/// Why an address is not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flood {
    Connections,
    FailedHellos,
}

/// What is left of each, as of a moment.
#[derive(Debug, Clone, Copy)]
struct Bucket {
    connections: f64,
    hellos: f64,
    at: Instant,
    /// Whether the log has a line about it.
    told: bool,
}

/// The addresses that were here of late.
#[derive(Debug, Default)]
pub struct Peers {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    limits: PeerLimits,
    buckets: HashMap<IpAddr, Bucket>,
    /// HTTP connections that are there; no more addresses than connections.
    held: HashMap<IpAddr, usize>,
    /// When the log had its last line about an address.
    named: HashMap<IpAddr, Instant>,
}

/// One HTTP connection of an address, as long as it lives.
#[derive(Debug)]
pub(super) struct Held {
    peers: Arc<Peers>,
    of: IpAddr,
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut inner = self.peers.inner();
        if let Some(held) = inner.held.get_mut(&self.of) {
            *held = held.saturating_sub(1);
            if *held == 0 {
                inner.held.remove(&self.of);
            }
        }
    }
}

impl PeerLimits {
    fn trusts(&self, from: IpAddr) -> bool {
        self.trusted.iter().any(|network| network.has(from))
    }

    fn connections_most(&self) -> f64 {
        f64::from(self.connections_per_second) * f64::from(BURST_SECONDS)
    }

    fn hellos_most(&self) -> f64 {
        f64::from(self.failed_hellos_per_minute)
    }

    fn full(&self, at: Instant) -> Bucket {
        Bucket { connections: self.connections_most(), hellos: self.hellos_most(), at, told: false }
    }

    fn refill(&self, bucket: &mut Bucket, now: Instant) {
        let seconds = now.saturating_duration_since(bucket.at).as_secs_f64();
        let connections = bucket.connections + seconds * f64::from(self.connections_per_second);
        let hellos = bucket.hellos + seconds * f64::from(self.failed_hellos_per_minute) / 60.0;
        bucket.connections = connections.min(self.connections_most());
        bucket.hellos = hellos.min(self.hellos_most());
        bucket.at = now;
    }

    fn flood(&self, bucket: &Bucket) -> Option<Flood> {
        if self.failed_hellos_per_minute > 0 && bucket.hellos < 1.0 {
            Some(Flood::FailedHellos)
        } else if self.connections_per_second > 0 && bucket.connections < 1.0 {
            Some(Flood::Connections)
        } else {
            None
        }
    }
}

impl Peers {
    pub(super) fn new(limits: PeerLimits) -> Self {
        Self { inner: Mutex::new(Inner { limits, ..Inner::default() }) }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Exchanges the limits; everybody begins anew. Connections that are there stay.
    pub(super) fn set(&self, limits: PeerLimits) {
        let mut inner = self.inner();
        if inner.limits != limits {
            inner.limits = limits;
            inner.buckets.clear();
        }
    }

    /// Notes another HTTP connection from there; none where it has as many as it may. Who is turned away is named in the
    /// log, once a minute.
    pub(super) fn hold(self: &Arc<Self>, from: IpAddr) -> Option<Held> {
        let of = one_peer(from);
        let mut inner = self.inner();
        let most = inner.limits.http_connections;
        let is_free = most == 0 || inner.limits.trusts(from);
        let held = inner.held.entry(of).or_default();
        if !is_free && *held >= most {
            drop(inner);
            if self.is_news(from, Instant::now()) {
                tracing::warn!(%from, most, "an address has as many HTTP connections as it may: further ones are refused");
            }
            return None;
        }
        *held += 1;
        Some(Held { peers: Arc::clone(self), of })
    }

    /// Whether the log is to have a line about an address: not more than once a minute.
    pub(super) fn is_news(&self, from: IpAddr, now: Instant) -> bool {
        let from = one_peer(from);
        let named = &mut self.inner().named;
        if named.get(&from).is_some_and(|at| now.saturating_duration_since(*at) < NAMED_EVERY) {
            return false;
        }
        if named.len() >= ADDRESSES_MAX {
            named.clear();
        }
        named.insert(from, now);
        true
    }

    /// Whether a connection from there is let in. Who is turned away is named in the log when that begins.
    pub(super) fn lets_in(&self, from: IpAddr) -> bool {
        match self.admit(from, Instant::now()) {
            Ok(()) => true,
            Err((flood, is_news)) => {
                if is_news {
                    tracing::warn!(%from, ?flood, "connections of an address are refused for a while");
                }
                false
            }
        }
    }

    /// Whether a connection from there is let in; if not, why, and whether that is news.
    fn admit(&self, from: IpAddr, now: Instant) -> Result<(), (Flood, bool)> {
        self.with(from, now, |limits, bucket| match limits.flood(bucket) {
            Some(flood) => Err((flood, !std::mem::replace(&mut bucket.told, true))),
            None => {
                bucket.connections -= 1.0;
                bucket.told = false;
                Ok(())
            }
        })
        .unwrap_or(Ok(()))
    }

    /// A connection from there was refused its hello, or never said it.
    pub(super) fn failed(&self, from: IpAddr, now: Instant) {
        self.with(from, now, |_, bucket| bucket.hellos -= 1.0);
    }

    fn with<T>(
        &self,
        from: IpAddr,
        now: Instant,
        act: impl FnOnce(&PeerLimits, &mut Bucket) -> T,
    ) -> Option<T> {
        let Inner { limits, buckets, .. } = &mut *self.inner();
        let is_free = limits.connections_per_second == 0 && limits.failed_hellos_per_minute == 0;
        if is_free || limits.trusts(from) {
            return None;
        }
        let from = one_peer(from);
        if buckets.len() >= ADDRESSES_MAX && !buckets.contains_key(&from) {
            make_room(limits, buckets, now);
        }
        let bucket = buckets.entry(from).or_insert_with(|| limits.full(now));
        limits.refill(bucket, now);
        Some(act(limits, bucket))
    }
}

fn make_room(limits: &PeerLimits, addresses: &mut HashMap<IpAddr, Bucket>, now: Instant) {
    addresses.retain(|_, bucket| {
        limits.refill(bucket, now);
        bucket.connections < limits.connections_most() || bucket.hellos < limits.hellos_most()
    });
    if addresses.len() > ADDRESSES_MAX / 4 * 3 {
        tracing::warn!(limit = ADDRESSES_MAX, "too many addresses connect: their limits begin anew");
        addresses.clear();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn limits() -> PeerLimits {
        let trusted = ["198.51.100.0/24".parse().unwrap()].into();
        PeerLimits { connections_per_second: 2, failed_hellos_per_minute: 6, http_connections: 3, trusted }
    }

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn an_address_has_its_burst_and_then_its_rate() {
        let (peers, start, here) = (Peers::new(limits()), Instant::now(), address("192.0.2.1"));
        for _ in 0..20 {
            assert_eq!(peers.admit(here, start), Ok(()));
        }
        assert_eq!(peers.admit(here, start), Err((Flood::Connections, true)));
        assert_eq!(peers.admit(here, start), Err((Flood::Connections, false)), "that is no news");
        assert_eq!(peers.admit(address("192.0.2.2"), start), Ok(()), "others are not concerned");
        let later = start + Duration::from_millis(600);
        assert_eq!(peers.admit(here, later), Ok(()));
        assert_eq!(peers.admit(here, later), Err((Flood::Connections, true)));
    }

    #[test]
    fn who_fails_too_often_stays_outside_for_a_while() {
        let (peers, start, here) = (Peers::new(limits()), Instant::now(), address("2001:db8::1"));
        for _ in 0..6 {
            assert_eq!(peers.admit(here, start), Ok(()));
            peers.failed(here, start);
        }
        let neighbour = address("2001:db8::2");
        assert_eq!(
            peers.admit(neighbour, start),
            Err((Flood::FailedHellos, true)),
            "one network is one peer"
        );
        assert_eq!(peers.admit(address("2001:db8:0:1::1"), start), Ok(()));
        assert_eq!(peers.admit(here, start + Duration::from_secs(11)), Ok(()));
    }

    #[test]
    fn what_is_remembered_is_bounded_and_0_is_no_limit() {
        let (peers, start) = (Peers::new(limits()), Instant::now());
        for at in 0..ADDRESSES_MAX + 1_000 {
            let at = u32::try_from(at).unwrap();
            assert_eq!(peers.admit(IpAddr::V4(at.into()), start), Ok(()));
        }
        assert!(peers.inner().buckets.len() <= ADDRESSES_MAX);
        let free = Peers::new(PeerLimits::default());
        for _ in 0..10_000 {
            assert_eq!(free.admit(address("192.0.2.1"), start), Ok(()));
        }
        assert!(free.inner().buckets.is_empty());
    }

    #[test]
    fn who_is_trusted_is_held_to_nothing() {
        let (peers, start, proxy) = (Arc::new(Peers::new(limits())), Instant::now(), address("198.51.100.7"));
        for _ in 0..100 {
            assert_eq!(peers.admit(proxy, start), Ok(()));
            peers.failed(proxy, start);
        }
        let held: Vec<_> = (0..100).map(|_| peers.hold(proxy)).collect();
        assert!(held.iter().all(Option::is_some));
    }

    #[test]
    fn an_address_has_so_many_http_connections_at_once_and_the_log_names_it_once_a_minute() {
        let (peers, here) = (Arc::new(Peers::new(limits())), address("192.0.2.1"));
        let mut held: Vec<_> = (0..3).map(|_| peers.hold(here).unwrap()).collect();
        assert!(peers.hold(here).is_none() && peers.hold(address("192.0.2.2")).is_some());
        held.pop();
        held.push(peers.hold(here).unwrap());
        drop(held);
        assert!(peers.inner().held.is_empty());
        let now = Instant::now();
        let other = address("192.0.2.3");
        assert!(peers.is_news(other, now) && !peers.is_news(other, now + Duration::from_secs(59)));
        assert!(peers.is_news(other, now + NAMED_EVERY));
    }
}
