//! What to leave out of a response that would be longer than a line or frame may be, so that it can be given at all.
//!
//! A list is a page: half of it is a page too, and the client asks for the rest. Of claims and warnings a response says
//! the first ones, own first; the last of them goes. What is left is always a true answer, only a shorter one.

use super::message::{Flag, Response, responses};

/// A shorter response that says the same as far as it goes; nothing, where there is none.
pub(super) fn shorter(response: &Response) -> Option<Response> {
    match response {
        Response::Welcome(welcome) => {
            let (channels, _) = first_half(&welcome.channels)?;
            Some(responses::Welcome { channels, more: Flag(true), ..welcome.clone() }.into())
        }
        Response::Channels(page) => {
            let (channels, last) = first_half(&page.channels)?;
            Some(responses::Channels { channels, next: Some(last.channel) }.into())
        }
        Response::Conversations(page) => {
            let (conversations, last) = first_half(&page.conversations)?;
            Some(responses::Conversations { conversations, next: Some(last.conversation) }.into())
        }
        Response::Conversation(opened) => shorter_opened(opened).map(Response::Conversation),
        _ => None,
    }
}

/// The same with one claim or warning less, whichever there are more of; one of each stays.
pub(super) fn shorter_opened(opened: &responses::Conversation) -> Option<responses::Conversation> {
    if opened.claims.len().max(opened.warnings.len()) < 2 {
        return None;
    }
    let mut shorter = opened.clone();
    if shorter.warnings.len() > shorter.claims.len() {
        shorter.warnings.pop();
    } else {
        shorter.claims.pop();
    }
    Some(shorter)
}

/// The first half of a list and its last entry, after which the next page begins.
fn first_half<T: Clone>(list: &[T]) -> Option<(Vec<T>, T)> {
    let half = list.get(..list.len() / 2)?;
    Some((half.to_vec(), half.last()?.clone()))
}
