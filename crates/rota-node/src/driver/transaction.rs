//! An interactive transaction, between BEGIN and COMMIT: step 1 on a draft, then steps 2 to 9 as
//! any other write.
//!
//! ```text
//!   begin() ─► run(), run(), … ──► draft, on a reader's thread ──► rows, at once
//!                 └ a SERIAL column: numbers of the sequence, reserved by a write of our own
//!   commit() ─► the statements and what they showed ─► submit() ─► executed once more, everywhere
//! ```

mod attempt;

use std::time::{Duration, Instant};

use rota_core::codec::encode;
use rota_core::error::{Refusal, sqlstate};
use rota_core::time::Time;
use rota_core::transaction::{self as core, Parameters, Settings, Statement, Value};
use rota_core::types::TransactionId;
use rota_store::draft::{Begin, Draft, Stop, Until, Wanted};
use rota_store::query::Description;
use rota_store::sequences::{FIRST_RESERVED, MOST_RESERVED, Reserved};
use rota_store::staged::stage;
use rota_store::{Rows, StatementResult};
use tokio::sync::oneshot;

use super::levels::{BeginOptions, ReadLevel, RunOptions, WriteOptions};
use super::{Driver, WriteError, Written, salt, stopping};
use crate::auth::seal;
use crate::readers::{READ_TIME, ReadJob};

/// How often a statement may come back for more numbers of its sequences: each time it gets twice
/// as many.
const MOST_RESERVATIONS: usize = 64;

/// How long the parts of a large transaction wait for the last of them.
const PARTS_EXPIRY: Duration = Duration::from_secs(600);

/// How long a client waits for a large transaction to be executed: as many rows as fit in one take
/// some seconds on every server.
const LARGE_TIMEOUT: Duration = Duration::from_secs(60);

/// How many of them are on their way at a time.
const PARTS_AT_ONCE: usize = 4;

/// How often a transaction that has to wait for others to end looks whether they have.
const PAUSE_STEP: Duration = Duration::from_millis(1);

/// A transaction that a client is in. Dropped, it is rolled back.
pub struct Transaction {
    driver: Driver,
    salt: [u8; 16],
    user: String,
    id: TransactionId,
    level: ReadLevel,
    begin: Begin,
    draft: Place,
}

/// Where the draft is.
enum Place {
    /// Nothing was run yet.
    Unopened,
    Here(Box<Draft>),
    /// On a thread, or lost there.
    Away,
}

impl Driver {
    /// Begins a transaction. What it sees is fixed by its first statement; `now()` is the time of
    /// this call.
    pub fn begin(
        &self,
        user: &str,
        settings: Settings,
        options: BeginOptions,
    ) -> Result<Transaction, Refusal> {
        self.0.board.refuse_if_diverged()?;
        let read_only = options.read_only || self.0.board.follows();
        if !read_only {
            self.check_user(user)?;
        }
        let salt = salt()?;
        let (_, begun) = self.0.board.chain_now();
        let id = core::Transaction::id_of(self.0.board.chain, self.0.board.key, &salt);
        let begin = Begin {
            id,
            user: user.to_owned(),
            begun,
            settings,
            read_only,
            at_least: options.after,
            unfinal: Vec::new(),
        };
        let (driver, user, level) = (self.clone(), user.to_owned(), options.level);
        Ok(Transaction { driver, salt, user, id, level, begin, draft: Place::Unopened })
    }

    /// Runs something on a reader's thread.
    pub(super) async fn on_reader<T: Send + 'static>(
        &self,
        run: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Refusal> {
        let (reply, answer) = oneshot::channel();
        let job = move || drop(reply.send(run()));
        self.send(ReadJob::Draft(Box::new(job)))?;
        answer.await.map_err(|_| stopping())
    }

