//! Batches: which of the steps run (step 1).
//!
//! What a client means by BEGIN … COMMIT in one batch, each step on condition that the one before
//! it worked, is known as a whole before anything of it is run. So it is sent as a whole, like any
//! other write: it needs no draft and cannot conflict with others. Only when it fails is it run
//! step by step, to tell which step it was.

use rota_store::StatementKind;
use rota_store::sql::Access;

use super::answers::{BatchDone, Done};
use super::failure::Failure;
use super::requests::{Condition, Step};
use super::stream::{Prepared, Stream};

/// How deep the conditions of a step may nest. Clients' own nest two or three deep.
const MOST_DEPTH: usize = 10;

/// What became of a step.
#[derive(Debug)]
enum Outcome {
    Skipped,
    Done(Done),
    Failed(Failure),
}

/// What a step comes to before anything is run.
struct Planned {
    condition: Option<Condition>,
    prepared: Result<Prepared, Failure>,
}

/// Runs a batch. It fails as a whole only if its conditions make no sense.
pub(crate) async fn run(stream: &mut Stream, steps: Vec<Step>) -> Result<BatchDone, Failure> {
    for (place, step) in steps.iter().enumerate() {
        step.condition.as_ref().map_or(Ok(()), |condition| check(condition, place))?;
    }
    let mut planned: Vec<Planned> = Vec::with_capacity(steps.len());
    for Step { condition, stmt } in steps {
        planned.push(Planned { condition, prepared: stream.prepare(stmt) });
    }
    let mut outcomes: Vec<Outcome> = Vec::with_capacity(planned.len());
    let mut steps = planned.into_iter();
    while let Some(step) = steps.next() {
        let holds = step.condition.is_none_or(|c| holds(&c, &outcomes, stream.is_autocommit()));
        if !holds {
            outcomes.push(Outcome::Skipped);
            continue;
        }
        let prepared = match step.prepared {
            Ok(prepared) => prepared,
            Err(failure) => {
                outcomes.push(Outcome::Failed(failure));
                continue;
            }
        };
        if let Some(count) =
            whole(&prepared, stream.is_autocommit(), outcomes.len(), steps.as_slice())
        {
            let inner = steps.as_slice().get(..count).unwrap_or_default();
            let inner = inner.iter().filter_map(|step| step.prepared.as_ref().ok());
            if let Some(done) = stream.together(inner.collect()).await {
                let told = as_steps(done, count);
                // Those, and COMMIT.
                steps.by_ref().take(count.saturating_add(1)).for_each(drop);
                outcomes.extend(told);
                continue;
            }
        }
        outcomes.push(match stream.run(prepared).await {
            Ok(done) => Outcome::Done(done),
            Err(failure) => Outcome::Failed(failure),
        });
    }
    Ok(answer(outcomes))
}

/// Statements one after the other, up to the first that fails.
pub(crate) async fn sequence(stream: &mut Stream, sql: &str) -> Result<(), Failure> {
    let texts = rota_store::sql::split(sql);
    let steps = texts.iter().enumerate().map(|(place, text)| Step {
        condition: place.checked_sub(1).map(|step| Condition::Ok { step }),
        stmt: super::requests::Stmt::of(text),
    });
    let done = run(stream, steps.collect()).await?;
    done.step_errors.into_iter().flatten().next().map_or(Ok(()), Err)
}

/// BEGIN, what was between, and COMMIT. What failed is told of the first step between: the others
/// were not run.
fn as_steps(done: Result<Vec<Done>, Failure>, count: usize) -> Vec<Outcome> {
    let plain = |kind| Outcome::Done(Done::nothing(kind));
    let mut outcomes = vec![plain(StatementKind::Begin)];
    match done {
        Ok(done) => {
            outcomes.extend(done.into_iter().map(Outcome::Done));
            outcomes.push(plain(StatementKind::Commit));
        }
        Err(failure) => {
            outcomes.push(Outcome::Failed(failure));
            // The other statements, and COMMIT.
            outcomes.extend((0..count).map(|_| Outcome::Skipped));
        }
    }
    outcomes
}

