//! Settings: switches and durations as programs read them.

use std::time::Duration;

use crate::config::Config;
use crate::model::state::Settings;

pub fn compile(config: &Config) -> Settings {
    let conntrack = &config.conntrack;
    Settings {
        tcp_ns: nanoseconds(conntrack.tcp),
        tcp_syn_ns: nanoseconds(conntrack.tcp_syn),
        tcp_close_ns: nanoseconds(conntrack.tcp_close),
        udp_ns: nanoseconds(conntrack.udp),
        udp_once_ns: nanoseconds(conntrack.udp_once),
        icmp_ns: nanoseconds(conntrack.icmp),
        per_endpoint: conntrack.per_endpoint,
        strict: conntrack.strict,
        aggregation: config.events.aggregation,
        interval_ns: nanoseconds(config.events.interval),
        rate: config.events.rate,
        audit: config.policy.audit,
        allow_host: config.policy.allow_host,
    }
}

/// 584 years is as long as the kernel's clock: what is longer never ends either.
fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_nanoseconds_and_never_wrap() {
        let rows = [
            ("a second", Duration::from_secs(1), 1_000_000_000),
            ("a quarter", Duration::from_millis(250), 250_000_000),
            ("nothing", Duration::ZERO, 0),
            ("for ever", Duration::MAX, u64::MAX),
        ];
        for (what, duration, expected) in rows {
            assert_eq!(nanoseconds(duration), expected, "{what}");
        }
    }
}
