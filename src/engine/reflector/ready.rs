//! Which sockets are to be looked at.

use std::collections::{HashSet, VecDeque};

/// Sources that may have something to receive, each once, in the order in which they turned up.
#[derive(Debug, Default)]
pub(in crate::engine) struct Ready {
    order: VecDeque<usize>,
    known: HashSet<usize>,
}

impl Ready {
    pub(in crate::engine) fn push(&mut self, port: usize) {
        if self.known.insert(port) {
            self.order.push_back(port);
        }
    }

    pub(in crate::engine) fn pop(&mut self) -> Option<usize> {
        let port = self.order.pop_front()?;
        self.known.remove(&port);
        Some(port)
    }

    pub(in crate::engine) fn len(&self) -> usize {
        self.order.len()
    }
}
