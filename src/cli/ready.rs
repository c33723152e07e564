//! `ready`: whether a broker on this machine acknowledges, for whatever starts it and watches over it.
//!
//! Over TLS whoever answers is believed: nothing is told to it. A broker that wants certificates of clients on its HTTP
//! port can not be asked so.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use anyhow::anyhow;
use clap::Args;
use reqwest::Client;
use reqwest::redirect::Policy;

use super::{Configured, Failure, Outcome, block_on, out};
use crate::net::http::HEALTH_WITHIN;

/// How long the answer may take: more than the broker gives itself.
const ASK_WITHIN: Duration = HEALTH_WITHIN.saturating_mul(2);

#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    configured: Configured,
    /// The broker's HTTP address; else as the configuration says.
    #[arg(long, value_name = "ADDR")]
    http: Option<SocketAddr>,
}

pub(super) fn run(arguments: &Arguments) -> Outcome {
    let config = arguments.configured.load()?;
    let address = from_here(arguments.http.unwrap_or(config.http.listen));
    let scheme = if config.http.tls.is_some() { "https" } else { "http" };
    let client = Client::builder().no_proxy().redirect(Policy::none()).timeout(ASK_WITHIN);
    let client = client.tls_danger_accept_invalid_certs(true).build().map_err(Failure::io)?;
    let asking = client.get(format!("{scheme}://{address}/readyz"));
    let status = block_on(async { Ok(asking.send().await.map_err(Failure::io)?.status()) })?;
    if !status.is_success() {
        return Err(Failure::failed(anyhow!("not ready: /readyz is {status}")));
    }
    out::line("ready");
    Ok(())
}

/// Who listens on every address is asked on this machine's own.
fn from_here(mut address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        let (v4, v6) = (Ipv4Addr::LOCALHOST, Ipv6Addr::LOCALHOST);
        address.set_ip(if address.is_ipv4() { IpAddr::V4(v4) } else { IpAddr::V6(v6) });
    }
    address
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_listens_everywhere_is_asked_here() {
        for (listens, asked) in [
            ("0.0.0.0:7412", "127.0.0.1:7412"),
            ("[::]:7412", "[::1]:7412"),
            ("192.0.2.1:7412", "192.0.2.1:7412"),
        ] {
            assert_eq!(from_here(listens.parse().unwrap()), asked.parse().unwrap());
        }
    }
}
