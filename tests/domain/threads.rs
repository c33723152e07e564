//! Whose a thread is (B18): a note that lapses by itself, is nobody else's business, and stops nobody.

use std::sync::Arc;

use sharedline::domain::channel::METADATA_CHARS_MAX;
use sharedline::domain::command::{
    Addressee, Answer, Command, Rejection, ThreadAsked, ThreadCommand, ThreadSeen,
};
use sharedline::domain::event::{Actor, Event, Merged, Record, ThreadAction, ThreadChange};
use sharedline::domain::ids::{ConversationId, Timestamp};
use sharedline::domain::view::{Form, Masking, ThreadView, View, Viewer, view};

use crate::stage::{DAY, HOUR, START, Stage, agent, name, rules, service};

fn take() -> ThreadAsked {
    ThreadAsked::Take { metadata: None }
}

fn pass(to: &str, metadata: &str) -> ThreadAsked {
    ThreadAsked::Pass { to: service(to), metadata: Some(Arc::from(metadata)) }
}

fn own(since: u64, until: u64, metadata: Option<&str>) -> ThreadSeen {
    ThreadSeen::Own { since: Timestamp(since), until: Timestamp(until), metadata: metadata.map(Arc::from) }
}

/// What the three services see of it.
fn seen(stage: &Stage, conversation: ConversationId) -> [ThreadSeen; 3] {
    ["crm", "desk", "salesiq"].map(|of| stage.thread_seen(of, conversation))
}

fn last_change(stage: &Stage) -> ThreadChange {
    match &stage.last().event {
        Event::Thread(change) => (**change).clone(),
        other => panic!("{other:?}"),
    }
}

fn delivered<'a>(stage: &'a Stage, of: &str) -> ThreadView<'a> {
    match stage.sees(of, stage.last()) {
        Some(View::Thread(thread)) => thread,
        _ => panic!("{of} is delivered no thread"),
    }
}

#[test]
fn b18_a_thread_is_taken_passed_and_released_and_lasts_a_day_from_the_customers_last_message() {
    let mut stage = Stage::shared();
    let conversation = stage.writes("491", "hello");
    assert_eq!(
        seen(&stage, conversation),
        [(); 3].map(|()| ThreadSeen::Nobody),
        "nobody's until it is taken"
    );
    stage.pass(HOUR);
    let taken = stage.thread("crm", conversation, take());
    let since = START + HOUR;
    let thread = own(since, START + DAY, None);
    assert_eq!(taken, Ok(Answer::Thread { conversation, thread: thread.clone() }));
    assert_eq!(seen(&stage, conversation), [thread, ThreadSeen::Another, ThreadSeen::Another]);
    stage.pass(HOUR);
    let passed = stage.thread("crm", conversation, pass("desk", "he wants a refund"));
    assert_eq!(passed, Ok(Answer::Thread { conversation, thread: ThreadSeen::Another }));
    let thread = own(since + HOUR, START + DAY, Some("he wants a refund"));
    assert_eq!(seen(&stage, conversation), [ThreadSeen::Another, thread, ThreadSeen::Another]);
    let released = stage.thread("desk", conversation, ThreadAsked::Release);
    assert_eq!(released, Ok(Answer::Thread { conversation, thread: ThreadSeen::Nobody }));
    assert_eq!(seen(&stage, conversation), [(); 3].map(|()| ThreadSeen::Nobody));
}

#[test]
fn b18_it_moves_with_the_customers_messages_and_lapses_for_good() {
    let mut stage = Stage::shared();
    let conversation = stage.writes("491", "hello");
    stage.thread("crm", conversation, take()).unwrap();
    stage.pass(23 * HOUR);
    stage.writes("491", "still here");
    assert_eq!(stage.thread_seen("crm", conversation), own(START, START + 23 * HOUR + DAY, None));
    stage.replies("crm", None, conversation, "r1");
    stage.pass(DAY - 1);
    assert_eq!(stage.thread_seen("desk", conversation), ThreadSeen::Another, "a reply moves nothing");
    stage.pass(1);
    assert_eq!(stage.thread_seen("crm", conversation), ThreadSeen::Nobody);
    stage.writes("491", "back again");
    assert_eq!(
        stage.thread_seen("crm", conversation),
        ThreadSeen::Nobody,
        "what has lapsed does not come back"
    );
    assert_eq!(stage.channel.threads_len(), 0);
}

