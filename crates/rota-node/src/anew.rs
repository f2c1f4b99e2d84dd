//! A server that starts anew from other files, in the same process: from a snapshot that it has
//! fetched, or (`pow`) from before a reorganisation deeper than `k`.
//!
//! ```text
//!   replica ── Restore, Rewind ──► Ended::Anew ──► Server::renew: stop, change the files, start
//! ```

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rota_core::error::Fault;
use rota_core::genesis::Genesis;
use rota_core::message::Offer;
use rota_core::types::{Height, NodeId};
use rota_store::files;
use rota_store::snapshot::swap::{self, Outcome};

use crate::config::{HomeLock, load_genesis};
use crate::server::{RunOptions, Server, ServerError};
use crate::transport::TransportError;

/// How long a server that starts anew tries to have its addresses again: its own earlier sockets
/// may be about to close.
const ADDRESS_PATIENCE: Duration = Duration::from_secs(10);

/// How often it tries.
const ADDRESS_STEP: Duration = Duration::from_millis(50);

/// Why a server does not go on by itself.
#[derive(Debug)]
pub enum Ended {
    /// It cannot.
    Fault(Fault),
    /// It has to begin from other files ([`Server::renew`]).
    Anew(Anew),
}

/// What a server begins from.
#[derive(Debug)]
pub enum Anew {
    /// A snapshot that has been fetched.
    Restore {
        /// What it should be.
        offer: Box<Offer>,
        /// Who offered it.
        from: NodeId,
    },
    /// What it had at this height (`pow`).
    Rewind {
        /// The last block that stays.
        height: Height,
    },
}

/// What a server that starts anew remembers of its life before.
#[derive(Clone, Debug, Default)]
pub(crate) struct Past {
    /// Whose snapshots were not what they were offered as.
    pub(crate) distrusted: Vec<NodeId>,
}

impl Past {
    /// Changes the files, which nobody has open.
    fn change(mut self, home: &Path, genesis: &Genesis, anew: Anew) -> Result<Self, Fault> {
        match anew {
            Anew::Restore { offer, from } => {
                let height = offer.applied.height;
                match swap::take_over(home, genesis, &offer)? {
                    Outcome::Taken => {
                        tracing::info!(%height, "took over a snapshot");
                        self.distrusted.clear();
                    }
                    Outcome::Refused(why) => {
                        tracing::error!(
                            %height, %from, why,
                            "a snapshot is not what it was offered as: nothing was changed, and \
                             none is taken from that server again"
                        );
                        self.distrusted.push(from);
                    }
                }
            }
            Anew::Rewind { height } => {
                let rewound = files::undo(home, genesis, height)?;
                if let Some(lowest) = rewound.too_deep_below {
                    tracing::error!(
                        %height, %lowest,
                        "a heavier chain leaves ours where blocks and snapshots are deleted here: \
                         nothing was changed"
                    );
                    return Ok(self);
                }
                tracing::error!(
                    %height,
                    transactions = rewound.transactions,
                    "BLOCKS THAT WERE FINAL ARE UNDONE: a heavier chain came; what was in them is \
                     listed in chain.undone, and waits to be written again"
                );
            }
        }
        Ok(self)
    }
}

/// What a server is started with.
#[derive(Clone)]
pub(crate) struct Origin {
    pub(crate) home: PathBuf,
    pub(crate) options: RunOptions,
    pub(crate) _lock: Arc<HomeLock>,
    pub(crate) past: Past,
}

impl Server {
    /// Starts anew, in the same process, from other files. Its doors are closed for a moment, and
    /// its clients have to connect again.
    pub async fn renew(self, anew: Anew) -> Result<Self, ServerError> {
        let mut origin = self.end().await;
        let genesis = load_genesis(&origin.home)?;
        let (home, past) = (origin.home.clone(), origin.past);
        let changing = tokio::task::spawn_blocking(move || past.change(&home, &genesis, anew));
        let changed = changing.await;
        origin.past = changed
            .unwrap_or_else(|panic| Err(Fault::storage("changing the files in the home", panic)))?;
        let patience = Instant::now() + ADDRESS_PATIENCE;
        loop {
            match Self::begin(origin.clone()).await {
                Err(error) if is_taken(&error) && Instant::now() < patience => {
                    tokio::time::sleep(ADDRESS_STEP).await;
                }
                begun => return begun,
            }
        }
    }
}

fn is_taken(error: &ServerError) -> bool {
    matches!(error, ServerError::Listen { .. } | ServerError::Transport(TransportError::Listen(..)))
}