    /// Sends a transaction that is larger than an envelope: its parts first, then what stands for
    /// them.
    async fn submit_in_parts(
        &self,
        mut transaction: core::Transaction,
        options: &WriteOptions,
    ) -> Result<Written, WriteError> {
        let (_, now) = self.0.board.chain_now();
        let (parts, execute) =
            stage(&transaction.salt, now.plus(PARTS_EXPIRY), &transaction.statements);
        transaction.statements = vec![execute];
        let mut parts = parts.into_iter();
        loop {
            // Some at a time: they share blocks, and do not fill the mempool.
            let together: Vec<Statement> = parts.by_ref().take(PARTS_AT_ONCE).collect();
            if together.is_empty() {
                break;
            }
            let sent = together.into_iter().map(|part| async {
                let part = core::Transaction {
                    salt: salt()?,
                    user: transaction.user.clone(),
                    statements: vec![part],
                    settings: Settings::default(),
                    interactive: None,
                };
                self.submit(part, &WriteOptions::default(), self.write_timeout()).await
            });
            for sent in futures::future::join_all(sent).await {
                sent.map_err(|error| part_failed(error.refusal))?;
            }
        }
        let most = self.write_timeout().max(LARGE_TIMEOUT);
        self.submit(transaction, options, most).await
    }

    /// Reserves numbers of a sequence for this server's drafts, unless somebody has just done so.
    async fn reserve(&self, user: &str, wanted: &Wanted) -> Result<(), Refusal> {
        let _alone = self.0.reserving.lock().await;
        let name = &wanted.name;
        if self.0.drafts.ranges().left(name) > wanted.had {
            return Ok(());
        }
        let had = i64::try_from(wanted.had).unwrap_or(MOST_RESERVED);
        let count = had.saturating_mul(2).clamp(FIRST_RESERVED, MOST_RESERVED);
        let values = vec![Value::Text(name.clone()), Value::Integer(count)];
        let sql = "SELECT rota_reserve(?1, ?2)".to_owned();
        let statement = Statement { sql, parameters: Parameters::Positional(values) };
        let options = WriteOptions::default();
        let written = self.write(user, vec![statement], Settings::default(), &options).await;
        let written = written.map_err(|error| error.refusal)?;
        let value = written.results.first().and_then(|result| result.rows.rows.first()?.first());
        let first_and_born = match value {
            Some(Value::Text(text)) => text.split_once(' '),
            _ => None,
        };
        let parsed = first_and_born.and_then(|(first, born)| {
            Some((first.parse::<i64>().ok()?, born.parse::<i64>().ok()?))
        });
        let (first, born) = parsed.ok_or_else(|| {
            Refusal::new(sqlstate::INTERNAL, "a reservation of numbers gave none")
        })?;
        let numbers = first..first.saturating_add(count);
        self.0.drafts.ranges().add(name, Reserved { numbers, born, height: written.height.0 });
        Ok(())
    }
}

impl Transaction {
    /// Which transaction this will be once it is sent.
    pub fn id(&self) -> TransactionId {
        self.id
    }

    /// What `now()` says in it.
    pub fn begun(&self) -> Time {
        self.begin.begun
    }

    /// Runs a statement, savepoints included. After an error only ROLLBACK TO may follow.
    pub async fn run(
        &mut self,
        statement: Statement,
        options: &RunOptions,
    ) -> Result<StatementResult, Refusal> {
        let mut statement = statement;
        if let Some(sealed) = seal(&statement.sql)? {
            statement.sql = sealed;
        }
        for _ in 0..MOST_RESERVATIONS {
            let until = until(options);
            let ran = self.on_draft(move |draft| draft.run(statement, &until)).await?;
            match ran {
                Ok(result) => return Ok(result),
                Err(Stop::Refused(refusal)) => return Err(refusal),
                Err(Stop::Numbers(wanted)) => {
                    self.driver.reserve(&self.user, &wanted).await?;
                    statement = wanted.statement;
                }
            }
        }
        let message = "the statement takes more numbers from its sequences than can be reserved";
        Err(Refusal::new(sqlstate::TOO_COMPLEX, message))
    }

    /// Runs a read about the schema, which is not part of what COMMIT checks.
    pub async fn look(
        &mut self,
        statement: Statement,
        options: &RunOptions,
    ) -> Result<Rows, Refusal> {
        let until = until(options);
        self.on_draft(move |draft| draft.look(&statement, &until)).await?
    }

