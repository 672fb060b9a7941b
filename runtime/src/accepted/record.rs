//! An accepted call as it lies in the database: one row, from its acceptance until it is forgotten.
//!
//! | columns | while it has not ended | done | dead |
//! |---|---|---|---|
//! | `payload` | the request's | empty | the request's, to be replayed |
//! | `attempts`, `outcome`, `diagnostic` | of the attempts that have ended | of the last | of the last |
//! | `ended_ms` | NULL | when | when |
//! | `answer` … | NULL | the function's output | NULL |
//!
//! Whether a call is under way is not written down: an agent that starts makes it again.

use std::time::Duration;

use bytes::Bytes;
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::{AcceptedState, AcceptedStatus};
use crate::call::{Answer, CallId, Outcome, Request, Ticket};
use sandbar_bus::{AnswerProperties, RequestProperties};

/// The format of the file.
pub(super) const VERSION: i64 = 1;

const TABLE: &str = "
    CREATE TABLE IF NOT EXISTS calls (
        call INTEGER PRIMARY KEY,
        secret INTEGER NOT NULL,
        application TEXT NOT NULL,
        function TEXT,
        payload BLOB NOT NULL,
        content_format INTEGER,
        properties BLOB NOT NULL,
        timeout_ms INTEGER,
        accepted_ms INTEGER NOT NULL,
        attempts INTEGER NOT NULL DEFAULT 0,
        outcome TEXT,
        diagnostic TEXT NOT NULL DEFAULT '',
        ended_ms INTEGER,
        answer BLOB,
        answer_format INTEGER,
        answer_properties BLOB
    ) STRICT";

/// Pages of the file that are given back to the disk when calls are forgotten, at most.
const PAGES_AT_ONCE: u32 = 256;

/// What the index keeps of a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) ticket: Ticket,
    pub(super) application: String,
    pub(super) function: Option<String>,
    pub(super) attempts: u32,
    /// When it ended, in milliseconds since 1970, and whether it was given up.
    pub(super) ended: Option<(u64, bool)>,
    /// Bytes of the payload that is kept, and of the answer.
    pub(super) bytes: usize,
}

/// Makes the table where there is none; gives the file's format.
pub(super) fn prepare(connection: &Connection) -> rusqlite::Result<i64> {
    let version = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    if version == 0 {
        connection.execute_batch(TABLE)?;
        connection.pragma_update(None, "user_version", VERSION)?;
        return Ok(VERSION);
    }
    Ok(version)
}

pub(super) fn insert(
    connection: &Connection,
    ticket: Ticket,
    request: &Request,
    accepted_ms: u64,
) -> rusqlite::Result<()> {
    let properties =
        request.properties.encode().map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))?;
    let timeout_ms = request.timeout.map(|timeout| i64::try_from(timeout.as_millis()).unwrap_or(i64::MAX));
    connection.execute(
        "INSERT INTO calls (call, secret, application, function, payload, content_format, properties, timeout_ms, accepted_ms)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
        params![
            number(ticket.call.0),
            number(ticket.secret),
            request.application,
            request.function,
            &request.payload[..],
            request.content_format,
            properties,
            timeout_ms,
            number(accepted_ms),
        ],
    )?;
    Ok(())
}

/// The request of a call that has not ended.
pub(super) fn request(connection: &Connection, call: CallId) -> rusqlite::Result<Option<Request>> {
    let mut statement = connection.prepare(
        "SELECT application, function, payload, content_format, properties, timeout_ms FROM calls WHERE call = ?1",
    )?;
    let read = |row: &Row<'_>| {
        Ok(Request {
            application: row.get(0)?,
            function: row.get(1)?,
            payload: Bytes::from(row.get::<_, Vec<u8>>(2)?),
            content_format: row.get(3)?,
            properties: RequestProperties::decode(row.get_ref(4)?.as_blob()?),
            timeout: row.get::<_, Option<i64>>(5)?.map(|millis| Duration::from_millis(unsigned(millis))),
            ..Request::default()
        })
    };
    statement.query_row([number(call.0)], read).optional()
}

/// An attempt has ended, and another will follow.
pub(super) fn attempted(connection: &Connection, call: CallId, attempts: u32, answer: &Answer) -> rusqlite::Result<()> {
    connection.execute(
        "UPDATE calls SET attempts = ?2, outcome = ?3, diagnostic = ?4 WHERE call = ?1",
        params![number(call.0), attempts, name(answer.outcome), answer.diagnostic],
    )?;
    Ok(())
}

/// The call has ended with this answer.
pub(super) fn end(
    connection: &Connection,
    call: CallId,
    attempts: u32,
    answer: &Answer,
    ended_ms: u64,
) -> rusqlite::Result<()> {
    attempted(connection, call, attempts, answer)?;
    if answer.outcome != Outcome::Done {
        let sql = "UPDATE calls SET ended_ms = ?2 WHERE call = ?1";
        connection.execute(sql, params![number(call.0), number(ended_ms)])?;
        return Ok(());
    }
    // Read from a message of the bus, properties fit into one; were it otherwise, the output alone is kept.
    let properties = answer.properties.encode().unwrap_or_default();
    connection.execute(
        "UPDATE calls SET ended_ms = ?2, payload = x'', answer = ?3, answer_format = ?4, answer_properties = ?5
         WHERE call = ?1",
        params![number(call.0), number(ended_ms), &answer.payload[..], answer.content_format, properties],
    )?;
    Ok(())
}

