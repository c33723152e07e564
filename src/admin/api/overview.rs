//! Health, portals, sessions.

use serde_json::{Value, json};

use super::call::Call;
use super::reply::{Outcome, object};
use crate::actors::observed::SessionSeen;

/// Whether it works, and how much of what there is.
pub(super) async fn health(call: Call) -> Outcome {
    call.query(&[])?;
    let broker = call.broker();
    let seen = broker.observed();
    let sessions: serde_json::Map<String, Value> =
        seen.sessions.iter().map(|(kind, count)| (kind.as_str().to_owned(), json!(count))).collect();
    object(&json!({
        "type": "health",
        "ready": !seen.is_halted,
        "halted": broker.halt_reason().map(|reason| reason.to_string()),
        "version": env!("CARGO_PKG_VERSION"),
        "uptime_seconds": seen.uptime.as_secs(),
        "clock_leap_ms": seen.clock_leap_ms,
        "sessions": sessions,
        "channels": {
            "active": seen.channels.active,
            "dormant": seen.channels.dormant,
            "quarantined": seen.channels.quarantined,
        },
        "conversations": seen.channels.conversations,
        "replies_open": seen.channels.replies_waiting + seen.channels.replies_handed,
        "journal": {
            "has_room": seen.journal_has_room,
            "room_bytes": seen.journal.room_bytes,
            "queued_bytes": seen.journal_queued_bytes,
            "segments": seen.journal.segments,
            "size_bytes": seen.journal.segments_bytes,
            "damage_found": seen.journal.damage_found,
        },
    }))
}

/// What the configuration says of every portal, in names.
pub(super) async fn portals(call: Call) -> Outcome {
    call.query(&[])?;
    let portals: Vec<Value> = call
        .broker()
        .portals_seen()
        .into_iter()
        .map(|seen| {
            json!({
                "portal": seen.portal,
                "plan": seen.plan,
                "services": seen.services,
                "numbers": seen.numbers,
                "gateways": seen.gateways,
            })
        })
        .collect();
    object(&json!({"type": "portals", "portals": portals}))
}

/// Every session, or those of one portal.
pub(super) async fn sessions(call: Call) -> Outcome {
    let portal: Option<String> = call.query(&["portal"])?.find("portal")?;
    let of_it = |seen: &SessionSeen| portal.as_ref().is_none_or(|portal| *portal == seen.portal);
    let sessions: Vec<Value> =
        call.broker().sessions_seen().iter().filter(|seen| of_it(seen)).map(session).collect();
    object(&json!({"type": "sessions", "sessions": sessions}))
}

fn session(seen: &SessionSeen) -> Value {
    json!({
        "session": seen.session,
        "portal": seen.portal,
        "kind": seen.kind.as_str(),
        "service": seen.service,
        "adapter": seen.adapter,
        "window": seen.window,
        "unacknowledged": seen.unacknowledged,
        "in_flight": seen.in_flight,
    })
}
