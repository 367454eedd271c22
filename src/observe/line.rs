//! A flow as a line of text.
//!
//! ```text
//! Nov 22 12:53:05.123 10.200.0.64:54764 (client) -> kube-dns 10.200.0.44:53 (kube-dns) to-endpoint FORWARDED (UDP)
//! └────── time ─────┘ └────── left ────────────┘    └ service, right ─────────────────┘└ point, verdict ┘└ packet ┘
//! ```

use std::borrow::Cow;
use std::fmt::{self, Write};
use std::net::IpAddr;

use jiff::tz::TimeZone;

use super::record::Record;

/// Whether the verdict is coloured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Colours {
    /// By the escapes of a terminal (ECMA-48).
    Ansi,
    None,
}

impl Colours {
    /// What goes before and after a verdict.
    fn around(self, verdict: &str) -> (&'static str, &'static str) {
        match (self, verdict) {
            (Colours::None, _) => ("", ""),
            (Colours::Ansi, "forwarded") => ("\x1b[32m", "\x1b[0m"),
            (Colours::Ansi, "dropped") => ("\x1b[31m", "\x1b[0m"),
            (Colours::Ansi, _) => ("\x1b[33m", "\x1b[0m"),
        }
    }
}

/// The whole line, with its time in `zone`; without a newline.
pub fn line(record: &Record, zone: &TimeZone, colours: Colours) -> String {
    let time = record.time.to_zoned(zone.clone());
    let mut text = time.strftime("%b %e %H:%M:%S%.3f ").to_string();
    // Writing into a string can't fail.
    let _ = write_message(&mut text, record, colours);
    text
}

/// The line without its time.
pub fn message(record: &Record) -> String {
    let mut text = String::new();
    let _ = write_message(&mut text, record, Colours::None);
    text
}

fn write_message(out: &mut String, record: &Record, colours: Colours) -> fmt::Result {
    let src = Side::new(record.src_ip, record.src_port, &record.src_name);
    let dst = Side::new(record.dst_ip, record.dst_port, &record.dst_name);
    // The client stays on the left, so that request and reply line up.
    let (left, arrow, right) = if record.reply {
        (dst, "<-", src)
    } else {
        (src, "->", dst)
    };
    write!(out, "{left} {arrow} ")?;
    if let Some(service) = &record.service {
        write!(out, "{} ", printable(service))?;
    }
    write!(out, "{right} ")?;
    let (on, off) = colours.around(&record.verdict);
    match &*record.verdict {
        "forwarded" => write!(out, "{} {on}FORWARDED{off}", printable(&record.point))?,
        verdict => write!(out, "{on}{}{off}{}", verdict.to_uppercase(), Why(record))?,
    }
    write!(out, " ({}", Packet(record))?;
    if record.reply {
        out.write_str(", reply")?;
    }
    out.write_char(')')?;
    if record.repeats > 1 {
        write!(out, " (×{})", record.repeats)?;
    }
    Ok(())
}

/// The text with characters that could break or disguise a line escaped.
pub fn printable(text: &str) -> Cow<'_, str> {
    if !text.contains(is_disruptive) {
        return text.into();
    }
    let mut safe = String::with_capacity(text.len() + 8);
    for char in text.chars() {
        if is_disruptive(char) {
            safe.extend(char.escape_default());
        } else {
            safe.push(char);
        }
    }
    safe.into()
}

/// Control characters, line separators, and bidirectional formatting characters.
fn is_disruptive(char: char) -> bool {
    char.is_control()
        || matches!(char, '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// `10.200.0.64:54764 (client)`
struct Side<'a> {
    ip: IpAddr,
    port: Option<u16>,
    name: &'a str,
}

impl<'a> Side<'a> {
    fn new(ip: IpAddr, port: Option<u16>, name: &'a str) -> Self {
        Side { ip, port, name }
    }
}

impl fmt::Display for Side<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.ip, self.port) {
            (ip, None) => write!(f, "{ip}")?,
            (IpAddr::V4(ip), Some(port)) => write!(f, "{ip}:{port}")?,
            (IpAddr::V6(ip), Some(port)) => write!(f, "[{ip}]:{port}")?,
        }
        write!(f, " ({})", printable(self.name))
    }
}

/// ` (policy denied: no rule of ingress kube-dns)`
struct Why<'a>(&'a Record<'a>);

impl fmt::Display for Why<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(reason) = &self.0.drop_reason else {
            return Ok(());
        };
        write!(f, " ({}", printable(reason))?;
        if self.0.is_policy_denied() {
            match (&self.0.rule, &self.0.denied_by) {
                (Some(rule), _) => write!(f, " {}", printable(rule))?,
                (None, Some(side)) => write!(f, " of {}", printable(side))?,
                (None, None) => {}
            }
        }
        f.write_char(')')
    }
}