#[test]
fn b18_a_note_that_could_not_hold_is_not_made() {
    let mut stage = Stage::shared();
    let conversation = stage.writes("491", "hello");
    stage.pass(DAY);
    let records = stage.records.len();
    let nobody = Ok(Answer::Thread { conversation, thread: ThreadSeen::Nobody });
    assert_eq!(stage.thread("crm", conversation, take()), nobody);
    assert_eq!(stage.thread("crm", conversation, pass("desk", "m")), nobody);
    assert_eq!(stage.records.len(), records);
}

#[test]
fn b18_what_says_nothing_new_records_nothing() {
    let mut stage = Stage::shared();
    let conversation = stage.writes("491", "hello");
    stage.thread("desk", conversation, pass("crm", "m")).unwrap();
    let records = stage.records.len();
    stage.pass(HOUR);
    for again in [take(), pass("crm", "m")] {
        stage.thread("crm", conversation, again).unwrap();
    }
    stage.thread("desk", conversation, ThreadAsked::Release).unwrap();
    assert_eq!(stage.records.len(), records);
    assert_eq!(stage.thread_seen("crm", conversation), own(START, START + DAY, Some("m")));
    stage.thread("crm", conversation, pass("crm", "other")).unwrap();
    assert_eq!(last_change(&stage).action, ThreadAction::Taken, "who passes to itself takes");
    assert_eq!(stage.thread_seen("crm", conversation), own(START + HOUR, START + DAY, Some("other")));
}

#[test]
fn b18_it_stops_nobody_and_changes_no_claim() {
    let mut stage = Stage::shared();
    let conversation = stage.writes("491", "hello");
    stage.pick_up("desk", "dan", conversation).unwrap();
    stage.thread("crm", conversation, take()).unwrap();
    assert_eq!(stage.holders("desk", conversation), ["dan"]);
    stage.replies("desk", Some("dan"), conversation, "r1");
    stage.replies("salesiq", None, conversation, "r2");
    let opened = stage.open("crm", "zoe", conversation);
    assert_eq!(opened.warned.map(|warned| warned.warnings.len()), Some(1), "of the claim alone");
    stage.release("desk", "dan", conversation).unwrap();
    assert_eq!(
        stage.pick_up("salesiq", "sid", conversation),
        Ok(Answer::PickedUp),
        "and no warning of the thread"
    );
    assert_eq!(stage.thread_seen("crm", conversation), own(START, START + DAY, None));
    assert!(matches!(stage.thread("salesiq", conversation, take()), Ok(Answer::Thread { .. })), "by anybody");
}

#[test]
fn b18_the_others_learn_that_it_changed_and_when_and_nothing_else() {
    let mut stage = Stage::shared();
    let conversation = stage.writes("491", "hello");
    stage.thread("crm", conversation, take()).unwrap();
    let asked = pass("desk", "secret");
    let command = ThreadCommand {
        service: service("crm"),
        of: Addressee::Customer(name("491")),
        agent: Some(agent("ann")),
        asked,
    };
    stage.tell(Command::Thread(command)).unwrap();
    let new_owner = delivered(&stage, "desk");
    assert!(new_owner.own && !new_owner.was_own && !new_owner.by_own && new_owner.agent.is_none());
    assert_eq!(new_owner.until, Some(Timestamp(START + DAY)));
    assert_eq!(new_owner.metadata.map(AsRef::as_ref), Some("secret"));
    let former = delivered(&stage, "crm");
    assert!(!former.own && former.was_own && former.by_own && former.agent == Some(&agent("ann")));
    assert!(former.until.is_none() && former.metadata.is_none(), "not even to who passed it on");
    let other = delivered(&stage, "salesiq");
    assert_eq!(other.action, ThreadAction::Passed);
    assert!(!other.own && !other.was_own && !other.by_own);
    assert!(other.agent.is_none() && other.until.is_none() && other.metadata.is_none());
    for printed in
        [format!("{:?} {:?}", stage.records, stage.channel), format!("{:?}", seen(&stage, conversation))]
    {
        assert!(!printed.contains("secret"), "{printed}");
    }
}

