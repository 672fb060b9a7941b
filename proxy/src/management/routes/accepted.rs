//! Accepted calls: which there are, their answers, and what can be done about them.

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::Response;
use sandbar_runtime::{AcceptedError, AcceptedStatus, Ticket, TicketError};

use super::super::protocol::AcceptedQuery;
use super::{Management, Problem, to_its_end, told};

impl From<TicketError> for Problem {
    /// What is no ticket is no call's.
    fn from(error: TicketError) -> Self {
        Self::of(StatusCode::NOT_FOUND, &error)
    }
}

impl From<AcceptedError> for Problem {
    fn from(error: AcceptedError) -> Self {
        let status = match error {
            AcceptedError::NoSuchCall(_) => StatusCode::NOT_FOUND,
            AcceptedError::UnderWay(_) | AcceptedError::NotDead(_) => StatusCode::CONFLICT,
            AcceptedError::NoRoom(..) => StatusCode::SERVICE_UNAVAILABLE,
            AcceptedError::Store(_) => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self::of(status, &error)
    }
}

pub(super) async fn list(
    State(management): State<Management>,
    query: Result<Query<AcceptedQuery>, QueryRejection>,
) -> Result<Json<Vec<AcceptedStatus>>, Problem> {
    let Query(query) = query?;
    Ok(Json(management.host.accepted_calls(query.application.as_deref()).await?))
}

pub(super) async fn answer(
    State(management): State<Management>,
    Path((application, ticket)): Path<(String, String)>,
) -> Result<Response, Problem> {
    let ticket: Ticket = ticket.parse()?;
    // Asked first, as a call that is known may have been answered that there is no such function.
    if management.host.accepted(&application, ticket).is_none() {
        return Err(AcceptedError::NoSuchCall(ticket).into());
    }
    told(&management.host.accepted_answer(&application, ticket).await)
}

pub(super) async fn replay(
    State(management): State<Management>,
    Path((application, ticket)): Path<(String, String)>,
) -> Result<StatusCode, Problem> {
    let ticket = ticket.parse()?;
    to_its_end(async move { management.host.replay(&application, ticket).await }).await??;
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn forget(
    State(management): State<Management>,
    Path((application, ticket)): Path<(String, String)>,
) -> Result<StatusCode, Problem> {
    let ticket = ticket.parse()?;
    to_its_end(async move { management.host.forget(&application, ticket).await }).await??;
    Ok(StatusCode::NO_CONTENT)
}

#[cfg(test)]
mod tests {
    use sandbar_runtime::CallId;

    use super::*;

    #[test]
    fn each_reason_has_its_status_and_says_which_call() {
        let ticket = Ticket { call: CallId(1), secret: 2 };
        for (error, status) in [
            (AcceptedError::NoSuchCall(ticket), StatusCode::NOT_FOUND),
            (AcceptedError::UnderWay(ticket), StatusCode::CONFLICT),
            (AcceptedError::NotDead(ticket), StatusCode::CONFLICT),
        ] {
            let problem = Problem::from(error);
            assert_eq!(problem.status, status);
            assert!(problem.body.error.contains(&ticket.to_string()), "{problem:?}");
        }
        assert_eq!(Problem::from("x".parse::<Ticket>().unwrap_err()).status, StatusCode::NOT_FOUND);
    }
}
