//! Port lists of rules as prefixes, the only form that the policy trie can hold.

use crate::model::policy::{Ports, port_prefixes};

/// (protocol, port, leading bits of the port), as the policy trie's keys have them.
type PortRow = (Option<u8>, u16, u8);

/// The rows that a list of ports needs; an empty list is all traffic.
pub fn rows(ports: &[Ports]) -> Vec<PortRow> {
    if ports.is_empty() {
        return vec![(None, 0, 0)];
    }
    let mut rows = Vec::new();
    for ports in ports {
        let protocol = Some(ports.protocol.number());
        let (first, last) = ports.range.unwrap_or((0, u16::MAX));
        for (port, bits) in port_prefixes(first, last) {
            rows.push((protocol, port, bits));
        }
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_the_fewest_prefixes() {
        type Row = (u16, u16, &'static [(u16, u8)]);
        let rows: [Row; 9] = [
            (53, 53, &[(53, 16)]),
            (0, 65535, &[(0, 0)]),
            (0, 0, &[(0, 16)]),
            (65535, 65535, &[(65535, 16)]),
            (80, 81, &[(80, 15)]),
            (81, 82, &[(81, 16), (82, 16)]),
            (
                1024,
                65535,
                &[
                    (1024, 6),
                    (2048, 5),
                    (4096, 4),
                    (8192, 3),
                    (16384, 2),
                    (32768, 1),
                ],
            ),
            (8080, 8090, &[(8080, 13), (8088, 15), (8090, 16)]),
            (9, 8, &[]),
        ];
        for (first, last, expected) in rows {
            assert_eq!(port_prefixes(first, last), expected, "{first}-{last}");
        }
        assert_eq!(
            port_prefixes(1, 65534).len(),
            30,
            "the longest list that a range can be"
        );
        for (first, last) in [
            (1, 65534),
            (3, 1000),
            (443, 444),
            (32767, 32768),
            (7, 65535),
        ] {
            let prefixes = port_prefixes(first, last);
            let is_in = |port: u16| {
                let in_prefix = |(start, bits): &(u16, u8)| {
                    u32::from(port ^ start) >> (16 - u32::from(*bits)) == 0
                };
                prefixes.iter().filter(|prefix| in_prefix(prefix)).count()
            };
            for port in 0..=u16::MAX {
                let expected = usize::from((first..=last).contains(&port));
                assert_eq!(is_in(port), expected, "{port} of {first}-{last}");
            }
        }
    }
}