/// If this step is a BEGIN, and COMMIT comes after steps that each run if the one before them did,
/// with a write among them: how many there are before it.
fn whole(begin: &Prepared, autocommit: bool, place: usize, rest: &[Planned]) -> Option<usize> {
    if !autocommit || begin.kind != StatementKind::Begin || begin.only_reads() {
        return None;
    }
    let mut writes = false;
    for (count, step) in rest.iter().enumerate() {
        let before = place.checked_add(count)?;
        let prepared = step.prepared.as_ref().ok()?;
        if !step.condition.as_ref().is_some_and(|condition| follows(condition, before)) {
            return None;
        }
        match (prepared.kind, prepared.access) {
            (StatementKind::Commit, _) => return writes.then_some(count),
            (StatementKind::Pragma, _) | (_, Access::Session | Access::Empty) => return None,
            (_, Access::Write) => writes = true,
            (_, Access::Read) => {}
        }
    }
    None
}

/// Whether a condition says that the step before worked, and nothing else that could fail then.
fn follows(condition: &Condition, before: usize) -> bool {
    match condition {
        Condition::Ok { step } => *step == before,
        Condition::And { conds } => {
            // Each is looked at once: asked twice, a nest would cost 2^depth.
            let mut found = false;
            for cond in conds {
                if follows(cond, before) {
                    found = true;
                } else if !is_in_transaction(cond) {
                    return false;
                }
            }
            found
        }
        _ => false,
    }
}

fn is_in_transaction(condition: &Condition) -> bool {
    matches!(condition, Condition::Not { cond } if matches!(**cond, Condition::IsAutocommit))
}

/// What is wrong with the condition of the step at `place`, if anything is.
fn check(condition: &Condition, place: usize) -> Result<(), Failure> {
    if !fits(condition, MOST_DEPTH) {
        let message =
            format!("the condition of step {place} nests more than {MOST_DEPTH} conditions deep");
        return Err(Failure::new("BATCH_COND_TOO_DEEP", message));
    }
    if !looks_back(condition, place) {
        let message = format!("the condition of step {place} is about a step not before it");
        return Err(Failure::new("BATCH_COND_BAD_STEP", message));
    }
    Ok(())
}

/// Whether a condition nests no deeper than `depth`.
fn fits(condition: &Condition, depth: usize) -> bool {
    let Some(depth) = depth.checked_sub(1) else { return false };
    match condition {
        Condition::Not { cond } => fits(cond, depth),
        Condition::And { conds } | Condition::Or { conds } => {
            conds.iter().all(|cond| fits(cond, depth))
        }
        Condition::Ok { .. } | Condition::Error { .. } | Condition::IsAutocommit => true,
    }
}

/// Whether a condition of the step at `place` asks for earlier steps only.
fn looks_back(condition: &Condition, place: usize) -> bool {
    match condition {
        Condition::Ok { step } | Condition::Error { step } => *step < place,
        Condition::Not { cond } => looks_back(cond, place),
        Condition::And { conds } | Condition::Or { conds } => {
            conds.iter().all(|cond| looks_back(cond, place))
        }
        Condition::IsAutocommit => true,
    }
}

fn holds(condition: &Condition, outcomes: &[Outcome], autocommit: bool) -> bool {
    let each = |cond: &Condition| holds(cond, outcomes, autocommit);
    match condition {
        Condition::Ok { step } => matches!(outcomes.get(*step), Some(Outcome::Done(_))),
        Condition::Error { step } => matches!(outcomes.get(*step), Some(Outcome::Failed(_))),
        Condition::Not { cond } => !each(cond),
        Condition::And { conds } => conds.iter().all(each),
        Condition::Or { conds } => conds.iter().any(each),
        Condition::IsAutocommit => autocommit,
    }
}

