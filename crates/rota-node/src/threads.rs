//! How a server's threads are started, told to stop, and heard when they cannot go on.

use std::thread::JoinHandle;

use crossbeam_channel::{Receiver, Sender, TryRecvError, bounded};
use rota_core::error::Fault;
use tokio::sync::mpsc;

/// Faults that wait to be heard; the first one stops the server.
const FAULTS: usize = 8;

/// Told to all threads at once, by being dropped.
pub struct StopSender {
    #[expect(dead_code, reason = "what counts is when it is dropped")]
    sender: Sender<()>,
    /// For threads that sleep over something else.
    also: Vec<Box<dyn FnOnce() + Send + Sync>>,
}

/// Hears that the server stops.
#[derive(Clone)]
pub struct Stop(Receiver<()>);

/// A pair of them.
pub fn stop() -> (StopSender, Stop) {
    let (sender, receiver) = bounded(0);
    (StopSender { sender, also: Vec::new() }, Stop(receiver))
}

impl StopSender {
    /// Does this, too, when the server stops.
    pub fn also(&mut self, wake: impl FnOnce() + Send + Sync + 'static) {
        self.also.push(Box::new(wake));
    }
}

impl Drop for StopSender {
    fn drop(&mut self) {
        self.also.drain(..).for_each(|wake| wake());
    }
}

impl Stop {
    /// Whether the server stops.
    pub fn is_told(&self) -> bool {
        self.0.try_recv() == Err(TryRecvError::Disconnected)
    }

    /// Becomes ready, with an error, when the server stops: for `select!`.
    pub fn receiver(&self) -> &Receiver<()> {
        &self.0
    }
}

/// Where threads say that they cannot go on.
#[derive(Clone)]
pub struct Faults(mpsc::Sender<Fault>);

/// The pair of it.
pub fn faults() -> (Faults, mpsc::Receiver<Fault>) {
    let (sender, receiver) = mpsc::channel(FAULTS);
    (Faults(sender), receiver)
}

impl Faults {
    /// This server cannot go on. Further ones change nothing.
    pub fn raise(&self, fault: Fault) {
        tracing::error!(%fault, "this server cannot go on");
        let _ = self.0.try_send(fault);
    }
}

/// Starts a thread whose end by a fault or a panic stops the server.
pub fn spawn(
    name: &str,
    faults: &Faults,
    body: impl FnOnce() -> Result<(), Fault> + Send + 'static,
) -> Result<JoinHandle<()>, Fault> {
    let faults = faults.clone();
    let guard_name = name.to_owned();
    std::thread::Builder::new()
        .name(name.into())
        .spawn(move || {
            let guard = PanicGuard { name: guard_name, faults };
            if let Err(fault) = body() {
                guard.faults.raise(fault);
            }
        })
        .map_err(|error| Fault::storage(format!("starting the {name} thread"), error))
}

struct PanicGuard {
    name: String,
    faults: Faults,
}

impl Drop for PanicGuard {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let what = format!("the {} thread broke an invariant (see above)", self.name);
            self.faults.raise(Fault::storage("running", what));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_thread_that_panics_raises_a_fault() {
        let (faults, mut raised) = faults();
        spawn("test", &faults, || panic!("on purpose")).unwrap();
        let fault = raised.recv().await.unwrap();
        assert!(fault.to_string().contains("test thread"), "{fault}");
    }

    #[test]
    fn dropping_the_sender_tells_all() {
        let (sender, stop) = stop();
        let other = stop.clone();
        assert!(!stop.is_told());
        drop(sender);
        assert!(stop.is_told() && other.is_told());
    }
}
