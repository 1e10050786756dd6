//! Secrets in configuration: where they stand, never what they are, is shown.

use serde::{Deserialize, Serialize, Serializer};
use std::fmt;

/// A secret, or where to find it: `env:NAME`, `file:PATH`, or the secret itself. Empty means none.
///
/// Never shown: `Debug`, `Display` and `Serialize` give the source of an `env:` or `file:` secret and hide any other.
#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

/// Why a secret cannot be had. Holds no secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SecretError {
    /// The variable is absent, empty or not text.
    #[error("environment variable `{0}` is not set")]
    Variable(String),
    /// The file cannot be read.
    #[error("secret file `{path}` cannot be read: {cause}")]
    File {
        /// The file.
        path: String,
        /// What the system said.
        cause: String,
    },
    /// The file holds nothing.
    #[error("secret file `{0}` is empty")]
    EmptyFile(String),
}

impl Secret {
    /// Takes the text of a configuration value.
    pub fn new(source: impl Into<String>) -> Self {
        Self(source.into())
    }

    /// Whether none is configured.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Fetches the secret, following `env:` and `file:`; a final line break of a file is dropped.
    ///
    /// # Errors
    /// When the variable or the file holds nothing.
    pub fn reveal(&self) -> Result<String, SecretError> {
        if let Some(name) = self.0.strip_prefix("env:") {
            let value = std::env::var(name).ok().filter(|value| !value.is_empty());
            return value.ok_or_else(|| SecretError::Variable(name.to_owned()));
        }
        if let Some(path) = self.0.strip_prefix("file:") {
            let text = std::fs::read_to_string(path)
                .map_err(|cause| SecretError::File { path: path.to_owned(), cause: cause.to_string() })?;
            let secret = text.trim_end_matches(['\r', '\n']);
            return if secret.is_empty() {
                Err(SecretError::EmptyFile(path.to_owned()))
            } else {
                Ok(secret.to_owned())
            };
        }
        Ok(self.0.clone())
    }

    fn shown(&self) -> &str {
        match self.0.as_str() {
            "" => "",
            source if source.starts_with("env:") || source.starts_with("file:") => source,
            _ => "(hidden)",
        }
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secret({})", self.shown())
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.shown())
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.shown())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_literal_secret_is_never_shown() {
        let secret = Secret::new("sk-hunter2");
        let shown = format!("{secret} {secret:?} {}", serde_json::to_string(&secret).unwrap());
        assert!(!shown.contains("hunter2"), "{shown}");
        assert_eq!(secret.reveal().unwrap(), "sk-hunter2");
    }

    #[test]
    fn a_file_secret_loses_its_line_break() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        std::fs::write(&path, "abc\n").unwrap();
        assert_eq!(Secret::new(format!("file:{}", path.display())).reveal().unwrap(), "abc");
        std::fs::write(&path, "\n").unwrap();
        assert!(matches!(Secret::new(format!("file:{}", path.display())).reveal(), Err(SecretError::EmptyFile(_))));
    }

    #[test]
    fn an_absent_variable_is_named() {
        let error = Secret::new("env:TOKLIGENCE_SURELY_ABSENT").reveal().unwrap_err();
        assert_eq!(error.to_string(), "environment variable `TOKLIGENCE_SURELY_ABSENT` is not set");
    }
}
