//! What is tried every few seconds is said to fail when it begins to, or fails in another way; not each time.

/// The error that was said last, if it still is so.
#[derive(Debug, Default)]
pub struct Said(Option<String>);

impl Said {
    /// The error as it is now, if it is to be said.
    pub fn news(&mut self, error: Option<String>) -> Option<&str> {
        let is_new = self.0 != error;
        self.0 = error;
        self.0.as_deref().filter(|_| is_new)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_said_when_it_comes() {
        let mut said = Said::default();
        let rows = [
            (None, false),
            (Some("full"), true),
            (Some("full"), false),
            (Some("gone"), true),
            (None, false),
            (Some("gone"), true),
        ];
        for (nth, (error, expected)) in rows.into_iter().enumerate() {
            let news = said.news(error.map(str::to_owned));
            assert_eq!(news, error.filter(|_| expected), "row {nth}");
        }
    }
}
