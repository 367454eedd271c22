//! Do the counters add up? The one place for the rule: in = forwarded + dropped + passed to the stack, for each endpoint.

use super::frame;
use super::input::At;
use super::outcome::{Drops, Outcome};
use crate::common::packet::ethertype;
use crate::common::runner::Verdict;

/// A response that was not sent, which is counted with the drop behind it and is no drop of its own.
const RATE_LIMITED: u8 = 198;

/// Says what is wrong with the counts, if anything is.
pub fn check(outcome: &Outcome) -> Result<(), String> {
    let dropped = dropped(outcome)?;
    match outcome.verdict {
        Verdict::Drop if dropped == 0 => return Err("a drop that is not counted".to_owned()),
        Verdict::Pass if dropped > 0 => return Err("a drop was counted, and it passes".to_owned()),
        _ => {}
    }
    let sent: u64 = outcome.sent.iter().sum();
    let received: u64 = outcome.received.iter().sum();
    if sent > 1 || received > 1 {
        return Err("one packet is counted as several".to_owned());
    }
    if dropped > 0 && sent + received > 0 {
        return Err("it is counted both as dropped and as forwarded".to_owned());
    }
    match outcome.step.at {
        At::FromContainer => check_sender(outcome, dropped),
        _ if sent > 0 => Err("what no workload sent is counted as sent".to_owned()),
        _ => Ok(()),
    }
}

/// A workload's packet is exactly one of forwarded, dropped, and passed to the stack.
fn check_sender(outcome: &Outcome, dropped: u64) -> Result<(), String> {
    let forwarded = outcome.sent[outcome.step.endpoint];
    if forwarded != outcome.sent.iter().sum::<u64>() {
        return Err("it is counted as another endpoint's".to_owned());
    }
    let is_passed = outcome.verdict == Verdict::Pass && forwarded == 0;
    let is_answered = outcome.verdict == Verdict::Redirect && dropped + forwarded == 0;
    if is_answered {
        let is_exempt = is_of_the_link(&outcome.frame);
        return match is_exempt {
            true => Ok(()),
            false => Err("it is redirected, and counted nowhere".to_owned()),
        };
    }
    match forwarded + dropped + u64::from(is_passed) {
        1 => Ok(()),
        parts => Err(format!(
            "it is counted in {parts} of forwarded, dropped and passed"
        )),
    }
}

/// ARP and neighbour discovery: their answers are counted nowhere.
fn is_of_the_link(frame: &[u8]) -> bool {
    let is_arp = frame::ethernet(frame).is_some_and(|(kind, _)| kind == ethertype::ARP);
    is_arp || frame::network(frame).is_some_and(|network| network.is_solicitation(frame))
}

/// Packets that were dropped: none or one, at the hook's own interface.
fn dropped(outcome: &Outcome) -> Result<u64, String> {
    let elsewhere = outcome
        .drops
        .iter()
        .any(|row| row.ifindex != outcome.ifindex);
    if elsewhere {
        return Err("a drop is counted at another interface".to_owned());
    }
    let (unsent, drops): (Vec<&Drops>, Vec<&Drops>) = outcome
        .drops
        .iter()
        .partition(|row| row.reason == RATE_LIMITED);
    let dropped = drops.iter().map(|row| row.packets).sum();
    if dropped > 1 {
        return Err(format!("{dropped} drops for one packet"));
    }
    if !unsent.is_empty() && dropped == 0 {
        return Err("a response that was not sent, and no drop behind it".to_owned());
    }
    Ok(dropped)
}
