//! The modes that a client is offered.

use super::keys::Keys;
use crate::config::{Rules, ServerConfig};
use crate::wire::Modes;

/// What a client with these rules is offered. Nothing where no security mode is left.
pub(super) fn offered(config: &ServerConfig, rules: &Rules, keys: &Keys) -> Modes {
    match security(config.security, rules, config.keys.as_ref().map(|_| keys)) {
        Modes::NONE => Modes::NONE,
        security => security | (config.features & rules.features),
    }
}

/// Of the security modes that the command line (`named`) and the policy have, those that there are keys
/// for; `None`: there is no file of keys. What the command line names, the policy need not.
fn security(named: Option<Modes>, rules: &Rules, keys: Option<&Keys>) -> Modes {
    let wanted = match named {
        Some(named) => named & rules.modes.unwrap_or(Modes::SECURITY),
        None => rules.security(keys.is_some()),
    };
    let unlocked = if keys.is_none_or(Keys::is_empty) {
        Modes::UNAUTHENTICATED
    } else {
        Modes::SECURITY
    };
    wanted & unlocked
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::config::Policy;

    #[test]
    fn what_takes_a_key_is_offered_where_there_are_keys() {
        let alice = Keys::read(b"alice secret").unwrap();
        let (alice, nobody) = (Some(&alice), &Keys::default());
        let policy = |modes| Rules {
            modes,
            ..Policy::default().rules(Ipv4Addr::LOCALHOST.into())
        };
        let (open, keyed) = (Modes::UNAUTHENTICATED, Modes::AUTHENTICATED | Modes::MIXED);
        let all_keyed = Modes::SECURITY.without(open);
        let silent = policy(None);
        assert_eq!(security(None, &silent, None), open);
        assert_eq!(security(Some(keyed), &silent, None), Modes::NONE);
        // Keys that are given turn away who has none, unless somebody names that mode.
        assert_eq!(security(None, &silent, alice), all_keyed);
        assert_eq!(
            security(Some(Modes::SECURITY), &silent, alice),
            Modes::SECURITY
        );
        assert_eq!(security(None, &policy(Some(open)), alice), open);
        assert_eq!(
            security(Some(keyed), &policy(Some(open)), alice),
            Modes::NONE
        );
        // Also where the file has none any more.
        assert_eq!(security(None, &silent, Some(nobody)), Modes::NONE);
    }
}
