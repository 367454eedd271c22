//! The result of parsing one text of the file.

/// Why a text is no value of its kind.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Wrong {
    pub message: String,
    pub help: Option<String>,
}

/// The value of a text, or why it has none.
pub(super) type Parsed<T> = Result<T, Wrong>;

impl Wrong {
    pub fn new(message: impl Into<String>) -> Self {
        Wrong {
            message: message.into(),
            help: None,
        }
    }

    pub fn help(self, help: impl Into<String>) -> Self {
        Wrong {
            help: Some(help.into()),
            ..self
        }
    }
}
