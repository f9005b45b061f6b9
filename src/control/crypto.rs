//! Keys of a protected control connection, and the two streams that they protect (RFC 4656 §3).
//!
//! A passphrase and the Server's Salt and Count make a [`SharedKey`]; under it the client sends
//! [`SessionKeys`] of its own making in the Token. Each direction then is one chain of AES-128-CBC
//! blocks that never restarts, and each message in it ends with an HMAC of everything since the one
//! before: a [`Sealer`] sends, an [`Opener`] receives.
//!
//! Deriving a key takes milliseconds of work: [`KeyDerivation`] and [`TokenCheck`] are jobs, plain
//! data to be run on any thread. All keys are wiped when dropped, and none can be printed.

use std::fmt;

use aes::Aes128;
use cbc::cipher::array::Array;
use cbc::cipher::{Block, BlockModeDecrypt, BlockModeEncrypt, KeyIvInit};
use hmac::{HmacReset, KeyInit, Mac};
use rand::Rng;
use sha1::Sha1;
use subtle::{Choice, ConstantTimeEq};
use zeroize::Zeroizing;

use crate::wire::Sid;
use crate::wire::control::{BLOCK_LEN, Count, HMAC_LEN, Token};
use crate::wire::protected::TestKeys;

/// What both sides know beforehand: any octets; text is used as it is (RFC 4656 §3.1).
#[derive(Clone)]
pub struct Passphrase(Zeroizing<Vec<u8>>);

impl Passphrase {
    /// Without a newline at its end, if it was a line.
    #[must_use]
    pub fn new(octets: Vec<u8>) -> Self {
        Self(Zeroizing::new(octets))
    }
}

/// The key that encrypts the Token: PBKDF2 with HMAC-SHA1, cut to 16 octets (RFC 4656 §3.1).
pub struct SharedKey(Zeroizing<[u8; 16]>);

impl SharedKey {
    fn derive(passphrase: &[u8], salt: &[u8], iterations: u32) -> Self {
        let mut key = Zeroizing::new([0; 16]);
        pbkdf2::pbkdf2_hmac::<Sha1>(passphrase, salt, iterations, key.as_mut());
        Self(key)
    }

    /// The Token of a Set-Up-Response.
    #[must_use]
    pub fn seal_token(&self, challenge: &[u8; 16], keys: &SessionKeys) -> Token {
        let mut token = [0; 64];
        let (first, rest) = token.split_at_mut(16);
        let (aes, hmac) = rest.split_at_mut(16);
        first.copy_from_slice(challenge);
        aes.copy_from_slice(keys.aes.as_ref());
        hmac.copy_from_slice(keys.hmac.as_ref());
        cbc::Encryptor::<Aes128>::new(self.key(), &TOKEN_IV.into())
            .encrypt_blocks(blocks_mut(&mut token));
        token
    }

    /// What the Token holds, and whether its challenge is the right one.
    fn open_token(&self, token: &Token, challenge: &[u8; 16]) -> (SessionKeys, Choice) {
        let mut plain = Zeroizing::new(*token);
        cbc::Decryptor::<Aes128>::new(self.key(), &TOKEN_IV.into())
            .decrypt_blocks(blocks_mut(plain.as_mut()));
        let (theirs, rest) = plain.split_at(16);
        let (aes, hmac) = rest.split_at(16);
        let mut keys = SessionKeys::new([0; 16], [0; 32]);
        keys.aes.copy_from_slice(aes);
        keys.hmac.copy_from_slice(hmac);
        (keys, theirs.ct_eq(challenge))
    }

    fn key(&self) -> &Array<u8, cbc::cipher::consts::U16> {
        Array::cast_from_core(&self.0)
    }
}

/// The keys of one control connection: drawn by the client, for both directions.
#[derive(Clone)]
pub struct SessionKeys {
    aes: Zeroizing<[u8; 16]>,
    hmac: Zeroizing<[u8; 32]>,
}

impl SessionKeys {
    /// From a cryptographic generator, for one connection.
    #[must_use]
    pub fn random() -> Self {
        let mut keys = Self::new([0; 16], [0; 32]);
        rand::rng().fill_bytes(keys.aes.as_mut());
        rand::rng().fill_bytes(keys.hmac.as_mut());
        keys
    }

    /// Given AES Session-key and HMAC Session-key.
    #[must_use]
    pub fn new(aes: [u8; 16], hmac: [u8; 32]) -> Self {
        Self {
            aes: Zeroizing::new(aes),
            hmac: Zeroizing::new(hmac),
        }
    }