/// What is the same for two services is encoded once: so a bystander's copy must not tell that he acted himself.
#[test]
fn b18_two_services_with_the_same_form_of_a_change_see_the_same() {
    let services = ["crm", "desk", "salesiq", "chat"];
    let mut stage = Stage::empty(services.map(rules).to_vec());
    stage.roster("salesiq", &["sid"]);
    services.iter().for_each(|of| stage.create(of));
    let conversation = stage.writes("491", "hello");
    stage.thread("crm", conversation, take()).unwrap();
    stage
        .tell(Command::Thread(ThreadCommand {
            service: service("salesiq"),
            of: Addressee::Conversation(conversation),
            agent: Some(agent("sid")),
            asked: pass("desk", "m"),
        }))
        .unwrap();
    let forms = services.map(|of| {
        let of = service(of);
        view(stage.last(), &Viewer { service: &of, masking: Masking::Broker }).unwrap().0
    });
    assert_eq!(forms, [Form::Former, Form::Own, Form::Masked, Form::Masked]);
    for of in ["salesiq", "chat"] {
        assert!(!delivered(&stage, of).by_own && delivered(&stage, of).agent.is_none(), "{of}");
    }
}

#[test]
fn b18_who_leaves_loses_its_threads_and_has_none_when_it_returns() {
    let mut stage = Stage::shared();
    let conversation = stage.writes("491", "hello");
    stage.thread("desk", conversation, take()).unwrap();
    stage.deactivate("desk");
    assert_eq!(stage.thread_seen("crm", conversation), ThreadSeen::Nobody);
    assert_eq!(stage.thread("desk", conversation, take()), Err(Rejection::NotSubscribed));
    assert_eq!(
        stage.thread("crm", conversation, pass("desk", "m")),
        Err(Rejection::NotFound),
        "to no subscriber"
    );
    stage.activate("desk");
    assert_eq!(stage.thread_seen("desk", conversation), ThreadSeen::Nobody);
    stage.writes("491", "again");
    assert_eq!(stage.channel.threads_len(), 0, "and nothing is left of it");
    stage.thread("desk", conversation, take()).unwrap();
    assert_eq!(stage.thread_seen("crm", conversation), ThreadSeen::Another);
}

/// Two conversations that prove to be one, of which crm has the older and `younger` the younger.
fn merged(older: Option<&str>, younger: Option<&str>) -> (Stage, ConversationId, ConversationId) {
    let mut stage = Stage::shared();
    let first = stage.writes("491", "hello");
    stage.pass(HOUR);
    let second = stage.writes("US.7", "hello");
    for (of, conversation) in [(older, first), (younger, second)] {
        if let Some(of) = of {
            stage.thread(of, conversation, ThreadAsked::Take { metadata: Some(Arc::from(of)) }).unwrap();
        }
    }
    stage.pass(HOUR);
    stage.writes("US.7+491", "it is me");
    (stage, first, second)
}

#[test]
fn b18_where_two_conversations_become_one_the_olders_note_goes_on_and_the_youngers_is_released() {
    let (stage, older, younger) = merged(Some("crm"), Some("desk"));
    let until = START + 2 * HOUR + DAY;
    for id in [older, younger] {
        assert_eq!(stage.thread_seen("crm", id), own(START + HOUR, until, Some("crm")));
        assert_eq!(stage.thread_seen("desk", id), ThreadSeen::Another);
    }
    let released = stage.records.iter().find_map(|record| match &record.event {
        Event::Thread(change) if change.action == ThreadAction::Released => {
            Some((record.conversation, change))
        }
        _ => None,
    });
    let (conversation, change) = released.unwrap();
    assert_eq!(conversation, Some(younger), "told where it was");
    assert_eq!((change.by.clone(), change.previous.clone()), (Actor::Broker, Some(service("desk"))));
}

