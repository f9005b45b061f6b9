//! A thread that reflects, as those see it who tell it what to do.

use std::sync::Arc;
use std::thread::JoinHandle;

use crossbeam_channel::{Sender, bounded};
use mio::{Registry, Token, Waker};

use super::serving::Serving;
use super::thread::{Command, Ended, Shared, Thread};
use crate::config::ServedConfig;
use crate::engine::cores;
use crate::engine::reflector::{Desk, Reflector};
use crate::engine::run::{Failure, Stop, spawn, start};
use crate::io::Port;

/// A thread as those see it who tell it what to do.
#[derive(Debug)]
pub(super) struct Worker<P> {
    commands: Sender<Command<P>>,
    waker: Arc<Waker>,
    pub(super) registry: Registry,
    pub(super) shared: Arc<Shared>,
    pub(super) handle: JoinHandle<Ended>,
}

impl<P> Worker<P> {
    /// # Errors
    /// The command, where the thread has been stopped.
    pub(super) fn order(&self, command: Command<P>) -> Result<(), Command<P>> {
        // A full channel is emptied soon: a thread waits for nothing but packets.
        self.commands.send(command).map_err(|error| error.0)?;
        // A thread that has gone needs no waking.
        let _ = self.waker.wake();
        Ok(())
    }
}

impl<P: Port> Worker<P> {
    pub(super) fn start(
        config: &ServedConfig,
        index: usize,
        stop: &Stop,
        listener: &Arc<Waker>,
    ) -> Result<Self, Failure> {
        let failed = |source| start(THREAD, source);
        let desk = Desk::new(Reflector::over(Serving::new())).map_err(failed)?;
        let registry = desk.events.registry();
        let waker = Waker::new(registry, Token(0)).map_err(failed)?;
        let waker = stop.wakes(waker);
        let registry = registry.try_clone().map_err(failed)?;
        let (commands, orders) = bounded(COMMANDS);
        let shared = Arc::new(Shared::default());
        let cpu = cores::reflector(config.cpus.as_ref(), index);
        let thread = Thread::<P>::new(desk, orders, Arc::clone(&shared), Arc::clone(listener));
        let (stop, awake) = (stop.clone(), Arc::clone(&waker));
        let handle = spawn(THREAD, move || {
            let ended = thread.run(cpu, stop.flag());
            if ended.failure.is_some() {
                // Sessions of the others would fail as those of this one.
                stop.request();
            }
            // Until now the thread could be woken, whoever else has gone.
            drop(awake);
            ended
        })?;
        Ok(Self {
            commands,
            waker,
            registry,
            shared,
            handle,
        })
    }
}

/// Commands that a thread has not read yet.
const COMMANDS: usize = 1024;

pub(super) const THREAD: &str = "reflector";
