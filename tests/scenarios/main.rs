//! One suite of scenarios over real sockets, which runs unchanged in JSON lines, in binary and over WebSocket, and counts
//! what crossed.
//!
//! Each scenario has a broker of its own on a journal of its own. All of one encoding run in one process, so that the
//! last check can say which request, response, delivery or error never crossed the wire: then the suite has a hole.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test's helpers fail as its test does"
)]

mod bridge;
mod claims;
mod delivering;
mod greeting;
mod membership;
mod messages;
mod replies;
mod retention;
mod stage;
mod threads;
#[path = "../world/mod.rs"]
mod world;
mod wrong_input;

use std::collections::BTreeSet;

use sharedline::wire::frame::Encoding;
use sharedline::wire::message::{Delivery, Request, Response, word_sets};

use self::stage::Tallied;

/// Codes that a client can not bring about here, each with the reason.
const OUT_OF_REACH: [(&str, &str); 4] = [
    ("internal", "a fault of the broker's own"),
    ("overloaded", "half a million replies without outcome in one channel"),
    ("revoked", "a token that a reload takes away, which `tests/serve/reload` does"),
    ("too_large", "counted by raw bytes in `wrong_input`, beside the tally of messages"),
];

macro_rules! run_all {
    ($encoding:expr, $tally:expr, $($file:ident::$scenario:ident),* $(,)?) => {
        $(
            println!(concat!(stringify!($file), "::", stringify!($scenario)));
            $file::$scenario($encoding, $tally).await;
        )*
    };
}

async fn every_scenario(encoding: Encoding, over_websocket: bool) {
    let tally = &Tallied::default();
    tally.lock().unwrap().over_websocket = over_websocket;
    run_all!(
        encoding,
        tally,
        greeting::tokens_and_versions_are_checked,
        greeting::a_newer_session_of_the_same_name_replaces_the_older_before_its_welcome,
        greeting::a_gateway_takes_over_and_one_that_wants_nothing_replaces_nobody,
        greeting::a_promised_ping_that_does_not_come_ends_the_connection,
        greeting::a_stop_says_goaway_and_ends_in_order,
        membership::the_table_of_standings_cell_by_cell,
        membership::the_articles_table_to_the_letter,
        membership::a_dormant_channel_is_revived_and_a_closed_one_made_anew,
        membership::who_missed_something_gets_it_where_he_asks,
        membership::only_the_parent_configures,
        membership::numbers_and_families_are_held_to_their_portal,
        membership::isolated_services_have_channels_of_their_own,
        membership::channels_are_listed_page_by_page,
        messages::a_message_reaches_every_service_once,
        messages::what_a_service_wrote_for_machines_goes_to_it_alone,
        messages::two_names_that_prove_to_be_one_customer_become_one_conversation,
        messages::conversations_are_listed_by_what_is_asked,
        messages::notices_go_to_the_parent_alone,
        claims::within_a_service_its_own_rule_decides,
        claims::across_services_there_are_warnings_to_the_letter,
        claims::a_confirmation_covers_what_it_was_given_for,
        claims::claims_are_released_and_handed_on,
        claims::presence_is_told_within_what_each_may_know,
        claims::rosters_say_who_is_an_agent,
        claims::a_claim_expires_by_itself,
        threads::a_thread_is_told_within_what_each_may_know,
        threads::a_note_goes_with_its_conversation_and_stops_nobody,
        threads::a_note_outlives_history_and_a_restart,
        replies::a_reply_is_sent_once_and_masked_to_the_rest,
        replies::a_reply_id_is_answered_as_before,
        replies::a_double_reply_is_caught,
        replies::outside_the_window_templates_pass,
        replies::receipts_never_go_backwards,
        replies::what_a_gateway_says_besides_of_a_status_reaches_who_sent,
        replies::what_was_written_on_the_phone_says_when,
        replies::what_a_lost_gateway_had_is_unknown,
        replies::a_status_before_its_message_is_kept,
        replies::a_reply_that_waits_too_long_fails,
        replies::a_reply_that_can_not_be_read_fails_and_holds_up_nobody,
        delivering::an_acknowledgement_covers_what_came_before_it,
        delivering::connections_of_a_service_share_its_conversations,
        delivering::a_full_window_holds_up_only_its_own_conversations,
        delivering::a_watcher_sees_all_and_moves_nothing,
        delivering::who_acknowledges_nothing_is_ended,
        delivering::the_timeline_shows_all_as_its_viewer_may_see_it,
        delivering::a_damaged_record_is_named_and_the_rest_is_delivered,
        delivering::a_thousand_requests_in_flight_are_all_answered,
        retention::history_goes_in_time_and_what_is_state_stays,
        retention::a_channel_that_can_not_be_folded_keeps_nobody_elses_history,
        wrong_input::what_is_not_understood_is_said_and_the_connection_goes_on,
        wrong_input::what_can_not_be_split_ends_the_connection,
        wrong_input::silence_and_strangers_are_ended,
    );
    check_tally(tally);
}

fn check_tally(tally: &Tallied) {
    let tally = tally.lock().unwrap();
    let requests: BTreeSet<&str> = Request::variants().iter().map(|variant| variant.name).collect();
    let missing: Vec<_> = requests.difference(&tally.requests).collect();
    assert!(missing.is_empty(), "requests that never crossed the wire: {missing:?}");
    let variants = Response::variants().into_iter().chain(Delivery::variants());
    let missing: Vec<_> = variants
        .filter(|variant| !tally.messages.contains(&variant.number))
        .map(|variant| variant.name)
        .collect();
    assert!(missing.is_empty(), "messages that never crossed the wire: {missing:?}");
    let (_, codes) = word_sets().iter().find(|(kind, _)| *kind == "error code").unwrap();
    let reached =
        codes.iter().map(|(_, code)| *code).filter(|code| !OUT_OF_REACH.iter().any(|(out, _)| out == code));
    let missing: Vec<_> = reached.filter(|code| !tally.errors.contains(*code)).collect();
    assert!(missing.is_empty(), "errors that never crossed the wire: {missing:?}");
}

#[tokio::test]
async fn every_scenario_in_json() {
    every_scenario(Encoding::JsonLines, false).await;
}

#[tokio::test]
async fn every_scenario_over_websocket() {
    every_scenario(Encoding::JsonLines, true).await;
}

#[tokio::test]
async fn every_scenario_in_binary() {
    every_scenario(Encoding::Binary, false).await;
}