/// A decision that had no room for the release: the fold comes to the same.
#[test]
fn b18_the_olders_note_goes_on_though_no_record_says_that_the_youngers_ended() {
    let mut stage = Stage::shared();
    let older = stage.writes("491", "hello");
    let younger = stage.writes("US.7", "hello");
    stage.thread("crm", older, take()).unwrap();
    stage.thread("desk", younger, take()).unwrap();
    let event = Event::Merged(Merged { from: younger });
    let (offset, at) = (stage.channel.head().next(), Timestamp(stage.now));
    stage.channel.apply(&Record { offset, at, conversation: Some(older), event });
    assert_eq!(stage.thread_seen("crm", younger), own(START, START + DAY, None));
    assert_eq!(stage.channel.threads_len(), 1);
}

#[test]
fn b18_a_youngers_note_moves_to_an_older_conversation_that_has_none() {
    let (stage, older, _) = merged(None, Some("desk"));
    assert_eq!(stage.thread_seen("desk", older), own(START + HOUR, START + 2 * HOUR + DAY, Some("desk")));
    assert_eq!(stage.channel.threads_len(), 1);
    let (stage, older, _) = merged(Some("crm"), None);
    assert_eq!(stage.thread_seen("crm", older), own(START + HOUR, START + 2 * HOUR + DAY, Some("crm")));
}

#[test]
fn b18_an_older_note_that_has_lapsed_gives_way_in_a_merge() {
    let mut stage = Stage::shared();
    let older = stage.writes("491", "hello");
    stage.thread("crm", older, take()).unwrap();
    stage.pass(DAY);
    let younger = stage.writes("US.7", "hello");
    stage.thread("desk", younger, take()).unwrap();
    stage.writes("US.7+491", "it is me");
    assert_eq!(stage.thread_seen("desk", older), own(START + DAY, START + 2 * DAY, None));
    assert_eq!(stage.thread_seen("crm", older), ThreadSeen::Another);
}

#[test]
fn b18_what_has_lapsed_is_forgotten_with_what_was_handed_on() {
    let mut stage = Stage::shared();
    let kept = stage.writes("491", "hello");
    stage.pass(HOUR);
    let other = stage.writes("492", "hello");
    stage.thread("crm", kept, take()).unwrap();
    stage.thread("crm", other, pass("desk", "m")).unwrap();
    stage.now = START + DAY;
    stage.channel.forget(Timestamp(stage.now));
    assert_eq!(stage.channel.threads_len(), 1);
    assert_eq!(stage.thread_seen("crm", kept), ThreadSeen::Nobody);
    assert_eq!(stage.thread_seen("desk", other), own(START + HOUR, START + HOUR + DAY, Some("m")));
}

#[test]
fn b18_a_list_and_an_opened_conversation_show_it_to_the_asking_service() {
    let mut stage = Stage::shared();
    let conversation = stage.writes("491", "hello");
    stage.thread("crm", conversation, take()).unwrap();
    let thread = own(START, START + DAY, None);
    assert_eq!(stage.listed("crm", conversation).thread, thread);
    assert_eq!(stage.listed("desk", conversation).thread, ThreadSeen::Another);
    assert_eq!(stage.open("crm", "ann", conversation).thread, thread);
    assert_eq!(
        stage.open("desk", "zoe", conversation).thread,
        ThreadSeen::Another,
        "whatever else zoe may see"
    );
}

#[test]
fn b18_metadata_has_a_limit_and_an_agent_is_one_of_the_service() {
    let mut stage = Stage::shared();
    let conversation = stage.writes("491", "hello");
    let of = |length: usize| ThreadAsked::Take { metadata: Some("ü".repeat(length).into()) };
    assert!(matches!(
        stage.thread("crm", conversation, of(METADATA_CHARS_MAX + 1)),
        Err(Rejection::BadMessage(_))
    ));
    assert!(stage.thread("crm", conversation, of(METADATA_CHARS_MAX)).is_ok());
    let command = ThreadCommand {
        service: service("crm"),
        of: Addressee::Conversation(conversation),
        agent: Some(agent("dan")),
        asked: take(),
    };
    assert_eq!(stage.tell(Command::Thread(command.clone())), Err(Rejection::UnknownAgent));
    let command = ThreadCommand { of: Addressee::Customer(name("499")), agent: None, ..command };
    assert_eq!(stage.tell(Command::Thread(command)), Err(Rejection::NotFound), "it starts no conversation");
}