fn answer(outcomes: Vec<Outcome>) -> BatchDone {
    let mut answer = BatchDone::default();
    for outcome in outcomes {
        let (result, error) = match outcome {
            Outcome::Skipped => (None, None),
            Outcome::Done(done) => (Some(done), None),
            Outcome::Failed(failure) => (None, Some(failure)),
        };
        answer.step_results.push(result);
        answer.step_errors.push(error);
    }
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    fn condition(text: &str) -> Condition {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn conditions_ask_what_became_of_earlier_steps() {
        let outcomes = [
            Outcome::Done(Done::nothing(StatementKind::Select)),
            Outcome::Failed(Failure::new("X", "x")),
            Outcome::Skipped,
        ];
        let holds = |text: &str| holds(&condition(text), &outcomes, true);
        for (word, wanted) in [("ok", [true, false, false]), ("error", [false, true, false])] {
            for (step, wanted) in wanted.into_iter().enumerate() {
                let text = format!(r#"{{"type":"{word}","step":{step}}}"#);
                assert_eq!(holds(&text), wanted, "{text}");
                let not = format!(r#"{{"type":"not","cond":{text}}}"#);
                assert_eq!(holds(&not), !wanted, "{not}");
            }
        }
        let two = r#"[{"type":"ok","step":0},{"type":"ok","step":1}]"#;
        assert!(!holds(&format!(r#"{{"type":"and","conds":{two}}}"#)));
        assert!(holds(&format!(r#"{{"type":"or","conds":{two}}}"#)));
        assert!(holds(r#"{"type":"and","conds":[]}"#) && !holds(r#"{"type":"or","conds":[]}"#));
        assert!(holds(r#"{"type":"is_autocommit"}"#));
    }

    #[test]
    fn no_condition_is_about_itself_or_what_comes_later() {
        for (text, from) in [
            (r#"{"type":"ok","step":0}"#, 1),
            (r#"{"type":"not","cond":{"type":"error","step":2}}"#, 3),
            (r#"{"type":"or","conds":[{"type":"is_autocommit"},{"type":"ok","step":4}]}"#, 5),
        ] {
            assert!(looks_back(&condition(text), from), "{text}");
            assert!(!looks_back(&condition(text), from - 1), "{text}");
        }
    }

    /// `all` of one condition, around another `depth` times.
    fn nest(depth: usize) -> Condition {
        let around = |cond, _| Condition::And { conds: vec![cond] };
        (0..depth).fold(Condition::Ok { step: 0 }, around)
    }

    #[test]
    fn conditions_nest_ten_deep_and_no_deeper() {
        assert!(check(&nest(MOST_DEPTH - 1), 1).is_ok());
        assert_eq!(check(&nest(MOST_DEPTH), 1).unwrap_err().code, "BATCH_COND_TOO_DEEP");
        assert_eq!(check(&nest(1), 0).unwrap_err().code, "BATCH_COND_BAD_STEP");
    }

    /// Were each level looked at twice, this would last for years.
    #[test]
    fn a_nest_of_conditions_is_walked_once() {
        assert!(follows(&nest(100), 0) && !follows(&nest(100), 1));
    }

    #[test]
    fn only_a_plain_chain_from_begin_to_commit_is_sent_as_a_whole() {
        let step = |condition: &str, sql: &str| Planned {
            condition: (!condition.is_empty()).then(|| self::condition(condition)),
            prepared: Prepared::of(sql.into()),
        };
        let ok = |step: usize| format!(r#"{{"type":"ok","step":{step}}}"#);
        let inside = r#"{"type":"not","cond":{"type":"is_autocommit"}}"#;
        let both = |step: usize| format!(r#"{{"type":"and","conds":[{inside},{}]}}"#, ok(step));
        let begin = |sql: &str| Prepared::of(sql.into()).unwrap();
        let count = |sql: &str, rest: &[Planned]| whole(&begin(sql), true, 3, rest);

        let chain = [
            step(&ok(3), "INSERT INTO t VALUES (1)"),
            step(&both(4), "SELECT 1"),
            step(&both(5), "COMMIT"),
            step(r#"{"type":"not","cond":{"type":"ok","step":6}}"#, "ROLLBACK"),
        ];
        for sql in ["BEGIN", "BEGIN IMMEDIATE", "BEGIN DEFERRED TRANSACTION"] {
            assert_eq!(count(sql, &chain), Some(2), "{sql}");
        }
        for sql in ["BEGIN TRANSACTION READONLY", "SELECT 1", "SAVEPOINT a"] {
            assert_eq!(count(sql, &chain), None, "{sql}");
        }
        assert_eq!(whole(&begin("BEGIN"), false, 3, &chain), None, "in a transaction");
        for (last_but_one, last) in [
            (step(&ok(3), "SELECT 1"), step(&ok(4), "COMMIT")),
            (step(&ok(2), "DELETE FROM t"), step(&ok(4), "COMMIT")),
            (step("", "DELETE FROM t"), step(&ok(4), "COMMIT")),
            (step(inside, "DELETE FROM t"), step(&ok(4), "COMMIT")),
            (step(&ok(3), "SAVEPOINT a"), step(&ok(4), "COMMIT")),
            (step(&ok(3), "DELETE FROM t"), step(&ok(4), "ROLLBACK")),
            (step(&ok(3), "DELETE FROM t"), step("", "COMMIT")),
            (step(&ok(3), "DELETE FROM t"), step(&ok(4), "SELECT 1")),
            (step(&ok(3), ""), step(&ok(4), "COMMIT")),
        ] {
            assert_eq!(count("BEGIN", &[last_but_one, last]), None);
        }
    }
}
