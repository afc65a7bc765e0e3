//! The files that an address names for TLS.

use std::path::{Path, PathBuf};

use mutext_contract::{EngineError, TroubleKind};

use crate::encoded;

/// The files of `?tls_ca=FILE&tls_cert=FILE&tls_key=FILE`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TlsFiles {
    /// Authorities that sign servers' certificates, where the system does not know them.
    pub ca: Option<PathBuf>,
    /// A certificate of ours.
    pub cert: Option<PathBuf>,
    /// Its key.
    pub key: Option<PathBuf>,
}

impl TlsFiles {
    /// Takes an option of an address, if it is one of these.
    pub fn set(&mut self, option: &str, value: &str) -> bool {
        let file = match option {
            "tls_ca" => &mut self.ca,
            "tls_cert" => &mut self.cert,
            "tls_key" => &mut self.key,
            _ => return false,
        };
        *file = Some(PathBuf::from(value));
        true
    }

    /// Refuses a half of a pair, and files for an address that is not encrypted; `encrypted` is how one begins that is.
    pub fn check(&self, is_encrypted: bool, encrypted: &str) -> Result<(), String> {
        if let Some((option, _)) = self.named().next().filter(|_| !is_encrypted) {
            return Err(format!("{option} needs TLS; write {encrypted} instead"));
        }
        if self.cert.is_some() != self.key.is_some() {
            return Err("tls_cert and tls_key go together; give both".to_owned());
        }
        Ok(())
    }

    /// As they stand among the options of an address.
    pub fn options(&self) -> impl Iterator<Item = String> {
        self.named().map(|(option, file)| format!("{option}={}", encoded(&file.display().to_string())))
    }

    fn named(&self) -> impl Iterator<Item = (&'static str, &Path)> {
        let files = [("tls_ca", &self.ca), ("tls_cert", &self.cert), ("tls_key", &self.key)];
        files.into_iter().filter_map(|(option, file)| Some((option, file.as_deref()?)))
    }
}

/// What is in a PEM file that the address `subject` names.
pub fn pem(subject: &str, file: &Path) -> Result<Vec<u8>, EngineError> {
    std::fs::read(file).map_err(|error| {
        let kind = TroubleKind::Misconfigured(format!("{} cannot be read", file.display()));
        EngineError::new(subject, kind, "name a PEM file that can be read").caused_by(error)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_for_addresses_with_tls_and_a_certificate_comes_with_its_key() {
        let mut files = TlsFiles::default();
        assert!(files.check(false, "xs://").is_ok() && !files.set("prefix", "team"));
        assert!(files.set("tls_cert", "/a b.pem"));
        assert!(files.check(false, "xs://").unwrap_err().contains("tls_cert needs TLS; write xs://"));
        assert!(files.check(true, "xs://").unwrap_err().contains("tls_key"));
        assert!(files.set("tls_key", "k") && files.set("tls_ca", "c"));
        assert!(files.check(true, "xs://").is_ok());
        assert_eq!(files.options().collect::<Vec<_>>(), ["tls_ca=c", "tls_cert=%2Fa%20b.pem", "tls_key=k"]);
    }

    #[test]
    fn a_file_that_cannot_be_read_is_named() {
        let error = pem("xs://h", Path::new("/nowhere/ca.pem")).unwrap_err().to_string();
        assert!(error.contains("/nowhere/ca.pem") && error.contains("xs://h"), "{error}");
    }
}
