//! Random numbers from a fixed seed, and random policies over the identities of the lab.

/// A linear congruential generator (Knuth's MMIX): the same numbers in each run.
pub struct Rng(pub u64);

impl Rng {
    /// 0 to `end` - 1.
    pub fn below(&mut self, end: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % end
    }

    pub fn pick<'a>(&mut self, of: &[&'a str]) -> &'a str {
        of[self.below(of.len())]
    }
}

fn rule(rng: &mut Rng, side: &str) -> String {
    let peers = [
        "client",
        "kube-dns",
        "intruder",
        "web",
        "office",
        "label:tier=front",
        "label:tier=back",
        "any",
        "host",
        "remote-node",
        "world",
        "cidr:198.51.100.0/24",
        "cidr:198.51.100.0/29",
        "cidr:10.200.0.0/24",
        "cidr:10.200.0.44/31",
        "cidr:0.0.0.0/0",
        "cidr:192.0.2.0/24",
        "cidr:2001:db8:ffff::/48",
        "cidr:fd00:200::40/124",
        "cidr:::/0",
    ];
    let ports = [
        "53/udp",
        "50-60/udp",
        "tcp",
        "80/tcp",
        "1-1023/tcp",
        "8080-8090/tcp",
        "icmp",
        "icmpv6",
        "1024-65535/udp",
        "sctp",
    ];
    let list = |rng: &mut Rng, of: &[&str], count: usize| {
        let words: Vec<String> = (0..count).map(|_| format!("{:?}", rng.pick(of))).collect();
        let mut words = words;
        words.sort();
        words.dedup();
        words.join(", ")
    };
    let count = 1 + rng.below(3);
    let mut rule = format!("{{ {side} = [{}]", list(rng, &peers, count));
    if rng.below(3) > 0 {
        let count = 1 + rng.below(2);
        rule += &format!(", ports = [{}]", list(rng, &ports, count));
    }
    if rng.below(3) == 0 {
        rule += ", action = \"deny\"";
    }
    rule + " }"
}

/// A policy with up to four rules in one or both directions.
pub fn policy(rng: &mut Rng, number: usize) -> String {
    let subject = rng.pick(&["client", "kube-dns", "web"]);
    let mut text = format!("\n[policies.p{number}]\nsubject = {subject:?}\n");
    let sides = [("ingress", "from"), ("egress", "to")];
    let chosen = rng.below(3);
    for (index, (direction, side)) in sides.into_iter().enumerate() {
        if chosen != 2 && chosen != index {
            continue;
        }
        let rules: Vec<String> = (0..rng.below(5)).map(|_| rule(rng, side)).collect();
        text += &format!("{direction} = [{}]\n", rules.join(", "));
    }
    text
}