    /// Keys of the test packets of session `sid` (RFC 4656 §4.1.2).
    #[must_use]
    pub fn of_session(&self, sid: &Sid) -> TestKeys {
        TestKeys::derive(&sid.0, &self.aes, &self.hmac)
    }
}

/// A client's work between Server-Greeting and Set-Up-Response.
#[derive(Clone, Debug)]
pub struct KeyDerivation {
    /// The user's.
    pub passphrase: Passphrase,
    /// Of the Server-Greeting.
    pub salt: [u8; 16],
    /// Of the Server-Greeting, checked.
    pub count: Count,
}

impl KeyDerivation {
    /// 0.2 µs of work for each iteration of Count.
    #[must_use]
    pub fn run(&self) -> SharedKey {
        SharedKey::derive(&self.passphrase.0, &self.salt, self.count.value())
    }
}

/// A Server's work between Set-Up-Response and Server-Start.
#[derive(Clone, Debug)]
pub struct TokenCheck {
    /// What the KeyID names; `None` if it names nothing.
    pub passphrase: Option<Passphrase>,
    /// As sent in Server-Greeting.
    pub salt: [u8; 16],
    /// As sent in Server-Greeting.
    pub count: Count,
    /// As sent in Server-Greeting.
    pub challenge: [u8; 16],
    /// Of the Set-Up-Response.
    pub token: Token,
}

impl TokenCheck {
    /// The session keys, if the client knows the passphrase.
    ///
    /// `None` for an unknown KeyID as for a wrong passphrase, after the same work: time does not
    /// tell which KeyIDs exist.
    #[must_use]
    pub fn run(&self) -> Option<SessionKeys> {
        let known = Choice::from(u8::from(self.passphrase.is_some()));
        let passphrase = self
            .passphrase
            .as_ref()
            .map_or(NO_PASSPHRASE, |known| known.0.as_slice());
        let key = SharedKey::derive(passphrase, &self.salt, self.count.value());
        let (keys, right) = key.open_token(&self.token, &self.challenge);
        bool::from(known & right).then_some(keys)
    }
}

/// Protects what one side of a control connection sends.
pub struct Sealer {
    chain: cbc::Encryptor<Aes128>,
    hmac: RunningHmac,
}

impl Sealer {
    /// At the start of the stream whose initialization vector is `iv`: Client-IV or Server-IV.
    #[must_use]
    pub fn new(keys: &SessionKeys, iv: &[u8; 16]) -> Self {
        Self {
            chain: cbc::Encryptor::new(Array::cast_from_core(&keys.aes), &(*iv).into()),
            hmac: RunningHmac::new(keys),
        }
    }

    /// Encrypts whole blocks that no HMAC follows: the end of Server-Start. The HMAC of the next
    /// message covers them (RFC 4656 §3.2).
    pub fn encrypt_without_hmac(&mut self, octets: &mut [u8]) {
        self.hmac.cover(octets);
        self.encrypt(octets);
    }

    /// Fills the last [`HMAC_LEN`] octets of a message with its HMAC, and encrypts all of it.
    pub fn seal(&mut self, message: &mut [u8]) {
        let (body, field) = message.split_at_mut(message.len().saturating_sub(HMAC_LEN));
        self.hmac.cover(body);
        self.hmac.finish(field);
        self.encrypt(message);
    }

    fn encrypt(&mut self, octets: &mut [u8]) {
        self.chain.encrypt_blocks(blocks_mut(octets));
    }
}

/// Takes what one side of a control connection receives out of its protection.
pub struct Opener {
    chain: cbc::Decryptor<Aes128>,
    hmac: RunningHmac,
}

impl Opener {
    /// At the start of the stream whose initialization vector is `iv`: Client-IV or Server-IV.
    #[must_use]
    pub fn new(keys: &SessionKeys, iv: &[u8; 16]) -> Self {
        Self {
            chain: cbc::Decryptor::new(Array::cast_from_core(&keys.aes), &(*iv).into()),
            hmac: RunningHmac::new(keys),
        }
    }

    /// Decrypts whole blocks, in the order in which they came. They are not to be trusted before
    /// [`verify`](Self::verify).
    pub fn decrypt(&mut self, octets: &mut [u8]) {
        self.chain.decrypt_blocks(blocks_mut(octets));
    }

    /// Adds octets, decrypted, that no HMAC follows: the end of Server-Start.
    pub fn cover(&mut self, octets: &[u8]) {
        self.hmac.cover(octets);
    }

