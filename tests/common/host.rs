//! The surroundings of a Server in memory: grants what is asked, and remembers all of it.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use twamp_blast::control::crypto::{Passphrase, TokenCheck};
use twamp_blast::control::server::{Asked, Ending, Grant, Host, Remark};
use twamp_blast::wire::control::KeyId;
use twamp_blast::wire::{Accept, Modes, SessionRequest, Sid};

/// What became of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Granted,
    Running,
    Over(Ending),
}

#[derive(Default)]
pub(crate) struct MemoryHost {
    /// KeyID and passphrase.
    pub(crate) keys: Vec<(&'static str, &'static str)>,
    /// Waits to be run.
    pub(crate) check: Option<TokenCheck>,
    /// In place of the port that is asked for.
    pub(crate) port: Option<u16>,
    /// In place of one of its own.
    pub(crate) sid: Option<Sid>,
    pub(crate) server_octets: [u8; 2],
    /// To every request from now on.
    pub(crate) refuse_grant: Option<Accept>,
    /// To every start of a session with this number from now on, counted from 0.
    pub(crate) refuse_start: Option<(usize, Accept)>,
    /// In the order of their grants.
    pub(crate) sessions: Vec<Sid>,
    pub(crate) fates: BTreeMap<Sid, Fate>,
    pub(crate) requests: Vec<SessionRequest>,
    /// With each request: Modes, KeyID, whether there were keys for test packets.
    pub(crate) asked: Vec<(Modes, Option<KeyId>, bool)>,
    pub(crate) remarks: Vec<Remark>,
}

impl MemoryHost {
    pub(crate) fn fates(&self) -> Vec<Fate> {
        self.sessions.iter().map(|sid| self.fates[sid]).collect()
    }
}

impl Host for MemoryHost {
    fn passphrase(&mut self, key_id: &KeyId) -> Option<Passphrase> {
        let known = |(name, _): &&(&str, &str)| name.as_bytes() == key_id.octets();
        let (_, passphrase) = self.keys.iter().find(known)?;
        Some(Passphrase::new(passphrase.as_bytes().to_vec()))
    }

    fn check_token(&mut self, check: TokenCheck) {
        assert!(self.check.replace(check).is_none());
    }

    fn grant(&mut self, asked: &Asked<'_>) -> Result<Grant, Accept> {
        if let Some(accept) = self.refuse_grant {
            return Err(accept);
        }
        self.requests.push(asked.request);
        self.asked
            .push((asked.modes, asked.key_id.copied(), asked.keys.is_some()));
        let number = u32::try_from(self.sessions.len()).unwrap();
        let server = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 2));
        let sid = self
            .sid
            .unwrap_or_else(|| Sid::new(server, 1_750_000_000, number.to_be_bytes()));
        self.sessions.push(sid);
        assert_eq!(self.fates.insert(sid, Fate::Granted), None);
        Ok(Grant {
            port: self.port.unwrap_or(asked.request.ends.receiver().port()),
            sid,
            server_octets: self.server_octets,
        })
    }

    fn start(&mut self, sid: &Sid) -> Result<(), Accept> {
        let number = self.sessions.iter().position(|known| known == sid);
        if let Some((which, accept)) = self.refuse_start
            && number == Some(which)
        {
            return Err(accept);
        }
        assert_eq!(self.fates.insert(*sid, Fate::Running), Some(Fate::Granted));
        Ok(())
    }

    /// A session is given back once, and as what it was.
    fn stop(&mut self, sid: &Sid, ending: Ending) {
        let was = self.fates.insert(*sid, Fate::Over(ending));
        let expected = match ending {
            Ending::Withdrawn => Fate::Granted,
            Ending::Stopped(_) | Ending::Lost => Fate::Running,
        };
        assert_eq!(was, Some(expected), "{ending:?}");
    }

    fn remark(&mut self, remark: &Remark) {
        self.remarks.push(*remark);
    }
}
