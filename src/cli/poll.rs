//! Waiting for something in the kernel, for the commands that do.

use std::time::{Duration, Instant};

use anyhow::Result;

/// The least time between two looks.
const INTERVAL_MIN: Duration = Duration::from_millis(50);
/// The rest after a look, in durations of that look: a million connections take a second to read.
const REST_FACTOR: u32 = 4;
/// An error of so many looks is one: a takeover may remove what a single look is reading.
const FAILURES_MAX: u32 = 20;

/// Looks until the result is there, or the time is over: then it is what stands in the way. `timeout`: `None`: without end.
///
/// # Errors
/// That of the last look, if the time is over or many looks in a row fail.
pub fn poll<T, O>(
    timeout: Option<Duration>,
    mut look: impl FnMut() -> Result<Result<T, O>>,
) -> Result<Result<T, O>> {
    let started = Instant::now();
    let mut failures = 0;
    loop {
        let began = Instant::now();
        let left = timeout.map(|timeout| timeout.saturating_sub(started.elapsed()));
        let is_over = left.is_some_and(|left| left.is_zero());
        match look() {
            Ok(Err(_)) if !is_over => failures = 0,
            Err(_) if !is_over && failures < FAILURES_MAX => failures += 1,
            found => return found,
        }
        let rest = INTERVAL_MIN.max(began.elapsed() * REST_FACTOR);
        std::thread::sleep(left.map_or(rest, |left| left.min(rest)));
    }
}

#[cfg(test)]
mod tests {
    use anyhow::anyhow;

    use super::*;

    #[test]
    fn it_ends_with_the_result_or_what_stands_in_the_way() {
        let end = Some(Duration::ZERO);
        let mut looks = 0;
        let found = poll(None, || {
            looks += 1;
            match looks {
                1 => Ok(Err("not yet")),
                2 => Err(anyhow!("a takeover")),
                _ => Ok(Ok(looks)),
            }
        });
        assert_eq!(found.unwrap(), Ok(3));
        let found = poll(end, || Ok(Err::<(), _>("missing")));
        assert_eq!(found.unwrap(), Err("missing"));
        let found = poll(end, || Err::<Result<(), ()>, _>(anyhow!("unreadable")));
        assert_eq!(found.unwrap_err().to_string(), "unreadable");
    }

    #[test]
    fn errors_in_a_row_are_one() {
        let mut looks = 0;
        let found = poll(None, || {
            looks += 1;
            Err::<Result<(), ()>, _>(anyhow!("unreadable"))
        });
        assert_eq!(found.unwrap_err().to_string(), "unreadable");
        assert_eq!(looks, FAILURES_MAX + 1);
    }
}
