//! A query as a condition on `projections.runs`, every value of it a parameter.
//!
//! Each term that asks for texts is a set of blobs that an index finds, so that `not` and `or` cost a
//! look into a set and no search for each row. A condition is never null: what is not there fits no term.

use countersign_protocol::search::{Pattern, Query, Term, id_bounds};
use sqlx::{Postgres, QueryBuilder};

use super::texts;
use crate::ledger::store::signed;

/// Adds the condition for a query on the row `r`.
pub(super) fn push(sql: &mut QueryBuilder<Postgres>, query: &Query) {
    match query {
        Query::Term(term) => push_term(sql, term),
        Query::Not(one) => {
            sql.push("NOT (");
            push(sql, one);
            sql.push(")");
        }
        Query::And(all) => joined(sql, all, " AND "),
        Query::Or(all) => joined(sql, all, " OR "),
    }
}

fn joined(sql: &mut QueryBuilder<Postgres>, all: &[Query], word: &'static str) {
    sql.push("(");
    for (at, one) in all.iter().enumerate() {
        if at > 0 {
            sql.push(word);
        }
        push(sql, one);
    }
    sql.push(")");
}

fn push_term(sql: &mut QueryBuilder<Postgres>, term: &Term) {
    match term {
        Term::Who(pattern) => who(sql, pattern),
        Term::Host(pattern) => match wanted(pattern) {
            Wanted::Exact(text) => sql.push("r.host = ").push_bind(text),
            Wanted::Like { like, .. } => sql.push("r.host LIKE ").push_bind(like),
        },
        Term::Label(pattern) => match wanted(pattern) {
            Wanted::Exact(text) => sql.push("r.labels @> ").push_bind(vec![text]),
            Wanted::Like { like, .. } => sql
                .push("EXISTS (SELECT FROM unnest(r.labels) AS one WHERE one LIKE ")
                .push_bind(like)
                .push(")"),
        },
        Term::Program(pattern) => program(sql, pattern),
        Term::Arg(pattern) => argument(sql, pattern),
        Term::Exit(first, last) => sql
            .push("(r.exit_code IS NOT NULL AND r.exit_code BETWEEN ")
            .push_bind(i16::from(*first))
            .push(" AND ")
            .push_bind(i16::from(*last))
            .push(")"),
        Term::Status(word) => sql
            .push("(r.status = ")
            .push_bind(word.clone())
            .push(" OR r.run = ")
            .push_bind(word.clone())
            .push(")"),
        Term::Mode(word) => sql.push("r.mode = ").push_bind(word.clone()),
        Term::From(time) => sql
            .push("r.requested_us >= ")
            .push_bind(signed(time.as_micros())),
        Term::To(time) => sql
            .push("r.requested_us < ")
            .push_bind(signed(time.as_micros())),
        Term::Id(text) => match id_bounds(text) {
            Some((low, high)) => sql
                .push("r.command BETWEEN ")
                .push_bind(low.to_vec())
                .push(" AND ")
                .push_bind(high.to_vec()),
            // Refused before it came here.
            None => sql.push("false"),
        },
        Term::Output(text) => sql
            .push(
                "(r.command, r.host) IN (SELECT o.command, o.host FROM projections.outputs AS o
                 JOIN public.blob_texts AS t USING (digest) WHERE t.text LIKE ",
            )
            .push_bind(format!("%{}%", escaped(text)))
            .push(")"),
    };
}

/// A pattern as SQL compares it.
enum Wanted {
    Exact(String),
    Like {
        like: String,
        /// Its longest piece without a star, as a pattern of text that contains it.
        piece: String,
    },
}

fn wanted(pattern: &Pattern) -> Wanted {
    match pattern {
        Pattern::Exact(text) => Wanted::Exact(text.clone()),
        Pattern::Glob(text) if !text.contains('*') => Wanted::Exact(text.clone()),
        Pattern::Glob(text) => {
            let longest = text.split('*').max_by_key(|piece| piece.len());
            Wanted::Like {
                like: escaped(text).replace('*', "%"),
                piece: format!("%{}%", escaped(longest.unwrap_or_default())),
            }
        }
    }
}

