//! Do the counters add up? The one place for the rule: in = forwarded + dropped + passed to the stack, for each endpoint.

use super::input::At;
use super::outcome::{Counted, Outcome};
use crate::common::runner::Verdict;

/// Says what is wrong with the counts, if anything is.
pub fn check(outcome: &Outcome) -> Result<(), String> {
    let dropped = dropped(outcome)?;
    match outcome.verdict {
        Verdict::Drop if dropped == 0 => return Err("a drop that is not counted".to_owned()),
        Verdict::Pass if dropped > 0 => return Err("a drop was counted, and it passes".to_owned()),
        _ => {}
    }
    let received: u64 = outcome.counted.iter().map(|row| row.received).sum();
    if received > 1 {
        return Err("one packet is counted as several".to_owned());
    }
    if dropped + received > 1 {
        return Err("it is counted both as dropped and as received".to_owned());
    }
    match outcome.step.at {
        At::FromContainer => check_sent(outcome, dropped),
        At::ToContainer => check_received(outcome, dropped),
        At::FromNetdev | At::ToNetdev | At::Xdp => check_uplink(outcome),
    }
}

/// What a workload sends is forwarded, dropped, passed to the stack or answered: one of them.
fn check_sent(outcome: &Outcome, dropped: u64) -> Result<(), String> {
    let own = outcome.own();
    if own.sent + own.sent_dropped != 1 {
        return Err("what a workload sent is not counted once".to_owned());
    }
    if own.sent_dropped != dropped {
        return Err("its drop is not counted by reason, or only there".to_owned());
    }
    if own.to_stack != u64::from(outcome.verdict == Verdict::Pass) {
        return Err("what passes to the stack is not what is counted so".to_owned());
    }
    let received: u64 = outcome.counted.iter().map(|row| row.received).sum();
    if own.to_stack + own.answered + own.sent_dropped + received > 1 {
        return Err("it is counted as gone to two places".to_owned());
    }
    let elsewhere = outcome.counted.iter().enumerate().any(|(endpoint, row)| {
        let is_receiver = Counted {
            received: row.received,
            ..Counted::default()
        };
        endpoint != outcome.step.endpoint && *row != is_receiver
    });
    match elsewhere {
        true => Err("it is counted as another endpoint's".to_owned()),
        false => Ok(()),
    }
}

/// What the host's stack sends to a workload is received or dropped, unless the hook that sent it there has counted it.
fn check_received(outcome: &Outcome, dropped: u64) -> Result<(), String> {
    let expected = match (outcome.step.is_judged(), dropped) {
        (true, _) => Counted::default(),
        (false, 0) => Counted {
            received: 1,
            ..Counted::default()
        },
        (false, _) => Counted {
            received_dropped: 1,
            ..Counted::default()
        },
    };
    let rows = outcome.counted.iter().enumerate();
    for (endpoint, row) in rows {
        let expected = match endpoint == outcome.step.endpoint {
            true => expected,
            false => Counted::default(),
        };
        if *row != expected {
            return Err(format!("counted {row:?}, expected {expected:?}"));
        }
    }
    Ok(())
}

/// No workload has sent it, and a drop at an uplink is none of an endpoint's hook.
fn check_uplink(outcome: &Outcome) -> Result<(), String> {
    let is_receiver = |row: &Counted| {
        *row == Counted {
            received: row.received,
            ..Counted::default()
        }
    };
    match outcome.counted.iter().all(is_receiver) {
        true => Ok(()),
        false => Err("what no workload sent is counted as sent".to_owned()),
    }
}

/// Packets that were dropped: none or one, at the hook's own interface.
fn dropped(outcome: &Outcome) -> Result<u64, String> {
    let mut rows = outcome.drops.iter();
    if rows.any(|row| row.ifindex != outcome.ifindex) {
        return Err("a drop is counted at another interface".to_owned());
    }
    let dropped = outcome.drops.iter().map(|row| row.packets).sum();
    match dropped {
        0 | 1 => Ok(dropped),
        _ => Err(format!("{dropped} drops for one packet")),
    }
}