/// The answer to a call that has ended.
pub(super) fn answer(connection: &Connection, call: CallId) -> rusqlite::Result<Option<Answer>> {
    let mut statement = connection.prepare(
        "SELECT outcome, diagnostic, answer, answer_format, answer_properties FROM calls
         WHERE call = ?1 AND ended_ms IS NOT NULL",
    )?;
    let read = |row: &Row<'_>| {
        let outcome = outcome(&row.get::<_, String>(0)?);
        let properties = row.get_ref(4)?.as_blob_or_null()?.map(AnswerProperties::decode).unwrap_or_default();
        Ok(Answer {
            call: Some(call),
            payload: row.get::<_, Option<Vec<u8>>>(2)?.unwrap_or_default().into(),
            content_format: row.get(3)?,
            properties,
            retry_after: None,
            ..Answer::refused(outcome, row.get::<_, String>(1)?)
        })
    };
    statement.query_row([number(call.0)], read).optional()
}

/// The call is to be made as if it had just been accepted.
pub(super) fn replay(connection: &Connection, call: CallId) -> rusqlite::Result<()> {
    let sql = "UPDATE calls SET ended_ms = NULL, attempts = 0 WHERE call = ?1";
    connection.execute(sql, [number(call.0)])?;
    Ok(())
}

/// Deletes calls, and gives back to the disk what they took.
pub(super) fn delete(connection: &Connection, calls: &[CallId]) -> rusqlite::Result<()> {
    let mut statement = connection.prepare("DELETE FROM calls WHERE call = ?1")?;
    for call in calls {
        statement.execute([number(call.0)])?;
    }
    // Each step gives one page back.
    let mut vacuum = connection.prepare(&format!("PRAGMA incremental_vacuum({PAGES_AT_ONCE})"))?;
    let mut pages = vacuum.query([])?;
    while pages.next()?.is_some() {}
    Ok(())
}

/// All rows, as the index keeps them.
pub(super) fn entries(connection: &Connection) -> rusqlite::Result<Vec<Entry>> {
    let mut statement = connection.prepare(
        "SELECT call, secret, application, function, attempts, outcome, ended_ms, length(payload) + ifnull(length(answer), 0)
         FROM calls ORDER BY accepted_ms, call",
    )?;
    let read = |row: &Row<'_>| {
        let dead = row.get::<_, Option<String>>(5)?.is_none_or(|name| outcome(&name) != Outcome::Done);
        Ok(Entry {
            ticket: ticket(row)?,
            application: row.get(2)?,
            function: row.get(3)?,
            attempts: row.get(4)?,
            ended: row.get::<_, Option<i64>>(6)?.map(|ended_ms| (unsigned(ended_ms), dead)),
            bytes: size(row.get(7)?),
        })
    };
    statement.query_map([], read)?.collect()
}

/// What is told of calls, the oldest first; which of them are under way is for others to say.
pub(super) fn list(
    connection: &Connection,
    application: Option<&str>,
) -> rusqlite::Result<Vec<(Ticket, AcceptedStatus)>> {
    let mut statement = connection.prepare(
        "SELECT call, secret, application, function, attempts, accepted_ms, ended_ms, outcome, diagnostic,
                length(payload), ifnull(length(answer), 0)
         FROM calls WHERE ?1 IS NULL OR application = ?1 ORDER BY accepted_ms, call",
    )?;
    let read = |row: &Row<'_>| {
        let ticket = ticket(row)?;
        let ended_ms = row.get::<_, Option<i64>>(6)?.map(unsigned);
        let outcome = row.get::<_, Option<String>>(7)?.map(|name| outcome(&name));
        let state = match (ended_ms, outcome) {
            (None, _) => AcceptedState::Waiting,
            (Some(_), Some(Outcome::Done)) => AcceptedState::Done,
            (Some(_), _) => AcceptedState::Dead,
        };
        let status = AcceptedStatus {
            ticket: ticket.to_string(),
            application: row.get(2)?,
            function: row.get(3)?,
            state,
            attempts: row.get(4)?,
            accepted_ms: unsigned(row.get(5)?),
            ended_ms,
            outcome,
            diagnostic: row.get(8)?,
            payload_bytes: size(row.get(9)?),
            answer_bytes: size(row.get(10)?),
        };
        Ok((ticket, status))
    };
    statement.query_map([application], read)?.collect()
}

fn ticket(row: &Row<'_>) -> rusqlite::Result<Ticket> {
    Ok(Ticket { call: CallId(unsigned(row.get(0)?)), secret: unsigned(row.get(1)?) })
}

/// A number as the database holds it: with a sign, bit for bit.
fn number(number: u64) -> i64 {
    number.cast_signed()
}

fn unsigned(number: i64) -> u64 {
    number.cast_unsigned()
}

/// A length, which is never below zero.
fn size(length: i64) -> usize {
    usize::try_from(length).unwrap_or(0)
}

/// An outcome by the name that it has wherever a program reads it.
fn name(outcome: Outcome) -> String {
    serde_json::to_value(outcome).ok().and_then(|name| Some(name.as_str()?.to_owned())).unwrap_or_default()
}

fn outcome(name: &str) -> Outcome {
    serde_json::from_value(name.into()).unwrap_or(Outcome::Failed)
}
