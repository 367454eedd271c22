//! Reports an error of something that is tried every few seconds when it changes, not each time.

/// The last error, if it persists.
#[derive(Debug, Default)]
pub struct OnChange(Option<String>);

impl OnChange {
    /// Takes the error of this attempt; returns it if it differs from the last one.
    pub fn update(&mut self, error: Option<String>) -> Option<&str> {
        let is_new = self.0 != error;
        self.0 = error;
        self.0.as_deref().filter(|_| is_new)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_reported_when_it_changes() {
        let mut on_change = OnChange::default();
        let rows = [
            (None, false),
            (Some("full"), true),
            (Some("full"), false),
            (Some("gone"), true),
            (None, false),
            (Some("gone"), true),
        ];
        for (nth, (error, expected)) in rows.into_iter().enumerate() {
            let reported = on_change.update(error.map(str::to_owned));
            assert_eq!(reported, error.filter(|_| expected), "row {nth}");
        }
    }
}
