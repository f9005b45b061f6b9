//! The file of KeyIDs and passphrases.
//!
//! A line is a KeyID, blanks, and a passphrase, which is the rest of the line whatever it is. Nobody
//! but the owner may be able to read the file. No error shows what stands in it, but for KeyIDs.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::path::Path;

use zeroize::Zeroizing;

use crate::control::crypto::Passphrase;
use crate::wire::control::{BadKeyId, KeyId};

/// Who may use the protected modes.
#[derive(Debug, Default)]
pub struct Keys(HashMap<KeyId, Passphrase>);

/// Why a file is no file of keys. One line; whoever shows it adds the name of the file.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    /// It cannot be read.
    #[error("{0}; use a file that exists and that this user may read")]
    Open(io::Error),
    /// A folder, a pipe, a device.
    #[error("no regular file; use one")]
    NotAFile,
    /// Others than its owner may do something with it.
    #[error("mode {:04o} lets others at the passphrases; use chmod 600", .0 & 0o7777)]
    Exposed(u32),
    /// More than anybody has keys.
    #[error("over {MOST_OCTETS} octets; use a smaller file")]
    TooLong,
    /// A line that is none.
    #[error("line {line}: {what}")]
    Line {
        /// Counted from 1.
        line: usize,
        /// What is wrong with it.
        what: BadLine,
    },
}

/// What is wrong with a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadLine {
    /// No blank, or nothing behind it.
    #[error("no passphrase; use KeyID, a blank, and the passphrase")]
    NoPassphrase,
    /// No text.
    #[error("the key id is no UTF-8")]
    NotUtf8,
    /// No KeyID.
    #[error(transparent)]
    KeyId(#[from] BadKeyId),
    /// Made on another system.
    #[error("it ends with a carriage return; use a file with Unix line ends")]
    CarriageReturn,
    /// A KeyID has one passphrase.
    #[error("key id {0} is there already; use each one once")]
    Duplicate(KeyId),
}

impl Keys {
    /// Reads a file.
    ///
    /// # Errors
    /// [`KeysError`]; all lines are good, or none is taken.
    pub fn load(path: &Path) -> Result<Self, KeysError> {
        let file = open(path).map_err(KeysError::Open)?;
        // Of what was opened, and not of what has its name by now.
        let about = file.metadata().map_err(KeysError::Open)?;
        if !about.is_file() {
            return Err(KeysError::NotAFile);
        }
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let mode = about.permissions().mode();
            if mode & 0o077 != 0 {
                return Err(KeysError::Exposed(mode));
            }
        }
        if about.len() > MOST_OCTETS {
            return Err(KeysError::TooLong);
        }
        // Room for all of it, so that no copy is left behind where it grew.
        let room = usize::try_from(MOST_OCTETS.min(about.len() + 1)).unwrap_or(0);
        let mut text = Zeroizing::new(Vec::with_capacity(room));
        let read = file.take(about.len()).read_to_end(&mut text);
        read.map_err(KeysError::Open)?;
        Self::read(&text)
    }

    /// Reads the text of a file.
    ///
    /// # Errors
    /// [`KeysError::Line`], the first one.
    pub fn read(text: &[u8]) -> Result<Self, KeysError> {
        let mut keys = Self::default();
        for (line, octets) in (1..).zip(text.split(|octet| *octet == b'\n')) {
            let octets = octets.trim_ascii_start();
            if octets.is_empty() || octets.starts_with(b"#") {
                continue;
            }
            keys.add(octets)
                .map_err(|what| KeysError::Line { line, what })?;
        }
        Ok(keys)
    }

    fn add(&mut self, line: &[u8]) -> Result<(), BadLine> {
        if line.ends_with(b"\r") {
            return Err(BadLine::CarriageReturn);
        }
        let blank = |octet: &u8| matches!(octet, b' ' | b'\t');
        let end = line.iter().position(blank).ok_or(BadLine::NoPassphrase)?;
        let (key_id, rest) = line.split_at(end);
        let begin = rest.iter().position(|octet| !blank(octet));
        let passphrase = begin.and_then(|at| rest.get(at..));
        let passphrase = passphrase.ok_or(BadLine::NoPassphrase)?;
        let key_id = str::from_utf8(key_id).map_err(|_| BadLine::NotUtf8)?;
        let key_id = KeyId::new(key_id)?;
        let passphrase = Passphrase::new(passphrase.to_vec());
        match self.0.insert(key_id, passphrase) {
            Some(_) => Err(BadLine::Duplicate(key_id)),
            None => Ok(()),
        }
    }

    /// Whether there is nobody.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// The passphrase of a KeyID.
    #[must_use]
    pub fn passphrase(&self, key_id: &KeyId) -> Option<Passphrase> {
        self.0.get(key_id).cloned()
    }
}

fn open(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;
        // A pipe without a writer would be waited for.
        options.custom_flags(libc::O_NONBLOCK);
    }
    options.open(path)
}

/// Some 100,000 keys.
const MOST_OCTETS: u64 = 16 << 20;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::crypto::{KeyDerivation, SessionKeys};
    use crate::wire::control::{Count, Token};

    /// Passphrases can be neither printed nor compared; what they make can.
    fn token(passphrase: Passphrase) -> Token {
        let derivation = KeyDerivation {
            passphrase,
            salt: [0; 16],
            count: Count::LEAST,
        };
        let keys = SessionKeys::new([0; 16], [0; 32]);
        derivation.run().seal_token(&[0; 16], &keys)
    }

    #[test]
    fn a_passphrase_is_the_rest_of_its_line() {
        let text = "# who may\n\nalice open sesame \n  bob\t \tx # y\nö ü\nlast p";
        let keys = Keys::read(text.as_bytes()).unwrap();
        assert_eq!(keys.len(), 4);
        for (key_id, passphrase) in [
            ("alice", "open sesame "),
            ("bob", "x # y"),
            ("ö", "ü"),
            ("last", "p"),
        ] {
            let found = keys.passphrase(&KeyId::new(key_id).unwrap()).unwrap();
            let right = Passphrase::new(passphrase.into());
            assert_eq!(token(found), token(right), "{key_id}");
        }
        assert!(keys.passphrase(&KeyId::new("#").unwrap()).is_none());
        assert!(Keys::read(b"").unwrap().is_empty());
    }

    #[test]
    fn bad_lines_are_named_and_passphrases_are_not() {
        let long = format!("{} secret", "k".repeat(81));
        for (text, at, part) in [
            ("alice", 1, "no passphrase"),
            ("alice \t", 1, "no passphrase"),
            ("\n# x\nalice secret\r\n", 3, "carriage return"),
            ("a secret\nb secret\na secret", 3, "\"a\" is there"),
            (&long, 1, "80 octets"),
        ] {
            let error = Keys::read(text.as_bytes()).unwrap_err();
            assert!(matches!(error, KeysError::Line { line, .. } if line == at));
            let shown = error.to_string();
            assert!(shown.contains(part), "{shown}");
            assert!(!shown.contains("secret"), "{shown}");
        }
        let error = Keys::read(b"\xff secret").unwrap_err();
        assert!(error.to_string().contains("UTF-8"), "{error}");
    }
}