    /// What a statement takes and gives, in the schema as this transaction sees it.
    pub async fn describe(&mut self, sql: String) -> Result<Description, Refusal> {
        let until = until(&RunOptions::default());
        self.on_draft(move |draft| draft.describe(&sql, &until)).await?
    }

    /// Sends what was done, if anything was written, and waits for it as [`Driver::write`] does.
    /// 40001: what the client was shown is no longer so; nothing was changed.
    pub async fn commit(self, options: &WriteOptions) -> Result<Option<Written>, WriteError> {
        // What takes long here takes long everywhere.
        let is_large = matches!(&self.draft, Place::Here(draft) if draft.is_large());
        let usual = self.driver.write_timeout();
        let most = if is_large { usual.max(LARGE_TIMEOUT) } else { usual };
        let finished = match self.draft {
            Place::Unopened => None,
            Place::Here(draft) if draft.is_large() => {
                self.driver.on_reader(move || draft.finish()).await??
            }
            Place::Here(draft) => draft.finish()?,
            Place::Away => return Err(lost().into()),
        };
        let Some(finished) = finished else { return Ok(None) };
        let transaction = core::Transaction {
            salt: self.salt,
            user: self.user,
            statements: finished.statements,
            settings: self.begin.settings,
            interactive: Some(finished.interactive),
        };
        let bytes = encode(&transaction).len();
        if bytes <= self.driver.0.limits.bytes {
            return self.driver.submit(transaction, options, most).await.map(Some);
        }
        self.driver.submit_in_parts(transaction, options).await.map(Some)
    }

    /// Runs something on the draft, which begins with the first such thing.
    async fn on_draft<T: Send + 'static>(
        &mut self,
        run: impl FnOnce(&mut Draft) -> T + Send + 'static,
    ) -> Result<T, Refusal> {
        match std::mem::replace(&mut self.draft, Place::Away) {
            Place::Away => Err(lost()),
            Place::Here(mut draft) => {
                let ran = self.driver.on_reader(move || {
                    let result = run(&mut draft);
                    (draft, result)
                });
                let (draft, result) = ran.await?;
                self.draft = Place::Here(draft);
                Ok(result)
            }
            Place::Unopened => {
                self.make_ready().await?;
                let (drafts, begin) = (self.driver.0.drafts.clone(), self.begin.clone());
                let ran = self.driver.on_reader(move || {
                    let mut draft = Box::new(drafts.begin(begin)?);
                    let result = run(&mut draft);
                    Ok((draft, result))
                });
                let (draft, result) = ran.await??;
                self.draft = Place::Here(draft);
                Ok(result)
            }
        }
    }

    /// Waits for the state that the draft shall begin from.
    async fn make_ready(&mut self) -> Result<(), Refusal> {
        self.driver.wait_for(self.begin.at_least).await?;
        while self.driver.0.drafts.is_paused() {
            tokio::time::sleep(PAUSE_STEP).await;
        }
        match self.level {
            ReadLevel::Local => {}
            ReadLevel::Linearizable => drop(self.driver.linearizable(None).await?),
            ReadLevel::Latest => self.begin.unfinal = self.driver.0.unfinal.tail().await?,
        }
        let newest = *self.driver.0.board.applied().borrow();
        self.begin.at_least = self.begin.at_least.max(newest);
        Ok(())
    }
}

fn until(options: &RunOptions) -> Until {
    let ours = Instant::now() + READ_TIME;
    let deadline = options.deadline.map_or(ours, |theirs| theirs.min(ours));
    Until { deadline: Some(deadline), cancelled: options.cancel.flag() }
}

/// Nothing has happened yet that anybody could see, whatever became of the part.
fn part_failed(refusal: Refusal) -> Refusal {
    if refusal.code() != sqlstate::OUTCOME_UNKNOWN {
        return refusal;
    }
    let message = "the parts of this large transaction did not arrive in time: nothing was \
                   changed; try again";
    Refusal::new(sqlstate::BUSY, message)
}

fn lost() -> Refusal {
    Refusal::new(
        "25P02",
        "the transaction was lost with a statement that was called off: begin again",
    )
}
