//! The line that `systemctl status` shows: what is live, and what of the file is not in effect.

/// What the line is about.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UnitStatus {
    pub revision: u64,
    /// Why the file is not applied.
    pub file_error: Option<String>,
    /// Why the host's last change is not followed, or only in part.
    pub host_error: Option<String>,
    /// Interfaces of the file that do not exist yet, or are skipped.
    pub pending: Vec<String>,
    pub warnings: usize,
}

/// Pending interfaces that are named.
const NAMED: usize = 5;

impl UnitStatus {
    pub fn line(&self) -> String {
        let mut parts = vec![format!("revision {}", self.revision)];
        let first = |error: &str| error.lines().next().unwrap_or_default().to_owned();
        if let Some(error) = &self.file_error {
            parts.push(format!("not applied: {}", first(error)));
        }
        parts.extend(self.host_error.as_deref().map(first));
        if !self.pending.is_empty() {
            let (named, rest) = self.pending.split_at(self.pending.len().min(NAMED));
            let more = match rest.len() {
                0 => String::new(),
                more => format!(" and {more} more"),
            };
            parts.push(format!("pending: {}{more}", named.join(", ")));
        }
        match self.warnings {
            0 => {}
            1 => parts.push("1 warning".to_owned()),
            warnings => parts.push(format!("{warnings} warnings")),
        }
        parts.join("; ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines() {
        let names = |count| (1..=count).map(|n| format!("lxc-{n}")).collect();
        let rows = [
            (UnitStatus::default(), "revision 0"),
            (
                UnitStatus {
                    revision: 12,
                    pending: names(2),
                    warnings: 1,
                    ..Default::default()
                },
                "revision 12; pending: lxc-1, lxc-2; 1 warning",
            ),
            (
                UnitStatus {
                    revision: 12,
                    file_error: Some("config.toml:3:5: unknown key \"a\"\n  a = 1\n".to_owned()),
                    host_error: Some("lxc-9 is skipped\nfor a reason".to_owned()),
                    pending: names(7),
                    warnings: 2,
                },
                "revision 12; not applied: config.toml:3:5: unknown key \"a\"; lxc-9 is skipped; \
                 pending: lxc-1, lxc-2, lxc-3, lxc-4, lxc-5 and 2 more; 2 warnings",
            ),
        ];
        for (status, line) in rows {
            assert_eq!(status.line(), line);
        }
    }
}
