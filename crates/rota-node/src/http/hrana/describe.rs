//! What a statement takes and gives, for clients that ask before they run it (step 1).

use rota_store::StatementKind;
use rota_store::sql::{Lexer, Token};

use super::answers::{Described, DescribedColumn, DescribedParameter};
use super::failure::Failure;
use super::stream::{Prepared, Stream, settings};

/// How many parameters a statement may have: SQLite's own limit.
const MOST_PARAMETERS: usize = 32_766;

/// Describes a statement in the schema as the stream sees it.
pub(crate) async fn describe(stream: &mut Stream, sql: String) -> Result<Described, Failure> {
    let prepared = Prepared::of(sql)?;
    let sql = prepared.statement.sql;
    let params = parameters(&sql);
    let description = match stream.transaction() {
        Some(transaction) => transaction.describe(sql).await?,
        None => stream.driver.describe(&stream.user, sql, settings()).await?,
    };
    let columns = description.columns.into_iter();
    Ok(Described {
        params: params.into_iter().map(|name| DescribedParameter { name }).collect(),
        cols: columns
            .map(|column| DescribedColumn { name: column.name, decltype: column.declared })
            .collect(),
        is_explain: description.kind == StatementKind::Explain,
        is_readonly: description.read_only,
    })
}

/// The names of the parameters with their prefixes, by their numbers, as SQLite gives them: `?` has
/// the next one and no name.
fn parameters(sql: &str) -> Vec<Option<String>> {
    let mut names: Vec<Option<String>> = Vec::new();
    for (_, token) in Lexer::new(sql) {
        let Token::Parameter(text) = token else { continue };
        let number = text.strip_prefix(['?', '$']).and_then(|digits| digits.parse::<usize>().ok());
        match number {
            Some(number) if (1..=MOST_PARAMETERS).contains(&number) => {
                if names.len() < number {
                    names.resize(number, None);
                }
                if let Some(name) = number.checked_sub(1).and_then(|at| names.get_mut(at)) {
                    *name = Some(text.to_owned());
                }
            }
            Some(_) => {}
            None if text == "?" => names.push(None),
            None if names.iter().flatten().any(|name| name == text) => {}
            None => names.push(Some(text.to_owned())),
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_numbered_as_sqlite_numbers_them() {
        let read = parameters("SELECT ?, :a, ?5, @b, :a, '?', ?");
        let named = |name: &str| Some(name.to_owned());
        let wanted = [None, named(":a"), None, None, named("?5"), named("@b"), None];
        assert_eq!(read, wanted);
        assert_eq!(parameters("SELECT ?99999999"), []);
    }
}
