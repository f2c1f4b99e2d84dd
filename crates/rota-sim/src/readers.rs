//! Readers: clients that do linearizable reads, one after the other, each on any server. What such
//! a read must see is known here better than any client could know it: whatever any honest server
//! had executed when the read began, since it may have told a client by then.

use std::collections::BTreeMap;

use rota_core::error::Refusal;
use rota_core::replica::Input;
use rota_core::types::Height;

use crate::random::Random;
use crate::server::Work;
use crate::world::{Event, World};
use crate::{Fault, Micros, SECOND};

/// A reader that hears nothing for this long asks another server: longer than a server that runs
/// waits itself.
const PATIENCE: Micros = 12 * SECOND;

/// How long after a refusal a reader tries again.
const PAUSE: Micros = SECOND / 10;

/// What one reader does.
#[derive(Clone, Debug)]
pub struct ReaderPlan {
    /// How many reads it does, those that are refused not counted.
    pub reads: u64,
    /// The longest pause between two of them.
    pub think: Micros,
}

/// A read in progress.
#[derive(Debug)]
struct Reading {
    id: u64,
    server: usize,
    began: Micros,
    must_see: Height,
}

/// One reader.
pub struct Reader {
    plan: ReaderPlan,
    done: u64,
    tries: u64,
    waiting: Option<Reading>,
    random: Random,
}

/// All readers.
#[derive(Default)]
pub struct Readers {
    all: Vec<Reader>,
    by_id: BTreeMap<u64, usize>,
    /// How long each read took that was answered.
    pub took: Vec<Micros>,
}

impl Readers {
    /// Readers that follow these plans.
    pub fn new(plans: &[ReaderPlan], random: &mut Random) -> Self {
        let reader = |plan: &ReaderPlan| Reader {
            plan: plan.clone(),
            done: 0,
            tries: 0,
            waiting: None,
            random: random.fork(),
        };
        Self { all: plans.iter().map(reader).collect(), ..Self::default() }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.all.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// Whether all have read as often as they were to.
    pub fn are_done(&self) -> bool {
        self.all.iter().all(|reader| reader.done >= reader.plan.reads)
    }
}

impl World {
    /// A reader begins a read, again if the one before was given up.
    pub(crate) fn read(&mut self, number: usize, tries: u64) {
        let reader = &mut self.readers.all[number];
        if reader.tries != tries || reader.done >= reader.plan.reads {
            return;
        }
        reader.tries += 1;
        let (tries, id) = (reader.tries, u64::from_le_bytes(reader.random.bytes()));
        let before = reader.waiting.take();
        if let Some(before) = &before {
            self.readers.by_id.remove(&before.id);
        }
        let Some(server) = self.door(0..self.servers.len(), before.map(|before| before.server))
        else {
            self.schedule(self.now + PAUSE, Event::Read { number, tries });
            return;
        };
        let (_, must_see) = self.monitor.newest();
        self.note(format_args!("reader {number} asks {server}, must see h{must_see}"));
        let began = self.now;
        self.readers.all[number].waiting = Some(Reading { id, server, began, must_see });
        self.readers.by_id.insert(id, number);
        self.give(server, Work::Input(Input::Barrier { id }));
        self.schedule(self.now + PATIENCE, Event::Read { number, tries });
    }

    /// A server lets a read go on, or refuses it.
    pub(crate) fn barrier(&mut self, server: usize, id: u64, reached: Result<Height, Refusal>) {
        let Some(&number) = self.readers.by_id.get(&id) else { return };
        let reader = &mut self.readers.all[number];
        let Some(reading) = reader.waiting.take_if(|reading| reading.server == server) else {
            return;
        };
        self.readers.by_id.remove(&id);
        let tries = reader.tries;
        let next = match reached {
            Ok(height) => {
                reader.done += 1;
                self.readers.took.push(self.now - reading.began);
                self.sees(server, height, reading.must_see);
                let reader = &mut self.readers.all[number];
                self.now + 100 + reader.random.below(reader.plan.think + 1)
            }
            Err(why) => {
                self.note(format_args!("reader {number} is refused: {why}"));
                self.met(Fault::ReadRefused);
                self.now + PAUSE
            }
        };
        self.schedule(next, Event::Read { number, tries });
    }

    fn sees(&mut self, server: usize, height: Height, must_see: Height) {
        let running = self.servers[server].running.as_ref();
        let executed = running.map_or(Height(0), |running| running.state.applied().height);
        self.note(format_args!("server {server} serves a read at h{executed}"));
        if height > executed || executed < must_see {
            let detail = format!(
                "server {server} says height {height} and is at {executed}; height {must_see} was \
                 executed somewhere when the read began"
            );
            self.monitor.breaks("a linearizable read sees what was acknowledged before", detail);
        }
    }
}