/// `TCP SYN`
struct Packet<'a>(&'a Record<'a>);

impl fmt::Display for Packet<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &*self.0.protocol {
            "icmpv6" => f.write_str("ICMPv6")?,
            number if number.starts_with(|c: char| c.is_ascii_digit()) => {
                write!(f, "protocol {}", printable(number))?;
            }
            name => f.write_str(&printable(&name.to_uppercase()))?,
        }
        match &self.0.tcp_flags {
            Some(flags) => write!(f, " {}", printable(flags)),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::flow::{Flow, Verdict};
    use crate::observe::samples::{denied, peer, reply, request};

    fn dropped(reason: u8, words: &'static str) -> Flow {
        Flow {
            verdict: Verdict::Dropped,
            drop_reason: Some((reason, words)),
            ..request()
        }
    }

    #[test]
    fn lines() {
        let rows = [
            (
                "a request through a service",
                request(),
                "Nov 22 12:53:05.123 10.200.0.64:54764 (client) -> kube-dns 10.200.0.44:53 (kube-dns) to-endpoint FORWARDED (UDP)",
            ),
            (
                "its reply with an arrow to the left",
                reply(),
                "Nov 22 12:53:05.124 10.200.0.64:54764 (client) <- kube-dns 10.200.0.44:53 (kube-dns) to-endpoint FORWARDED (UDP, reply)",
            ),
            (
                "a drop without a rule has the subject and no point",
                denied(),
                "Nov 22 12:53:09.001 10.200.0.65:40000 (intruder) -> 10.200.0.44:53 (kube-dns) DROPPED (policy denied: no rule of ingress kube-dns) (TCP SYN)",
            ),
            (
                "the day of the month takes two columns",
                Flow {
                    time: std::time::UNIX_EPOCH,
                    ..request()
                },
                "Jan  1 00:00:00.000 10.200.0.64:54764 (client) -> kube-dns 10.200.0.44:53 (kube-dns) to-endpoint FORWARDED (UDP)",
            ),
        ];
        for (sentence, flow, text) in rows {
            assert_eq!(
                line(&Record::from(&flow), &TimeZone::UTC, Colours::None),
                text,
                "{sentence}"
            );
        }
    }

    #[test]
    fn the_verdict_is_coloured() {
        let audit = Flow {
            verdict: Verdict::Audit,
            ..denied()
        };
        let rows = [
            (request(), "to-endpoint \x1b[32mFORWARDED\x1b[0m (UDP)"),
            (denied(), "\x1b[31mDROPPED\x1b[0m (policy denied:"),
            (audit, "\x1b[33mAUDIT\x1b[0m (policy denied:"),
        ];
        for (flow, part) in rows {
            let record = Record::from(&flow);
            let coloured = line(&record, &TimeZone::UTC, Colours::Ansi);
            assert!(coloured.contains(part), "{coloured}");
            let plain = ["\x1b[31m", "\x1b[32m", "\x1b[33m", "\x1b[0m"]
                .iter()
                .fold(coloured.clone(), |text, escape| text.replace(escape, ""));
            assert_eq!(plain, line(&record, &TimeZone::UTC, Colours::None));
        }
    }

    #[test]
    fn messages() {
        let v6 = |flow: Flow| Flow {
            src: peer("fd00:200::64", 54764, 20001, "client"),
            dst: peer("fd00:200::44", 53, 18203, "kube-dns"),
            service: None,
            ..flow
        };
        let rows = [
            (
                "a drop by a deny rule has the rule",
                Flow {
                    drop_reason: Some((181, "policy denied: deny rule")),
                    rule: Some("no-office/ingress/0".to_owned()),
                    denied_by: None,
                    ..denied()
                },
                "10.200.0.65:40000 (intruder) -> 10.200.0.44:53 (kube-dns) DROPPED (policy denied: deny rule no-office/ingress/0) (TCP SYN)",
            ),
            (
                "a policy drop without details",
                Flow {
                    denied_by: None,
                    ..denied()
                },
                "10.200.0.65:40000 (intruder) -> 10.200.0.44:53 (kube-dns) DROPPED (policy denied: no rule) (TCP SYN)",
            ),
            (
                "another reason has no rule",
                dropped(158, "no backend"),
                "10.200.0.64:54764 (client) -> kube-dns 10.200.0.44:53 (kube-dns) DROPPED (no backend) (UDP)",
            ),
            (
                "a drop without a reason",
                Flow {
                    drop_reason: None,
                    ..denied()
                },
                "10.200.0.65:40000 (intruder) -> 10.200.0.44:53 (kube-dns) DROPPED (TCP SYN)",
            ),
            (
                "an audit verdict has the reason of the drop",
                Flow {
                    verdict: Verdict::Audit,
                    ..denied()
                },
                "10.200.0.65:40000 (intruder) -> 10.200.0.44:53 (kube-dns) AUDIT (policy denied: no rule of ingress kube-dns) (TCP SYN)",
            ),
            (
                "a drop with suppressed repeats",
                Flow {
                    repeats: 17,
                    ..denied()
                },
                "10.200.0.65:40000 (intruder) -> 10.200.0.44:53 (kube-dns) DROPPED (policy denied: no rule of ingress kube-dns) (TCP SYN) (×17)",
            ),
            (
                "a dropped reply",
                Flow {
                    verdict: Verdict::Dropped,
                    drop_reason: Some((196, "TTL exceeded")),
                    ..reply()
                },
                "10.200.0.64:54764 (client) <- kube-dns 10.200.0.44:53 (kube-dns) DROPPED (TTL exceeded) (UDP, reply)",
            ),
            (
                "IPv6 with ports",
                v6(request()),
                "[fd00:200::64]:54764 (client) -> [fd00:200::44]:53 (kube-dns) to-endpoint FORWARDED (UDP)",
            ),
            (
                "ICMPv6: the port is an echo's id, and not shown",
                Flow {
                    protocol: 58,
                    ..v6(request())
                },
                "fd00:200::64 (client) -> fd00:200::44 (kube-dns) to-endpoint FORWARDED (ICMPv6)",
            ),
            (
                "ICMP",
                Flow {
                    protocol: 1,
                    service: None,
                    ..request()
                },
                "10.200.0.64 (client) -> 10.200.0.44 (kube-dns) to-endpoint FORWARDED (ICMP)",
            ),
            (
                "SCTP has ports",
                Flow {
                    protocol: 132,
                    service: None,
                    ..request()
                },
                "10.200.0.64:54764 (client) -> 10.200.0.44:53 (kube-dns) to-endpoint FORWARDED (SCTP)",
            ),
            (
                "a protocol without a name here",
                Flow {
                    protocol: 47,
                    service: None,
                    ..request()
                },
                "10.200.0.64 (client) -> 10.200.0.44 (kube-dns) to-endpoint FORWARDED (protocol 47)",
            ),
            (
                "several flags, in a reply",
                Flow {
                    protocol: 6,
                    tcp_flags: 0x12,
                    ..reply()
                },
                "10.200.0.64:54764 (client) <- kube-dns 10.200.0.44:53 (kube-dns) to-endpoint FORWARDED (TCP SYN ACK, reply)",
            ),
            (
                "all flags",
                Flow {
                    tcp_flags: 0xff,
                    ..denied()
                },
                "10.200.0.65:40000 (intruder) -> 10.200.0.44:53 (kube-dns) DROPPED (policy denied: no rule of ingress kube-dns) (TCP FIN SYN RST PSH ACK URG ECE CWR)",
            ),
            (
                "a TCP packet without flags",
                Flow {
                    protocol: 6,
                    service: None,
                    ..request()
                },
                "10.200.0.64:54764 (client) -> 10.200.0.44:53 (kube-dns) to-endpoint FORWARDED (TCP)",
            ),
            (
                "a fragment without its first fragment has no ports",
                Flow {
                    src: peer("10.200.0.64", 0, 20001, "client"),
                    dst: peer("10.200.0.44", 0, 18203, "kube-dns"),
                    service: None,
                    ..dropped(175, "first fragment not found")
                },
                "10.200.0.64 (client) -> 10.200.0.44 (kube-dns) DROPPED (first fragment not found) (UDP)",
            ),
            (
                "an identity without a name has its number",
                Flow {
                    src: peer("10.200.0.64", 1, 777, "777"),
                    dst: peer("10.200.0.44", 53, 778, ""),
                    service: None,
                    ..request()
                },
                "10.200.0.64:1 (777) -> 10.200.0.44:53 (778) to-endpoint FORWARDED (UDP)",
            ),
            (
                "control characters in a name are escaped",
                Flow {
                    src: peer("10.200.0.64", 1, 777, "a\nb\u{1b}[2J\u{202e}é"),
                    service: Some("s\r".to_owned()),
                    ..request()
                },
                "10.200.0.64:1 (a\\nb\\u{1b}[2J\\u{202e}é) -> s\\r 10.200.0.44:53 (kube-dns) to-endpoint FORWARDED (UDP)",
            ),
        ];
        for (sentence, flow, text) in rows {
            assert_eq!(message(&Record::from(&flow)), text, "{sentence}");
        }
    }
}
