//! Another policy and other keys while a Server runs.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, Weak};

use mio::Waker;

use crate::config::Policy;

/// Has a Server read its file of keys again, and take another policy. Clones are one.
#[derive(Clone, Debug, Default)]
pub struct Reload(Arc<ReloadInner>);

#[derive(Debug, Default)]
struct ReloadInner {
    requested: AtomicBool,
    /// The other policy, or why there is none.
    policy: Mutex<Option<Result<Policy, String>>>,
    waker: Mutex<Weak<Waker>>,
}

impl Reload {
    /// Soon, from any thread; `policy`: that of new connections, or why it cannot be read.
    pub fn request(&self, policy: Option<Result<Policy, String>>) {
        if let Ok(mut slot) = self.0.policy.lock() {
            *slot = policy;
        }
        self.0.requested.store(true, Ordering::Relaxed);
        if let Ok(waker) = self.0.waker.lock()
            && let Some(waker) = waker.upgrade()
        {
            // A Server that has ended needs no waking.
            let _ = waker.wake();
        }
    }

    pub(super) fn wakes(&self, waker: &Arc<Waker>) {
        if let Ok(mut slot) = self.0.waker.lock() {
            *slot = Arc::downgrade(waker);
        }
    }

    /// Whether it was asked for since the last call.
    pub(super) fn take(&self) -> bool {
        self.0.requested.swap(false, Ordering::Relaxed)
    }

    /// The other policy, or why it cannot be read.
    pub(super) fn take_policy(&self) -> Option<Result<Policy, String>> {
        self.0.policy.lock().ok()?.take()
    }
}
