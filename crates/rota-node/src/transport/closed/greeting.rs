//! How a connection between members begins: TCP, TLS, and who writes what on it. Below step 5.
//!
//! ```text
//!   who dialled                                who was dialled
//!     ── TLS 1.3, both prove their keys ──────────────►
//!     ── "rota", version, chain, kind, who writes ────►
//!     ◄──────────────────── welcome, or why not ───────
//!     ── messages ──►   or, as was said,   ◄── messages ──
//! ```
//!
//! A connection carries messages of one kind, in one direction. The server that writes them dials;
//! the other one does where that does not happen.

use std::fmt;
use std::io;
use std::time::Duration;

use futures::future::select_ok;
use rota_core::types::{ChainId, NodeId};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsStream;

use super::super::links::{Direction, Kind};
use super::keys::{self, Tls};

/// A connection is made within this time or tried again: two round trips and two signatures, and
/// one packet lost.
pub(super) const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(3);

/// A name that stands for more addresses than this is not a server's.
const MAX_ADDRESSES: usize = 8;

/// Which protocol; another version of it has another number.
const PROTOCOL: [u8; 5] = *b"rota\x01";

/// The protocol, the chain, the kind, and who writes.
const HELLO_BYTES: usize = PROTOCOL.len() + 32 + 2;

/// A connection after its greeting.
pub(super) type Wire = Box<TlsStream<TcpStream>>;

/// What a connection is for, as seen from this server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Way {
    pub(super) kind: Kind,
    pub(super) direction: Direction,
}

impl Way {
    /// All that there are between two servers.
    pub(super) const ALL: [Self; 4] = [
        Self { kind: Kind::Votes, direction: Direction::Outgoing },
        Self { kind: Kind::Blocks, direction: Direction::Outgoing },
        Self { kind: Kind::Votes, direction: Direction::Incoming },
        Self { kind: Kind::Blocks, direction: Direction::Incoming },
    ];

    pub(super) fn hello(self, chain: ChainId) -> [u8; HELLO_BYTES] {
        let kind = match self.kind {
            Kind::Votes => b'v',
            Kind::Blocks => b'b',
        };
        let writes = match self.direction {
            Direction::Outgoing => b'i',
            Direction::Incoming => b'u',
        };
        let mut hello = [0; HELLO_BYTES];
        let parts = PROTOCOL.into_iter().chain(chain.0).chain([kind, writes]);
        hello.iter_mut().zip(parts).for_each(|(place, byte)| *place = byte);
        hello
    }

    /// What the other side's hello means here.
    fn of_hello(hello: &[u8; HELLO_BYTES], chain: ChainId) -> Result<Self, Answer> {
        let rest = hello.strip_prefix(&PROTOCOL).ok_or(Answer::OtherVersion)?;
        let rest = rest.strip_prefix(&chain.0).ok_or(Answer::OtherChain)?;
        let (kind, direction) = match rest {
            b"vi" => (Kind::Votes, Direction::Incoming),
            b"bi" => (Kind::Blocks, Direction::Incoming),
            b"vu" => (Kind::Votes, Direction::Outgoing),
            b"bu" => (Kind::Blocks, Direction::Outgoing),
            _ => return Err(Answer::OtherVersion),
        };
        Ok(Self { kind, direction })
    }
}

/// What whoever was dialled answers: one byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    Welcome = 0,
    OtherVersion = 1,
    OtherChain = 2,
}

/// Why a connection did not come about.
#[derive(Debug)]
pub(super) enum Refused {
    /// Nobody is there, or it takes too long, or the key is not the right one.
    Broken(io::Error),
    /// The address is none, or a name that nobody knows.
    Nowhere(io::Error),
    /// It is a server of something else: an operator has to see to it.
    Other(&'static str),
}

impl From<io::Error> for Refused {
    fn from(error: io::Error) -> Self {
        Self::Broken(error)
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Broken(error) => error.fmt(f),
            Self::Nowhere(error) => write!(f, "no such address: {error}"),
            Self::Other(what) => f.write_str(what),
        }
    }
}

/// Connects to a peer. A name may mean another address tomorrow, so it is looked up each time.
pub(super) async fn dial(
    tls: &Tls,
    peer: NodeId,
    address: &str,
    chain: ChainId,
    way: Way,
) -> Result<Wire, Refused> {
    let dialling = async {
        let found = tokio::net::lookup_host(address).await.map_err(Refused::Nowhere)?;
        let found = found.take(MAX_ADDRESSES);
        let attempts: Vec<_> = found.map(|at| Box::pin(TcpStream::connect(at))).collect();
        if attempts.is_empty() {
            return Err(Refused::Nowhere(io::ErrorKind::NotFound.into()));
        }
        let (stream, _) = select_ok(attempts).await?;
        stream.set_nodelay(true)?;
        let connector = tls.connector(peer).map_err(io::Error::other)?;
        let name = keys::no_name().map_err(io::Error::other)?;
        let mut stream = connector.connect(name, stream).await?;
        stream.write_all(&way.hello(chain)).await?;
        stream.flush().await?;
        // Until the answer is here the other side may not have accepted our key.
        let mut answer = [0; 1];
        stream.read_exact(&mut answer).await?;
        match answer {
            [0] => Ok(Box::new(stream.into())),
            [2] => Err(Refused::Other("it has another database (another genesis)")),
            _ => Err(Refused::Other("it speaks another version of the peers' protocol")),
        }
    };
    timely(dialling).await
}

/// Answers whoever has connected: its key, which has been proven, and what the connection is for.
pub(super) async fn answer(
    tls: &Tls,
    stream: TcpStream,
    chain: ChainId,
) -> Result<(NodeId, Way, Wire), Refused> {
    let answering = async {
        stream.set_nodelay(true)?;
        let mut stream = tls.acceptor().accept(stream).await?;
        let (_, session) = stream.get_ref();
        let peer = keys::proven(session.peer_certificates())
            .ok_or(Refused::Other("it has proven no key"))?;
        let mut hello = [0; HELLO_BYTES];
        stream.read_exact(&mut hello).await?;
        let way = Way::of_hello(&hello, chain);
        let answer = way.err().unwrap_or(Answer::Welcome);
        stream.write_all(&[answer as u8]).await?;
        stream.flush().await?;
        match way {
            Ok(way) => Ok((peer, way, Box::new(stream.into()) as Wire)),
            Err(Answer::OtherChain) => Err(Refused::Other("a server of another database")),
            Err(_) => Err(Refused::Other("a server of another version")),
        }
    };
    timely(answering).await
}

async fn timely<T>(work: impl Future<Output = Result<T, Refused>>) -> Result<T, Refused> {
    let late = |_| Refused::Broken(io::ErrorKind::TimedOut.into());
    tokio::time::timeout(HANDSHAKE_TIMEOUT, work).await.map_err(late)?
}