/// Text that LIKE takes by its letters.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if matches!(c, '%' | '_' | '\\') {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

fn who<'a>(
    sql: &'a mut QueryBuilder<Postgres>,
    pattern: &Pattern,
) -> &'a mut QueryBuilder<Postgres> {
    match wanted(pattern) {
        Wanted::Exact(name) => sql
            .push("(r.requester = ")
            .push_bind(name.clone())
            .push(" OR r.approved_by @> ")
            .push_bind(vec![name.clone()])
            .push(" OR r.rejected_by @> ")
            .push_bind(vec![name])
            .push(")"),
        Wanted::Like { like, .. } => sql
            .push("(r.requester LIKE ")
            .push_bind(like.clone())
            .push(
                " OR EXISTS (SELECT FROM unnest(r.approved_by || r.rejected_by) AS one
                 WHERE one LIKE ",
            )
            .push_bind(like)
            .push("))"),
    }
}

fn program<'a>(
    sql: &'a mut QueryBuilder<Postgres>,
    pattern: &Pattern,
) -> &'a mut QueryBuilder<Postgres> {
    sql.push("r.spec IN (SELECT digest FROM public.blob_texts WHERE program ");
    match wanted(pattern) {
        Wanted::Exact(text) => sql
            .push("= ")
            .push_bind(text.clone())
            .push(" OR program_name = ")
            .push_bind(text),
        Wanted::Like { like, .. } => sql
            .push("LIKE ")
            .push_bind(like.clone())
            .push(" OR program_name LIKE ")
            .push_bind(like),
    }
    .push(")")
}

fn argument<'a>(
    sql: &'a mut QueryBuilder<Postgres>,
    pattern: &Pattern,
) -> &'a mut QueryBuilder<Postgres> {
    sql.push("r.spec IN (SELECT digest FROM public.blob_texts WHERE ");
    match wanted(pattern) {
        Wanted::Exact(word) => sql
            .push("arg_keys @> ")
            .push_bind(vec![texts::key(&word)])
            .push(" AND args @> ")
            .push_bind(vec![word]),
        // The piece is looked up in the index of letters, the word then decides.
        Wanted::Like { like, piece } => sql
            .push("args IS NOT NULL AND text LIKE ")
            .push_bind(piece)
            .push(" AND EXISTS (SELECT FROM unnest(args) AS one WHERE one LIKE ")
            .push_bind(like)
            .push(")"),
    }
    .push(")")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_value_stands_in_the_sql() {
        let text = "'; DROP TABLE entries; --".to_owned();
        let terms = [
            Term::Who(Pattern::Exact(text.clone())),
            Term::Who(Pattern::Glob(format!("*{text}"))),
            Term::Host(Pattern::Glob(format!("*{text}"))),
            Term::Program(Pattern::Glob(format!("*{text}"))),
            Term::Arg(Pattern::Glob(format!("*{text}"))),
            Term::Arg(Pattern::Exact(text.clone())),
            Term::Label(Pattern::Exact(text.clone())),
            Term::Status(text.clone()),
            Term::Mode(text.clone()),
            Term::Output(text.clone()),
            Term::Id(text),
        ];
        let query = Query::Or(terms.into_iter().map(Query::Term).collect());
        let mut sql = QueryBuilder::new("");
        push(&mut sql, &query);
        assert!(!sql.sql().as_str().contains("DROP"));
    }

    #[test]
    fn a_star_becomes_a_percent_and_a_percent_stays_one() {
        let Wanted::Like { like, piece } = wanted(&Pattern::Glob(r"a_*100%\*".to_owned())) else {
            unreachable!("it has a star");
        };
        assert_eq!(like, r"a\_%100\%\\%");
        assert_eq!(piece, r"%100\%\\%");
    }
}