    /// Compares the last [`HMAC_LEN`] octets of a decrypted message with its HMAC, in constant time.
    ///
    /// # Errors
    /// [`WrongHmac`]: the stream is broken or forged. Nothing in it may be used.
    pub fn verify(&mut self, message: &[u8]) -> Result<(), WrongHmac> {
        let (body, field) = message.split_at(message.len().saturating_sub(HMAC_LEN));
        self.hmac.cover(body);
        let mut ours = [0; HMAC_LEN];
        self.hmac.finish(&mut ours);
        // Slices of different lengths, of a message that is no message, are never equal.
        if bool::from(ours.as_slice().ct_eq(field)) {
            Ok(())
        } else {
            Err(WrongHmac)
        }
    }
}

/// A message whose HMAC is not that of its octets: close, start nothing (RFC 4656 §3.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("wrong HMAC: the control stream is broken or forged")]
pub struct WrongHmac;

/// HMAC-SHA1 of what was covered since the last one; begins anew after each (RFC 4656 §3.2).
struct RunningHmac(HmacReset<Sha1>);

impl RunningHmac {
    fn new(keys: &SessionKeys) -> Self {
        let keyed = <HmacReset<Sha1> as KeyInit>::new_from_slice(keys.hmac.as_slice());
        Self(keyed.expect("a key of an HMAC has any length"))
    }

    fn cover(&mut self, octets: &[u8]) {
        self.0.update(octets);
    }

    /// Writes as much of the HMAC as `field` has room for.
    fn finish(&mut self, field: &mut [u8]) {
        for (to, from) in field.iter_mut().zip(self.0.finalize_reset().into_bytes()) {
            *to = from;
        }
    }
}

/// All whole blocks. Messages are multiples of a block, so nothing is left over.
fn blocks_mut(octets: &mut [u8]) -> &mut [Block<cbc::Encryptor<Aes128>>] {
    debug_assert_eq!(octets.len() % BLOCK_LEN, 0);
    Array::slice_as_chunks_mut(octets).0
}

/// Keys and passphrases stay out of logs.
macro_rules! opaque {
    ($($name:ident)*) => {$(
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(concat!(stringify!($name), "(…)"))
            }
        }
    )*};
}
opaque!(Passphrase SharedKey SessionKeys Sealer Opener);

