//! A flow as a line of prose.
//!
//! ```text
//! Nov 22 12:53:05.123 10.200.0.64:54764 (client) -> kube-dns 10.200.0.44:53 (kube-dns) to-endpoint FORWARDED (UDP)
//! └────── time ─────┘ └────── left ────────────┘    └ service, right ─────────────────┘└ what was done ┘└ packet ┘
//! ```

use std::borrow::Cow;
use std::fmt::{self, Write};
use std::net::IpAddr;

use jiff::tz::TimeZone;

use super::record::Record;

/// The whole line, its time told in `zone`; without a newline.
pub fn line(record: &Record, zone: &TimeZone) -> String {
    let time = record.time.to_zoned(zone.clone());
    format!(
        "{} {}",
        time.strftime("%b %e %H:%M:%S%.3f"),
        message(record)
    )
}

/// The line without its time.
pub fn message(record: &Record) -> String {
    let mut text = String::new();
    // Writing into a string can't fail.
    let _ = write_message(&mut text, record);
    text
}

fn write_message(out: &mut String, record: &Record) -> fmt::Result {
    let src = Side::new(record.src_ip, record.src_port, &record.src_name);
    let dst = Side::new(record.dst_ip, record.dst_port, &record.dst_name);
    // The client stays on the left, so that question and answer stand under each other.
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
    match &*record.verdict {
        "forwarded" => write!(out, "{} FORWARDED", printable(&record.point))?,
        verdict => write!(out, "{}{}", verdict.to_uppercase(), Why(record))?,
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

/// The text with whatever could break or disguise a line written out as an escape.
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

/// Control characters, line separators, and marks that turn the direction of writing.
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
                (Some(rule), _) => write!(f, ": rule {}", printable(rule))?,
                (None, Some(place)) => write!(f, ": no rule of {}", printable(place))?,
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