/// The Token is encrypted by a key of its own, so that its initialization vector can be zero
/// (RFC 4656 §3.1).
const TOKEN_IV: [u8; 16] = [0; 16];
/// Stands in for the passphrase of a KeyID that does not exist; matches nothing.
const NO_PASSPHRASE: &[u8] = b"";

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;
    use crate::wire::Timestamp;
    use crate::wire::protected::{Mode, Protection, SENDER_LEN, SenderPacket};

    fn octets<const N: usize>(hex: &Value) -> [u8; N] {
        all_octets(hex).try_into().unwrap()
    }

    fn all_octets(hex: &Value) -> Vec<u8> {
        let hex = hex.as_str().unwrap();
        (0..hex.len())
            .step_by(2)
            .map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap())
            .collect()
    }

    fn vector(text: &str) -> Value {
        serde_json::from_str(text).unwrap()
    }

    const PROTECTED: [&str; 5] = [
        include_str!("../../tests/vectors/control_authenticated.json"),
        include_str!("../../tests/vectors/control_encrypted.json"),
        include_str!("../../tests/vectors/control_mixed.json"),
        include_str!("../../tests/vectors/control_two_rounds.json"),
        include_str!("../../tests/vectors/control_individual.json"),
    ];

    fn token_check(vector: &Value) -> TokenCheck {
        TokenCheck {
            passphrase: Some(Passphrase::new(
                vector["passphrase_utf8"].as_str().unwrap().into(),
            )),
            salt: octets(&vector["salt"]),
            count: Count::new(
                u32::try_from(vector["count"].as_u64().unwrap()).unwrap(),
                4096,
            )
            .unwrap(),
            challenge: octets(&vector["challenge"]),
            token: octets(&vector["token"]),
        }
    }

    #[test]
    fn derived_keys_match_the_vectors() {
        let rows = vector(include_str!("../../tests/vectors/pbkdf2.json"));
        let rows = rows.as_array().unwrap();
        assert_eq!(rows.len(), 6);
        for row in rows {
            let iterations = u32::try_from(row["count"].as_u64().unwrap()).unwrap();
            let passphrase = all_octets(&row["passphrase_hex"]);
            let key = SharedKey::derive(&passphrase, &all_octets(&row["salt"]), iterations);
            assert_eq!(*key.0, octets(&row["key"]), "{row}");
        }
    }

    #[test]
    fn tokens_match_the_vectors_both_ways() {
        for text in PROTECTED {
            let vector = vector(text);
            let check = token_check(&vector);
            let derivation = KeyDerivation {
                passphrase: check.passphrase.clone().unwrap(),
                salt: check.salt,
                count: check.count,
            };
            let shared = derivation.run();
            assert_eq!(*shared.0, octets(&vector["shared_key"]));
            let keys = SessionKeys::new(
                octets(&vector["aes_session_key"]),
                octets(&vector["hmac_session_key"]),
            );
            assert_eq!(shared.seal_token(&check.challenge, &keys), check.token);
            let found = check.run().expect("the passphrase is right");
            assert_eq!(found.aes, keys.aes);
            assert_eq!(found.hmac, keys.hmac);
        }
    }

    #[test]
    fn a_wrong_passphrase_or_challenge_and_an_unknown_key_id_open_nothing() {
        let check = token_check(&vector(PROTECTED[0]));
        assert!(check.run().is_some());
        let wrong = TokenCheck {
            passphrase: Some(Passphrase::new(b"guess".into())),
            ..check.clone()
        };
        assert!(wrong.run().is_none());
        let unknown = TokenCheck {
            passphrase: None,
            ..check.clone()
        };
        assert!(unknown.run().is_none());
        let mut replayed = check;
        replayed.challenge[15] ^= 1;
        assert!(replayed.run().is_none());
    }

    /// A client that guesses what stands in for the passphrase gets no further.
    #[test]
    fn the_passphrase_of_no_key_id_cannot_be_used() {
        let keys = SessionKeys::random();
        let dummy = SharedKey::derive(NO_PASSPHRASE, &[1; 16], Count::LEAST.value());
        let check = TokenCheck {
            passphrase: None,
            salt: [1; 16],
            count: Count::LEAST,
            challenge: [2; 16],
            token: dummy.seal_token(&[2; 16], &keys),
        };
        assert!(check.run().is_none());
    }

    #[test]
    fn test_keys_are_those_of_the_vectors() {
        for text in &PROTECTED[..2] {
            let vector = vector(text);
            let keys = token_check(&vector).run().unwrap();
            let keys = keys.of_session(&Sid(octets(&vector["sid"])));
            let known = TestKeys::new(
                &octets(&vector["test_aes_key"]),
                &octets(&vector["test_hmac_key"]),
            );
            let sealed = |keys| {
                let protection = Protection::new(Mode::Encrypted, keys);
                let mut packet = [0; SENDER_LEN];
                protection.stamp::<SenderPacket>(&mut packet, SENDER_LEN, Timestamp::from_raw(1));
                packet
            };
            assert_eq!(sealed(&keys), sealed(&known));
        }
    }

    #[test]
    fn nothing_secret_is_printed() {
        let check = token_check(&vector(PROTECTED[0]));
        let keys = check.run().unwrap();
        for text in [
            format!("{:?}", check.passphrase),
            format!("{keys:?}"),
            format!("{:?}", Sealer::new(&keys, &[0; 16])),
        ] {
            assert!(text.ends_with("(…)") || text.ends_with("(…))"), "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_sealed_opens_and_a_changed_bit_is_noticed(
            aes in any::<[u8; 16]>(),
            hmac in any::<[u8; 32]>(),
            iv in any::<[u8; 16]>(),
            blocks in proptest::collection::vec(1..5_usize, 1..5),
            flip in any::<Option<(usize, u8)>>(),
        ) {
            let keys = SessionKeys::new(aes, hmac);
            let mut sealer = Sealer::new(&keys, &iv);
            let mut opener = Opener::new(&keys, &iv);
            let mut head = [7; 16];
            sealer.encrypt_without_hmac(&mut head);
            opener.decrypt(&mut head);
            prop_assert_eq!(head, [7; 16]);
            opener.cover(&head);
            let last = blocks.len() - 1;
            for (at, count) in blocks.into_iter().enumerate() {
                let plain = vec![0xa5; count * BLOCK_LEN];
                let mut message = [plain.as_slice(), &[0; HMAC_LEN]].concat();
                sealer.seal(&mut message);
                let changed = flip.filter(|_| at == last);
                if let Some((octet, bit)) = changed {
                    let octet = octet % message.len();
                    message[octet] ^= 1 << (bit % 8);
                }
                opener.decrypt(&mut message);
                prop_assert_eq!(opener.verify(&message).is_ok(), changed.is_none());
                if changed.is_none() {
                    prop_assert_eq!(&message[..plain.len()], &plain);
                }
            }
        }

        #[test]
        fn no_length_is_a_panic_when_verified(message in proptest::collection::vec(any::<u8>(), 0..40)) {
            let mut opener = Opener::new(&SessionKeys::random(), &[0; 16]);
            prop_assert_eq!(opener.verify(&message), Err(WrongHmac));
        }
    }
}
